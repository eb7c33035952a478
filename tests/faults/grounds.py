"""Where a run's store lives, and the lines that lead there.

One redis-server; two behind one address that moves; two with Sentinels; or a Cluster of six.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.agents import Agents, agents_on
from tests.support.members import Member, on_quiet_ports, wait_until
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
    pair: Sequence[Member] = ()  #: a master and its replica, behind ``lines`` and ``address``
    address: Proxy | None = None  #: which the test itself uses; it moves with the lines
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
        if self.pair:
            wait_until(lambda: _follows(*self.pair), "a master and a replica that has everything")


@contextmanager
def _alone(options: tuple[str, ...], lines: int) -> Iterator[Ground]:
    def make(folder: Path, ports: list[int]) -> list[Member]:
        return [Member(folder / "redis", "--save", "", *options, port=ports[0])]

    with on_quiet_ports(1, make) as (server,), ExitStack() as stack:
        proxies = [stack.enter_context(proxy(server.port, seed)) for seed in range(lines)]
        yield Ground(f"redis://{server.address}/0", server=server, lines=proxies)


def _follows(first: Member, second: Member) -> bool | None:
    master, replica = (first, second) if first.is_master() else (second, first)
    return replica.replicates(master) or None


@contextmanager
def _moving(options: tuple[str, ...], lines: int) -> Iterator[Ground]:
    """Run a master and its replica; every line leads to the master until it is led to the other one."""
    given = ("--save", "", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", *options)

    def make(folder: Path, ports: list[int]) -> list[Member]:
        follow = f"replicaof 127.0.0.1 {ports[0]}\n"
        first = Member(folder / "first", *given, port=ports[0])
        return [first, Member(folder / "second", *given, port=ports[1], config=follow)]

    with on_quiet_ports(2, make) as pair, ExitStack() as stack:
        wait_until(lambda: _follows(*pair), "a replica that has everything")
        *proxies, own = [stack.enter_context(proxy(pair[0].port, seed)) for seed in range(lines + 1)]
        yield Ground(f"redis://127.0.0.1:{own.port}/0", pair=pair, address=own, lines=proxies)


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
    made = {
        "alone": lambda: _alone(options, lines),
        "moving": lambda: _moving(options, lines),
        "sentinels": _sentinels,
        "cluster": _cluster,
        "agents": _agents,
    }[name]()
    entered = await asyncio.to_thread(made.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(made.__exit__, None, None, None)
