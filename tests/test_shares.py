"""No worker of a whole run ends with what takes longest."""

import pytest

from tests.support.shares import LONGEST, dealt


def test_each_stretch_begins_with_its_part_of_the_longest() -> None:
    """Seven tests for three workers are stretches of two, two and three."""
    assert ["A", 1, "B", 2, "C", 3, 4] == dealt(["A", "B", "C"], [1, 2, 3, 4], 3)


@pytest.mark.parametrize(("longest", "others", "workers"), [(0, 5, 2), (7, 100, 4), (5, 0, 2), (9, 3, 4), (1, 1, 4)])
def test_nothing_is_left_out(longest: int, others: int, workers: int) -> None:
    """Each test is there once, however few there are."""
    assert [*range(longest + others)] == sorted(dealt(range(longest), range(longest, longest + others), workers))


def test_the_longest_are_there() -> None:
    """A file that was renamed would begin last again."""
    assert [] == [file for file in sorted(LONGEST) if not file.is_file()]
