"""The vendor's books as they come: what a row means, and why a bad one is bad."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farmlease.domain.vendor_csv import LicenceRow, RejectedRow, borrow_time, read_vendor_csv
from farmlease.errors import InvalidInput

HEADER = "UserName,MachineId,UtcBorrowTime\n"
NINE = int(datetime(2026, 1, 5, 9, 0, tzinfo=UTC).timestamp() * 1000)


def read(text: str) -> list[LicenceRow | RejectedRow]:
    """Return every row of a text."""
    return list(read_vendor_csv(text.encode()))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2026-01-05T09:00:00Z", NINE),
        ("2026-01-05t09:00:00z", NINE),
        ("2026-01-05T10:00:00+01:00", NINE),
        ("2026-01-05T09:00:00.25Z", NINE + 250),
        ("2026-01-05T09:00:00.123456789Z", NINE + 123),
        ("2026-01-05T09:00:00", NINE),
        ("2026-01-05 09:00:00", NINE),
        ("1/5/2026 9:00:00 AM", NINE),
        ("01/05/2026 09:00:00 am", NINE),
        ("1/5/2026 9:00:00\u202fAM", NINE),
        ("1/5/2026 9:00:00 PM", NINE + 12 * 3_600_000),
        ("1/5/2026 12:00:00 AM", NINE - 9 * 3_600_000),
        ("1/5/2026 12:30:00 PM", NINE + 3 * 3_600_000 + 1_800_000),
        ("", None),
    ],
)
def test_times_as_books_write_them(text: str, told: int | None) -> None:
    """RFC 3339 with or without its zone, and the American form, all in UTC; empty is never used."""
    assert told == borrow_time(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("yesterday", "no known form"),
        ("2026-01-05", "no known form"),
        ("20260105T090000Z", "no known form"),
        ("5.1.2026 09:00:00", "no known form"),
        ("1/5/2026 09:00", "no known form"),
        ("1/5/26 9:00:00 AM", "no known form"),
        ("\u0661/5/2026 9:00:00 AM", "no known form"),
        ("13/1/2026 9:00:00 AM", "none that exists; the month comes first"),
        ("1/5/2026 13:00:00 PM", "none that exists"),
        ("1/5/2026 0:00:00 AM", "none that exists"),
        ("2026-02-30 09:00:00", "none that exists"),
        ("2026-01-05 24:00:00", "none that exists"),
        ("0001-01-01T00:00:00+23:59", "before 1970"),
        ("1969-12-31 23:59:59", "before 1970"),
        ("1/1/0001 12:00:00 AM", "before 1970"),
    ],
)
def test_no_time_is_guessed(text: str, told: str) -> None:
    """A time that is none, or that could be two, is refused."""
    with pytest.raises(InvalidInput, match=told):
        borrow_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "UserName,MachineId,UtcBorrowTime\njohn,M1,2026-01-05 09:00:00\n",
        "\ufeffusername;MACHINEID;utcborrowtime\r\njohn;M1;2026-01-05 09:00:00\r\n",
        "UtcBorrowTime\tUserName\tCal\tMachineId\n2026-01-05 09:00:00\tjohn\t7\tM1",
        '"UserName", "MachineId","UtcBorrowTime"\n" john ",M1,"1/5/2026 9:00:00 AM"\n',
        '"Note, if any",UserName,MachineId,UtcBorrowTime\n"a, ""b""\nc",john,M1,2026-01-05T09:00:00Z,more\n',
    ],
)
def test_columns_are_found_by_their_names(text: str) -> None:
    """Order, case, delimiter, byte order mark, line ends, quotation marks and other columns make no difference."""
    (row,) = read(text)
    assert isinstance(row, LicenceRow)
    assert ("john", "M1", NINE) == (row.user, row.machine, row.borrowed_at)


def test_windows_text_is_read() -> None:
    """UTF-16 with its mark, as some programs of Windows save it."""
    assert [LicenceRow(2, "jörg", "M1", None)] == list(read_vendor_csv(f"{HEADER}jörg,M1,\n".encode("utf-16")))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "the first line must name the columns"),
        (b"john,M1,2026-01-05 09:00:00\n", "the first line must name the columns UserName, MachineId, UtcBorrowTime"),
        (b"UserName,MachineId\n", "the first line"),
        (b"UserName,UserName,MachineId,UtcBorrowTime\n", "each once"),
        (b'"UserName,MachineId,UtcBorrowTime\n', "the first line"),
        (HEADER.encode() + b"j\xf6rg,M1,\n", "is not UTF-8 text"),
        (b"\xff\xfeU", "is not UTF-8 text"),
    ],
)
def test_what_is_no_book_is_refused_as_a_whole(data: bytes, told: str) -> None:
    """Without the columns nothing can be meant."""
    with pytest.raises(InvalidInput, match=told):
        list(read_vendor_csv(data))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (",M1,", "the UserName is empty"),
        ("john, ,", "the MachineId is empty"),
        ("john", "has no MachineId: it ends before that column"),
        ("john,M1", "has no UtcBorrowTime: it ends before that column"),
        ("john,M1,soon", "the time is in no known form"),
        ('john,"M1"x,', "is not CSV"),
        ('"john,M1,', "is not CSV"),
        ("john," + "M" * 200_000 + ",", "is not CSV"),
    ],
)
def test_a_bad_row_is_told_and_the_others_are_read(row: str, told: str) -> None:
    """Its line and its reason, without a name; a quotation mark never closed swallows nobody."""
    first, bad, third, last = read(f"{HEADER}ann,A1,\n{row}\nzoe,Z1,\nzac,Z2,\n")
    assert (LicenceRow(2, "ann", "A1", None), LicenceRow(4, "zoe", "Z1", None)) == (first, third)
    assert LicenceRow(5, "zac", "Z2", None) == last
    assert isinstance(bad, RejectedRow)
    assert 3 == bad.line
    assert told in bad.why
    assert "john" not in bad.why


def test_lines_are_counted_as_an_editor_does() -> None:
    """Empty lines and cells over several lines count, and are no rows."""
    rows = read(f'\n{HEADER}\n,,\n"jo\nhn",M1,\nzoe,Z1,\n')
    assert [5, 7] == [row.line for row in rows]


@given(st.text(max_size=200))
def test_any_text_is_read_to_its_end(text: str) -> None:
    """Whatever stands in a file: each row is one or is told as bad, with rising lines."""
    rows = list(read_vendor_csv((HEADER + text).encode("utf-8", "replace")))
    lines = [row.line for row in rows]
    assert lines == sorted(set(lines))
    assert all(row.why for row in rows if isinstance(row, RejectedRow))
