"""A network that fails between node and store: what the caller is told, and what the store has done all the same."""

from collections.abc import AsyncIterator, Iterator

import pytest

from farmlease.errors import StoreUnavailable
from farmlease.store.answers.session import Claim, Taken, Taking
from farmlease.store.connection.connection import Connection, StoreAddress, open_connection
from farmlease.store.lease_store import LeaseStore
from tests.support.proxy import Proxy, proxy
from tests.support.seats import NODE, VERSION, claim
from tests.support.servers import redis_server
from tests.support.stores import named_pool, no_sleep

POOL = named_pool()
TAKING = Taking(device="citrix-a", lease_id="first", record=b"x", name=b"name")


@pytest.fixture
def between() -> Iterator[Proxy]:
    """A real server behind a proxy."""
    with redis_server(tcp=True) as server, proxy(server.port) as running:
        yield running


@pytest.fixture
async def connection(between: Proxy) -> AsyncIterator[Connection]:
    """Open the store behind the proxy; nobody waits between two tries."""
    address = StoreAddress(url=f"redis://127.0.0.1:{between.port}/0", timeout_ms=1500)
    async with await open_connection(address, sleep=no_sleep) as opened:
        yield opened


async def begin(store: LeaseStore) -> None:
    """Let the node live and the server learn the script."""
    await store.heartbeat(POOL, VERSION, NODE, None)
    assert isinstance(await store.acquire(POOL, VERSION, claim("mary", "2"), TAKING), Taken)


async def test_a_store_behind_a_cut_line_is_unavailable_until_it_is_mended(
    between: Proxy, connection: Connection
) -> None:
    """While the line is cut there is no answer; then everything is as it was."""
    store = LeaseStore(connection, "citrix-a")
    await begin(store)
    between.cut()
    with pytest.raises(StoreUnavailable):
        await store.acquire(POOL, VERSION, claim("john"), TAKING)
    between.mend()
    count = await store.count(POOL.name)
    assert count is not None
    assert 1 == count.held


@pytest.mark.parametrize("fault", ["lost", "late"])
async def test_no_answer_does_not_mean_no_effect(between: Proxy, connection: Connection, fault: str) -> None:
    """L3: every reply to a start is lost, or too late: the seat is taken once, and asking later finds it."""
    store = LeaseStore(connection, "citrix-a")
    await begin(store)
    if fault == "lost":
        between.lose = 1.0
    else:
        between.delay = 5.0
    with pytest.raises(StoreUnavailable):
        await store.acquire(POOL, VERSION, claim("john"), TAKING)
    between.lose = between.delay = 0.0
    found = await store.acquire(POOL, VERSION, claim("john"), TAKING)
    assert isinstance(found, Taken)
    assert (True, "first") == (found.again, found.lease.id)
    count = await store.count(POOL.name)
    assert count is not None
    assert 2 == count.held


async def test_what_was_taken_without_an_answer_is_given_back_whole(between: Proxy, connection: Connection) -> None:
    """L3: a start that got no answer is ended with the last fence there is: no session stays behind."""
    store = LeaseStore(connection, "citrix-a")
    await begin(store)
    between.lose = 1.0
    with pytest.raises(StoreUnavailable):
        await store.acquire(POOL, VERSION, claim("john"), TAKING)
    between.lose = 0.0
    john = claim("john")
    await store.release(POOL.name, Claim(user=john.user, node=NODE, session=john.session), 2**53 - 1)
    beat = await store.heartbeat(POOL, VERSION, NODE, None)
    assert 1 == getattr(beat, "sessions", None)
