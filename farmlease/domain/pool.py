"""One pool of ``pools.toml``: the seats of one product and their rules, with the defaults an administrator may rely on.

An invalid pool is refused, never repaired. This module does not know whether a seat is free; the store does.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator
from typing_extensions import override

from farmlease.domain.conditions import Conditions, same_host
from farmlease.domain.duration import format_duration
from farmlease.domain.file_template import PLACEHOLDERS, WITHOUT_USER, place_of, template_fault
from farmlease.domain.identity import Identities, check_token, fold
from farmlease.domain.model import Kind, SessionRequest, Share
from farmlease.domain.toml_model import Count, Duration, Positive, Section, in_force, refusal, validated_by
from farmlease.errors import PolicyError

__all__ = [
    "MOST_DEVICES",
    "MOST_PLACES",
    "MOST_USES",
    "QUEUE_PLACE_MS",
    "Limit",
    "Pool",
    "Reacquire",
    "Reserve",
    "check_timing",
]

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


PoolName = Annotated[str, validated_by(_check_pool_name)]
Template = Annotated[str, AfterValidator(_check_template)]


class Reserve(Conditions):
    """Seats that only some sessions may take."""

    seats: Positive  #: of the pool's capacity

    @property
    def id(self) -> str:
        """The reservation's name in the store: the same for the same conditions, whatever else the policy changes."""
        whom = json.dumps([self.names.users.sorted, self.names.groups.sorted, sorted(self.nodes)])
        return hashlib.sha256(whom.encode()).hexdigest()[:8]

    @property
    def persons(self) -> float:
        """For how many persons the seats are kept; infinite if that is not said."""
        users = self.names.users
        open_ended = "users" not in self.model_fields_set or users.patterns
        return math.inf if open_ended else len(users.exact)

    @model_validator(mode="after")
    def _has_conditions(self) -> Self:
        if not self.model_fields_set & {"users", "groups", "nodes"}:
            raise refusal("has no condition: give users, groups or nodes", "users")
        return self


class Limit(Reserve):
    """At most so many of the pool's seats for some sessions."""

    @property
    @override
    def id(self) -> str:
        """The limit's name in the store, which is no reservation's."""
        return f"!{super().id}"

    @property
    def whom(self) -> str:
        """For whom it is, as the policy says it."""
        given = ((key, getattr(self, key)) for key in ("users", "groups", "nodes") if key in self.model_fields_set)
        return ", ".join(f"{key} {' or '.join(names)}" for key, names in given)


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


#: What one user may have in a pool, whatever its policy says: uses, devices, places in the queue. So no user can make
#: the store, a node or a list slow for all others. ``store/lua/lib/seats.lua`` has the same.
MOST_USES, MOST_DEVICES, MOST_PLACES = 256, 64, 16


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
    #: Devices of one user; the whole farm is one. Default: 2 for named, as vendors have it; 0, no limit but
    #: ``MOST_DEVICES``, else.
    devices_per_user: Count = Field(default_factory=_default_devices)
    sessions_per_user: Count = 0  #: sessions of one user at the same time; 0: no limit but MOST_USES
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
    limit: tuple[Limit, ...] = ()  #: at most so many seats for some

    @model_validator(mode="after")
    def _has_seats(self) -> Self:
        given = self.model_fields_set
        if self.kind is Kind.NODE_LOCKED:
            if "nodes" not in given:
                raise refusal("is required: the hosts this pool is licensed for", "nodes")
            for key in ("capacity", "limit"):
                if key in given:
                    raise refusal("is not for a node_locked pool, where each of its nodes is one seat", key)
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
        for key, values, alike in (("nodes", self.nodes, fold), ("files", self.files, place_of)):
            if len(set(map(alike, values))) < len(values):
                raise refusal("names one twice", key)
        if any(same_host(one, other) for one, other in itertools.combinations(self.nodes, 2)):
            raise refusal("names one twice", "nodes")
        return self

    @classmethod
    def from_limits(cls, name: str, limits: Mapping[str, str]) -> Self:
        """Return a pool of which only what the store decides by is known: that of ``limits``, as text."""
        plain = cls(name=name, kind=Kind.FLOATING, capacity=1)
        numbers = {key: int(limits[key]) for key in plain.limits().keys() & limits.keys() if limits[key].isdecimal()}
        return plain.model_copy(update={**numbers, "kind": Kind(limits["kind"]), "share": Share(limits["share"])})

    def serves(self, node: str) -> bool:
        """Whether the pool's licences may be used on this node at all."""
        return self.kind is not Kind.NODE_LOCKED or any(same_host(each, node) for each in self.nodes)

    def reservations(self, request: SessionRequest, node: str) -> tuple[str, ...]:
        """Return the ids of the reservations this request on this node may use, and of the limits that it counts in.

        Reservations for the fewest persons stand first: so a seat that is kept for one person alone is not kept once
        more beside the one that the person has. In doubt, where groups are not known, a limit counts.
        """
        mine = sorted((each for each in self.reserve if each.match(request, node)), key=lambda each: each.persons)
        counted = (each for each in self.limit if each.match(request, node, denies=True))
        return tuple(dict.fromkeys(each.id for each in (*mine, *counted)))

    def limit_named(self, limit: str) -> str:
        """Return for whom a limit of this id is, in words; the id of one that the policy does not have any more."""
        return next((each.whom for each in self.limit if each.id == limit), limit)

    @property
    def reserved_seats(self) -> int:
        """How many seats of the capacity are reserved, in use or not."""
        return sum(self._seats_reserved().values())

    def read_by(self, identity: Identities) -> Self:
        """Return the same pool, its reservations read by this table of who is who."""
        if not self.reserve and not self.limit:
            return self
        return self.model_copy(
            update={
                "reserve": tuple(each.read_by(identity) for each in self.reserve),
                "limit": tuple(each.read_by(identity) for each in self.limit),
            }
        )

    def _most_seats(self) -> Mapping[str, int]:
        """Return the seats of each limit; of two for the same persons in different spellings the lower counts."""
        seats: dict[str, int] = {}
        for each in self.limit:
            seats[each.id] = min(each.seats, seats.get(each.id, each.seats))
        return seats

    def _seats_reserved(self) -> Mapping[str, int]:
        """Return the seats of each reservation; two for the same persons in different spellings are one."""
        seats: dict[str, int] = {}
        for each in self.reserve:
            seats[each.id] = max(each.seats, seats.get(each.id, 0))
        return seats

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
            "reserve": json.dumps(self._seats_reserved()) if self.reserve else "",
            "limit": json.dumps(self._most_seats()) if self.limit else "",
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
