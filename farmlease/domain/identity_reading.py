"""Why a spelling is a person: which lines of the farm's ``[identity]`` made a canonical name of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from farmlease.domain.identity import Identities, bare_principal, domain_and_name, fold
from farmlease.domain.toml_model import Location, line_of

__all__ = ["Reading", "readings"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One step from a spelling to a person, and the line of the policy that says so (None: no line does)."""

    why: str
    line: int | None = None


def readings(identity: Identities, given: str, text: str) -> tuple[Reading, ...]:
    """Return how a name, as ``given``, was read. ``text``: of the policy whose table it is; "" if it is another one."""
    return tuple(
        Reading(why, line_of(text, ("identity", *where)) if text and where else None)
        for where, why in _steps(identity, bare_principal(fold(given)))
    )


def _steps(identity: Identities, spelling: str) -> Iterator[tuple[Location, str]]:
    """Yield each step with its place below ``[identity]``."""
    without_aliases = replace(identity, aliases={})
    plain = without_aliases.user(spelling).canonical
    domain, short = domain_and_name(spelling)[0], domain_and_name(plain)[0]
    if domain in identity.shorts:
        written = next((each for each in identity.domains if fold(each) == short), "")
        yield (("domains", written) if written else ("default_domain",)), f"{domain} is the domain {short}"
    elif domain:
        yield (("unknown_domains",) if identity.refuse_unknown else ()), f"the table lists no domain {domain}"
    elif short:
        yield ("default_domain",), f"a name without a domain is of {short}"
    elif spelling in map(fold, identity.local_users):
        yield ("local_users",), "is a local user, and of no domain"
    target = identity.alias_target(spelling)
    if target is not None:
        source = next(each for each in identity.aliases if without_aliases.user(each).canonical == plain)
        yield ("aliases", source), f"{plain} is another name of {target.canonical}"
    elif not domain and plain == spelling and spelling not in map(fold, identity.local_users):
        yield (), "no entry of the table is about it: it stands for itself"
