"""One pool of ``pools.toml``: the seats of one product and their rules, with the defaults an administrator may rely on.

An invalid pool is refused, never repaired. This module does not know whether a seat is free; the store does.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from farmlease.domain.duration import format_duration
from farmlease.domain.file_template import PLACEHOLDERS, WITHOUT_USER, place_of, template_fault
from farmlease.domain.identity import check_token, fold
from farmlease.domain.model import Kind, SessionRequest, Share
from farmlease.domain.toml_model import Count, Duration, Positive, Section, in_force, refusal, validated_by
from farmlease.errors import PolicyError

__all__ = ["QUEUE_PLACE_MS", "Conditions", "Patterns", "Pool", "Reacquire", "Reserve", "check_timing"]

#: A session that waits keeps its place in a pool's queue for so long (ms) without asking again.
QUEUE_PLACE_MS = 5_000


def _check_pool_name(text: str) -> str:
    # A brace would end the hash tag that keeps the keys of a shard together.
    return check_token("pool name", text, forbidden="/#{}")


def _check_template(template: str, info: ValidationInfo) -> str:
    """Refuse a place for a vendor's file that can be none, or that is the same for all users.

    A policy that is in force already may have one from before that was refused: its pool alone puts no files in place.
    """
    fault = template_fault(template)
    if fault is None and not in_force(info) and not any(each in template for each in PLACEHOLDERS):
        fault = WITHOUT_USER
    if fault is not None:
        raise refusal(fault)
    return template


def _check_pattern(pattern: str) -> str:
    """Return the pattern in the form names are compared in."""
    if not pattern.strip():
        raise refusal("is empty; a pattern that means everything is *")
    return fold(pattern)


PoolName = Annotated[str, validated_by(_check_pool_name)]
Template = Annotated[str, AfterValidator(_check_template)]
#: Shell patterns, kept folded. A condition that is given but empty could never match, so it is refused.
Patterns = Annotated[tuple[Annotated[str, AfterValidator(_check_pattern)], ...], Field(min_length=1)]


class Conditions(Section):
    """Conditions on a session. All that are given must match, each by at least one of its patterns, whatever the case.

    Users are compared by their canonical name, so of two spellings of one user only the canonical one matches.
    """

    users: Patterns = ()
    groups: Patterns = ()
    nodes: Patterns = ()

    def match(self, request: SessionRequest, node: str) -> bool:
        """Whether every given condition holds for this request on this node."""
        facts = {
            "users": (request.user.canonical,),
            "groups": request.groups or (),
            "nodes": (node,),
            "sites": (request.site,) if request.site is not None else (),
            "apps": (request.app,) if request.app is not None else (),
        }
        given = ((getattr(self, name), values) for name, values in facts.items() if name in self.model_fields_set)
        return all(_any_match(patterns, values) for patterns, values in given)


def _any_match(patterns: tuple[str, ...], values: Iterable[str]) -> bool:
    return any(fnmatchcase(value, pattern) for value in map(fold, values) for pattern in patterns)


class Reserve(Conditions):
    """Seats that only some sessions may take."""

    seats: Positive  #: of the pool's capacity

    @property
    def id(self) -> str:
        """The reservation's name in the store: the same for the same conditions, whatever else the policy changes."""
        whom = json.dumps([sorted(self.users), sorted(self.groups), sorted(self.nodes)])
        return hashlib.sha256(whom.encode()).hexdigest()[:8]

    @model_validator(mode="after")
    def _has_conditions(self) -> Self:
        if not self.model_fields_set & {"users", "groups", "nodes"}:
            raise refusal("has no condition: give users, groups or nodes", "users")
        return self


class Reacquire(Section):
    """How often an agent asks for a new seat for a session that lost its own, before it gives the session up."""

    attempts: Count = 3  #: 0: never
    every_ms: Duration = Field(default=600_000, alias="every")  #: between two attempts, ms

    @model_validator(mode="after")
    def _waits(self) -> Self:
        if self.attempts and not self.every_ms:
            raise refusal("must be longer than 0", "every")
        return self


def _default_capacity(data: Mapping[str, Any]) -> int:
    return len(data.get("nodes", ()))


def _default_devices(data: Mapping[str, Any]) -> int:
    return 2 if data.get("kind") is Kind.NAMED else 0


#: Field to key, of what only one kind of pool can have.
_ONLY_FOR = {
    Kind.FLOATING: {"share": "share", "linger_ms": "linger"},
    Kind.NAMED: {"files": "files", "devices_per_user": "devices_per_user"},
}


class Pool(Section):
    """The seats of one product and their rules."""

    name: PoolName
    kind: Kind
    #: The hosts a node_locked pool is licensed for; no other kind has them.
    nodes: Annotated[
        tuple[Annotated[str, validated_by(lambda text: check_token("node", text))], ...], Field(min_length=1)
    ] = ()
    #: Seats. Required, except for node_locked, where each node is one.
    capacity: Positive = Field(default_factory=_default_capacity)
    overdraft: Count = 0  #: seats beyond the capacity that may be taken and are reported; 0: none
    #: Devices of one user; the whole farm is one. Default: 2 for named, as vendors have it; 0, no limit, else.
    devices_per_user: Count = Field(default_factory=_default_devices)
    sessions_per_user: Count = 0  #: sessions of one user at the same time; 0: no limit
    lease_ms: Duration = Field(default=2_592_000_000, alias="lease")  #: from the last contact; 30 d
    quarantine_ms: Duration = Field(default=86_400_000, alias="quarantine")  #: of a used slot, after last use; 24 h
    #: A node without a heartbeat for this long loses its sessions; 120 min. Never 0.
    session_timeout_ms: Duration = Field(default=7_200_000, alias="session_timeout")
    replacements: Count = 1  #: device replacements of a user in 30 days; 0: none
    files: tuple[Template, ...] = ()  #: the vendor's files that travel with the user
    share: Share = Share.USER_DEVICE  #: what one seat covers; floating only
    reacquire: Reacquire = Reacquire()
    idle_timeout_ms: Duration = Field(default=0, alias="idle_timeout")  #: without activity a session ends; 0: never
    max_hold_ms: Duration = Field(default=0, alias="max_hold")  #: longest hold a user may ask for; 0: no holds
    linger_ms: Duration = Field(default=0, alias="linger")  #: a floating seat stays its user's after the last session
    queue_ms: Duration = Field(default=0, alias="queue")  #: longest wait for a seat; 0: no queue
    reserve: tuple[Reserve, ...] = ()

    @model_validator(mode="after")
    def _has_seats(self) -> Self:
        given = self.model_fields_set
        if self.kind is Kind.NODE_LOCKED:
            if "nodes" not in given:
                raise refusal("is required: the hosts this pool is licensed for", "nodes")
            if "capacity" in given:
                raise refusal("is not for a node_locked pool, where each of its nodes is one seat", "capacity")
        else:
            if "capacity" not in given:
                raise refusal("is required: the number of seats", "capacity")
            if "nodes" in given:
                raise refusal("is for a node_locked pool only", "nodes")
        return self

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        # The lease of a floating seat ends with it, so there is nothing that could carry files or devices to the next.
        for kind, keys in _ONLY_FOR.items():
            for name, key in keys.items():
                if self.kind is not kind and name in self.model_fields_set:
                    raise refusal(f"is for a {kind} pool only", key)
        return self

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        for span, key in ((self.session_timeout_ms, "session_timeout"), (self.lease_ms, "lease")):
            if not span:
                raise refusal("must be longer than 0", key)
        reserved = sum(reserve.seats for reserve in self.reserve)
        if reserved > self.capacity:
            raise refusal(f"reserves {reserved} seats of {self.capacity}", "reserve")
        for key, values, alike in (("nodes", self.nodes, fold), ("files", self.files, place_of)):
            if len(set(map(alike, values))) < len(values):
                raise refusal("names one twice", key)
        return self

    def serves(self, node: str) -> bool:
        """Whether the pool's licences may be used on this node at all."""
        return self.kind is not Kind.NODE_LOCKED or fold(node) in map(fold, self.nodes)

    def reservations(self, request: SessionRequest, node: str) -> tuple[str, ...]:
        """Return the ids of the reservations this request on this node may use."""
        return tuple(each.id for each in self.reserve if each.match(request, node))

    @property
    def reserved_seats(self) -> int:
        """How many seats of the capacity are reserved, in use or not."""
        return sum(each.seats for each in self.reserve)

    @property
    def kept_ms(self) -> int:
        """How long, in ms, a lease that sessions keep is good for without another contact, as acquire.lua has it."""
        return self.lease_ms if self.kind is Kind.NAMED else self.session_timeout_ms + self.linger_ms

    def limits(self) -> Mapping[str, int | str]:
        """Return the limits that the store decides by: counts, spans in ms (``…_ms``), and kind and share."""
        return {
            "kind": self.kind.value,
            "capacity": self.capacity,
            "overdraft": self.overdraft,
            "devices_per_user": self.devices_per_user,
            "sessions_per_user": self.sessions_per_user,
            "lease_ms": self.lease_ms,
            "quarantine_ms": self.quarantine_ms,
            "session_timeout_ms": self.session_timeout_ms,
            "share": self.share.value,
            "linger_ms": self.linger_ms,
            "max_hold_ms": self.max_hold_ms,
            "queue_ms": self.queue_ms,
            "replacements": self.replacements,
            "reserve": json.dumps({each.id: each.seats for each in self.reserve}) if self.reserve else "",
        }


def check_timing(heartbeat_ms: int, pool: Pool) -> None:
    """Refuse a pool whose sessions would end because of one late heartbeat; raises PolicyError.

    The session timeout must be longer than two heartbeats, so that one may be lost.
    """
    if 2 * heartbeat_ms >= pool.session_timeout_ms:
        raise PolicyError(
            f"pool {pool.name}: session_timeout {format_duration(pool.session_timeout_ms)} is not more than twice the "
            f"heartbeat of {format_duration(heartbeat_ms)}; raise it, or lower [agent] heartbeat"
        )
