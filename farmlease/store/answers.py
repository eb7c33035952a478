"""What the store answers, as values. Parsing stands beside the value it makes.

Users are pseudonyms here (the *user index*), names and records are sealed bytes: the store and everything in this
module work without a key.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from farmlease.domain.model import Blocker, DeviceClaim, Lease, Reason, SessionClaim

__all__ = [
    "Beat",
    "Behind",
    "Claim",
    "Conflict",
    "Count",
    "DeviceRelease",
    "DeviceReplacement",
    "Import",
    "ImportOutcome",
    "Importing",
    "Lost",
    "Refusal",
    "Release",
    "Replacement",
    "Saved",
    "SealedPolicy",
    "StoredLease",
    "Taken",
    "Taking",
    "Waiting",
    "Withdrawn",
]


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
    """What a session that asks for a seat brings with it; the last three are used only if it takes a new lease."""

    device: str
    lease_id: str
    record: bytes
    name: bytes
    reservations: tuple[str, ...] = ()  #: ids of the reservations it may use
    wait_ms: int = 0  #: how long a place in the queue is kept until it asks again; 0: it does not wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The session may start. ``again``: it was asked before, and nothing changed."""

    lease: Lease
    fence: int
    again: bool
    record_version: int
    record: bytes
    overdraft: bool
    now: int
    document: bytes  #: the lease in the store's own form, to be restored from

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "Taken":
        """From ``granted`` or ``again`` of acquire.lua."""
        word, lease_id, issued, expires, fence, version, record, overdraft, now, document = answer
        lease = Lease(id=lease_id.decode(), issued_at=int(issued), expires_at=int(expires))
        return Taken(
            lease=lease,
            fence=int(fence),
            again=word == b"again",
            record_version=int(version),
            record=record,
            overdraft=overdraft == b"1",
            now=int(now),
            document=document,
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

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "Refusal":
        """From ``denied`` of acquire.lua."""
        _, reason, retry, held, capacity, blocking = answer
        return Refusal(
            reason=Reason(reason.decode()),
            retry_at=int(retry) if retry else None,
            held=int(held),
            capacity=int(capacity),
            blocking=tuple(
                Blocker(
                    device=entry.get("device"),
                    session=entry.get("session"),
                    node=entry.get("node"),
                    until=_whole(entry.get("until")),
                )
                for entry in json.loads(blocking)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A session that was taken from its node, and why."""

    session: str
    user: str  #: user index
    fence: int  #: of the grant that was lost; a session granted anew since has a later one and is not meant
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A heartbeat was taken. ``lost``: sessions taken from this node, told again until it releases them."""

    deadline: int
    sessions: int  #: how many sessions of this node the store counts
    now: int
    epoch: int
    fence: int
    nodes: int  #: about how many nodes there are; another number means other nodes
    skew: int  #: ms by which the store's clock leapt ahead, and which are not counted
    line: int  #: of counts of this time
    lost: tuple[Lost, ...]

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "Beat":
        """From ``alive`` of heartbeat.lua."""
        deadline, sessions, now, epoch, fence, nodes, skew, line = (int(word) for word in answer[1:9])
        words = [word.decode() for word in answer[9:]]
        return Beat(
            deadline=deadline,
            sessions=sessions,
            now=now,
            epoch=epoch,
            fence=fence,
            nodes=nodes,
            skew=skew,
            line=line,
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
    """Somebody else saved first: this is the record that counts."""

    version: int
    record: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How full a pool is."""

    held: int  #: seats, the quarantined among them
    quarantined: int
    capacity: int
    reserved: int  #: reserved seats that nobody uses
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
class Withdrawn:
    """A lease was given back or revoked."""

    quarantined_until: int | None  #: None: its seat is free
    barred_until: int | None  #: None: its user may come back at once

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "Withdrawn":
        """From ``withdrawn`` of withdraw.lua."""
        return Withdrawn(
            quarantined_until=int(answer[1]) if answer[1] else None, barred_until=int(answer[2]) if answer[2] else None
        )


class Release(StrEnum):
    """What became of a device slot that was to be freed."""

    RELEASED = "released"
    IN_USE = "in_use"  #: sessions run on it
    NONE = "none"  #: the user's lease is not on this device


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRelease:
    """A device slot was to be freed. ``taken_until``: it stays taken until then."""

    outcome: Release
    taken_until: int | None = None

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "DeviceRelease":
        """From any answer of release_device.lua."""
        until = int(answer[1]) if len(answer) > 1 and answer[1] else None
        return DeviceRelease(outcome=Release(answer[0].decode()), taken_until=until)


class Replacement(StrEnum):
    """What became of a device slot that was to move."""

    REPLACED = "replaced"
    LIMIT = "limit"  #: no replacement is left
    KNOWN = "known"  #: the user's lease is on the new device already
    NONE = "none"  #: the user's lease is not on the old device


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReplacement:
    """A device slot was to move. ``next_at``: when the next replacement is allowed; None if none ever is."""

    outcome: Replacement
    next_at: int | None = None

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "DeviceReplacement":
        """From any answer of replace_device.lua but ``more``."""
        return DeviceReplacement(
            outcome=Replacement(answer[0].decode()),
            next_at=int(answer[1]) if len(answer) > 1 and answer[1] else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Importing:
    """A lease from the vendor's books. ``borrowed_at`` None: assigned, never used."""

    user: str  #: user index
    device: str
    borrowed_at: int | None
    lease_id: str
    record: bytes
    name: bytes
    reservations: tuple[str, ...] = ()  #: ids of the reservations its user may use
    by: bytes = b""  #: the administrator, sealed


class Import(StrEnum):
    """What became of an imported lease."""

    IMPORTED = "imported"  #: it is there now, or lasts longer
    KNOWN = "known"  #: it was there already
    FUTURE = "future"  #: it was borrowed later than now
    ENDED = "ended"  #: it would have ended by now
    DENIED = "denied"  #: a limit stands in the way, or an administrator who took the lease back


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOutcome:
    """What became of it, and why not."""

    outcome: Import
    ended_at: int | None = None
    reason: Reason | None = None

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "ImportOutcome":
        """From ``imported``, ``known``, ``future``, ``ended`` or ``denied`` of import.lua."""
        outcome = Import(answer[0].decode())
        return ImportOutcome(
            outcome=outcome,
            ended_at=int(answer[1]) if outcome is Import.ENDED else None,
            reason=Reason(answer[1].decode()) if outcome is Import.DENIED else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedPolicy:
    """The farm's policy as the store keeps it. Version 0: none was ever applied."""

    version: int
    sealed: bytes
    now: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLease:
    """One lease at one instant of the store's clock, sessions of dead nodes taken off."""

    user: str  #: user index
    lease: Lease
    last_contact_at: int
    record_version: int
    devices: tuple[DeviceClaim, ...]
    sessions: tuple[SessionClaim, ...]
    quarantined: bool
    overdraft: bool  #: a seat of it is beyond the capacity
    name: bytes  #: sealed; empty once forgotten
    record: bytes  #: sealed; empty in a list
    now: int

    @property
    def fence(self) -> int:
        """The highest fence among its sessions, 0 without one."""
        return max((session.fence for session in self.sessions), default=0)

    @staticmethod
    def parse(
        *, user: bytes, document: bytes, expires: bytes, name: bytes, now: int, kept_ms: int, record: bytes = b""
    ) -> "StoredLease":
        """From an entry of look_up.lua or list.lua; ``kept_ms`` dates a lease that its sessions keep."""
        lease: dict[str, Any] = json.loads(document)
        # cjson writes an empty table as {} or [], whichever its author liked.
        sessions = tuple(_session(member, claim) for member, claim in sorted(dict(lease["sessions"]).items()))
        in_use = {session.device for session in sessions}
        devices = tuple(
            DeviceClaim(device=device, until=None if device in in_use else int(claim["until"]))
            for device, claim in sorted(dict(lease["devices"]).items())
            if device in in_use or int(claim["until"]) > now
        )
        return StoredLease(
            user=user.decode(),
            lease=Lease(
                id=lease["id"],
                issued_at=int(lease["issued"]),
                expires_at=int(expires) if expires else now + kept_ms,
            ),
            last_contact_at=now if sessions else int(lease["contact"]),
            record_version=int(lease["version"]),
            devices=devices,
            sessions=sessions,
            quarantined=lease.get("back") is not None,
            overdraft="+" in dict(lease.get("charges") or {}).values(),
            name=name,
            record=record,
            now=now,
        )


def _session(member: str, claim: dict[str, Any]) -> SessionClaim:
    node, _, session = member.partition("/")
    return SessionClaim(
        node=node.partition("#")[0],
        session=session,
        started_at=int(claim["started"]),
        device=claim["device"],
        fence=int(claim["fence"]),
        hold_until=int(claim["hold"]) if claim.get("hold") else None,
    )


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
