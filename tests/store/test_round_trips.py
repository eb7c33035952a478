"""A session start is one question and one answer: what the network between node and store costs, it costs once."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from farmlease.domain.policy import Pool
from farmlease.store.answers.session import Taken, Taking
from farmlease.store.connection.connection import Connection, StoreAddress, open_connection
from farmlease.store.lease_store import LeaseStore
from tests.support.patience import within
from tests.support.seats import NODE, VERSION, claim
from tests.support.servers import RedisServer
from tests.support.stores import named_pool

STARTS = 50
POOL: Pool = named_pool(capacity=STARTS, sessions_per_user=0)


@pytest.fixture
async def connection(server: RedisServer) -> AsyncIterator[Connection]:
    """Open a connection as an agent does."""
    async with await open_connection(StoreAddress(url=server.url)) as opened:
        yield opened


@contextmanager
def monitored(server: RedisServer) -> Iterator[list[str]]:
    """Note every command a client sends (not those of scripts) by its name."""
    sent: list[str] = []
    with server.client() as raw, server.client() as watching:
        raw.ping()  # its greeting is not part of the story
        with watching.monitor() as monitor:

            def listen() -> None:
                for command in monitor.listen():
                    name = command["command"].split()[0].upper()
                    if command["client_type"] != "lua":
                        sent.append(name)
                    if name == "ECHO":
                        return

            thread = threading.Thread(target=listen)
            thread.start()
            yield sent
            raw.echo("over")
            thread.join(within(10))
    assert "ECHO" == sent.pop()


async def start(store: LeaseStore, user: str, session: str) -> Taken:
    """Start a session."""
    taking = Taking(device="citrix-a", lease_id=f"lease of {user}", record=b"x" * 300, name=b"name")
    taken = await store.acquire(POOL, VERSION, claim(user, session), taking)
    assert isinstance(taken, Taken)
    return taken


async def test_each_verb_is_one_command(server: RedisServer, connection: Connection) -> None:
    """50 sessions started, asked again, joined, saved and ended are as many commands, all of them EVALSHA."""
    store = LeaseStore(connection, "citrix-a")
    await store.heartbeat(POOL, VERSION, NODE, None)
    first = await start(store, "warm", "warm")
    await store.save(POOL.name, claim("warm"), first.lease.id, 2, b"x")
    await store.release(POOL.name, claim("warm", "warm"), first.fence)
    await store.release(POOL.name, claim("warm", "warm"), first.fence)
    users = ["warm", *(f"user{number}" for number in range(STARTS - 1))]
    with monitored(server) as sent:
        for number, user in enumerate(users):
            taken = await start(store, user, str(number))
            await start(store, user, str(number))
            await start(store, user, f"second {number}")
            await store.heartbeat(POOL, VERSION, NODE, None)
            await store.save(POOL.name, claim(user), taken.lease.id, taken.record_version + 1, b"x")
            await store.release(POOL.name, claim(user, str(number)), taken.fence)
    assert ["EVALSHA"] * 6 * STARTS == sent


async def test_a_start_is_counted_once_by_the_server(server: RedisServer, connection: Connection) -> None:
    """INFO commandstats: 50 session starts are 50 calls of EVALSHA, none of EVAL, none failed."""
    store = LeaseStore(connection, "citrix-a")
    with server.client() as raw:
        await store.heartbeat(POOL, VERSION, NODE, None)
        await start(store, "warm", "warm")
        raw.config_resetstat()
        for number in range(STARTS - 1):
            await start(store, f"user{number}", str(number))
        stats = raw.info("commandstats")
    assert STARTS - 1 == stats["cmdstat_evalsha"]["calls"]
    assert 0 == stats["cmdstat_evalsha"]["failed_calls"]
    assert "cmdstat_eval" not in stats


async def test_a_script_is_sent_once(server: RedisServer, connection: Connection) -> None:
    """A server that does not know a script yet is sent it with the first question; afterwards its digest is enough."""
    store = LeaseStore(connection, "citrix-a")
    with monitored(server) as sent:
        await store.count(POOL.name)
        await store.count(POOL.name)
        await store.count(POOL.name)
    assert ["EVALSHA", "EVAL", "EVALSHA", "EVALSHA"] == [name for name in sent if name.startswith("EVAL")]


async def test_only_what_differs_costs_more(server: RedisServer, connection: Connection) -> None:
    """A pool that has not heard of the policy is told once; after that a start is one command again."""
    store = LeaseStore(connection, "citrix-a")
    await store.heartbeat(POOL, VERSION, NODE, None)
    await start(store, "john", "1")
    taking = Taking(device="citrix-a", lease_id="x", record=b"x", name=b"name")
    with monitored(server) as sent:
        await store.acquire(POOL, VERSION + 1, claim("mary", "2"), taking)
    assert ["EVALSHA"] * 3 == sent
    with monitored(server) as sent:
        await store.acquire(POOL, VERSION + 1, claim("zoe", "3"), taking)
    assert ["EVALSHA"] == sent
