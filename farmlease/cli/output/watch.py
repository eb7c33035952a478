"""A list that is watched: drawn anew on a terminal, told as changes elsewhere.

Elsewhere each change is one line of JSON: the row as ``-o json`` has it, and before it ``change``: ``present`` (there
from the start), ``appeared``, ``changed`` or ``gone`` (then only what the row is known by). It never ends by itself:
the reader hangs up, or Ctrl-C.
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

from farmlease.cli.output.format import Column, Format, Row, check_reader, line, titles
from farmlease.cli.output.table import screen_lines
from farmlease.errors import AgentUnavailable, StoreUnavailable

__all__ = ["Watched", "follow"]

#: Seconds between two looks; a look that takes long is followed by a rest of as many times as long.
EVERY = 2.0
_RESTS = 4

Rows = Callable[[], Iterable[Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A list that is watched."""

    rows: Rows  #: called at each look
    key: Sequence[str]  #: what makes a row the same one at the next look
    table: Sequence[str | Column]
    moving: Callable[[Row], Sequence[str]] = lambda _: ()  #: keys of a row that move with the clock: no change


def follow(
    watched: Watched, fmt: Format, *, rest: Callable[[float], None] = time.sleep, looks: int | None = None
) -> None:
    """Watch a list, for ever or for so many ``looks``. ``-o csv`` is wrong usage: a change is no row."""
    if fmt == "csv":
        raise click.UsageError("--follow prints a table, or JSON with -o json or in a pipe; leave -o csv out.")
    show = _drawing(watched) if fmt == "table" and sys.stdout.isatty() else _telling(watched)
    for number in count() if looks is None else range(looks):
        began = time.monotonic()
        try:
            show()
        except (StoreUnavailable, AgentUnavailable) as error:
            if number == 0:
                raise
            click.echo(f"farmlease: {error}; trying again", err=True)
        check_reader()
        rest(max(EVERY, _RESTS * (time.monotonic() - began)))


def _drawing(watched: Watched) -> Callable[[], None]:
    """Return what draws the list anew, as much of it as the screen holds."""

    def draw() -> None:
        size = shutil.get_terminal_size()
        lines = (line(row, watched.table) for row in watched.rows())
        shown, more = screen_lines(lines, titles(watched.table), size.columns, size.lines - 2)
        click.clear()
        click.echo("\n".join(shown))
        told = "more than the screen holds, " if more else ""
        click.echo(f"{told}{datetime.now(UTC):%H:%M:%S} UTC, Ctrl-C ends it", nl=False)

    return draw


def _telling(watched: Watched) -> Callable[[], None]:
    """Return what tells what has changed since it was last called; it remembers a digest of each row."""
    known: dict[tuple[object, ...], int] | None = None

    def tell() -> None:
        nonlocal known
        now = dict[tuple[object, ...], int]()
        for row in watched.rows():
            key = tuple(row.get(name) for name in watched.key)
            moving = watched.moving(row)
            now[key] = digest = hash(json.dumps({k: v for k, v in row.items() if k not in moving}))
            if known is None:
                _tell("present", row)
            elif key not in known:
                _tell("appeared", row)
            elif known[key] != digest:
                _tell("changed", row)
        for key in (known or {}).keys() - now.keys():
            _tell("gone", dict(zip(watched.key, key, strict=True)))
        sys.stdout.flush()
        known = now

    return tell


def _tell(change: str, row: Row) -> None:
    sys.stdout.write(json.dumps({"change": change, **row}) + "\n")
