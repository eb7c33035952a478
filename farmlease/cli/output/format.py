"""How lists look: a table for people, JSON and CSV for programs. The only place that knows.

A cell is shown as it is: nothing is cut, coloured by its content or read as markup. Rows are printed as they come, so
that a list may be of any length. What only a table or a terminal needs is imported when there is one and not before, so
that a command that prints one line never pays for it.
"""

import errno
import json
import os
import select
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

import click

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
    "folded",
    "follow_option",
    "heading",
    "line",
    "output_option",
    "text",
    "titles",
    "write_csv",
    "write_json",
    "write_rows",
    "write_table",
]

#: Columns that are too few to fold a line in.
_NARROWEST = 60

Format = Literal["table", "json", "csv"]
Row = Mapping[str, object]

Command = TypeVar("Command", bound=Callable[..., object])


def output_option(command: Command) -> Command:
    """Give a command ``-o table|json|csv``, handed to it as ``fmt``."""
    return click.option(
        "-o", "--output", "fmt", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True,
        help="How to print it.",
    )(command)  # fmt: skip


def follow_option(command: Command) -> Command:
    """Give a command ``--follow``, handed to it as ``watch``: see ``watch.py``."""
    return click.option(
        "--follow", "watch", is_flag=True,
        help="Go on: drawn anew on a terminal, elsewhere changes as lines of JSON. Ctrl-C ends it.",
    )(command)  # fmt: skip


def emit(
    rows: Iterable[Row], columns: Sequence[str], fmt: Format, *, table: Sequence["str | Column"] | None = None
) -> None:
    """Print ``rows`` to stdout as they come: none of the three ever holds all of them.

    ``columns`` are the keys shown, in order, in a table and in CSV; "lease.id" reaches into a nested object and is
    headed "lease_id". A missing key or None is an empty cell. ``table``: what people see instead, if not the same.
    JSON is a list of the whole rows, one to a line.
    """
    if fmt == "json":
        write_rows(rows)
    elif fmt == "csv":
        write_csv(rows, columns)
    else:
        write_table(rows, columns if table is None else table)


def emit_one(row: Row, columns: Sequence[str], fmt: Format) -> None:
    """Print one thing: a JSON object, one CSV line under its header, or a table of its properties."""
    if fmt == "json":
        write_json(row)
    elif fmt == "csv":
        write_csv([row], columns)
    else:
        draw([(heading(column), cell(row, column)) for column in columns], None)


def check_reader() -> None:
    """Raise BrokenPipeError, as a write would, if who reads stdout has hung up; for who may not write for long.

    Windows does not say; there a write finds out.
    """
    if sys.platform != "win32":
        try:
            stdout = sys.stdout.fileno()
        except (OSError, ValueError):
            return  # not the system's
        look = select.poll()
        look.register(stdout, 0)  # what ends it is told unasked
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in look.poll(0)):
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
    """Print CSV with a header. Every cell is quoted and none is altered: a program must read back what was there."""
    import csv

    # Text streams end lines as the platform does, so the writer must not.
    writer = csv.writer(sys.stdout, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow([heading(column) for column in columns])
    writer.writerows([cell(row, column) for column in columns] for row in rows)
    sys.stdout.flush()


def write_table(rows: Iterable[Row], columns: Sequence["str | Column"]) -> None:
    """Print a table under its headings."""
    draw((line(row, columns) for row in rows), titles(columns))


def draw(lines: Iterable[Sequence[str]], headings: Sequence[str] | None) -> None:
    """Print a table: within the terminal's width with cells folded, else as wide as it must be, in plain columns."""
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
    """A column of a table that shows a row in words of its own."""

    name: str
    show: Callable[[Row], str]


def heading(column: str) -> str:
    """Return the name a column is headed with."""
    return column.replace(".", "_")


def cell(row: Row, column: str) -> str:
    """Return the text of one cell."""
    value: object = row
    if "." not in column:  # nearly all of them, in lists that may be long
        return text(row.get(column))
    for key in column.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return text(value)


def text(value: object) -> str:
    """Return a value in words: lists by "; ", the values of an object by blanks, without those that are None."""
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


def folded(line: str, indent: int) -> str:
    """Fold a line at the terminal's width, what is continued that far in; elsewhere it stays one."""
    import textwrap

    width = _width()
    if not sys.stdout.isatty() or len(line) <= width or width < _NARROWEST:
        return line
    return textwrap.fill(
        line, width, subsequent_indent=" " * indent, drop_whitespace=True, break_on_hyphens=False,
        replace_whitespace=False,
    )  # fmt: skip


def day_and_time(value: object) -> str:
    """Return a time of a document (RFC 3339, UTC) as "2026-12-21 09:00"; nothing for none."""
    return str(value)[:16].replace("T", " ") if value else ""


def _width() -> int:
    """Return how many columns the terminal has."""
    import shutil

    return shutil.get_terminal_size().columns
