"""Tables for people, printed as the rows come: the first page decides how wide the columns are.

On a terminal a table keeps within its width: long cells are folded, never cut. In a pipe each row is one line, however
long. A cell's text is shown whole, with what a terminal would obey or nobody sees escaped. rich.table would need all
rows before the first line; this module must never hold more than a page of them.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import click
from rich.cells import cell_len, chop_cells

from farmlease.cli import printable
from farmlease.cli.output.colours import STATE_HEADINGS, paint, strong, tone_of

__all__ = ["Line", "screen_lines", "write"]

Line = Sequence[str]

#: Rows that are measured and written at a time.
PAGE = 500
_GAP = 2
#: Where a cell may be broken, best first: between the items of a list, between words, at separators inside a name.
_PIECES = (re.compile(r".*?, |.+"), re.compile(r"[^ ]* |[^ ]+"), re.compile(r"[^-\\@._/ ]*[-\\@._/ ]|[^-\\@._/ ]+"))
_NUMBER = re.compile(r"\d+(\.\d+)?")
#: No column is made narrower than this, or than its longest word if that is shorter.
_LEAST = 8


def write(lines: Iterable[Line], headings: Line | None, width: int | None) -> None:
    """Write a table to stdout. ``width``: of the terminal; None: each row is one line."""
    source = map(_clean, lines)
    first = list(islice(source, PAGE))
    if headings is None and not first:
        return
    columns, fold = _columns(headings, first, width), width is not None
    if headings:
        click.echo(_head(headings, columns, on_terminal=fold))
    while first:
        drawn = chain.from_iterable(_drawn(line, columns, fold=fold) for line in first)
        click.echo("".join(f"{text}\n" for text in drawn), nl=False)
        first = list(islice(source, PAGE))


def screen_lines(lines: Iterable[Line], headings: Line, width: int, height: int) -> tuple[list[str], bool]:
    """Return the lines that fit on a screen, with the headings, and whether there are more."""
    source = map(_clean, lines)
    first = list(islice(source, height))
    columns = _columns(headings, first, width)
    drawn = [_head(headings, columns, on_terminal=True).splitlines()]
    drawn += [_drawn(line, columns, fold=True) for line in first]
    shown = list(chain.from_iterable(drawn))
    return shown[:height], len(shown) > height or next(source, None) is not None


class _Column(NamedTuple):
    """How wide a column is, whether it holds numbers, which are aligned to the right, or states, which are coloured."""

    width: int
    numbers: bool
    states: bool


def _columns(headings: Line | None, first: Sequence[Line], width: int | None) -> list[_Column]:
    """Measure columns. The first names the row: a session's id is no number, even if it looks like one."""
    lines = [headings, *first] if headings else first
    columns = list(zip(*lines, strict=True))
    numbers = [at > 0 and len(cells) > 1 and all(map(_NUMBER.fullmatch, cells[1:])) for at, cells in enumerate(columns)]
    states = [heading in STATE_HEADINGS for heading in headings] if headings else [False] * len(columns)
    return [_Column(*each) for each in zip(_widths(lines, width), numbers, states, strict=True)]


def _widths(lines: Sequence[Line], width: int | None) -> list[int]:
    """Return the columns' widths: as their cells need; the widest are narrowed until the table fits."""
    columns = list(zip(*lines, strict=True))
    needed = [max(map(_width, column)) for column in columns]
    if width is None:
        return needed
    least = [min(need, max(_LEAST, _width(column[0]))) for need, column in zip(needed, columns, strict=True)]
    room = width - _GAP * (len(needed) - 1)
    while sum(needed) > room and needed != least:
        widest = max(range(len(needed)), key=lambda at: needed[at] - least[at])
        needed[widest] -= 1
    while sum(needed) > room and max(needed) > 1:  # a terminal too narrow for its headings
        needed[needed.index(max(needed))] -= 1
    return needed


def _head(headings: Line, columns: Sequence[_Column], *, on_terminal: bool) -> str:
    drawn = "\n".join(_drawn(headings, columns, fold=on_terminal))
    if not on_terminal:
        return drawn
    utf8 = (sys.stdout.encoding or "").lower().startswith("utf")
    rule = ("─" if utf8 else "-") * (sum(column.width for column in columns) + _GAP * (len(columns) - 1))
    return f"{strong(drawn)}\n{rule}"


def _drawn(cells: Line, columns: Sequence[_Column], *, fold: bool) -> list[str]:
    """Return the lines of one row: as many as its longest cell needs."""
    if not fold or all(_width(cell) <= column.width for cell, column in zip(cells, columns, strict=True)):
        return [_joined(cells, cells, columns)]
    folded = [list(_folded(cell, column.width)) for cell, column in zip(cells, columns, strict=True)]
    height = max(map(len, folded))
    lines = [[parts[at] if at < len(parts) else "" for parts in folded] for at in range(height)]
    return [_joined(parts, cells, columns) for parts in lines]


def _joined(parts: Line, cells: Line, columns: Sequence[_Column]) -> str:
    """Return one line of a row: the ``parts`` of its ``cells`` that stand in it."""
    padded = []
    for part, cell, column in zip(parts, cells, columns, strict=True):
        blanks = " " * (column.width - _width(part))
        shown = paint(part, tone_of(cell)) if column.states else part
        padded.append(blanks + part if column.numbers else shown + blanks)
    return (" " * _GAP).join(padded).rstrip()


def _folded(cell: str, width: int) -> Iterator[str]:
    """Yield a cell in parts no wider than ``width``, broken at separators or, if there are none, anywhere."""
    part = ""
    for piece in _pieces(cell, width, *_PIECES):
        if _width((part + piece).rstrip()) <= width:
            part += piece
            continue
        if part:
            yield part.rstrip()
        *whole, part = chop_cells(piece.rstrip(), width) or [""]
        yield from whole
        part += " " * (piece[-1:] == " ")
    yield part.rstrip()


def _pieces(cell: str, width: int, where: re.Pattern[str], *finer: re.Pattern[str]) -> Iterator[str]:
    """Yield a cell in pieces, each with the separator at its end; only pieces that are too wide are broken finer."""
    for piece in where.findall(cell):
        if finer and _width(piece.rstrip()) > width:
            yield from _pieces(piece, width, *finer)
        else:
            yield piece


def _width(cell: str) -> int:
    """Return how many columns of a terminal a cell takes; rich's cell_len, which caches cells, only if not ASCII."""
    return len(cell) if cell.isascii() else cell_len(cell)


def _clean(line: Line) -> Line:
    """Return a row with what a terminal would obey, or nobody sees, escaped."""
    if all(map(str.isascii, line)) and all(map(str.isprintable, line)):
        return line
    return [printable(cell) for cell in line]
