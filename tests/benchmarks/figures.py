"""A figure: a ratio that was measured side by side, round by round, and what it is held against."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from statistics import median, quantiles
from typing import Any

import psutil

__all__ = ["ROUNDS", "Figure", "Missing", "on_the_clients_core", "on_the_servers_core", "p99", "ratios", "side_by_side"]

#: Rounds of each measurement; an odd number, so that one of them is the median.
ROUNDS = 5


class Missing(Exception):
    """What is compared with is not installed here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of the table. ``at_most``: smaller is better."""

    id: str
    what: str
    rounds: tuple[float, ...]
    floor: float | None
    goal: float | None
    at_most: bool
    detail: str = ""  #: the absolute numbers, and what was checked
    missing: str = ""  #: what is not installed, so that it could not be measured
    broken: str = ""  #: what went wrong while it was measured: an effect that was not there, say

    @property
    def value(self) -> float | None:
        """The median of the rounds; None if there were none."""
        return median(self.rounds) if self.rounds else None

    @property
    def verdict(self) -> str:
        """How it stands to its goal and floor."""
        value = self.value
        if self.broken or value is None:
            return "broken" if self.broken else "missing"
        if self.goal is None or self._reaches(value, self.goal):
            return "goal" if self.goal is not None else "reported"
        return "floor" if self.floor is not None and self._reaches(value, self.floor) else "short"

    def _reaches(self, value: float, bar: float) -> bool:
        return value <= bar if self.at_most else value >= bar

    def document(self) -> dict[str, Any]:
        """The row for ``--json``."""
        return asdict(self) | {"value": self.value, "verdict": self.verdict}


def p99(values: Sequence[float]) -> float:
    """Return what one value in a hundred exceeds."""
    return quantiles(values, n=100)[98]


async def side_by_side(
    ours: Callable[[], Awaitable[float]], theirs: Callable[[], Awaitable[float]], rounds: int = ROUNDS
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure both in turns, the order changing, after one round of each that does not count."""
    pairs: list[tuple[float, float]] = []
    for turn in range(rounds + 1):
        if turn % 2:
            mine = await ours()
            other = await theirs()
        else:
            other = await theirs()
            mine = await ours()
        pairs.append((mine, other))
    counted = pairs[1:]
    return tuple(mine for mine, _ in counted), tuple(other for _, other in counted)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """Return ours over theirs, round by round."""
    return tuple(mine / other for mine, other in zip(ours, theirs, strict=True))


@cache
def _cores() -> list[int]:
    """Return the cores that this process was given, whichever it keeps to by now; none where that cannot be said."""
    process = psutil.Process()
    return process.cpu_affinity() if hasattr(process, "cpu_affinity") else []


@contextmanager
def _pinned(number: int) -> Iterator[None]:
    """Keep this process, and what it starts meanwhile, on one core where there are several."""
    cores, process = _cores(), psutil.Process()
    if len(cores) < 2:
        yield
        return
    before = process.cpu_affinity()
    process.cpu_affinity([cores[number]])
    try:
        yield
    finally:
        process.cpu_affinity(before)


def on_the_servers_core() -> Any:
    """Start servers in here: they stay on the first core."""
    return _pinned(0)


def on_the_clients_core() -> Any:
    """Measure in here: on the second core."""
    return _pinned(1)
