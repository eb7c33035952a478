"""How many decisions one agent's process gets out of a store, against what the store could give anybody."""

import asyncio
import csv
import secrets
import shutil
import subprocess
import time

from farmlease.crypto.keyring import KeyRing
from farmlease.crypto.seal import Sealer
from farmlease.domain.identity import Identities
from farmlease.farm import Farm
from farmlease.store.answers.session import NOTHING, Claim, Taken, Taking
from farmlease.store.keys import Shard
from farmlease.store.script import Script
from tests.benchmarks.figures import Figure, Missing, ratios, side_by_side
from tests.benchmarks.store import FARM, NODE, POOL, VERSION, Bench, bench

__all__ = ["throughput_figures"]

USERS = Identities({})


async def throughput_figures(scale: int) -> list[Figure]:
    """Measure acquires a second: many at once, one at a time, and with a log on disk."""
    return [
        await against_redis_benchmark("P3", 50, 20_000 // scale, floor=0.6, goal=0.9),
        await against_redis_benchmark("P4", 1, 5_000 // scale, floor=0.5, goal=0.8),
        await with_a_log(20_000 // scale),
    ]


async def against_redis_benchmark(name: str, clients: int, calls: int, *, floor: float, goal: float) -> Figure:
    """Compare acquires through the store, sealing and pseudonyms included, with redis-benchmark's of the same script."""
    what = f"acquires a second of one process, {clients} in flight / redis-benchmark -c {clients}"
    try:
        redis_benchmark()
    except Missing as error:
        return Figure(id=name, what=what, rounds=(), floor=floor, goal=goal, at_most=False, missing=str(error))
    async with bench() as on:
        mine, other = await side_by_side(lambda: rate(on, clients, calls), lambda: theirs(on, clients, calls))
    return Figure(
        id=name,
        what=what,
        rounds=ratios(mine, other),
        floor=floor,
        goal=goal,
        at_most=False,
        detail=f"{max(mine):,.0f} / {max(other):,.0f} a second at best; {calls:,} a round, each held a seat",
    )


async def with_a_log(calls: int) -> Figure:
    """Compare a store that writes its log to disk every second with one that keeps none."""
    async with bench("--appendonly", "yes", "--appendfsync", "everysec") as logged, bench() as bare:
        mine, other = await side_by_side(lambda: rate(logged, 50, calls), lambda: rate(bare, 50, calls))
    return Figure(
        id="P13",
        what="acquires a second, 50 in flight: appendfsync everysec / no log",
        rounds=ratios(mine, other),
        floor=0.5,
        goal=None,
        at_most=False,
        detail=f"{max(mine):,.0f} / {max(other):,.0f} a second at best",
    )


async def rate(on: Bench, clients: int, calls: int) -> float:
    """Return acquires a second of new named leases, from the user's name to the parsed answer."""
    farm = Farm(FARM, on.store, Sealer(KeyRing.generate(0), FARM))
    prefix, numbers, before = secrets.token_hex(4), iter(range(calls)), on.seats()

    async def client() -> None:
        for number in numbers:
            user = USERS.user(f"user-{prefix}-{number}")
            index, lease_id = farm.sealer.user_index(user), secrets.token_urlsafe(12)
            taking = Taking(
                device=FARM,
                lease_id=lease_id,
                record=farm.sealer.seal_first_record(POOL.name, user, device=FARM, lease_id=lease_id, borrowed_at=0),
                name=farm.sealer.seal_name(index, user.canonical),
            )
            claim = Claim(user=index, node=NODE, session=f"{prefix}-{number}")
            assert isinstance(await on.store.acquire(POOL, VERSION, claim, taking), Taken)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    took = time.perf_counter() - began
    assert calls == on.seats() - before
    return calls / took


async def theirs(on: Bench, clients: int, calls: int) -> float:
    """Return what redis-benchmark gets out of the same script with arguments of the same size.

    Its random numbers may be those of an earlier round (it seeds them with the time and its process id), so each round
    has users of its own.
    """
    script, before, these = Script.load("acquire"), on.seats(), secrets.token_hex(2)
    record, name = sample()
    arguments = script.ordered(
        {
            "policy": VERSION, "user": f"{these}__rand_int____rand_int__", "node": NODE, "session": f"{these}__rand_int____rand_int__",
            "device": FARM, "lease": secrets.token_urlsafe(12), "record": "r" * len(record), "name": "n" * len(name),
            "reservations": "[]", "wait": 0, "spellings": "", "former": "", **NOTHING.arguments(), "life": on.raw.info("server")["run_id"],
        }
    )  # fmt: skip
    keys = Shard(FARM, POOL.name).keys()
    path = on.raw.connection_pool.connection_kwargs["path"]
    command = [
        redis_benchmark(), "-s", path, "-c", str(clients), "-n", str(calls), "-r", "2000000000", "--csv",
        "EVALSHA", script.sha, str(len(keys)), *keys, *map(str, arguments),
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out, _ = await process.communicate()
    assert 0 == process.returncode
    assert calls == on.seats() - before
    return float(list(csv.reader(out.decode().splitlines()))[1][1])


def sample() -> tuple[bytes, bytes]:
    """Return a record and a name as ``rate`` sends them."""
    sealer = Sealer(KeyRing.generate(0), FARM)
    user = USERS.user("user-01234567-01234")
    record = sealer.seal_first_record(POOL.name, user, device=FARM, lease_id=secrets.token_urlsafe(12), borrowed_at=0)
    return record, sealer.seal_name(sealer.user_index(user), user.canonical)


def redis_benchmark() -> str:
    """Return the path of the program."""
    path = shutil.which("redis-benchmark")
    if path is None:
        raise Missing("redis-benchmark is not installed (Debian: redis-tools)")
    return path
