"""What no heartbeat touches is looked at as often on a large farm as on a small one, and no look ends the agent."""

import itertools

import pytest
from structlog.testing import capture_logs

from farmlease.clock import SystemClock
from farmlease.node.journal.store_state import StoreState
from farmlease.node.sync import secrets_watch, store_watch
from farmlease.node.sync.secrets_watch import SecretsWatch, StoreSecrets
from farmlease.node.sync.store_watch import StoreWatch
from farmlease.store.connection.connection import StoreAddress, open_connection
from farmlease.store.keys import farm_keys
from tests.support.nodes import FARM, Site
from tests.support.servers import RedisServer, redis_server

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


@pytest.mark.parametrize("timed", ["redis"], indirect=True)
@pytest.mark.parametrize("part", ["eviction_of", "wrong_types", "lost_farm_keys", "foreign_page", "foreign_text"])
async def test_a_look_at_the_store_that_fails_is_logged(
    site: Site, timed_server: tuple[RedisServer, object], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Whatever it is that nobody foresaw: the next look comes."""

    def fails(*_: object) -> None:
        raise TypeError("nobody foresaw it")

    monkeypatch.setattr(store_watch, part, fails)
    host = site.host()
    await host.beat()
    site.timed.raw.hset(farm_keys(FARM)[4], "something", "else")
    async with await open_connection(StoreAddress(url=timed_server[0].url)) as connection:
        watch = StoreWatch(connection, FARM, host.node.state, host.node.sync.damage)
        with capture_logs() as told:
            for _ in range(2):
                await watch.look()
    assert ["store_watch.failed"] * 2 == [each["event"] for each in told]


async def test_a_look_at_the_secrets_that_fails_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the connection itself says is told all the same."""

    async def fails(_: StoreAddress) -> None:
        raise TypeError("nobody foresaw it")

    monkeypatch.setattr(secrets_watch, "wiring_of", fails)
    with redis_server() as server:
        address, secrets = StoreAddress(url=server.url), StoreSecrets()
        async with await open_connection(address) as connection:
            watch = SecretsWatch(connection, address, secrets, SystemClock())
            monkeypatch.setattr(type(connection), "not_renewed", ["the password"])
            with capture_logs() as told:
                await watch.look()
    assert ["secrets_watch.failed"] == [each["event"] for each in told]
    assert ("the password (what was there before still serves)",) == secrets.texts
