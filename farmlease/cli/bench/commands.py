"""``farmlease bench``: measures the load this store can carry, with the calls of agents on keys of its own.

It never touches a key of the farm. However it ends, it removes the keys it made, or reports that it could not.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from farmlease.cli import example, print_line, print_stderr
from farmlease.cli.client.farm import configuration, warn_on_stderr
from farmlease.cli.output.format import Format, Row, emit, output_option, print_folded, write_json
from farmlease.cli.output.progress import progress
from farmlease.cli.signals import Interrupts
from farmlease.domain.identity import check_token
from farmlease.errors import FarmleaseError, StoreError

if TYPE_CHECKING:
    from farmlease.cli.bench.trial import Measured, Step
    from farmlease.config.model import Config
    from farmlease.store.connection.connection import Connection
    from farmlease.store.inspect.bench_shard import BenchShard

__all__ = ["bench"]

#: Bounds of a trial: more users or nodes would not change the figures.
MOST_USERS, MOST_NODES = 100_000, 2_000
NAME = "bench"  #: of a trial without --prefix
COLUMNS = ("step", "calls", "per_second", "p50_ms", "p99_ms", "store_us")
#: Digits after the point in a table.
DIGITS = {"per_second": 0, "p50_ms": 2, "p99_ms": 2, "store_us": 0}


def _check_prefix(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """Return a prefix that is valid in a key; raises InvalidName."""
    return None if text is None else check_token("prefix", text, forbidden="/#{}")


@click.command(epilog=example("farmlease bench --users 5000 --nodes 20", "farmlease bench --prefix trial-1 -o json"))
@click.option(
    "--users",
    metavar="N",
    type=click.IntRange(2, MOST_USERS),
    default=1000,
    show_default=True,
    help="Users who log on.",
)
@click.option(
    "--nodes",
    metavar="M",
    type=click.IntRange(1, MOST_NODES),
    default=10,
    show_default=True,
    help="Nodes that they are spread over.",
)
@click.option(
    "--prefix",
    metavar="P",
    callback=_check_prefix,
    help="Keep the trial apart under this name, in a store that holds leases.",
)
@output_option
def bench(*, users: int, nodes: int, prefix: str | None, fmt: Format) -> None:
    """Measure the store: N users log on over M nodes, the nodes beat, all log off. Print the load it can carry.

    It makes the calls of an agent, sealing included, 50 at once, on keys of its own that it removes at the end. Refused
    if the farm has leases in this store, unless --prefix is given: its users would wait for the trial's calls.
    """
    warn_on_stderr()
    config = configuration()
    measured, signal = asyncio.run(_run_trial(config, users, nodes, prefix))
    if measured is None:
        print_stderr("interrupted; nothing of the trial is left in the store")
        click.get_current_context().exit(128 + signal)
    steps = [_row(step) for step in measured.steps]
    conclusions = _conclusions(measured, config.agent.heartbeat_ms)
    if fmt == "json":
        write_json(
            {
                "users": measured.users,
                "asked_users": users,
                "nodes": nodes,
                "bytes_per_lease": measured.bytes_per_lease,
                "steps": steps,
                "verdict": conclusions,
            }
        )
        return
    emit(steps if fmt == "csv" else map(_figures, steps), COLUMNS, fmt)
    if fmt == "table":
        if measured.users < users:
            print_line(f"The time limit was reached after {measured.users} of {users} users.")
        for sentence in conclusions:
            print_folded(sentence, 0)


def _conclusions(measured: "Measured", heartbeat_ms: int) -> list[str]:
    """Return, in sentences, the meaning of the figures for a farm of this size."""
    logon, heartbeat, _ = measured.steps
    rate = measured.users / 60
    through = f"this one process brought {logon.per_second:,.0f} a second through"
    sentences = [f"All {measured.users:,} users within a minute are {rate:,.1f} logons a second; {through}."]
    if logon.store_us and heartbeat.store_us:
        beats = measured.nodes * 1000 / heartbeat_ms
        sentences.append(
            f"The store itself takes {logon.store_us:,.0f} µs for a logon: at {rate:,.1f} a second it is busy for "
            f"{rate * logon.store_us / 10_000:.2f} % of the time, and could take {1_000_000 / logon.store_us:,.0f} a "
            f"second. The heartbeats of {measured.nodes:,} nodes keep it busy for "
            f"{beats * heartbeat.store_us / 10_000:.4f} % of the time for each pool."
        )
    if measured.bytes_per_lease is not None:
        mega = measured.users * measured.bytes_per_lease / 1_000_000
        sentences.append(
            f"A lease takes {measured.bytes_per_lease:,} bytes with its audit: {mega:,.1f} MB for all of them."
        )
    return sentences


def _row(step: "Step") -> dict[str, object]:
    rounded = {name: round(value, 2) if isinstance(value, float) else value for name, value in asdict(step).items()}
    return {"step": rounded.pop("name"), **rounded}


def _figures(step: Row) -> Row:
    """Return a step for a table, with its figures rounded."""
    return {name: f"{value:.{DIGITS[name]}f}" if isinstance(value, float) else value for name, value in step.items()}


async def _run_trial(config: "Config", users: int, nodes: int, prefix: str | None) -> tuple["Measured | None", int]:
    """Run the trial; return its figures, or None and the signal that ended it."""
    from farmlease.cli.bench.trial import measure, most_calls
    from farmlease.store.connection.connection import open_connection
    from farmlease.store.inspect.bench_shard import BenchShard

    interrupts = Interrupts()
    interrupts.listen()
    try:
        async with await open_connection(config.store.address, state_dir=config.agent.state_dir) as connection:
            if prefix is None:
                await _refuse_leases(config, connection)
            async with _cleaned_up(BenchShard(connection, config.farm, prefix or NAME), interrupts) as trial:
                with progress("calls", most_calls(users, nodes)) as advance:
                    return await measure(trial, users, nodes, advance), 0
    except asyncio.CancelledError:
        if interrupts.signal is None:
            raise
        return None, interrupts.signal


@asynccontextmanager
async def _cleaned_up(trial: "BenchShard", interrupts: Interrupts) -> AsyncIterator["BenchShard"]:
    """Remove the keys of an earlier trial and, however this one ends, its own. StoreError if that fails."""
    await trial.remove()
    await trial.limit_life()  # fails without the rights for it, before there are any keys
    try:
        yield trial
    finally:
        interrupts.ignore()
        try:
            await trial.remove()
        except StoreError as error:
            raise type(error)(
                f"{error}; keys of the trial may still exist; they begin with {trial.where}, expire within 15 "
                "minutes, and are removed at once by the next trial"
            ) from error
    interrupts.check()


async def _refuse_leases(config: "Config", connection: "Connection") -> None:
    """Raise FarmleaseError if the farm has leases in this store; the key ring is read only if there is a policy."""
    from farmlease.crypto import keyring_file
    from farmlease.crypto.seal import Sealer
    from farmlease.farm import Farm
    from farmlease.store.lease_store import LeaseStore

    store = LeaseStore(connection, config.farm)
    if not (await store.read_policy()).version:
        return
    farm = Farm(config.farm, store, Sealer(keyring_file.load(config.keys.file), config.farm))
    uses = [await farm.use(pool) for pool in (await farm.policy()).pools]
    held = sum(use.used + use.quarantined for use in uses)
    if held:
        raise FarmleaseError(
            f"the store holds {held} leases of farm {config.farm}, whose users would wait for the trial's calls: "
            "give --prefix NAME to run it beside them nevertheless, at a quiet hour"
        )
