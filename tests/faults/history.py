"""What was told to whom, and when: the one thing by which a run is judged.

Times are seconds of the machine's clock, which the servers of a run share with its agents. Everything here leans the
way that accuses nobody wrongly: a seat is in use from the *answer* to who asked for it until the *question* to end it,
and only as long as the store had last promised to keep its node.
"""

import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["CURRENT", "Event", "History", "Loss", "Spell"]

#: Whose history the code that runs now belongs to, so that what farmlease logs is found in it.
CURRENT: ContextVar["History | None"] = ContextVar("CURRENT", default=None)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a history."""

    at: float
    text: str


@dataclass(slots=True)
class Spell:
    """A time in which a seat was in use by what its agent said. ``asked``: when it was asked for."""

    node: str
    session: str
    user: str
    seat: str
    asked: float
    since: float
    until: float = float("inf")  #: nobody uses it any more by what was told
    gone: float = float("inf")  #: the store was told, or had told
    counted: float = 0.0  #: when the store counted it: a receipt let it in before; infinity: not yet
    confirmed: float = 0.0  #: where agents have to be asked: when the last question was put that found it in use


@dataclass(frozen=True, slots=True)
class Loss:
    """A session was told that its seat is gone. ``promised``: until when the store had promised to keep its node."""

    at: float
    node: str
    session: str
    seat: str
    reason: str
    promised: float


@dataclass(slots=True)
class History:
    """The history of one run."""

    began: float = field(default_factory=time.time)
    events: list[Event] = field(default_factory=list)
    spells: list[Spell] = field(default_factory=list)
    leases: list[Spell] = field(default_factory=list)  #: named: kept for a user without a session
    losses: list[Loss] = field(default_factory=list)
    promises: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  #: node to (heard, kept until)
    violations: list[str] = field(default_factory=list)
    health: dict[str, list[tuple[float, str]]] = field(default_factory=dict)  #: node to (since, status)
    heard: dict[tuple[str, str], float] = field(default_factory=dict)  #: known to be lost: what was promised before
    heard_fence: dict[tuple[str, str], int] = field(default_factory=dict)  #: and up to which grant
    given_up: dict[str, float] = field(default_factory=dict)  #: node to when it was last silent for too long
    calls: int = 0
    slowest: float = 0.0

    def note(self, text: str) -> None:
        """Write a line."""
        self.events.append(Event(time.time(), text))

    def violate(self, law: str, text: str) -> None:
        """Write down that a law was broken."""
        line = f"{law}: {text}"
        if line not in self.violations:
            self.violations.append(line)
        self.note(f"VIOLATION {line}")

    # --- seats --------------------------------------------------------------------------------------------------------

    def open_spell(self, spell: Spell, fence: int | None = None) -> None:
        """A seat is in use from now on; the one before of the same session is over.

        Not where the node has learned of its loss already, and the answer to the start comes later than that.
        """
        self.close_spell(spell.node, spell.session)
        at = spell.node, spell.session
        if fence is None or fence > self.heard_fence.get(at, 0):
            self.heard.pop(at, None)
            self.spells.append(spell)

    def close_spell(self, node: str, session: str, *, gone: bool = False) -> None:
        """Nobody uses the seat of a session from now on; ``gone``: and the store knows."""
        now = time.time()
        for each in self.of(node, session):
            each.until = min(each.until, now)
            if gone:
                each.gone = min(each.gone, now)

    def of(self, node: str, session: str) -> Iterator[Spell]:
        """Every spell of a session."""
        return (each for each in self.spells if (each.node, each.session) == (node, session))

    def promise(self, node: str, until: float) -> None:
        """The store told a node until when it keeps it."""
        self.promises.setdefault(node, []).append((time.time(), until))

    def promised(self, node: str, at: float) -> float:
        """Until when a node was kept, by what it had heard by a moment."""
        return max((until for heard, until in self.promises.get(node, []) if heard <= at), default=0.0)

    def beats_since(self, node: str, since: float) -> int:
        """Return how many heartbeats of a node were answered after a moment."""
        return sum(heard > since for heard, _ in self.promises.get(node, []))

    def hear(self, node: str, session: str, fence: int = 0) -> None:
        """A node learned that a session has no seat any more, by any grant up to ``fence``.

        What counts is the promise that it had then. It acts on what it learned a little later, and a heartbeat may have
        come in between: what that one promises is for the sessions that the store counts.
        """
        self.close_spell(node, session)
        self.heard_fence[node, session] = fence
        self.heard.setdefault((node, session), self.promised(node, time.time()))

    def lapsed(self, node: str, since: float = 0.0) -> bool:
        """Whether a node was once not kept since then: what was heard last had run out before it heard more."""
        heard = [*self.promises.get(node, []), (time.time(), 0.0)]
        return self.given_up.get(node, -1.0) >= since or any(
            after[0] > max(before[1], since) for before, after in pairwise(heard)
        )

    def lose(self, node: str, session: str, seat: str, reason: str) -> None:
        """A session was told that its seat is gone."""
        now = time.time()
        self.close_spell(node, session, gone=True)
        if reason != "timeout":
            for lease in self.leases:
                if lease.seat == seat:
                    lease.until = min(lease.until, now)
        promised = self.heard.pop((node, session), None)
        self.losses.append(
            Loss(now, node, session, seat, reason, self.promised(node, now) if promised is None else promised)
        )
        self.note(f"{node} {session}: lost ({reason})")

    def take_back(self, seat: str) -> None:
        """An administrator took a user's lease: it keeps no seat from now on."""
        now = time.time()
        for lease in self.leases:
            if lease.seat == seat:
                lease.until = min(lease.until, now)

    # --- text ---------------------------------------------------------------------------------------------------------

    def lines(self) -> Iterator[str]:
        """Return it for people, in seconds since the run began."""
        for each in sorted(self.events, key=lambda event: event.at):
            yield f"{each.at - self.began:8.3f}  {each.text}"
