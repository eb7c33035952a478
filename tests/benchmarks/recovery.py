"""How long a farm takes to have everything again after its store was emptied."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from farmlease.clock import SystemClock
from farmlease.config import Config
from farmlease.domain.identity import Identities
from farmlease.domain.model import Grant, SessionRequest
from farmlease.domain.policy import parse_policy
from farmlease.farm import Farm
from farmlease.keyring import KeyRing
from farmlease.node.agent import Agent
from farmlease.node.composition import compose
from farmlease.seal import Sealer
from farmlease.store.answers import Beat, Claim, Taken, Taking
from farmlease.store.connect import StoreAddress, open_connection
from farmlease.store.keys import Shard
from farmlease.store.redis import Store
from tests.benchmarks.numbers import Number
from tests.benchmarks.store import NAME, RECORD, SERVER
from tests.servers import RedisServer, redis_server

__all__ = ["recovery_numbers"]

AGENTS, LEASES = 100, 50_000
FARM = "citrix-a"
POLICY = '[[pool]]\nname = "qlikview"\nkind = "named"\ncapacity = 1000000\n'


@dataclass(frozen=True, slots=True)
class Site:
    """A farm of agents in this process, each with a journal and connections of its own."""

    server: RedisServer
    agents: list[Agent]
    stores: list[Store]

    def leases(self) -> int:
        """How many leases the store holds."""
        with self.server.client() as raw:
            return int(raw.hlen(Shard(FARM, "qlikview").keys()[1]))

    def empty(self) -> None:
        """Lose everything."""
        with self.server.client() as raw:
            raw.flushall()


async def recovery_numbers(scale: int) -> list[Number]:
    """Grant leases, empty the store, and wait until all are back; beside it, so many acquires of new leases."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # one line for each lease otherwise
    leases = LEASES // scale
    async with site() as farm:
        shares = (grant(agent, number, leases // AGENTS) for number, agent in enumerate(farm.agents))
        await asyncio.gather(*shares)
        assert leases == farm.leases()
        farm.empty()
        restored = await timed(asyncio.gather(*(settle(agent) for agent in farm.agents)))
        assert leases == farm.leases()
        assert not any(agent.facts().recovering for agent in farm.agents)
        farm.empty()
        await apply(farm.stores[0])
        acquired = await timed(acquire_all(farm, leases))
        assert leases == farm.leases()
    of = f"{leases:,} leases, {AGENTS} agents in one process, one run"
    return [
        Number("restored after FLUSHALL", restored, "s", of, 1),
        Number("as many acquires of new leases", acquired, "s", of, 1),
        Number("the one over the other", restored / acquired, "x", of),
    ]


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """Run the agents on a fresh server."""
    ring = KeyRing.generate(time.time_ns() // 1_000_000)
    with ExitStack() as stack:
        server = stack.enter_context(redis_server(program=SERVER))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fl-bench-")))
        connections = [await open_connection(StoreAddress(url=server.url)) for _ in range(AGENTS)]
        stores = [Store(connection, FARM) for connection in connections]
        await apply(stores[0], Sealer(ring, FARM))
        agents = []
        for number, store in enumerate(stores):
            config = Config.model_validate(
                {"farm": FARM, "node": f"ctx-{number}", "agent": {"state_dir": folder / str(number)}}
            )
            farm = Farm(FARM, store, Sealer(ring, FARM))
            agents.append(stack.enter_context(compose(config, farm, SystemClock())).agent)
        for agent in agents:
            agent.adopt()
            await agent.beat()
        yield Site(server, agents, stores)
        for connection in connections:
            await connection.close()


async def apply(store: Store, sealer: Sealer | None = None) -> None:
    """Put the policy in force."""
    sealer = sealer or Sealer(KeyRing.generate(0), FARM)
    await Farm(FARM, store, sealer).apply(parse_policy(POLICY, "the benchmark's policy"))


async def grant(agent: Agent, number: int, count: int) -> None:
    """Start sessions of users of their own."""
    users = Identities({})
    for each in range(count):
        request = SessionRequest(user=users.user(f"user-{number}-{each}"), session=str(each))
        assert isinstance(await agent.start_session(request), Grant)


async def settle(agent: Agent) -> None:
    """Let an agent notice the loss, and finish what that brings."""
    await agent.beat()
    await agent.settled()


async def acquire_all(farm: Site, leases: int) -> None:
    """Take new leases through the store alone, from as many clients as there were agents."""
    in_force = await farm.stores[0].read_policy()
    pool = parse_policy(POLICY, "the benchmark's policy").pools[0]

    async def take(number: int, store: Store) -> None:
        node = f"bench-{number}#x"
        assert isinstance(await store.heartbeat(pool, in_force.version, node, None), Beat)
        for each in range(leases // AGENTS):
            claim = Claim(user=f"{number}-{each}".ljust(22, "u"), node=node, session=str(each))
            taking = Taking(device=FARM, lease_id=f"{number}-{each}", record=bytes(RECORD), name=bytes(NAME))
            assert isinstance(await store.acquire(pool, in_force.version, claim, taking), Taken)

    await asyncio.gather(*(take(number, store) for number, store in enumerate(farm.stores)))


async def timed(work: Awaitable[object]) -> float:
    """Return how many seconds ``work`` takes."""
    began = time.perf_counter()
    await work
    return time.perf_counter() - began
