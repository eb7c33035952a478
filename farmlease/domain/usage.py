"""How the seats of a pool were used, hour by hour: the store's tallies read, gaps filled, and summed up.

What is measured: seats are held from the decision that takes them until the decision that frees them, or until their
deadline to the millisecond, however late a script notices. A seat kept by a session whose host died counts until the
first decision after the host's deadline. So a named seat counts while its lease lasts, used or not, and so does one in
quarantine. This module knows no user.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from farmlease.errors import Damaged

__all__ = ["HOUR_MS", "Hour", "Summary", "hours", "parse_tally", "sparkline", "squeezed", "summed"]

HOUR_MS = 3_600_000
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """One hour of one pool. The current hour is counted until now, a pool's first hour from the pool's beginning."""

    begins_at: int  #: ms, a full hour in UTC
    counted_ms: int  #: how much of it
    area: int  #: seats held, each times the ms it was
    peak: int  #: most seats held at once
    held: int  #: seats held at its end
    capacity: int  #: of the pool then
    denials: Mapping[str, int] = field(default_factory=dict)  #: reason to how often a session was denied for it

    @property
    def average(self) -> float:
        """Seats held, on average over the time that was counted."""
        return self.area / self.counted_ms if self.counted_ms else float(self.held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Several hours of one pool."""

    peak: int
    peak_at: int  #: ms: the first hour with that peak
    average: float
    capacity: int  #: latest
    denials: Mapping[str, int]


def parse_tally(words: bytes) -> Hour:
    """Read a tally as ``lib/shard.lua`` writes it; raises Damaged."""
    try:
        begins, _, area, span, peak, held, capacity, denials = words.decode("ascii").split(" ")
        counts = dict(part.split(":") for part in denials.split(",")) if denials != "-" else {}
        return Hour(
            begins_at=int(begins),
            counted_ms=int(span),
            area=int(area),
            peak=int(peak),
            held=int(held),
            capacity=int(capacity),
            denials={reason: int(number) for reason, number in counts.items()},
        )
    except ValueError:
        raise Damaged("a tally of the pool's use is damaged; it is left out") from None


def hours(tallies: Iterable[Hour], *, since: int, now: int) -> Iterator[Hour]:
    """Yield every hour from ``since`` (rounded down to the hour) until ``now``, from the first one that was counted.

    ``tallies`` come in order, and may begin with one of before ``since``. An hour without one is an hour in which
    nothing changed. All times in ms.
    """
    first, last = since - since % HOUR_MS, now - now % HOUR_MS
    before: Hour | None = None
    for tally in tallies:
        if before is not None and tally.begins_at <= before.begins_at:
            continue
        if before is not None:
            yield from _unchanged(before, max(first, before.begins_at + HOUR_MS), tally.begins_at, now)
        if first <= tally.begins_at <= last:
            yield tally
        before = tally
    if before is not None:
        yield from _unchanged(before, max(first, before.begins_at + HOUR_MS), last + HOUR_MS, now)


def _unchanged(before: Hour, start: int, end: int, now: int) -> Iterator[Hour]:
    """Yield the hours in which as many seats were held as at the end of the one ``before``."""
    for at in range(start, min(end, now + 1), HOUR_MS):
        counted = min(HOUR_MS, now - at)
        yield Hour(
            begins_at=at,
            counted_ms=counted,
            area=before.held * counted,
            peak=before.held,
            held=before.held,
            capacity=before.capacity,
        )


def summed(found: Sequence[Hour]) -> Summary:
    """Sum hours up; ``found`` is not empty."""
    top = max(found, key=lambda hour: (hour.peak, -hour.begins_at))
    counted = sum(hour.counted_ms for hour in found)
    denials = Counter[str]()
    for hour in found:
        denials.update(hour.denials)
    return Summary(
        peak=top.peak,
        peak_at=top.begins_at,
        average=sum(hour.area for hour in found) / counted if counted else float(found[-1].held),
        capacity=found[-1].capacity,
        denials=dict(sorted(denials.items(), key=lambda entry: (-entry[1], entry[0]))),
    )


def squeezed(values: Sequence[int], width: int) -> list[int]:
    """Return at most ``width`` values, each the greatest of its share, so that no peak is lost."""
    count = min(width, len(values))
    return [max(values[at * len(values) // count : (at + 1) * len(values) // count]) for at in range(count)]


def sparkline(values: Sequence[int], top: int) -> str:
    """Draw values as bars; a blank is none at all, the highest bar is ``top`` or more."""
    highest = max(top, 1)
    return "".join(_BARS[min(7, (value * 8 - 1) // highest)] if value > 0 else " " for value in values)
