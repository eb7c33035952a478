"""What no heartbeat touches is looked at as often on a large farm as on a small one."""

import itertools

import pytest

from farmlease.node.journal.store_state import StoreState
from farmlease.node.sync import store_watch
from farmlease.node.sync.store_watch import StoreWatch
from farmlease.store.connection.connection import StoreAddress, open_connection
from tests.support.nodes import FARM, Site
from tests.support.servers import RedisServer

TURNS = 400


@pytest.mark.parametrize("timed", ["redis"], indirect=True)
@pytest.mark.parametrize(("nodes", "least", "most"), [(1, TURNS, TURNS), (9, TURNS, TURNS), (200, 10, 60)])
async def test_the_more_nodes_the_more_seldom_each_looks(
    site: Site,
    timed_server: tuple[RedisServer, object],
    monkeypatch: pytest.MonkeyPatch,
    nodes: int,
    least: int,
    most: int,
) -> None:
    """The first time at once; of two hundred nodes each looks about every twentieth time, and not all together."""
    looks, asked = list[int](), list[object]()

    async def looked(*_: object) -> tuple[str, int]:
        asked.append(None)
        return "noeviction", 0

    monkeypatch.setattr(store_watch, "eviction_of", looked)
    monkeypatch.setattr(StoreState, "roster", lambda *_: tuple(f"ctx-{each}#1" for each in range(nodes)))
    host = site.host()
    await host.beat()
    async with await open_connection(StoreAddress(url=timed_server[0].url)) as connection:
        watch = StoreWatch(connection, FARM, host.node.state, host.node.sync.damage)
        for turn in range(TURNS):
            await watch.look()
            looks += [turn] * len(asked)
            asked.clear()
    assert looks[0] == 0
    assert least <= len(looks) <= most
    pauses = {later - former for former, later in itertools.pairwise(looks)}
    assert len(pauses) > 1 or most == TURNS
