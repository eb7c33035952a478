"""What the store answers to an administrator who changes leases, as values: given back, moved, imported.

Names and records are sealed bytes here, users are pseudonyms (the *user index*). Parsing stands beside the value it
makes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from farmlease.domain.model import Reason

__all__ = [
    "DeviceRelease",
    "DeviceReplacement",
    "Import",
    "ImportOutcome",
    "Importing",
    "RecordReplacement",
    "Release",
    "Replacement",
    "Withdrawn",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """A lease was given back or revoked."""

    quarantined_until: int | None  #: None: its seat is free
    barred_until: int | None  #: None: its user may come back at once
    changed: bool  #: False: all of that was so before

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "Withdrawn":
        """From ``withdrawn`` of withdraw.lua."""
        _, quarantined, barred, changed = answer
        return Withdrawn(
            quarantined_until=int(quarantined) if quarantined else None,
            barred_until=int(barred) if barred else None,
            changed=changed == b"1",
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
    """A lease that the vendor's records have. ``borrowed_at`` None: assigned, never used."""

    user: str  #: user index
    device: str
    borrowed_at: int | None
    lease_id: str
    record: bytes
    name: bytes
    reservations: tuple[str, ...] = ()  #: ids of the reservations its user may use
    by: bytes = b""  #: the administrator, sealed


class RecordReplacement(StrEnum):
    """What became of a record of which an administrator brings an earlier version back."""

    SAVED = "saved"
    CONFLICT = "conflict"  #: another version was saved since it was read
    USED = "used"  #: the user has a session, whose node would save over it
    GONE = "gone"  #: the lease ended


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
