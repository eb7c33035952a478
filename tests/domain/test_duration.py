"""Durations as written and as milliseconds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmlease.domain.duration import LONGEST_MS, format_duration, parse_duration
from farmlease.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "span_ms"),
    [
        ("90s", 90_000),
        ("120m", 7_200_000),
        ("24h", 86_400_000),
        ("30d", 2_592_000_000),
        ("500ms", 500),
        ("0s", 0),
        ("0", 0),
        ("36525d", LONGEST_MS),
    ],
)
def test_units(text: str, span_ms: int) -> None:
    """A duration is a whole number and its unit; only 0 needs none."""
    assert span_ms == parse_duration(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "90",
        "00",
        "s",
        "-1s",
        "+1s",
        "1.5h",
        "1 h",
        " 1h",
        "1h ",
        "1h\n",
        "1H",
        "1w",
        "1h30m",
        "1_0s",
        "٣s",
        "36526d",
        "9" * 40 + "s",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """What is not a duration is refused with an example, never guessed at."""
    with pytest.raises(InvalidInput, match=r'such as "90s"|shorter'):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=LONGEST_MS))
def test_round_trip(span_ms: int) -> None:
    """A formatted duration reads back as the same span."""
    assert span_ms == parse_duration(format_duration(span_ms))


@pytest.mark.parametrize(("span_ms", "text"), [(0, "0s"), (90_000, "90s"), (7_200_000, "2h"), (1_500, "1500ms")])
def test_shortest_spelling(span_ms: int, text: str) -> None:
    """A span is shown in the longest unit that divides it."""
    assert text == format_duration(span_ms)
