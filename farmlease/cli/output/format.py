"""The formats of lists: a table for people, JSON and CSV for programs.

A cell is shown whole: nothing is cut, coloured by its content or read as markup. What a terminal would obey, or nobody
sees, is escaped in all three, as a list may come to a terminal later; JSON has the exact text for programs. In CSV
a cell that a spreadsheet would run is text. Rows are printed as they come, so that a list may be of any length. Modules
that only a table or a terminal needs are imported when one is printed: a command that prints one line pays for none.
"""

import errno
import json
import os
import re
import select
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

import click

from farmlease.cli import print_line, printable

__all__ = [
    "Column",
    "Format",
    "Row",
    "cell",
    "check_reader",
    "day_and_time",
    "draw",
    "emit",
    "emit_one",
    "follow_option",
    "heading",
    "line",
    "output_option",
    "print_folded",
    "text",
    "titles",
    "write_csv",
    "write_json",
    "write_rows",
    "write_table",
    "write_text",
]

#: Beginnings of a cell that a spreadsheet runs, in plain and in full width.
_RUN = "=+-@\t\r\n\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}"
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)
#: Terminals narrower than this get unfolded lines.
_NARROWEST = 60

Format = Literal["table", "json", "csv"]
Row = Mapping[str, object]

Command = TypeVar("Command", bound=Callable[..., object])


#: Gives a command ``-o table|json|csv``, handed to it as ``fmt``.
output_option = click.option(
    "-o",
    "--output",
    "fmt",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="Output format.",
)
#: Gives a command ``--follow``, handed to it as ``watch``: see ``watch.py``.
follow_option = click.option(
    "--follow",
    "watch",
    is_flag=True,
    help="Keep watching: redrawn on a terminal, elsewhere changes as lines of JSON. End with Ctrl-C.",
)


def emit(
    rows: Iterable[Row], columns: Sequence[str], fmt: Format, *, table: Sequence["str | Column"] | None = None
) -> None:
    """Print ``rows`` to stdout as they come: none of the three ever holds all of them.

    ``columns`` are the keys shown, in order, in a table and in CSV; "lease.id" reaches into a nested object and is
    headed "lease_id". A missing key or None is an empty cell. ``table``: the columns of a table, if different.
    JSON is a list of the whole rows, one to a line.
    """
    if fmt == "json":
        write_rows(rows)
    elif fmt == "csv":
        write_csv(rows, columns)
    else:
        write_table(rows, columns if table is None else table)


def emit_one(row: Row, columns: Sequence[str], fmt: Format) -> None:
    """Print one row: a JSON object, one CSV line under its header, or a table of its properties."""
    if fmt == "json":
        write_json(row)
    elif fmt == "csv":
        write_csv([row], columns)
    else:
        draw([(heading(column), cell(row, column)) for column in columns], None)


def check_reader() -> None:
    """Raise BrokenPipeError if the reader of stdout has closed it; for commands that may not write for a long time.

    Windows has no such check; there the next write fails.
    """
    if sys.platform != "win32":
        try:
            stdout = sys.stdout.fileno()
        except (OSError, ValueError):
            return  # not a file of the operating system
        poll = select.poll()
        poll.register(stdout, 0)  # errors and hang-ups are always reported
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def write_json(document: object) -> None:
    """Print ``document`` as indented JSON, in ASCII: it must survive any code page."""
    click.echo(json.dumps(document, indent=2))


def write_rows(rows: Iterable[Row]) -> None:
    """Print a list of JSON objects, one to a line, in ASCII."""
    before = "[\n "
    for row in rows:
        sys.stdout.write(f"{before} {json.dumps(row)}")
        before = ",\n "
    sys.stdout.write("[]\n" if before[0] == "[" else "\n]\n")
    sys.stdout.flush()


def write_csv(rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Print CSV with a header, every cell quoted.

    What a spreadsheet would run has an apostrophe before it, which it takes off again as it reads text; a number stays
    one. JSON is the format that gives every text as it is.
    """
    import csv

    # Text streams end lines as the platform does, so the writer must not.
    writer = csv.writer(sys.stdout, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow([heading(column) for column in columns])
    writer.writerows([_as_text(cell(row, column)) for column in columns] for row in rows)
    sys.stdout.flush()


def write_table(rows: Iterable[Row], columns: Sequence["str | Column"]) -> None:
    """Print a table under its headings."""
    draw((line(row, columns) for row in rows), titles(columns))


def draw(lines: Iterable[Sequence[str]], headings: Sequence[str] | None) -> None:
    """Print a table: on a terminal within its width with cells folded, elsewhere as wide as its cells."""
    from farmlease.cli.output.table import write

    write(lines, headings, _width() if sys.stdout.isatty() else None)


def line(row: Row, columns: Sequence["str | Column"]) -> list[str]:
    """Return the cells of a row of a table."""
    return [cell(row, column) if isinstance(column, str) else column.show(row) for column in columns]


def titles(columns: Sequence["str | Column"]) -> list[str]:
    """Return the headings of a table."""
    names = (heading(column) if isinstance(column, str) else column.name for column in columns)
    return [name.replace("_", " ").upper() for name in names]


class Column(NamedTuple):
    """A column of a table with its own text for a row."""

    name: str
    show: Callable[[Row], str]


def heading(column: str) -> str:
    """Return the heading of a column."""
    return column.replace(".", "_")


def cell(row: Row, column: str) -> str:
    """Return the text of one cell."""
    value: object = row
    if "." not in column:  # the usual case, in lists that may be long
        return text(row.get(column))
    for key in column.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return text(value)


def text(value: object) -> str:
    """Return a value as text: lists joined by "; ", the values of an object by blanks, without None."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(text(part) for part in value.values() if part is not None)
    if isinstance(value, list | tuple):
        return "; ".join(text(part) for part in value)
    return str(value)


def _as_text(cell: str) -> str:
    """Return a cell of CSV that no spreadsheet runs as a formula, and no terminal obeys."""
    runs = cell[:1] in _RUN and cell != "" and not _NUMBER.fullmatch(cell)
    return f"'{printable(cell)}" if runs else printable(cell)


def write_text(text: str) -> None:
    """Print a document of several lines, byte for byte; on a terminal as text, escaped."""
    if sys.stdout.isatty():
        for line in text.expandtabs().removesuffix("\n").split("\n"):
            print_line(line.removesuffix("\r"))
    else:
        click.echo(text.encode(), nl=False)


def print_folded(line: str, indent: int) -> None:
    """Print a line, on a terminal folded at its width, its continuation indented; "fail: …" begins in its colour."""
    from farmlease.cli.output.colours import paint, tone_of  # a logon would pay for it

    folded = _folded(line, indent)
    state, colon, rest = folded.partition(":")
    click.echo(f"{paint(state, tone_of(state))}{colon}{rest}" if state.isalpha() else folded)


def _folded(line: str, indent: int) -> str:
    """Fold a line at the terminal's width, its continuation indented; elsewhere it stays one line."""
    import textwrap

    line = printable(line)
    width = _width()
    if not sys.stdout.isatty() or len(line) <= width or width < _NARROWEST:
        return line
    return textwrap.fill(
        line,
        width,
        subsequent_indent=" " * indent,
        drop_whitespace=True,
        break_on_hyphens=False,
        replace_whitespace=False,
    )


def day_and_time(value: object) -> str:
    """Return a time of a document (RFC 3339, UTC) as "2026-12-21 09:00"; empty for none."""
    return str(value)[:16].replace("T", " ") if value else ""


def _width() -> int:
    """Return how many columns the terminal has."""
    import shutil

    return shutil.get_terminal_size().columns
