"""Stores for the tests, on virtual time: the fake and the real one alike."""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
import time_machine
from redis import asyncio as driver

from farmlease.domain.policy import Pool, parse_policy
from farmlease.store.connection.connection import Connection
from farmlease.store.connection.renewals import Renewals
from farmlease.store.lease_store import LeaseStore
from farmlease.store.script import LIFE, Argument, Script
from tests.support.servers import RedisServer, redis_server, virtual_time_server

NINE = int(datetime(2026, 1, 5, 9, 0, tzinfo=UTC).timestamp() * 1000)
HOUR = 3_600_000
DAY = 24 * HOUR


class StoreClock:
    """The store's clock in the test's hand. It stands still unless moved."""

    def __init__(self, show: Callable[[int], None]) -> None:
        self._show = show
        self.now_ms = NINE
        self.set(NINE)

    def set(self, now_ms: int) -> None:
        """Show this instant, in ms."""
        self.now_ms = now_ms
        self._show(now_ms)

    def advance(self, span_ms: int) -> None:
        """Let time pass."""
        self.set(self.now_ms + span_ms)


@dataclass(frozen=True, slots=True)
class TimedStore:
    """A store whose clock the test sets, and a plain client to look behind its back."""

    kind: str
    store: LeaseStore
    clock: StoreClock
    raw: redis.Redis
    connection: Connection


@pytest.fixture(scope="session")
def timed_server() -> Iterator[tuple[RedisServer, Path]]:
    """A real redis-server on virtual time, started once and emptied by each test that takes it."""
    with virtual_time_server() as running:
        yield running


@pytest.fixture(params=["fakeredis", "redis"])
async def timed(request: pytest.FixtureRequest) -> AsyncIterator[TimedStore]:
    """The same tests on fakeredis and on a real redis-server, both on virtual time."""
    with ExitStack() as stack:
        if request.param == "fakeredis":
            traveller = stack.enter_context(time_machine.travel(NINE / 1000, tick=False))
            server = fakeredis.FakeServer()
            client: driver.Redis = fakeredis.FakeAsyncRedis(server=server)
            raw: redis.Redis = fakeredis.FakeRedis(server=server)
            clock = StoreClock(lambda now_ms: traveller.move_to((now_ms + 0.5) / 1000))
        else:
            running, file = request.getfixturevalue("timed_server")
            clock = StoreClock(lambda now_ms: show(file, now_ms))
            client = driver.Redis(unix_socket_path=str(running.socket))
            raw = running.client()
            raw.flushall()
        connection = Connection(
            client, describe=request.param, timeout_ms=10_000, server=None, sleep=no_sleep, renewals=Renewals()
        )
        yield TimedStore(request.param, LeaseStore(connection, "citrix-a"), clock, raw, connection)
        await client.aclose()
        raw.close()


class Served:
    """A connection to another life of the server: what it fills in for LIFE."""

    def __init__(self, connection: Connection, life: str) -> None:
        self._connection = connection
        self.life = life

    async def call(self, script: Script, keys: tuple[str, ...], args: list[Argument]) -> list[Any]:
        """Ask."""
        return list(await self._connection.call(script, keys, [self.life if arg == LIFE else arg for arg in args]))


def show(file: Path, now_ms: int) -> None:
    """Set libfaketime's clock, in one step, so that the server never reads half a number.

    Half a millisecond is added: libfaketime reads a binary fraction, which may be a hair less than the decimal one.
    """
    new = file.with_suffix(".new")
    new.write_text(f"{now_ms // 1000}.{now_ms % 1000:03}5")
    new.replace(file)


async def no_sleep(_: float) -> None:
    """Wait for nothing."""


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A real redis-server of the test's own."""
    with redis_server() as running:
        yield running


def named_pool(**keys: object) -> Pool:
    """A named pool with three seats, but for ``keys`` as pools.toml writes them."""
    given = {"name": "qlikview", "kind": "named", "capacity": 3} | keys
    lines = "\n".join(f"{key} = {toml(value)}" for key, value in given.items())
    (pool,) = parse_policy(f"[[pool]]\n{lines}\n", "test").pools
    return pool


def toml(value: object) -> str:
    """Write a number, a string or a list of strings as TOML."""
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def index(user: str) -> str:
    """A user index that looks like the real ones, without keys."""
    return hashlib.sha256(user.encode()).hexdigest()[:22]
