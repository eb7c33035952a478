"""What talking to the store brings to light about this node's sessions, until ``sessions/`` deals with it.

The heartbeat and a recovery add events as they learn of them; ``sessions/housekeeping.py`` takes them. Nothing in this
room knows what is done about an event.
"""

import asyncio
from dataclasses import dataclass

from farmlease.store.answers.session import Lost

__all__ = ["CountsDiffer", "Event", "FilesLeft", "SeatLost", "SyncEvents"]


@dataclass(frozen=True, slots=True)
class SeatLost:
    """The store took a session's seat. The store repeats this until it is acknowledged."""

    pool: str
    lost: Lost


@dataclass(frozen=True, slots=True)
class CountsDiffer:
    """The store counts other sessions of this node in a pool than the node does."""

    pool: str
    counts: tuple[int, int, int]  #: the store's count, this node's, and the epoch


@dataclass(frozen=True, slots=True)
class FilesLeft:
    """The store has learned of an end, and the user's files are still here."""

    pool: str
    user: str  #: user index


Event = SeatLost | CountsDiffer | FilesLeft


class SyncEvents:
    """A queue of events, in the order in which they came."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._added = asyncio.Event()

    def add(self, event: Event) -> None:
        """Add an event."""
        self._events.append(event)
        self._added.set()

    def take(self) -> list[Event]:
        """Return the events that came since this was last called."""
        events, self._events = self._events, []
        self._added.clear()
        return events

    async def wait(self) -> None:
        """Wait until there is an event to take."""
        await self._added.wait()
