"""``python -m tests.benchmarks [--quick]``: one table of what farmlease costs, measured here and now.

Real servers and processes on this machine, medians of interleaved rounds. Nothing is asserted: numbers are for reading.
"""

import argparse
import asyncio
import platform
import sys

from rich.console import Console
from rich.table import Table

from tests.benchmarks.agent import agent_numbers
from tests.benchmarks.numbers import Number
from tests.benchmarks.recovery import recovery_numbers
from tests.benchmarks.store import store_numbers


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, to see that it runs")
    scale = 10 if parser.parse_args().quick else 1
    server, numbers = asyncio.run(store_numbers(scale))
    show(server, [*numbers, *agent_numbers(scale), *asyncio.run(recovery_numbers(scale))])


def show(server: str, numbers: list[Number]) -> None:
    """Print the table."""
    title = f"{server}, Python {platform.python_version()}, {platform.machine()} {sys.platform}"
    table = Table("what", "value", "unit", "of", title=title, title_justify="left")
    for number in numbers:
        table.add_row(number.what, f"{number.value:,.{number.digits}f}", number.unit, number.of)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
