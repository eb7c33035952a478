"""Durations as administrators write them, ``"90s"``, ``"120m"``, ``"24h"``, ``"30d"``, and as milliseconds.

A bare number is refused, because its unit would be a guess; only 0 needs none.
This module must stay light: ``farmlease session …`` imports it at every logon.
"""

import re

from farmlease.errors import InvalidInput

__all__ = ["LONGEST_MS", "format_duration", "parse_duration"]

#: Milliseconds of each unit, longest first, so that formatting takes the longest that divides.
_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_FORM = re.compile(r"([0-9]{1,16})(ms|s|m|h|d)")

#: A hundred years. A deadline stays far below 2^53 ms, the last whole number that Lua counts exactly.
LONGEST_MS = 36_525 * _UNITS["d"]


def parse_duration(text: str) -> int:
    """Return the milliseconds that ``"90s"`` and the like mean; raises InvalidInput."""
    if text == "0":
        return 0
    form = _FORM.fullmatch(text)
    if form is None:
        raise InvalidInput(
            'not a duration: write a whole number and its unit (ms, s, m, h or d), such as "90s" or "24h"'
        )
    number, unit = form.groups()
    span = int(number) * _UNITS[unit]
    if span > LONGEST_MS:
        raise InvalidInput(f"a duration of more than {format_duration(LONGEST_MS)}: write a shorter one")
    return span


def format_duration(span_ms: int) -> str:
    """Return the shortest spelling that ``parse_duration`` reads back; ``span_ms`` is not negative."""
    if span_ms == 0:
        return "0s"
    unit, size = next((unit, size) for unit, size in _UNITS.items() if span_ms % size == 0)
    return f"{span_ms // size}{unit}"
