"""How lists look: a table for people, JSON and CSV for programs. The only place that knows.

A cell is shown as it is: nothing is cut, coloured by its content or read as markup. rich is imported when a table is
drawn and not before, so that a command that prints one line never pays for it.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import click

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "Format",
    "Row",
    "cell",
    "draw",
    "emit",
    "emit_one",
    "fill",
    "heading",
    "output_option",
    "text",
    "write_csv",
    "write_json",
    "write_table",
]

Format = Literal["table", "json", "csv"]
Row = Mapping[str, object]

Command = TypeVar("Command", bound=Callable[..., object])


def output_option(command: Command) -> Command:
    """Give a command ``-o table|json|csv``, handed to it as ``fmt``."""
    return click.option(
        "-o", "--output", "fmt", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True,
        help="How to print it.",
    )(command)  # fmt: skip


def emit(rows: Iterable[Row], columns: Sequence[str], fmt: Format) -> None:
    """Print ``rows`` to stdout.

    ``columns`` are the keys shown, in order, in a table and in CSV; "lease.id" reaches into a nested object and is
    headed "lease_id". A missing key or None is an empty cell. JSON is a list of the whole rows.
    """
    if fmt == "json":
        write_json(list(rows))
    elif fmt == "csv":
        write_csv(rows, columns)
    else:
        write_table(rows, columns)


def emit_one(row: Row, columns: Sequence[str], fmt: Format) -> None:
    """Print one thing: a JSON object, one CSV line under its header, or a table of its properties."""
    if fmt == "json":
        write_json(row)
    elif fmt == "csv":
        write_csv([row], columns)
    else:
        draw([(heading(column), cell(row, column)) for column in columns], None)


def write_json(document: object) -> None:
    """Print ``document`` as indented JSON, in ASCII: it must survive any code page."""
    click.echo(json.dumps(document, indent=2))


def write_csv(rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Print CSV with a header. Every cell is quoted and none is altered: a program must read back what was there."""
    import csv

    # Text streams end lines as the platform does, so the writer must not.
    writer = csv.writer(sys.stdout, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow([heading(column) for column in columns])
    writer.writerows([cell(row, column) for column in columns] for row in rows)
    sys.stdout.flush()


def write_table(rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Print a table under its headings."""
    draw([[cell(row, column) for column in columns] for row in rows], [heading(column) for column in columns])


def draw(lines: Iterable[Sequence[str]], headings: Sequence[str] | None) -> None:
    """Print a table: within the terminal's width with cells folded, else as wide as it must be, in plain columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    table = Table(
        box=box.SIMPLE_HEAD if terminal and headings else None,
        show_header=headings is not None,
        show_edge=False,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    width = len(headings) if headings is not None else 2
    for index in range(width):
        title = headings[index].replace("_", " ").upper() if headings is not None else None
        table.add_column(title or "", overflow="fold")
    fill(table, lines)
    if terminal:
        Console(markup=False, highlight=False).print(table)
        sys.stdout.flush()
        return
    console = Console(markup=False, highlight=False, no_color=True, force_terminal=False, width=1_000_000)
    with console.capture() as capture:
        console.print(table)
    # rich pads every line to the table's width, which a pipe has no use for.
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def fill(table: "Table", lines: Iterable[Sequence[str]]) -> None:
    """Add the rows as plain text: rich would read a "[" in a cell as markup."""
    from rich.text import Text

    for line in lines:
        table.add_row(*(Text(content) for content in line))


def heading(column: str) -> str:
    """Return the name a column is headed with."""
    return column.replace(".", "_")


def cell(row: Row, column: str) -> str:
    """Return the text of one cell."""
    value: object = row
    for key in column.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return text(value)


def text(value: object) -> str:
    """Return a value in words: lists by "; ", the values of an object by blanks, without those that are None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(text(part) for part in value.values() if part is not None)
    if isinstance(value, list | tuple):
        return "; ".join(text(part) for part in value)
    return str(value)
