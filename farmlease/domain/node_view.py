"""A node as its farm sees it: what it says of itself, what is wished of it, and whether it is still heard of.

A node that is silent may be off, cut off or of an older version: only the claims of its sessions, which end by the
store's clock, say whether anybody can still be on it.
"""

import base64
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["SILENT_MS", "NodeState", "NodeView", "Wish", "near_names"]

#: A node that lives is heard of every few seconds; one that was not for this long, in ms, is shown as silent.
SILENT_MS = 30_000


class NodeState(StrEnum):
    """What an administrator sees of a node."""

    READY = "ready"
    DRAINING = "draining"  #: takes no new users
    FAILING = "failing"  #: cannot grant: its health says why
    STOPPING = "stopping"  #: told to end; goes on for [agent] shutdown_delay
    STOPPED = "stopped"  #: its agent ended in order
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Whether a node is to take no new users. ``version`` grows with each wish; 0: nobody ever wished anything."""

    version: int = 0
    draining: bool = False
    at: int = 0  #: ms by the store's clock
    by: str = ""  #: who wished it: sealed, in base64

    @property
    def wisher(self) -> bytes:
        """Who wished it, sealed; empty if nobody did, or if somebody else has written there."""
        try:
            return base64.b64decode(self.by, validate=True)
        except ValueError:
            return b""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """What a node said when it was last heard of. Times are ms by the store's clock."""

    node: str
    incarnation: str
    version: str  #: of farmlease
    sessions: int
    owed: int  #: sessions that are ending, and messages that only this node has and the store has yet to hear
    draining: bool  #: takes no new users now
    stopping: bool  #: its agent has ended
    health: str  #: pass, warn or fail
    listen: str  #: address of its health listener
    started_at: int  #: when this life of it was first heard of
    seen_at: int
    now: int
    wish: Wish
    leaving: bool = False  #: its agent was told to end, and goes on for a while
    namesakes: int = 0  #: other hosts that report under the same name: then nothing here is true of all

    @property
    def state(self) -> NodeState:
        """What an administrator sees of it."""
        if self.stopping:
            return NodeState.STOPPED
        if self.now - self.seen_at > SILENT_MS:
            return NodeState.SILENT
        if self.leaving:
            return NodeState.STOPPING
        if self.draining:
            return NodeState.DRAINING
        return NodeState.FAILING if self.health == "fail" else NodeState.READY

    @property
    def heard(self) -> bool:
        """Whether its agent runs, as far as anybody knows."""
        return self.state not in {NodeState.STOPPED, NodeState.SILENT}

    @property
    def since(self) -> int:
        """Since when it is in this state, as far as that is known."""
        if not self.heard:
            return self.seen_at
        return self.wish.at if self.draining else max(self.started_at, self.wish.at)


def near_names(name: str, names: Iterable[str]) -> list[str]:
    """Return the names most like ``name``, the nearest first, whatever the case; at most three."""
    folded = {each.casefold(): each for each in names}
    return [folded[near] for near in difflib.get_close_matches(name.casefold(), folded, n=3)]
