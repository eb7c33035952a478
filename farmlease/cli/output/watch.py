"""A list that is watched: redrawn on a terminal, printed as changes elsewhere.

Elsewhere each change is one line of JSON: the row as ``-o json`` has it, and before it ``change``: ``present`` (there
from the start), ``appeared``, ``changed`` or ``gone`` (then only the key of the row). It ends only when the reader
closes the pipe, or by Ctrl-C.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count

import click

from farmlease.cli import print_stderr
from farmlease.cli.output.format import Column, Format, Row, check_reader, line, titles
from farmlease.cli.output.table import screen_lines
from farmlease.errors import AgentUnavailable, StoreUnavailable

__all__ = ["WatchedList", "watch_list"]

#: Seconds between two reads; after a slow read, so many times its duration.
EVERY = 2.0
_PAUSE_FACTOR = 4

Rows = Callable[[], Iterable[Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedList:
    """What to read, and how to recognise and show its rows."""

    rows: Rows  #: called at each read
    key: Sequence[str]  #: keys that identify a row
    table: Sequence[str | Column]
    volatile: Callable[[Row], Sequence[str]] = lambda _: ()  #: keys of a row that change with the clock: no change


def watch_list(
    watched: WatchedList, fmt: Format, *, pause: Callable[[float], None] = time.sleep, reads: int | None = None
) -> None:
    """Watch a list, for ever or for so many ``reads``. ``-o csv`` is a usage error: a change is no row."""
    if fmt == "csv":
        raise click.UsageError("--follow prints a table, or JSON with -o json or in a pipe; leave -o csv out.")
    show = _drawer(watched) if fmt == "table" and sys.stdout.isatty() else _change_printer(watched)
    for number in count() if reads is None else range(reads):
        began = time.monotonic()
        try:
            show()
        except (StoreUnavailable, AgentUnavailable) as error:
            if number == 0:
                raise
            print_stderr(f"{error}; trying again")
        check_reader()
        pause(max(EVERY, _PAUSE_FACTOR * (time.monotonic() - began)))


def _drawer(watched: WatchedList) -> Callable[[], None]:
    """Return the function that redraws the list, as much as fits on the screen."""

    def draw() -> None:
        size = shutil.get_terminal_size()
        lines = (line(row, watched.table) for row in watched.rows())
        shown, more = screen_lines(lines, titles(watched.table), size.columns, size.lines - 2)
        click.clear()
        click.echo("\n".join(shown))
        note = "more than the screen holds, " if more else ""
        click.echo(f"{note}{datetime.now(UTC):%H:%M:%S} UTC, Ctrl-C ends it", nl=False)

    return draw


def _change_printer(watched: WatchedList) -> Callable[[], None]:
    """Return the function that prints the changes since its last call; it keeps a digest of each row."""
    known: dict[tuple[object, ...], int] | None = None

    def print_changes() -> None:
        nonlocal known
        now = dict[tuple[object, ...], int]()
        for row in watched.rows():
            key = tuple(row.get(name) for name in watched.key)
            volatile = watched.volatile(row)
            now[key] = digest = hash(json.dumps({k: v for k, v in row.items() if k not in volatile}))
            if known is None:
                _print_change("present", row)
            elif key not in known:
                _print_change("appeared", row)
            elif known[key] != digest:
                _print_change("changed", row)
        for key in (known or {}).keys() - now.keys():
            _print_change("gone", dict(zip(watched.key, key, strict=True)))
        sys.stdout.flush()
        known = now

    return print_changes


def _print_change(change: str, row: Row) -> None:
    sys.stdout.write(json.dumps({"change": change, **row}) + "\n")
