"""``[identity]`` as an administrator writes it: which spellings are one user, for the whole farm.

It stands in the policy. A host's ``farmlease.toml`` may still have one, which counts until the policy has its own.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from farmlease.domain.identity import Identities
from farmlease.domain.toml_model import Section, refusal
from farmlease.errors import InvalidInput

__all__ = ["IdentityTable"]


def _listed(value: object) -> object:
    """Return the spellings of a domain as a list, also where the document has one alone."""
    return [value] if isinstance(value, str) else value


Suffixes = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class IdentityTable(Section):
    """``[identity]``: which spellings are one user."""

    default_domain: str | None = None  #: of names without one, as PAM, SSSD and winbind give them; none: of no domain
    domains: Mapping[str, Suffixes] = Field(default_factory=dict)  #: short name to all its DNS names and suffixes
    aliases: Mapping[str, str] = Field(default_factory=dict)  #: any spelling, a SID too, to another user
    local_users: tuple[str, ...] = ()  #: never of the default domain
    unknown_domains: Literal["warn", "refuse"] = "warn"  #: what becomes of users of a domain that is not listed

    @model_validator(mode="after")
    def _is_unambiguous(self) -> Self:
        try:
            _ = self.identities
        except InvalidInput as error:
            raise refusal(str(error)) from None
        return self

    @cached_property
    def identities(self) -> Identities:
        """What the table says, to read names by."""
        return Identities(
            domains=self.domains,
            aliases=self.aliases,
            default_domain=self.default_domain,
            local_users=self.local_users,
            refuse_unknown=self.unknown_domains == "refuse",
        )
