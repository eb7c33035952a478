"""What is wrong with a farm as a whole: pools that stay full, people who are denied, nodes that went silent.

It judges what was read, as the doctor's checks of one host do, and adds its findings to theirs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from farmlease.domain.diagnosis.finding import Finding, failed, warned
from farmlease.domain.model import Kind
from farmlease.domain.node_view import NodeState, NodeView
from farmlease.domain.usage import HOUR_MS, Hour
from farmlease.domain.wording import counted

__all__ = ["DENIED_WITHIN_MS", "Denials", "FullSince", "PoolState", "denials", "full_since", "nodes", "pools"]

#: A pool is told once it was full for so long, ms.
FULL_FOR_MS = 600_000
#: So many different people who are denied within so long, ms, are told.
DENIED_WITHIN_MS = 600_000
MANY_PEOPLE = 5
#: Seats that may be free on average in a pool that counts as full: between two users a seat is free for a moment.
_BETWEEN_USERS = 0.05


@dataclass(frozen=True, slots=True)
class FullSince:
    """Since when a pool is full. ``area``: seats held in that hour before, each times the ms it was."""

    at: int  #: ms by the store's clock
    area: int
    capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """A pool now, and its last hours, the present one last."""

    name: str
    kind: Kind
    held: int  #: seats, the quarantined among them
    capacity: int
    overdraft: int  #: seats beyond the capacity that may be taken
    quarantined: int
    waiting: int
    now: int  #: ms by the store's clock
    hours: Sequence[Hour] = ()

    @property
    def full(self) -> bool:
        """Whether the next user finds no seat; each node of a node-locked pool is its own seat."""
        return self.kind is not Kind.NODE_LOCKED and 0 < self.capacity <= self.held

    @property
    def beyond(self) -> int:
        """Seats that are held beyond the capacity."""
        return max(0, self.held - self.capacity)

    @property
    def denied(self) -> int:
        """How often a session was denied in these hours."""
        return sum(sum(hour.denials.values()) for hour in self.hours)


@dataclass(frozen=True, slots=True)
class Denials:
    """Who was denied within ``DENIED_WITHIN_MS``. ``whole``: False if there was more to read than was read."""

    people: Mapping[str, frozenset[str]]  #: pool ("": none was asked) to user indexes
    whole: bool = True

    @property
    def count(self) -> int:
        """How many different people."""
        return len(frozenset().union(*self.people.values()))


def full_since(pool: PoolState, before: FullSince | None = None) -> FullSince | None:
    """Return since when a pool is full, as far as its hours show it; None if it is not.

    ``before``: since when it was full at an earlier look. It still is if hardly any seat was free since then.
    """
    if not pool.full:
        return None
    if before is not None and before.capacity == pool.capacity and _stayed(pool, before):
        return before
    found = FullSince(pool.now, pool.hours[-1].area if pool.hours else 0, pool.capacity)
    for hour in reversed(pool.hours):
        if hour.capacity != pool.capacity or not _is_full(hour.area, hour.counted_ms, pool.capacity):
            break
        found = FullSince(min(hour.begins_at + HOUR_MS, pool.now) - hour.counted_ms, 0, pool.capacity)
    return found


def _stayed(pool: PoolState, before: FullSince) -> bool:
    hours = [hour for hour in pool.hours if before.at < hour.begins_at + HOUR_MS]
    if not hours:
        return False
    in_first = hours[0].begins_at <= before.at
    area = sum(hour.area for hour in hours) - (before.area if in_first else 0)
    return _is_full(area, pool.now - (before.at if in_first else hours[0].begins_at), pool.capacity)


def _is_full(area: int, ms: int, capacity: int) -> bool:
    return area >= (capacity - _BETWEEN_USERS) * ms


def pools(found: Iterable[PoolState], full: Mapping[str, FullSince]) -> Iterator[Finding]:
    """Find the pools that are full for long. ``full``: since when each full pool is."""
    for pool in found:
        since = full.get(pool.name)
        if since is not None and pool.now - since.at >= FULL_FOR_MS:
            waiting = f", {counted(pool.waiting, 'session')} waiting" if pool.waiting else ""
            minutes = counted((pool.now - since.at) // 60_000, "minute")
            text = f"{pool.name} is full for {minutes}: {pool.held} of {pool.capacity} seats held{waiting}"
            yield warned("pools", f"{text}; see `farmlease lease list --pool {pool.name}`", pool.name)


def denials(found: Denials) -> Iterator[Finding]:
    """Find whether many different people were denied of late."""
    if found.count >= MANY_PEOPLE:
        parts = sorted((-len(people), pool) for pool, people in found.people.items() if people)
        where = ", ".join(f"{pool or 'without a pool'} {-number}" for number, pool in parts)
        many = f"{'' if found.whole else 'at least '}{found.count} people were denied"
        within = f"within {DENIED_WITHIN_MS // 60_000} minutes"
        yield warned("denials", f"{many} {within} ({where}); see `farmlease audit --since 10m`")


def nodes(views: Iterable[NodeView]) -> Iterator[Finding]:
    """Find the nodes that do not report, cannot grant or share their name."""
    for view in views:
        if view.namesakes:
            text = f"{view.namesakes + 1} hosts report as {view.node}; give each a node name of its own"
            yield warned("nodes", text, f"{view.node} name")
        if view.state is NodeState.SILENT:
            minutes = (view.now - view.seen_at) // 60_000
            since = f"for {counted(minutes, 'minute')}" if minutes else "for half a minute"
            text = f"{view.node} is silent: not heard of {since}; look at its host, its agent and its way to the store"
            yield warned("nodes", text, view.node)
        elif view.state is NodeState.FAILING:
            text = f"{view.node} cannot grant; run `farmlease health` or `farmlease doctor` there"
            yield failed("nodes", text, view.node)
