"""A measured number, as the table shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

__all__ = ["Number", "middle", "p99", "spread"]


@dataclass(frozen=True, slots=True)
class Number:
    """What was measured, and of what it is a summary."""

    what: str
    value: float
    unit: str
    of: str
    digits: int = 2


def p99(values: Sequence[float]) -> float:
    """Return what one value in a hundred exceeds."""
    return quantiles(values, n=100)[98]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return how far the rounds lie apart, for the table."""
    return f"median of {len(values)} rounds, {min(values):.{digits}f} to {max(values):.{digits}f}"


def middle(what: str, values: Sequence[float], unit: str, digits: int = 2) -> Number:
    """Return the median of rounds."""
    return Number(what, median(values), unit, spread(values, digits), digits)
