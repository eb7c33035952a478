"""``python -m tests.benchmarks [--quick] [--only P3] [--json]``: what farmlease costs, against the limit and the peers.

``python -m tests.benchmarks --against REV [--rounds N]``: what it costs, against what an earlier commit of it did.

Real servers and processes on this machine, servers on one core and clients on the other; each figure is the ratio of two
things measured side by side, in turns. After each the effects are checked: a figure of something that did not happen is
none. Where other work goes on, `chrt -f 1 python -m tests.benchmarks` (as root, on Linux) lets it wait meanwhile.
"""

import argparse
import asyncio
import importlib
import json
import platform
import sys
import traceback
from collections.abc import Awaitable, Callable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.benchmarks import against
from tests.benchmarks.figures import Figure, Missing


def _later(module: str, name: str) -> Callable[[int], Awaitable[list[Figure]]]:
    """Import a group when it is measured: with --against nothing of the package may be in this process."""

    async def measure(scale: int) -> list[Figure]:
        found: list[Figure] = await getattr(importlib.import_module(f"tests.benchmarks.{module}"), name)(scale)
        return found

    return measure


#: Each group and the figures that it measures.
GROUPS: list[tuple[str, Callable[[int], Awaitable[list[Figure]]]]] = [
    ("P1 P2 P8 P12", _later("store", "store_figures")),
    ("P3 P4 P13", _later("throughput", "throughput_figures")),
    ("P5 P9 P11", _later("agent", "agent_figures")),
    ("P6", _later("peers", "peer_figures")),
    ("P7", _later("etcd", "etcd_figures")),
    ("P10 R1", _later("farm", "farm_figures")),
    ("P14", _later("probes", "probe_figures")),
]


def main() -> None:
    """Measure, and print one table; exit status 1 if a figure broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, to see that it runs")
    parser.add_argument("--only", action="append", metavar="ID", help="only the group of this figure; may be repeated")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    parser.add_argument(
        "--against", metavar="REV", help="measure this tree and a commit in turns; exit status 1: slower"
    )
    parser.add_argument(
        "--rounds", type=_count, metavar="N", help=f"of --against: at most so many rounds (default: {against.ROUNDS})"
    )
    options = parser.parse_args()
    scale = 10 if options.quick else 1
    if options.against is not None:
        if options.only or options.json:
            parser.error("--against has one table of its own: neither --only nor --json goes with it")
        try:
            sys.exit(against.compare(options.against, options.rounds or against.ROUNDS, scale))
        except Missing as error:
            parser.error(str(error))
    if options.rounds is not None:
        parser.error("--rounds goes with --against")
    figures: list[Figure] = []
    for ids, measure in GROUPS:
        if options.only is None or any(each in ids.split() for each in options.only):
            figures += asyncio.run(measured(ids, measure, scale))
    if options.json:
        print(json.dumps([figure.document() for figure in figures], indent=2))  # noqa: T201 - what was asked for
    else:
        show(figures)
    sys.exit(any(figure.broken for figure in figures))


def _count(text: str) -> int:
    """Return a whole number of at least one; argparse makes an error of a ValueError."""
    if (count := int(text)) < 1:
        raise ValueError
    return count


async def measured(ids: str, measure: Callable[[int], Awaitable[list[Figure]]], scale: int) -> list[Figure]:
    """Return a group's figures. A program that is not installed makes a row that says so, and so does what fails.

    Then the other groups' figures are not lost with it.
    """
    print(f"measuring {ids} ...", file=sys.stderr)  # noqa: T201 - it takes its time
    try:
        return await measure(scale)
    except Missing as error:
        return [_without_value(ids, missing=str(error))]
    except Exception as error:  # noqa: BLE001 - whatever it is, the row says it
        traceback.print_exc()
        return [_without_value(ids, broken=f"{type(error).__name__}: {error}")]


def _without_value(ids: str, *, missing: str = "", broken: str = "") -> Figure:
    return Figure(id=ids, what="", rounds=(), floor=None, goal=None, at_most=True, missing=missing, broken=broken)


def show(figures: list[Figure]) -> None:
    """Print the table."""
    title = f"Python {platform.python_version()}, {platform.machine()} {sys.platform}"
    table = Table("", "figure", "median", "spread", "floor", "goal", "", title=title, title_justify="left")
    for figure in sorted(figures, key=_place):
        sign = "≤" if figure.at_most else "≥"
        value = "" if figure.value is None else f"{figure.value:.2f}"
        spread = f"{min(figure.rounds):.2f} … {max(figure.rounds):.2f}" if len(figure.rounds) > 1 else ""
        bars = ("" if bar is None else f"{sign} {bar:g}" for bar in (figure.floor, figure.goal))
        detail = escape(figure.broken or figure.missing or figure.detail)
        table.add_row(figure.id, f"{figure.what}\n[dim]{detail}[/dim]", value, spread, *bars, figure.verdict)
    Console(width=140).print(table)


def _place(figure: Figure) -> tuple[str, int, str]:
    """P2 stands before P10."""
    first = figure.id.split()[0]
    return first[0], int("".join(filter(str.isdigit, first))), first


if __name__ == "__main__":
    main()
