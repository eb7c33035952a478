"""Where a run's store lives: one redis-server, two with Sentinels, or a Cluster of six, and the lines that lead there."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.agents import Agents, agents_on
from tests.support.members import Member, on_quiet_ports
from tests.support.proxy import Proxy, proxy
from tests.support.topologies import Cluster, Sentinels, cluster, sentinels

#: What agents go by until a run applies its own.
IDLE = '[[pool]]\nname = "idle"\nkind = "named"\ncapacity = 1\n'

__all__ = ["Ground", "ground"]


@dataclass(slots=True)
class Ground:
    """A store. ``lines``: a proxy for each host, where the kind of fault wants them."""

    url: str
    server: Member | None = None
    watched: Sentinels | None = None
    members: Cluster | None = None
    lines: list[Proxy] = field(default_factory=list)
    agents: Agents | None = (
        None  #: real agents, processes of their own; else each run has its own in the test's process
    )

    def url_of(self, host: int) -> str:
        """Return how a host reaches the store."""
        return f"redis://127.0.0.1:{self.lines[host].port}/0" if self.lines else self.url

    def whole(self) -> None:
        """Return when all servers are as they were at first."""
        for servers in (self.watched, self.members):
            if servers is not None:
                servers.wait_whole()


@contextmanager
def _alone(options: tuple[str, ...], lines: int) -> Iterator[Ground]:
    def make(folder: Path, ports: list[int]) -> list[Member]:
        return [Member(folder / "redis", "--save", "", *options, port=ports[0])]

    with on_quiet_ports(1, make) as (server,), ExitStack() as stack:
        proxies = [stack.enter_context(proxy(server.port, seed)) for seed in range(lines)]
        yield Ground(f"redis://{server.address}/0", server=server, lines=proxies)


@contextmanager
def _sentinels() -> Iterator[Ground]:
    with sentinels() as watched:
        yield Ground(watched.url, watched=watched)


@contextmanager
def _cluster() -> Iterator[Ground]:
    with cluster() as members:
        yield Ground(members.url, members=members)


@contextmanager
def _agents() -> Iterator[Ground]:
    full = 'pool_alert = "0%"'  # the pools are small, and a full one is no trouble of the agent's
    with (
        _alone((), 0) as there,
        agents_on(there.url, nodes=("n0", "n1"), heartbeat="300ms", policy=IDLE, health=full) as agents,
    ):
        there.agents = agents
        yield there


@asynccontextmanager
async def ground(name: str, options: tuple[str, ...] = (), lines: int = 0) -> AsyncIterator[Ground]:
    """Start the servers of a ground without holding up the loop; they are ended whatever happens."""
    made = {"alone": lambda: _alone(options, lines), "sentinels": _sentinels, "cluster": _cluster, "agents": _agents}[
        name
    ]()
    entered = await asyncio.to_thread(made.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(made.__exit__, None, None, None)
