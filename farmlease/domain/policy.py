"""The farm's policy: ``pools.toml``, and which of its pools a session may try.

An invalid policy is refused with file, key and line; it is never repaired. ``Policy.plan`` decides which pools one
request may try; the store decides whether a seat is free.
"""

import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import InitVar, dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import chain
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, model_validator
from typing_extensions import override

from farmlease.domain.condition_faults import condition_doubts, condition_faults
from farmlease.domain.conditions import Conditions, Patterns
from farmlease.domain.denial_text import UNKNOWN_DOMAIN
from farmlease.domain.file_template import place_of
from farmlease.domain.identity import AS_GIVEN, Identities, fold
from farmlease.domain.identity_table import IdentityTable
from farmlease.domain.model import Reason, SessionRequest
from farmlease.domain.pool import Pool, check_timing
from farmlease.domain.toml_model import Location, Section, dotted, first_fault, in_force, line_of, refusal
from farmlease.errors import PolicyError

__all__ = [
    "Denied",
    "HostTable",
    "Plan",
    "Policy",
    "PolicyInForce",
    "Pool",
    "RestrictedUse",
    "Rule",
    "Ruling",
    "TryPools",
    "check_timing",
    "host_table",
    "parse_policy",
    "policy_doubts",
]


class Rule(Conditions):
    """Which sessions may use which pools. Without a condition it applies to every session."""

    sites: Patterns = ()
    apps: Patterns = ()
    access: Literal["restricted", "denied"] | None = None  #: use without a licence, or no use
    pools: Annotated[tuple[str, ...], Field(min_length=1)] = ()  #: tried in this order

    @override
    def _match_place(self, request: SessionRequest) -> bool:
        given = (("sites", self.sites, request.site), ("apps", self.apps, request.app))
        return all(
            value is not None and any(fnmatchcase(fold(value), pattern) for pattern in patterns)
            for key, patterns, value in given
            if key in self.model_fields_set
        )

    @property
    def is_for_everyone(self) -> bool:
        """Whether it applies to every session, whatever that names."""
        given = self.model_fields_set & {"users", "groups", "nodes", "sites", "apps"}
        return given <= {"users", "nodes"} and all("*" in getattr(self, key) for key in given)

    @property
    def denies(self) -> bool:
        """Whether it keeps sessions out."""
        return self.access == "denied"

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

    @model_validator(mode="after")
    def _files_are_apart(self, info: ValidationInfo) -> Self:
        if in_force(info):
            return self
        seen: dict[str, str] = {}
        for number, pool in enumerate(self.pool):
            for place, template in enumerate(pool.files):
                other = seen.setdefault(place_of(template), pool.name)
                if other != pool.name:
                    why = f"is a file of pool {other} already, and one file holds one licence: write another path, or"
                    raise refusal(f"{why} make one pool of the two", "pool", number, "files", place)
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


Plan = TryPools | RestrictedUse | Denied


@dataclass(frozen=True, slots=True)
class Ruling:
    """What decided which pools a session may try. ``number`` (from 1) and ``line``: of the rule; None for none."""

    number: int | None
    line: int | None
    why: str

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        where = "" if self.line is None else f" (line {self.line})"
        return f"the policy{where}" if self.number is None else f"rule {self.number}{where}"


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
        if self.identity.refuse_unknown and self.identity.refuses(request.user):
            return Denied(Reason.NOT_ENTITLED, request.pool, UNKNOWN_DOMAIN)
        if request.pool is not None and self.pool(request.pool) is None:
            return Denied(Reason.UNKNOWN_POOL, request.pool)
        rule = self._rule(request, node)
        if rule is None:
            return self._unruled(request)
        if rule.access == "restricted":
            return RestrictedUse()
        if rule.denies or (request.pool is not None and request.pool not in rule.pools):
            return Denied(Reason.NOT_ENTITLED, request.pool)
        return self._try(rule.pools if request.pool is None else (request.pool,))

    def ruling(self, request: SessionRequest, node: str) -> "Ruling":
        """Return what decided in ``plan``: the rule and its line, or why none was asked."""
        if self.identity.refuse_unknown and self.identity.refuses(request.user):
            return Ruling(
                None, line_of(self.text, ("identity", "unknown_domains")), "unknown_domains refuses the domain"
            )
        if request.pool is not None and self.pool(request.pool) is None:
            return Ruling(None, None, "no pool has the name that was asked for")
        rule = self._rule(request, node)
        if rule is None:
            return Ruling(None, None, f"no rule matches, {self._why_unruled(request)}")
        number = next(number for number, each in enumerate(self.rules) if each is rule)
        line = line_of(self.text, ("rule", number))
        gives = f"gives {', '.join(rule.pools)}" if rule.pools else f'says access = "{rule.access}"'
        return Ruling(number + 1, line, gives)

    def _why_unruled(self, request: SessionRequest) -> str:
        if request.pool is not None:
            return "so the pool that was asked for counts"
        if request.app is not None and any(fold(pool.name) == fold(request.app) for pool in self.pools):
            return "so the pool with the name of the app counts"
        return "so the only pool counts" if len(self.pools) == 1 else "and neither pool nor app was named"

    def _rule(self, request: SessionRequest, node: str) -> Rule | None:
        return next((rule for rule in self.rules if rule.match(request, node, denies=rule.denies)), None)

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


def host_table(host: Identities, policy: Policy | None) -> HostTable:
    """Return what becomes of a host's own table under a policy."""
    if host == AS_GIVEN:
        return HostTable.NONE
    return HostTable.IGNORED if policy is not None and policy.has_identity else HostTable.USED


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """The policy every decision goes by, and its version. Version 0: none was ever applied, and there are no pools.

    ``host``: the table of ``farmlease.toml``, by which names are read until there is a policy.
    """

    version: int
    policy: Policy | None
    host: InitVar[Identities] = AS_GIVEN
    former_names: bool = False  #: leases may stand under names that their users no longer have by this policy
    pools: tuple[Pool, ...] = field(init=False)
    identity: Identities = field(init=False)  #: who is who; whatever reads a user's name asks this
    reads_groups: bool = field(init=False)  #: whether anything in it asks for a user's groups

    def __post_init__(self, host: Identities) -> None:
        """Take pools and table of the policy; without one no pool, and the host's table."""
        asked = ("groups" in each.model_fields_set for _, each in _conditions(self.policy)) if self.policy else ()
        object.__setattr__(self, "reads_groups", any(asked))
        object.__setattr__(self, "pools", self.policy.pools if self.policy else ())
        object.__setattr__(self, "identity", self.policy.identity if self.policy else host)

    def pool(self, name: str) -> Pool | None:
        """Return the pool of exactly this name."""
        return self.policy.pool(name) if self.policy else None


def parse_policy(text: str, source: str, host: Identities = AS_GIVEN, *, in_force: bool = False) -> Policy:
    """Return the policy in ``text``; raises PolicyError naming ``source``, the key and the line.

    ``host``: the table of ``farmlease.toml``, which counts where the policy has no ``[identity]``. ``in_force``: it was
    applied, perhaps by an earlier version of farmlease that refused less.
    """
    try:
        document = _Document.model_validate(tomllib.loads(text), context={"in_force": in_force})
    except ValidationError as error:
        where, why = first_fault(error, _Document)
        raise PolicyError(f"{source}: {_place(text, where)}: {why}") from None
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"{source}: is not TOML: {error}") from error
    identity = host if document.identity is None else document.identity.identities
    policy = Policy(
        pools=tuple(pool.read_by(identity) for pool in document.pool),
        rules=tuple(rule.read_by(identity) for rule in document.rule),
        text=text,
        identity=identity,
        has_identity=document.identity is not None,
    )
    for where, why in _over_reserved(policy) if in_force else chain(_over_reserved(policy), _faults(policy)):
        raise PolicyError(f"{source}: {_place(text, where)}: {why}")
    return policy


def policy_doubts(policy: Policy) -> Iterator[str]:
    """Yield what is probably not meant, with its line, for an administrator who is about to apply it."""
    for where, conditions in _conditions(policy):
        for key, why in condition_doubts(conditions, policy.identity):
            yield f"{_place(policy.text, where + key)}: {why}"
    if len(policy.pools) > 1 and not any(rule.is_for_everyone for rule in policy.rules):
        yield (
            "a session that names neither app nor pool gets no pool: add a last [[rule]] with pools alone, "
            "which is for everyone else"
        )


def _conditions(policy: Policy) -> Iterator[tuple[Location, Conditions]]:
    """Yield all conditions with their places."""
    for number, rule in enumerate(policy.rules):
        yield ("rule", number), rule
    for number, pool in enumerate(policy.pools):
        yield from ((("pool", number, "reserve", place), each) for place, each in enumerate(pool.reserve))
        yield from ((("pool", number, "limit", place), each) for place, each in enumerate(pool.limit))


def _faults(policy: Policy) -> Iterator[tuple[Location, str]]:
    """Yield each condition that can never match."""
    for where, conditions in _conditions(policy):
        yield from ((where + key, why) for key, why in condition_faults(conditions, policy.identity))


def _over_reserved(policy: Policy) -> Iterator[tuple[Location, str]]:
    """Yield each pool that reserves more seats than it has; the same persons, spelt otherwise, count once."""
    for number, pool in enumerate(policy.pools):
        if pool.reserved_seats > pool.capacity:
            yield ("pool", number, "reserve"), f"reserves {pool.reserved_seats} seats of {pool.capacity}"


def _place(text: str, where: Location) -> str:
    line = line_of(text, where)
    return dotted(where) if line is None else f"line {line}: {dotted(where)}"
