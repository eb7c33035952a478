"""The vendor's list of borrowed licences as CSV: user, machine and time (QlikView's BorrowedCalData).

Columns ``UserName``, ``MachineId`` and ``UtcBorrowTime``, in any order and case; others are ignored. A row that cannot
be valid is returned with its line and the reason, and never stops the rows after it. This module reads text only: it
does not decide whether a name can be a user's, or whether a seat is free.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from farmlease.errors import InvalidInput

__all__ = ["LicenceRow", "RejectedRow", "borrow_time", "read_vendor_csv"]

_COLUMNS = ("UserName", "MachineId", "UtcBorrowTime")
_DELIMITERS = (",", ";", "\t")
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}

_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", re.ASCII)
_AMERICAN = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d{1,2}):(\d\d):(\d\d) (AM|PM)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HALF_DAY = 12


@dataclass(frozen=True, slots=True)
class LicenceRow:
    """One row: a user has a licence on a machine. ``borrowed_at`` in ms; None: assigned, never used."""

    line: int
    user: str
    machine: str
    borrowed_at: int | None


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """One row that cannot be imported, and why. ``why`` holds no name: the file has it."""

    line: int
    why: str


def read_vendor_csv(data: bytes) -> Iterator[LicenceRow | RejectedRow]:
    """Yield each row of a CSV file in order; InvalidInput if a column is missing or the file is no text."""
    lines = list(io.StringIO(_text(data), newline=""))
    start = next((number for number, line in enumerate(lines) if line.strip()), 0)
    delimiter, places = _header("".join(lines[start : start + 1]))
    for number, row in _rows(lines, start + 1, delimiter):
        if isinstance(row, RejectedRow):
            yield row
        elif any(cell.strip() for cell in row):
            yield _licence_row(number, row, places)


def borrow_time(text: str) -> int | None:
    """Return the milliseconds of a time in UTC as vendors write it, None if it is empty; InvalidInput otherwise.

    RFC 3339, ``2026-01-05 09:00:00`` and ``1/5/2026 9:00:00 AM`` (month first) are known.
    """
    if not text:
        return None
    try:
        time = _time(text)
        since = time - _EPOCH
    except (ValueError, OverflowError):
        raise InvalidInput("the time is none that exists; the month comes first in 1/31/2026") from None
    if since < timedelta():
        raise InvalidInput("the time is before 1970; leave it empty for a licence never used")
    return since // timedelta(milliseconds=1)


def _text(data: bytes) -> str:
    try:
        return data.decode(_BYTE_ORDER_MARKS.get(data[:2], "utf-8-sig"))
    except ValueError:
        raise InvalidInput("is not UTF-8 text; save it as such") from None


def _header(line: str) -> tuple[str, tuple[int, ...]]:
    """Return the delimiter and the position of each column."""
    for delimiter in _DELIMITERS:
        try:
            (names,) = csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True)
        except (ValueError, csv.Error):
            continue
        found = [name.strip().casefold() for name in names]
        if all(found.count(column.casefold()) == 1 for column in _COLUMNS):
            return delimiter, tuple(found.index(column.casefold()) for column in _COLUMNS)
    raise InvalidInput(f"the first line must name the columns {', '.join(_COLUMNS)}, each once")


def _rows(lines: list[str], start: int, delimiter: str) -> Iterator[tuple[int, list[str] | RejectedRow]]:
    """Yield each row with the line (from 1) it begins on. After a faulty row, reading goes on with the next line."""
    while start < len(lines):
        # A reader of its own: a quotation mark that is never closed swallows all lines that follow.
        reader = csv.reader(
            (lines[place] for place in range(start, len(lines))),
            delimiter=delimiter,
            strict=True,
            skipinitialspace=True,
        )
        begin = start
        try:
            for row in reader:
                yield begin + 1, row
                begin = start + reader.line_num
            start = len(lines)
        except csv.Error:
            yield begin + 1, RejectedRow(begin + 1, "is not CSV; look at its quotation marks")
            start = begin + 1


def _licence_row(line: int, row: Sequence[str], places: tuple[int, ...]) -> LicenceRow | RejectedRow:
    cells = [row[place].strip() if place < len(row) else None for place in places]
    for column, cell in zip(_COLUMNS, cells, strict=True):
        if cell is None:
            return RejectedRow(line, f"has no {column}: it ends before that column")
    user, machine, time = (cell or "" for cell in cells)
    for column, cell in ((_COLUMNS[0], user), (_COLUMNS[1], machine)):
        if not cell:
            return RejectedRow(line, f"the {column} is empty")
    try:
        return LicenceRow(line, user, machine, borrow_time(time))
    except InvalidInput as error:
        return RejectedRow(line, str(error))


def _time(text: str) -> datetime:
    """Return an instant; ValueError if ``text`` is none."""
    if found := _RFC_3339.fullmatch(text.upper()):
        date, clock, fraction, zone = found.groups()
        return datetime.fromisoformat(f"{date}T{clock}.{(fraction or '0')[:6]:0<6}{zone or 'Z'}")
    # Newer versions of Windows write a narrow space before AM and PM.
    if found := _AMERICAN.fullmatch(text.upper().replace("\u202f", " ")):
        month, day, year, hour, minute, second = map(int, found.groups()[:-1])
        if not 1 <= hour <= _HALF_DAY:
            raise ValueError
        hour = hour % _HALF_DAY + _HALF_DAY * (found[7] == "PM")
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    raise InvalidInput("the time is in no known form; write 2026-01-31 09:00:00, or 1/31/2026 9:00:00 AM")
