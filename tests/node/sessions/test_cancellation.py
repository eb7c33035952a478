"""A caller that goes away at any wait of a start, an end or a save: no seat leaks, and no answer reaches another.

The same for an agent that is killed at any of them. Which waits there are is not written here: each is counted and met.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest

from farmlease.domain.model import SessionRequest
from farmlease.errors import StoreError
from farmlease.store.connection.connection import Connection, StoreAddress, open_connection
from farmlease.store.script import Script
from tests.support.nodes import JOHN, MARY, Host, Site
from tests.support.servers import RedisServer
from tests.support.stepwise import Waits, watching

#: More waits than any verb has; a story that needs more is going round in circles.
MOST = 300
QUEUED = """
[[pool]]
name = "clearquest"
kind = "floating"
capacity = 1
queue = "10m"
"""
ECHO_TEXT = "return {ARGV[1]}"
ECHO = Script("echo", ECHO_TEXT, hashlib.sha1(ECHO_TEXT.encode(), usedforsecurity=False).hexdigest(), (), ())

Verb = Callable[[Host], Awaitable[object]]


async def start(host: Host) -> object:
    """Start a session."""
    host.mount()
    return await host.agent.start_session(SessionRequest(user=JOHN, session="7", pool="qlikview"))


async def end(host: Host) -> object:
    """End a session."""
    host.mount()
    return await host.agent.end_session("7")


async def save(host: Host) -> object:
    """Take a session's files back."""
    host.mount()
    return await host.agent.save_session("7")


async def as_it_should_be(site: Site, host: Host) -> bool:
    """Check that store and node agree, nothing is owed and the files are where they belong; whether john is there."""
    for _ in range(2):
        await host.beat()
    sessions = await site.sessions()
    there = host.states == {"7": "active"}
    assert ([("ctx-01", "7")] if there else []) == sessions, host.states
    assert there or host.states == {}
    assert 0 == host.agent.facts().owed
    return there


async def left_at(host: Host, verb: Verb, wait: int) -> bool:
    """Ask, and go away at the n-th wait of what the agent does about it. Whether it came so far."""
    waits = Waits(wait)
    with watching(waits):
        caller = asyncio.ensure_future(verb(host))
        waits.then = caller.cancel
        with suppress(asyncio.CancelledError):
            await caller
        await host.agent.settled()
    return waits.met


async def killed_at(host: Host, verb: Verb, wait: int) -> bool:
    """Ask an agent that ends at the n-th wait, and start another on its journal. Whether it came so far."""
    own = asyncio.current_task()

    def kill() -> None:
        for task in asyncio.all_tasks() - {own}:
            task.cancel()

    waits = Waits(wait, kill)
    with watching(waits):
        with suppress(asyncio.CancelledError, StoreError):
            await asyncio.ensure_future(verb(host))
        while others := asyncio.all_tasks() - {own}:
            await asyncio.wait(others)
    host.restart()
    return waits.met


Fate = Callable[[Host, Verb, int], Awaitable[bool]]
fates = pytest.mark.parametrize("fate", [left_at, killed_at])
#: Only a real server has to be waited for.
real = pytest.mark.parametrize("timed", ["redis"], indirect=True)


@fates
@real
async def test_a_start(site: Site, fate: Fate) -> None:
    """L3: whoever does not hear the answer can ask again, or end it; nothing stays behind."""
    host = site.host()
    await host.beat()
    for wait in range(1, MOST):
        met = await fate(host, start, wait)
        there = await as_it_should_be(site, host)
        assert there or fate is killed_at, "what a caller began is carried out"
        await host.granted(JOHN)
        assert there is False or 1 == len(await site.sessions())
        await host.end()
        assert not await as_it_should_be(site, host)
        if not met:
            break
    assert 5 <= wait < MOST


@fates
@real
async def test_an_end(site: Site, fate: Fate) -> None:
    """L7: an end that was begun is carried out, and the changed file is in the record once."""
    host = site.host()
    await host.beat()
    for wait in range(1, MOST):
        await host.granted(JOHN)
        before = await site.record_version()
        host.write(f"changed {wait}".encode())
        met = await fate(host, end, wait)
        if await as_it_should_be(site, host):
            assert fate is killed_at, "what a caller began is carried out"
            await host.end()
        await host.node.loops.clear_leftovers()  # what a killed agent left is looked at each minute
        assert not await as_it_should_be(site, host)
        assert (None, before + 1) == (host.read(), await site.record_version())
        if not met:
            break
    assert 5 <= wait < MOST


@fates
@real
async def test_a_save(site: Site, fate: Fate) -> None:
    """L3: a changed file becomes one new version of the record, however often it is asked for; the session goes on."""
    host = site.host()
    await host.granted(JOHN)
    for wait in range(1, MOST):
        before = await site.record_version()
        host.write(f"changed {wait}".encode())
        met = await fate(host, save, wait)
        assert await as_it_should_be(site, host)
        assert fate is killed_at or before + 1 == await site.record_version()
        await host.save()
        assert (f"changed {wait}".encode(), before + 1) == (host.read(), await site.record_version())
        if not met:
            break
    assert 5 <= wait < MOST


@fates
@real
async def test_a_wait_for_a_seat(site: Site, fate: Fate) -> None:
    """Who leaves the queue gives up the place: the next one gets the seat, and nobody gets it twice."""
    await site.apply(QUEUED)
    host = site.host()

    async def wait_for_it(host: Host) -> object:
        request = SessionRequest(user=JOHN, session="7", pool="clearquest", wait_ms=60_000)
        return await host.agent.start_session(request)

    for wait in range(1, 40):
        await host.granted(MARY, "8")
        await fate(host, wait_for_it, wait)
        await host.end("7")
        await host.end("8")
        await host.beat()
        assert ([], []) == (await site.sessions(pool="clearquest"), await site.sessions(MARY, "clearquest"))
        await host.granted(MARY, "9")
        await host.end("9")


async def gone(caller: asyncio.Future[Any]) -> None:
    """Let a caller go away."""
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)


async def test_two_callers_of_one_session_who_both_hang_up(site: Site) -> None:
    """The second comes and leaves while the first one's place is still to be given up: nobody goes on waiting.

    Another user's start of the same id ends what the first one had asked for meanwhile.
    """
    await site.apply(QUEUED)
    host = site.host()
    await host.granted(MARY, "8", pool="clearquest")
    request = SessionRequest(user=JOHN, session="7", pool="clearquest", wait_ms=60_000)
    with host.line.holding("acquire") as held:
        first = asyncio.ensure_future(host.agent.start_session(request))
        await held()
        between = asyncio.ensure_future(host.agent.start_session(SessionRequest(user=MARY, session="7", pool="none")))
        await asyncio.sleep(0.01)
        await gone(first)
        second = asyncio.ensure_future(host.agent.start_session(request))
        await asyncio.sleep(0.01)
        await gone(second)
    await between
    await host.agent.settled()
    assert {"8": "active"} == host.states


def leave(host: Host, caller: asyncio.Future[object], others: list[asyncio.Future[Any]]) -> None:
    """Go away, and let two others ask."""
    caller.cancel()
    others.extend(asyncio.ensure_future(start(host)) for _ in range(2))


@real
async def test_two_callers_of_one_session(site: Site) -> None:
    """One goes away at any wait, the other one asks for the same session at that moment and hears the right answer."""
    host = site.host()
    await host.beat()
    for wait in range(1, MOST):
        waits = Waits(wait)
        with watching(waits):
            caller = asyncio.ensure_future(start(host))
            others: list[asyncio.Future[Any]] = []
            waits.then = partial(leave, host, caller, others)
            with suppress(asyncio.CancelledError):
                await caller
        answers = await asyncio.gather(*others)
        await host.agent.settled()
        grant = await host.granted(JOHN)
        assert [grant.fence] * len(answers) == [answer.fence for answer in answers]
        assert await as_it_should_be(site, host)
        await host.end()
        if not waits.met:
            break
    assert 5 <= wait < MOST


# --- the way to the store -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(server: RedisServer) -> AsyncIterator[Connection]:
    """A connection to a real server."""
    async with await open_connection(StoreAddress(url=server.url)) as connection:
        yield connection


@pytest.fixture
def words() -> Iterator[str]:
    """Words that are all different."""
    return (f"word {number}" for number in range(1_000_000))


async def echoed(connection: Connection, word: str) -> bool:
    """Whether a question is answered with its own answer."""
    return [word.encode()] == await connection.call(ECHO, (), (word,))


@pytest.mark.parametrize("company", [0, 1, 8])
async def test_no_answer_reaches_another(server: RedisServer, words: Iterator[str], company: int) -> None:
    """A call that ends at any wait takes its answer with it: neither those beside it nor those after it hear it."""
    async with connected(server) as connection:
        for wait in range(1, MOST):
            waits = Waits(wait)
            others = [asyncio.create_task(echoed(connection, next(words))) for _ in range(company)]
            with watching(waits):
                victim = asyncio.create_task(echoed(connection, next(words)))
            waits.then = victim.cancel
            with suppress(asyncio.CancelledError):
                await victim
            others += [asyncio.create_task(echoed(connection, next(words))) for _ in range(company + 1)]
            assert all(await asyncio.gather(*others))
            if not waits.met:
                break
        assert 1 < wait < MOST


async def test_no_answer_reaches_another_on_the_first_connection(server: RedisServer, words: Iterator[str]) -> None:
    """The same while the network connection is only being made, and while the server loads the script."""
    for wait in range(1, MOST):
        async with connected(server) as connection:
            with server.client() as client:
                client.script_flush()
            waits = Waits(wait)
            with watching(waits):
                victim = asyncio.create_task(echoed(connection, next(words)))
            waits.then = victim.cancel
            with suppress(asyncio.CancelledError):
                await victim
            assert await echoed(connection, next(words))
        if not waits.met:
            break
    assert 2 < wait < MOST
