"""What nodes send to the store for their sessions, and its answers, as values; parsing stands beside the value.

Users are pseudonyms here (the *user index*), names and records are sealed bytes: the store and everything in this
module work without a key. The answers to administrators are in ``admin.py`` and ``stored_lease.py``.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from farmlease.domain import denial_text
from farmlease.domain.explanation import BoundedSet
from farmlease.domain.lease_document import LeaseDocument
from farmlease.domain.model import Blocker, Denial, Lease, Reason
from farmlease.domain.pool import Pool
from farmlease.domain.stored_id import SHOWN
from farmlease.store.script import LIFE, Argument

__all__ = [
    "NOTHING",
    "Beat",
    "Behind",
    "Claim",
    "Conflict",
    "Count",
    "Explained",
    "Known",
    "Lost",
    "Refusal",
    "Saved",
    "SealedPolicy",
    "Taken",
    "Taking",
    "Waiting",
    "parse_decision",
]


#: A deadline from which on it is none: the year 10000. Only damaged data have one.
_NEVER_MS = 253_402_300_800_000


class Behind(StrEnum):
    """The caller must catch up before the store decides anything for it."""

    LAPSED = "lapsed"  #: its node is not alive here: send a heartbeat
    POLICY = "policy"  #: a newer policy is in force: read it
    STRANGE = "strange"  #: this is not the store that it knew: recover


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A session on a node, as the store knows it."""

    user: str  #: user index
    node: str  #: node#incarnation
    session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """The arguments of a session that asks for a seat; lease id, record and name are used only for a new lease."""

    device: str
    lease_id: str
    record: bytes
    name: bytes
    reservations: tuple[str, ...] = ()  #: ids of the reservations it may use
    wait_ms: int = 0  #: how long a place in the queue is kept until it asks again; 0: it does not wait
    former: tuple[str, ...] = ()  #: other user indexes, under which the lease may stand by a former name


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a node knows of a shard: a store that is another one by it refuses the call (``Behind.STRANGE``)."""

    epoch: int = 0  #: 0: none
    fence: int = 0  #: highest that it has seen
    expected: int = 0  #: ms: the node's estimate of the store's time; 0: it has none
    clock_generation: int = 0  #: of that estimate; a new one begins when the store's time is corrected

    def arguments(self) -> dict[str, Argument]:
        """Return the last arguments of a script that compares them with the store."""
        return {
            "epoch": self.epoch,
            "seen": self.fence,
            "life": LIFE,
            "expected": self.expected,
            "clock_generation": self.clock_generation,
        }


#: What a node knows of a shard before its first heartbeat there, and an administrator always.
NOTHING = Known()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The session may start. ``again``: it had its seat before; ``moved``: it has it on another device now."""

    lease: Lease
    fence: int
    again: bool
    moved: bool
    record_version: int
    record: bytes
    overdraft: bool
    now: int
    document: bytes  #: the lease in the store's own form, to be restored from
    user: str  #: index under which the lease stands: the one asked for, or that of a former name

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "Taken":
        """From ``granted``, ``again`` or ``moved`` of acquire.lua."""
        word, lease_id, issued, expires, fence, version, record, overdraft, now, document, user = answer
        lease = Lease(id=lease_id.decode(), issued_at=int(issued), expires_at=int(expires))
        return Taken(
            lease=lease,
            fence=int(fence),
            again=word in {b"again", b"moved"},
            moved=word == b"moved",
            record_version=int(version),
            record=record,
            overdraft=overdraft == b"1",
            now=int(now),
            document=document,
            user=user.decode(),
        )


@dataclass(frozen=True, slots=True)
class Waiting:
    """The session has a place in the queue, kept until it should have asked again."""

    ahead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A limit stands in the way."""

    reason: Reason
    retry_at: int | None
    held: int
    capacity: int
    blocking: tuple[Blocker, ...]
    limit: str = ""  #: id of the policy's limit that ``held`` and ``capacity`` are of; empty for none

    def denial(self, pool: Pool) -> Denial:
        """Return it as the answer to the caller."""
        if self.limit:
            whom = pool.limit_named(self.limit)
            return denial_text.over_limit(
                pool.name, whom, retry_at=self.retry_at, held=self.held, capacity=self.capacity
            )
        return denial_text.denial(
            self.reason,
            pool.name,
            retry_at=self.retry_at,
            blocking=self.blocking,
            held=self.held,
            capacity=self.capacity,
        )

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "Refusal":
        """From ``denied`` of acquire.lua."""
        _, reason, retry, held, capacity, blocking, limit = answer
        return Refusal(
            reason=Reason(reason.decode()),
            retry_at=int(retry) if retry and int(retry) < _NEVER_MS else None,
            held=int(held),
            capacity=int(capacity),
            blocking=tuple(
                Blocker(
                    device=_shown(entry.get("device")),
                    session=_shown(entry.get("session")),
                    node=entry.get("node"),
                    until=_whole(entry.get("until")),
                )
                for entry in json.loads(blocking)
            ),
            limit=limit.decode(),
        )


def parse_decision(answer: Sequence[bytes]) -> "Taken | Refusal | Waiting":
    """From what acquire.lua decided: ``granted``, ``again``, ``moved``, ``denied`` or ``waiting``."""
    match answer[0]:
        case b"granted" | b"again" | b"moved":
            return Taken.parse(answer)
        case b"denied":
            return Refusal.parse(answer)
        case _:
            return Waiting(ahead=int(answer[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What a session would be answered, and what that rests on; nothing was taken."""

    now: int
    sets: tuple[BoundedSet, ...]  #: as they are before the answer
    lease: LeaseDocument | None  #: of the user, before the answer
    expires_at: int | None  #: when that lease ends; None while sessions keep it, and without one
    answer: Taken | Refusal | Waiting

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "Explained":
        """From ``explained`` of explain.lua."""
        _, now, sets, document, _, expires, *decided = answer
        return Explained(
            now=int(now),
            sets=tuple(
                BoundedSet(each["set"], int(each["held"]), int(each["most"]) or None) for each in json.loads(sets)
            ),
            lease=LeaseDocument.parse(document) if document else None,
            expires_at=int(expires) if expires else None,
            answer=parse_decision(decided),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A session that the store terminated, and why."""

    session: str
    user: str  #: user index
    fence: int  #: of the grant that was lost; a session granted anew since has a later one and is not meant
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A heartbeat was accepted. ``lost``: terminated sessions of this node, repeated until it releases them."""

    deadline: int
    sessions: int  #: how many sessions of this node the store counts
    now: int
    epoch: int
    fence: int
    nodes: int  #: about how many nodes there are; another number means other nodes
    skew: int  #: ms by which the store's clock jumped ahead, and which are not counted
    clock_generation: int  #: of this time
    buried: int  #: number of the newest tombstone
    missing: tuple[str, ...]  #: what the shard lacks: names of keys, and ``damaged`` if something was set aside
    lacking: int  #: how many leases, records and names are lacking, and how much was set aside
    lost: tuple[Lost, ...]

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "Beat":
        """From ``alive`` of heartbeat.lua."""
        deadline, sessions, now, epoch, fence, nodes, skew, generation, buried = (int(word) for word in answer[1:10])
        words = [word.decode().translate(SHOWN) for word in answer[12:]]
        return Beat(
            deadline=deadline,
            sessions=sessions,
            now=now,
            epoch=epoch,
            fence=fence,
            nodes=nodes,
            skew=skew,
            clock_generation=generation,
            buried=buried,
            missing=tuple(answer[10].decode().split()),
            lacking=int(answer[11]),
            lost=tuple(
                Lost(session=session, user=user, fence=int(fence), reason=reason)
                for session, user, fence, reason in zip(*(iter(words),) * 4, strict=True)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The record's new version is stored."""

    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Another node has saved since: this is the record that the store has."""

    version: int
    record: bytes
    saved_at: int  #: ms; 0 if that is not known
    nodes: frozenset[str]  #: names of the nodes on which sessions of the user live

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "Conflict":
        """From ``conflict`` of save.lua."""
        _, version, record, saved, document = answer
        return Conflict(
            version=int(version),
            record=record,
            saved_at=int(saved or 0),
            nodes=LeaseDocument.parse(document).nodes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How full a pool is."""

    held: int  #: seats, the quarantined among them
    quarantined: int
    capacity: int
    reserved: int  #: reserved seats that are not in use
    waiting: int
    policy_version: int
    now: int

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "Count":
        """From ``counted`` of count.lua."""
        held, quarantined, capacity, reserved, waiting, version, now = (int(word) for word in answer[1:])
        return Count(
            held=held, quarantined=quarantined, capacity=capacity, reserved=reserved, waiting=waiting,
            policy_version=version, now=now,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedPolicy:
    """The farm's policy as the store keeps it. Version 0: none was ever applied."""

    version: int
    sealed: bytes
    now: int
    former_names: bool = False  #: leases may stand under names that their users no longer have by it


def _shown(stored: str | None) -> str | None:
    return None if stored is None else stored.translate(SHOWN)


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
