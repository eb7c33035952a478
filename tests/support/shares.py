"""In which order the workers of pytest-xdist get the tests."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

__all__ = ["LONGEST", "dealt"]

T = TypeVar("T")

TESTS = Path(__file__).parents[1]
#: Files in which one test takes ten seconds or more.
LONGEST = {
    TESTS / name
    for name in (
        "deploy/test_guide.py",
        "farm/test_demo.py",
        "simulation/test_simulation.py",
        "simulation/test_store.py",
        "store/test_model.py",
        "store/test_race.py",
        "store/test_rules_room.py",
        "test_readme.py",
        "test_timelines.py",
    )
}


def dealt(longest: Sequence[T], others: Sequence[T], workers: int) -> list[T]:
    """Return all of them such that each worker's stretch begins with its part of the longest.

    A stretch is what xdist makes it: of what is left, an equal part for each worker that has nothing yet.
    """
    rest = iter(others)
    left, order = len(longest) + len(others), []
    for number in range(workers):
        begin = longest[number::workers]
        size = left // (workers - number)
        order += [*begin, *first(rest, size - len(begin))]
        left -= size
    return order


def first(rest: Iterable[T], most: int) -> Iterable[T]:
    """Take so many from what is left."""
    return [each for _, each in zip(range(most), rest, strict=False)]
