"""``farmlease usage``: how the seats of the pools were used, hour by hour: for people, for programs, and as a picture.

Works on the store with the farm's keys; it needs no agent and changes nothing.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from farmlease.admin.audit import AuditLog
from farmlease.cli import example, print_line
from farmlease.cli.client.farm import opened_farm
from farmlease.cli.client.history import all_pools, existing_pool, pseudonyms_option, since_ms, since_option
from farmlease.cli.output.format import Column, Format, Row, output_option, write_csv, write_json, write_table
from farmlease.domain.json_documents import Document, hour_document, timestamp
from farmlease.domain.usage import Hour, sparkline, squeezed, summed
from farmlease.errors import FarmleaseError

__all__ = ["usage"]

COLUMNS = ("hour", "pool", "capacity", "peak", "average", "denied", "denials")
TOTALS = ("pool", "seats", "peak", Column("at (UTC)", lambda row: str(row["at"])), "average", "denied")
#: Characters of the sparkline of a pool's use.
WIDTH = 24


@click.command(
    epilog=example(
        "farmlease usage",
        "farmlease usage --pool qlikview --since 30d -o csv",
        "farmlease usage --since 7d --png usage.png",
    )
)
@click.option("--pool", metavar="P", help="Only this pool (default: all there ever were).")
@since_option("24h")
@click.option(
    "--png",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw a picture into FILE (extra 'plot').",
)
@pseudonyms_option
@output_option
def usage(*, pool: str | None, since: str | None, png: Path | None, pseudonyms: bool, fmt: Format) -> None:
    """Show how many seats were held, at most and on average, and how often a session was denied, and why.

    A line for each pool (default: the last 24 hours), with a drawing of its hours on a terminal; `-o csv` and `-o json`
    give a line for each hour. Hours are kept for 400 days, in UTC. A seat counts while it is held, used or not: a named
    one for as long as its lease lasts, quarantine included.
    """
    with opened_farm(pseudonyms=pseudonyms) as client:
        log = AuditLog(client.farm)
        pools = all_pools(client, log) if pool is None else [existing_pool(client, log, pool)]
        start = since_ms(client, log, since or "24h")
        found = {each: client.wait(log.usage(each, start)) for each in pools}
    if png is not None:
        _draw_png(found, png)
        print_line(f"drew {png}")
    elif fmt == "json":
        write_json(list(_hour_rows(found)))
    elif fmt == "csv":
        write_csv(({**row, "denials": _denial_counts(row["denials"])} for row in _hour_rows(found)), COLUMNS)
    else:
        terminal = sys.stdout.isatty()
        write_table(_pool_rows(found), (*TOTALS, "hours") if terminal else (*TOTALS, "denials"))
        if terminal:
            _print_denials(found)


def _hour_rows(found: Mapping[str, list[Hour]]) -> Iterator[Document]:
    """Yield a row for each hour of each pool."""
    for pool, hours in found.items():
        yield from (hour_document(pool, hour) for hour in hours)


def _pool_rows(found: Mapping[str, list[Hour]]) -> Iterator[Row]:
    """Yield a row for each pool that was ever counted."""
    for pool, hours in found.items():
        if not hours:
            continue
        total = summed(hours)
        yield {
            "pool": pool,
            "seats": total.capacity or None,
            "peak": total.peak,
            "at": (timestamp(total.peak_at) or "")[:16].replace("T", " "),
            "average": f"{total.average:.1f}",
            "denied": sum(total.denials.values()),
            "denials": _denial_counts(total.denials),
            "hours": sparkline(squeezed([hour.peak for hour in hours], WIDTH), total.capacity or total.peak),
        }


def _print_denials(found: Mapping[str, list[Hour]]) -> None:
    """Print why sessions were denied, below the table."""
    for row in _pool_rows(found):
        if row["denied"]:
            print_line(f"{row['pool']}: denied for {row['denials']}")


def _denial_counts(denials: Mapping[str, int]) -> str:
    """Return "capacity 3, device_limit 1"."""
    return ", ".join(f"{reason} {number}" for reason, number in denials.items())


def _draw_png(found: Mapping[str, list[Hour]], file: Path) -> None:
    """Write the picture; FarmleaseError if there are no hours, matplotlib is missing or the file cannot be written."""
    drawn = {pool: hours for pool, hours in found.items() if hours}
    if not drawn:
        raise FarmleaseError("no hour was counted in this time; give another --since or --pool")
    try:
        from farmlease.cli.usage.plot import picture
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"matplotlib", "numpy"}:
            raise
        raise FarmleaseError("matplotlib is not installed: pip install 'farmlease[plot]'") from None
    try:
        file.write_bytes(picture(drawn))
    except OSError as error:
        raise FarmleaseError(f"{file}: cannot be written: {error.strerror}") from error
