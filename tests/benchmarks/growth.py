"""``python -m tests.benchmarks.growth``: what a farm costs its Redis, computed from what its calls cost here.

Prints the tables of the README beside this, arithmetic and all, so that no figure there is made up. Server time is the
server's own (INFO commandstats), bytes are what went over the network (INFO stats) and what its data take (INFO memory).
"""

import asyncio
import datetime as dt
import os
import platform
import secrets
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median

from farmlease.store.answers.session import Claim
from farmlease.store.keys import Shard
from tests.benchmarks.figures import ROUNDS
from tests.benchmarks.store import FARM, NODE, POOL, VERSION, Bench, bench

__all__ = ["LARGE", "Call", "Costs", "Site", "costs", "page"]

LATEST = 2**52  #: a fence later than any
#: Entries of a pool's audit at most: acquire.lua trims it to about so many.
AUDIT_LENGTH = 100_000


@dataclass(frozen=True, slots=True)
class Call:
    """What one call costs: the server's time in µs, and bytes over the network, both ways."""

    micros: float
    network: float


@dataclass(frozen=True, slots=True)
class Costs:
    """What each kind of call costs, and bytes of memory."""

    taken: Call  #: the first session of a user, with a new lease
    joined: Call  #: a session of a user who has a lease
    released: Call
    heartbeat: Call  #: of a node with fifty sessions
    lease: float  #: a lease with a session
    entry: float  #: of the audit


@dataclass(frozen=True, slots=True)
class Site:
    """A farm's size, and how busy its people are."""

    users: int
    nodes: int
    pools: int
    each: int  #: pools that a user uses
    morning: int  #: seconds in which everybody logs on
    heartbeat: int = 60  #: seconds between two


LARGE = Site(users=100_000, nodes=2_000, pools=20, each=2, morning=1_800)


async def costs(calls: int) -> Costs:
    """Measure on a fresh server."""
    names = [secrets.token_urlsafe(16)[:22] for _ in range(calls * (ROUNDS + 1))]
    async with bench() as on:
        for _ in range(50):
            await on.start_new()
        before, entries = _memory(on), _entries(on)
        fresh, again = iter(enumerate(names)), iter(enumerate(names))
        gone = iter([*enumerate(names)])
        taken = await _cost(on, calls, lambda: _start(on, "a", *next(fresh)))
        with_audit, more = _memory(on), _entries(on)
        audit = int(on.raw.memory_usage(_keys()[8], samples=0) or 0)
        joined = await _cost(on, calls, lambda: _start(on, "b", *next(again)))
        released = await _cost(on, calls, lambda: _end(on, *next(gone)))
        heartbeat = await _cost(on, calls, lambda: on.store.heartbeat(POOL, VERSION, NODE, None))
        assert len(names) + 51 == on.seats()
        assert len(names) + 51 == on.raw.zcard(_keys()[6])  # two sessions each, of which one is over
    entry = audit / more
    lease = (with_audit - before - entry * (more - entries)) / len(names)
    return Costs(taken, joined, released, heartbeat, lease, entry)


async def _start(on: Bench, kind: str, number: int, user: str) -> object:
    return await on.start(user, f"{kind}{number}")


async def _end(on: Bench, number: int, user: str) -> object:
    ended = await on.store.release(POOL.name, Claim(user=user, node=NODE, session=f"a{number}"), LATEST)
    assert ended is not None
    return ended


async def _cost(on: Bench, calls: int, ask: Callable[[], Awaitable[object]]) -> Call:
    """Return the median of the rounds, after one that does not count."""
    rounds = [await _round(on, calls, ask) for _ in range(ROUNDS + 1)][1:]
    return Call(median(each.micros for each in rounds), median(each.network for each in rounds))


async def _round(on: Bench, calls: int, ask: Callable[[], Awaitable[object]]) -> Call:
    quiet = _network(on)
    asking = _network(on) - quiet  # what it takes to ask how much it was
    done, micros = _scripts(on)
    before = _network(on)
    for _ in range(calls):
        await ask()
    network = _network(on) - before - asking
    many, most = _scripts(on)
    assert calls == many - done
    return Call((most - micros) / calls, network / calls)


def _scripts(on: Bench) -> tuple[int, int]:
    """Return how many scripts were called, and the time that they took in µs."""
    stats = on.raw.info("commandstats").get("cmdstat_evalsha", {"calls": 0, "usec": 0})
    return int(stats["calls"]), int(stats["usec"])


def _keys() -> tuple[str, ...]:
    return Shard(FARM, POOL.name).keys()


def _network(on: Bench) -> int:
    stats = on.raw.info("stats")
    return int(stats["total_net_input_bytes"] + stats["total_net_output_bytes"])


def _memory(on: Bench) -> int:
    return int(on.raw.info("memory")["used_memory"])


def _entries(on: Bench) -> int:
    return int(on.raw.xlen(_keys()[8]))


def page(cost: Costs, site: Site) -> str:
    """Return the tables of the README beside this: what a call costs, then each figure, how it is computed and what comes out."""
    machine = f"{os.cpu_count()} cores, {platform.machine()} {sys.platform}, Python {platform.python_version()}"
    calls = (
        ("logon, a new lease", cost.taken),
        ("logon, a lease joined", cost.joined),
        ("logoff", cost.released),
        ("heartbeat of a node, for each pool", cost.heartbeat),
    )
    lines = [
        f"{site.users:,} users, {site.nodes:,} nodes, {site.pools} pools; calls measured on {_today()}, {machine}.",
        "",
        "| one call | server time | network |",
        "|---|---|---|",
        *(f"| {name} | {call.micros:.0f} µs | {call.network:,.0f} B |" for name, call in calls),
        "",
        "| what | arithmetic | comes to |",
        "|---|---|---|",
        *(f"| {what} | {arithmetic} | {result} |" for what, arithmetic, result in _rows(cost, site)),
    ]
    return "\n".join(lines).replace(" * ", " \N{MULTIPLICATION SIGN} ")


def _rows(cost: Costs, site: Site) -> list[tuple[str, str, str]]:
    logons, beats = site.users * site.each, site.nodes * site.pools / site.heartbeat
    rate = logons / site.morning
    storm = rate * cost.taken.micros / 10_000
    kept = beats * cost.heartbeat.micros / 10_000
    day = logons * (cost.joined.micros + cost.released.micros) / 1e6
    leases, audit = logons * cost.lease / 1e6, site.pools * AUDIT_LENGTH * cost.entry / 1e6
    wire = (rate * cost.taken.network + beats * cost.heartbeat.network) * 8 / 1e6
    most, alive = 1e6 / cost.taken.micros, f"{site.nodes:,} nodes * {site.pools} pools"
    return [
        ("leases", f"{site.users:,} users * {site.each} pools each", f"{logons:,}"),
        (
            f"everybody logs on within {site.morning // 60} min, each to a new lease",
            f"{logons:,} ÷ {site.morning:,} s = {rate:,.0f} a second * {cost.taken.micros:.0f} µs",
            f"{storm:.1f} % of a core",
        ),
        (
            "nodes stay alive",
            f"{alive} ÷ {site.heartbeat} s = {beats:,.0f} a second * {cost.heartbeat.micros:.0f} µs",
            f"{kept:.1f} % of a core",
        ),
        (
            "an ordinary day: everybody joins the lease they have, and leaves",
            f"{logons:,} * ({cost.joined.micros:.0f} + {cost.released.micros:.0f} µs)",
            f"{day:.0f} s of a core a day",
        ),
        ("memory of the leases, each with a session", f"{logons:,} * {cost.lease:,.0f} B", f"{leases:,.0f} MB"),
        (
            "memory of the audit, when full",
            f"{site.pools} pools * {AUDIT_LENGTH:,} lines * {cost.entry:.0f} B",
            f"{audit:,.0f} MB",
        ),
        (
            "network in the logon storm",
            f"({rate:,.0f} * {cost.taken.network:,.0f} B + {beats:,.0f} * {cost.heartbeat.network:,.0f} B) * 8",
            f"{wire:.1f} Mbit/s",
        ),
        ("network connections", f"{site.nodes:,} agents * 1", f"{site.nodes:,} of Redis' 10,000"),
        ("the most that one core of Redis could grant", f"1 s ÷ {cost.taken.micros:.0f} µs", f"{most:,.0f} a second"),
        ("… at half load, as is prudent", f"{most:,.0f} ÷ 2", f"{most / 2:,.0f} a second"),
    ]


def _today() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()


if __name__ == "__main__":
    print(page(asyncio.run(costs(2_000)), LARGE))  # noqa: T201 - what was asked for
