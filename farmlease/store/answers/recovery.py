"""What a node restores after the store lost it, and what the store answers to that, as values.

Users are pseudonyms here and records are sealed bytes, as everywhere in this room.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from farmlease.domain.lease_document import LeaseDocument
from farmlease.domain.stored_id import SHOWN, STORED
from farmlease.store.script import Argument

__all__ = ["CLOCK_LEAP_MS", "FENCE_AHEAD_MS", "Counted", "Recovering", "Remains", "Restored", "Restoring"]

#: Milliseconds by which the store's time may differ from a node's estimate of it; lib/epoch.lua has the same number.
CLOCK_LEAP_MS = 60_000
#: Milliseconds beyond the clock from which on a fence is damage: a fence is the time, or one more than the last.
#: lib/shard.lua has the same number.
FENCE_AHEAD_MS = 366 * 24 * 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovering:
    """A node was taken into an epoch. ``until``: no new session starts before; it may be over."""

    epoch: int
    until: int
    now: int
    clock_generation: int

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "Recovering":
        """From ``recovering`` of recover.lua."""
        epoch, until, now, generation = (int(word) for word in answer[1:5])
        return Recovering(epoch=epoch, until=until, now=now, clock_generation=generation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoring:
    """What a node knows of one user's lease."""

    user: str  #: user index
    document: bytes  #: the lease as an answer of the store had it
    #: Session id to what ``LeaseDocument.claim`` returns of it.
    sessions: Mapping[str, Mapping[str, object]]
    version: int  #: of the record
    record: bytes  #: sealed
    name: bytes  #: sealed

    def arguments(self) -> dict[str, Argument]:
        """Return what restore.lua takes of it."""
        return {
            "user": self.user,
            "lease": self.document,
            "sessions": json.dumps(
                {
                    session.translate(STORED): {**claim, "device": str(claim["device"]).translate(STORED)}
                    for session, claim in self.sessions.items()
                }
            ),
            "record_version": self.version,
            "record": self.record,
            "name": self.name,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A lease was restored, or not. ``again``: there is no seat now, and there may be one before the window is over."""

    ended: bool = False  #: it is over: its sessions have lost their seats
    again: bool = False
    refused: Mapping[str, str]  #: session id to why it lost its seat
    fences: Mapping[str, int] = field(default_factory=dict)  #: session id to the store's fence where that is later

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "Restored":
        """From ``restored``, ``full`` or ``ended`` of restore.lua."""
        words = [word.decode().translate(SHOWN) for word in answer[1:]]
        changed = [*zip(*(iter(words),) * 3, strict=True)]
        refused = {session: reason for session, reason, _ in changed if reason}
        fences = {session: int(fence) for session, reason, fence in changed if not reason}
        return Restored(ended=answer[0] == b"ended", again=answer[0] == b"full", refused=refused, fences=fences)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What is left of a lease after the end of a session: its document, empty if nothing is."""

    document: bytes
    expires_at: int | None  #: ms; None where no named seat is held on
    fence: int  #: of the lease's last grant

    @property
    def nodes(self) -> frozenset[str]:
        """The names of the nodes on which sessions of the user still live."""
        return LeaseDocument.parse(self.document).nodes if self.document else frozenset()

    @staticmethod
    def parse(answer: Sequence[bytes]) -> "Remains":
        """From ``released`` of release.lua."""
        _, document, until, fence = answer
        return Remains(document=document, expires_at=int(until) if until else None, fence=int(fence))


@dataclass(frozen=True, slots=True)
class Counted:
    """A session that the store counts for a node."""

    session: str
    user: str  #: user index
    fence: int
