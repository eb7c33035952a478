"""The farm's policy: ``pools.toml``, and which of its pools a session may try.

An invalid policy is refused with file, key and line; it is never repaired. ``Policy.plan`` decides which pools one
request may try; the store decides whether a seat is free.
"""

import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import InitVar, dataclass, field
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from farmlease.domain.denial_text import UNKNOWN_DOMAIN
from farmlease.domain.identity import Identities, fold
from farmlease.domain.identity_table import IdentityTable
from farmlease.domain.model import Reason, SessionRequest
from farmlease.domain.pool import Conditions, Patterns, Pool, check_timing
from farmlease.domain.toml_model import Location, Section, dotted, first_fault, line_of, refusal
from farmlease.errors import PolicyError

__all__ = [
    "AS_GIVEN",
    "Denied",
    "HostTable",
    "Plan",
    "Policy",
    "PolicyInForce",
    "Pool",
    "RestrictedUse",
    "Rule",
    "TryPools",
    "check_timing",
    "parse_policy",
]


class Rule(Conditions):
    """Which sessions may use which pools. Without a condition it applies to every session."""

    sites: Patterns = ()
    apps: Patterns = ()
    access: Literal["restricted", "denied"] | None = None  #: use without a licence, or no use
    pools: Annotated[tuple[str, ...], Field(min_length=1)] = ()  #: tried in this order

    @model_validator(mode="after")
    def _is_unambiguous(self) -> Self:
        if self.access is not None and self.pools:
            raise refusal("cannot stand beside pools; keep one", "access")
        if self.access is None and not self.pools:
            raise refusal("gives neither pools nor access; give one")
        return self


class _Document(Section):
    """The whole of ``pools.toml``."""

    identity: IdentityTable | None = None
    pool: Annotated[tuple[Pool, ...], Field(min_length=1)]
    rule: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        seen = Counter[str]()
        for number, pool in enumerate(self.pool):
            seen[fold(pool.name)] += 1
            if seen[fold(pool.name)] > 1:
                raise refusal("is the name of another pool already, case apart", "pool", number, "name")
        names = {pool.name for pool in self.pool}
        for number, rule in enumerate(self.rule):
            for place, name in enumerate(rule.pools):
                if name not in names:
                    raise refusal(
                        f"no pool has this name; there are {', '.join(sorted(names))}", "rule", number, "pools", place
                    )
        return self


@dataclass(frozen=True, slots=True)
class TryPools:
    """Ask for a seat of each pool, in this order."""

    pools: tuple[Pool, ...]


@dataclass(frozen=True, slots=True)
class RestrictedUse:
    """Let the session start without a licence."""


@dataclass(frozen=True, slots=True)
class Denied:
    """The policy denies the session; the store need not be asked."""

    reason: Reason
    pool: str | None  #: as asked for
    sentence: str = ""  #: for the user, where it says more than the reason's own


#: Without a table each name is a person of its own, its spelling by case and width apart.
AS_GIVEN = Identities()

Plan = TryPools | RestrictedUse | Denied


@dataclass(frozen=True, slots=True)
class Policy:
    """The farm's pools and rules, who is who, and the text they were read from."""

    pools: tuple[Pool, ...]
    rules: tuple[Rule, ...]
    text: str  #: the administrator's own, comments and all
    identity: Identities = AS_GIVEN
    has_identity: bool = False  #: whether the text has an ``[identity]``, so that no host's own counts

    def pool(self, name: str) -> Pool | None:
        """Return the pool of exactly this name."""
        return next((pool for pool in self.pools if pool.name == name), None)

    def plan(self, request: SessionRequest, node: str) -> Plan:
        """Return what a request on this node may try: the first rule that matches decides."""
        if self.identity.refuses(request.user):
            return Denied(Reason.NOT_ENTITLED, request.pool, UNKNOWN_DOMAIN)
        if request.pool is not None and self.pool(request.pool) is None:
            return Denied(Reason.UNKNOWN_POOL, request.pool)
        rule = next((rule for rule in self.rules if rule.match(request, node)), None)
        if rule is None:
            return self._unruled(request)
        if rule.access == "restricted":
            return RestrictedUse()
        if rule.access == "denied" or (request.pool is not None and request.pool not in rule.pools):
            return Denied(Reason.NOT_ENTITLED, request.pool)
        return self._try(rule.pools if request.pool is None else (request.pool,))

    def _unruled(self, request: SessionRequest) -> Plan:
        """Return the pool asked for, else the one named like the app, else the only one."""
        if request.pool is not None:
            return self._try((request.pool,))
        if request.app is not None:
            alike = [pool.name for pool in self.pools if fold(pool.name) == fold(request.app)]
            if alike:
                return self._try(alike)
        if len(self.pools) == 1:
            return TryPools(self.pools)
        return Denied(Reason.UNKNOWN_POOL, None)

    def _try(self, names: Iterable[str]) -> TryPools:
        return TryPools(tuple(pool for pool in map(self.pool, names) if pool is not None))


class HostTable(StrEnum):
    """What becomes of an ``[identity]`` that still stands in a host's own ``farmlease.toml``."""

    NONE = "none"  #: there is none
    USED = "used"  #: the policy has none yet
    IGNORED = "ignored"  #: the policy has one

    @property
    def advice(self) -> str:
        """What an administrator should do about it; empty for none."""
        match self:
            case HostTable.NONE:
                return ""
            case HostTable.USED:
                return (
                    "[identity] stands in farmlease.toml, where each host may have another; it counts until the policy "
                    "has one: move it to pools.toml and run `farmlease pool apply`"
                )
            case HostTable.IGNORED:
                return (
                    "[identity] in farmlease.toml is ignored, for the policy says who is who; "
                    "take it out of farmlease.toml"
                )


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """The policy every decision goes by, and its version. Version 0: none was ever applied, and there are no pools.

    ``host``: the table of ``farmlease.toml``, by which names are read until there is a policy.
    """

    version: int
    policy: Policy | None
    host: InitVar[Identities] = AS_GIVEN
    pools: tuple[Pool, ...] = field(init=False)
    identity: Identities = field(init=False)  #: who is who; whatever reads a user's name asks this

    def __post_init__(self, host: Identities) -> None:
        """Take pools and table of the policy; without one no pool, and the host's table."""
        object.__setattr__(self, "pools", self.policy.pools if self.policy else ())
        object.__setattr__(self, "identity", self.policy.identity if self.policy else host)

    def pool(self, name: str) -> Pool | None:
        """Return the pool of exactly this name."""
        return self.policy.pool(name) if self.policy else None


def parse_policy(text: str, source: str, host: Identities = AS_GIVEN) -> Policy:
    """Return the policy in ``text``; raises PolicyError naming ``source``, the key and the line.

    ``host``: the table of ``farmlease.toml``, which counts where the policy has no ``[identity]``.
    """
    try:
        document = _Document.model_validate(tomllib.loads(text))
    except ValidationError as error:
        where, why = first_fault(error, _Document)
        raise PolicyError(f"{source}: {_place(text, where)}: {why}") from None
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"{source}: is not TOML: {error}") from error
    table = document.identity
    return Policy(
        pools=document.pool,
        rules=document.rule,
        text=text,
        identity=host if table is None else table.identities,
        has_identity=table is not None,
    )


def _place(text: str, where: Location) -> str:
    line = line_of(text, where)
    return dotted(where) if line is None else f"line {line}: {dotted(where)}"
