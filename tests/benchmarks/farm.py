"""A farm of a hundred agents: everybody logs on at once, and the store is emptied and filled again."""

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from farmlease.clock import SystemClock
from farmlease.config.model import Config
from farmlease.crypto.keyring import KeyRing
from farmlease.crypto.seal import Sealer
from farmlease.domain.identity import Identities
from farmlease.domain.model import Denial, Grant, Reason, SessionRequest, Withdrawal
from farmlease.domain.policy import parse_policy
from farmlease.farm import Farm
from farmlease.node.agent import Agent
from farmlease.node.build import Node, compose
from farmlease.store.answers.session import Beat, Claim, Taken, Taking
from farmlease.store.connection.connection import StoreAddress, open_connection
from farmlease.store.keys import Shard
from farmlease.store.lease_store import LeaseStore
from tests.benchmarks.figures import Figure, p99
from tests.benchmarks.store import NAME, RECORD, SERVER
from tests.support.servers import RedisServer, redis_server

__all__ = ["farm_figures"]

AGENTS, LEASES = 100, 50_000
FARM = "citrix-a"
USERS, SECONDS = 10_000, 60
SEATS = 9_000  #: fewer than users, so that the limit is met
POLICY = '[[pool]]\nname = "qlikview"\nkind = "named"\ncapacity = {}\nquarantine = "0s"\n'


USER_NAMES = Identities({})


@dataclass(frozen=True, slots=True)
class Site:
    """A farm of agents in this process, each with a journal and connections of its own."""

    server: RedisServer
    nodes: list[Node]
    stores: list[LeaseStore]
    sealer: Sealer

    def index(self, user: str) -> str:
        """Return a user's pseudonym."""
        return self.sealer.user_index(USER_NAMES.user(user))

    def leases(self) -> int:
        """How many leases the store holds."""
        with self.server.client() as raw:
            return int(raw.hlen(Shard(FARM, "qlikview").keys()[1]))

    def empty(self) -> None:
        """Lose everything."""
        with self.server.client() as raw:
            raw.flushall()


async def farm_figures(scale: int) -> list[Figure]:
    """Measure the storm and the recovery."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # one line for each lease otherwise
    return [await storm_figure(scale), await recovery_figure(LEASES // scale)]


async def storm_figure(scale: int) -> Figure:
    """Let ten thousand users log on within a minute, at random moments, and compare with an idle farm."""
    users, seconds, seats = USERS // scale, SECONDS / scale, SEATS // scale
    async with site(seats) as farm:
        idle = [await logon(farm, f"idle-{number}") for number in range(200)]
        for number in range(200):
            await farm.nodes[number % AGENTS].agent.end_session(f"idle-{number}")
            await farm.stores[0].withdraw("qlikview", farm.index(f"idle-{number}"), Withdrawal.RETURNED, b"")
        assert farm.leases() == 0
        decisions: Counter[str] = Counter()
        times: list[float] = []
        chance = random.Random(7)  # noqa: S311 - moments, not secrets

        async def one(number: int) -> None:
            await asyncio.sleep(chance.uniform(0, seconds))
            times.append(await logon(farm, f"storm-{number}", decisions))

        await asyncio.gather(*(one(number) for number in range(users)))
        over = farm.leases() - seats
    errors = users - decisions["granted"] - decisions["denied"]
    assert errors == 0, decisions
    assert over == 0, decisions
    return Figure(
        id="P10",
        what=f"logon storm, {users:,} users over {AGENTS} agents in {seconds:.0f} s: p99 / p99 of an idle farm",
        rounds=(p99(times) / p99(idle),),
        floor=5,
        goal=3,
        at_most=True,
        detail=(
            f"{p99(times):.1f} ms / {p99(idle):.1f} ms; {decisions['granted']:,} granted, {decisions['denied']:,} denied, "
            f"{errors} errors, {over} seats over the limit of {seats:,}"
        ),
    )


async def logon(farm: Site, user: str, decisions: Counter[str] | None = None) -> float:
    """Start a session of a user on the agent that the balancer would choose; return how long that took, in ms."""
    number = int(user.rpartition("-")[2])
    began = time.perf_counter()
    request = SessionRequest(user=USER_NAMES.user(user), session=user)
    decision = await farm.nodes[number % AGENTS].agent.start_session(request)
    took = (time.perf_counter() - began) * 1000
    match decision:
        case Grant():
            word = "granted"
        case Denial(reason=Reason.CAPACITY):
            word = "denied"
        case _:
            word = f"{decision}"
    if decisions is not None:
        decisions[word] += 1
    return took


async def recovery_figure(leases: int) -> Figure:
    """Grant leases, empty the store, and wait until all are back; beside it, so many acquires of new leases."""
    async with site() as farm:
        shares = (grant(node.agent, number, leases // AGENTS) for number, node in enumerate(farm.nodes))
        await asyncio.gather(*shares)
        assert leases == farm.leases()
        farm.empty()
        restored = await timed(asyncio.gather(*(settle(node) for node in farm.nodes)))
        assert leases == farm.leases()
        assert not any(node.agent.facts().recovering for node in farm.nodes)
        farm.empty()
        await apply(farm.stores[0])
        acquired = await timed(acquire_all(farm, leases))
        assert leases == farm.leases()
    return Figure(
        id="R1",
        what=f"{leases:,} leases of {AGENTS} agents restored after FLUSHALL / as many acquires of new leases",
        rounds=(restored / acquired,),
        floor=4,
        goal=2,
        at_most=True,
        detail=f"{restored:.1f} s / {acquired:.1f} s, every lease counted",
    )


@asynccontextmanager
async def site(seats: int = 1_000_000) -> AsyncIterator[Site]:
    """Run the agents on a fresh server, with so many seats."""
    ring = KeyRing.generate(time.time_ns() // 1_000_000)
    with ExitStack() as stack:
        server = stack.enter_context(redis_server(program=SERVER))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fl-bench-")))
        connections = [await open_connection(StoreAddress(url=server.url)) for _ in range(AGENTS)]
        stores = [LeaseStore(connection, FARM) for connection in connections]
        await apply(stores[0], Sealer(ring, FARM), seats)
        nodes = []
        for number, store in enumerate(stores):
            config = Config.model_validate(
                {"farm": FARM, "node": f"ctx-{number}", "agent": {"state_dir": folder / str(number)}}
            )
            farm = Farm(FARM, store, Sealer(ring, FARM))
            nodes.append(stack.enter_context(compose(config, farm, SystemClock())))
        for node in nodes:
            node.agent.adopt()
            await node.loops.beat()
        yield Site(server, nodes, stores, Sealer(ring, FARM))
        for connection in connections:
            await connection.close()


async def apply(store: LeaseStore, sealer: Sealer | None = None, seats: int = 1_000_000) -> None:
    """Put the policy in force."""
    sealer = sealer or Sealer(KeyRing.generate(0), FARM)
    await Farm(FARM, store, sealer).apply(parse_policy(POLICY.format(seats), "the benchmark's policy"))


async def grant(agent: Agent, number: int, count: int) -> None:
    """Start sessions of users of their own."""
    for each in range(count):
        request = SessionRequest(user=USER_NAMES.user(f"user-{number}-{each}"), session=str(each))
        assert isinstance(await agent.start_session(request), Grant)


async def settle(node: Node) -> None:
    """Let a node notice the loss, and finish what that brings."""
    await node.loops.beat()
    await node.agent.settled()


async def acquire_all(farm: Site, leases: int) -> None:
    """Take new leases through the store alone, from as many clients as there were agents."""
    in_force = await farm.stores[0].read_policy()
    pool = parse_policy(POLICY.format(1_000_000), "the benchmark's policy").pools[0]

    async def take(number: int, store: LeaseStore) -> None:
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
