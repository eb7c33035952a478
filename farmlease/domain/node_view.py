"""A node as the farm knows it: its last report, the administrators' wish to drain it, and whether it still reports.

A node that is silent may be off, cut off or of an older version. Only the claims of its sessions, which end by the
store's clock, show whether users can still be on it.
"""

import base64
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["SILENT_MS", "NodeState", "NodeView", "Wish", "near_names"]

#: A live node reports every few seconds; one that has not for this long, in ms, is shown as silent.
SILENT_MS = 30_000


class NodeState(StrEnum):
    """What an administrator sees of a node."""

    READY = "ready"
    DRAINING = "draining"  #: takes no new users
    FAILING = "failing"  #: cannot grant: its health says why
    STOPPING = "stopping"  #: its agent is to end; it goes on for [agent] shutdown_delay
    STOPPED = "stopped"  #: its agent ended in order
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Whether a node is to take no new users. ``version`` grows with each wish; 0: there never was one."""

    version: int = 0
    draining: bool = False
    at: int = 0  #: ms by the store's clock
    by: str = ""  #: the administrator who made it: sealed, in base64

    @property
    def wisher(self) -> bytes:
        """The administrator who made it, sealed; empty if there is none, or if the text is not base64."""
        try:
            return base64.b64decode(self.by, validate=True)
        except ValueError:
            return b""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A node's last report. Times are ms by the store's clock."""

    node: str
    incarnation: str
    version: str  #: of farmlease
    sessions: int
    owed: int  #: sessions that are ending, and messages that this node has yet to deliver to the store
    draining: bool  #: takes no new users now
    stopping: bool  #: its agent has ended
    health: str  #: pass, warn or fail
    listen: str  #: address of its health listener
    started_at: int  #: first report of this incarnation
    seen_at: int
    now: int
    wish: Wish
    leaving: bool = False  #: its agent is to end, and goes on for a while
    namesakes: int = 0  #: other hosts that report under the same name; the fields above are then those of one of them
    host: str = ""  #: what tells its host, as it is booted now, from every other; empty: not known
    generation: int = 0  #: number of its journal's state

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
        """Whether its agent runs, as far as the store knows."""
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
