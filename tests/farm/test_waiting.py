"""The queue of a pool on real agents: who waits gets the next seat, in order, and holds nobody else up."""

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.support.agents import Agents, Reply, RunningAgent, agents_on, soon
from tests.support.patience import within
from tests.support.servers import redis_server

POLICY = """\
[[pool]]
name = "clearquest"
kind = "floating"
capacity = 1
queue = "10m"
max_hold = "4h"

[[pool]]
name = "no-holds"
kind = "floating"
capacity = 9
"""
MANY = 500
BOUND = 60.0  #: seconds for the crowd to be waiting
ANSWERS_WITHIN = 2.0  #: seconds, for everybody else meanwhile and for who gets the seat


@pytest.fixture(scope="module")
def farm() -> Iterator[Agents]:
    """Two agents on one store."""
    with redis_server() as store, agents_on(store.url, policy=POLICY) as agents:
        yield agents


@pytest.fixture
def taken(farm: Agents) -> Iterator[Agents]:
    """The farm with its only seat taken by ann's session ``a``, and nobody there afterwards."""
    assert 201 == farm["ctx-01"].start("ann", "a", pool="clearquest").status
    yield farm
    for agent in farm:
        for each in agent.request("GET", "/v1/sessions").document:
            assert 204 == agent.end(each["session"]).status


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads in which requests wait."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


def wait_in(threads: ThreadPoolExecutor, agent: RunningAgent, user: str, session: str, span: str) -> Future[Reply]:
    """Begin to wait for a seat, and return when the agent shows that."""
    waiting = threads.submit(agent.start, user, session, pool="clearquest", wait=span)
    soon(lambda: "waiting" == state(agent, session), f"{session} does not wait")
    return waiting


def state(agent: RunningAgent, session: str) -> str | None:
    """The state in which the agent shows a session; None if it does not."""
    reply = agent.request("GET", f"/v1/sessions/{session}")
    uses = (reply.document or {}).get("uses") or [{}]
    return uses[0].get("state")


def test_who_waits_gets_the_seat_that_falls_free(taken: Agents, threads: ThreadPoolExecutor) -> None:
    """Shown as waiting, without a grant; two seconds after the seat fell free at most: 201."""
    first, second = taken
    waiting = wait_in(threads, second, "bob", "b", "30s")
    (shown,) = second.request("GET", "/v1/sessions/b").document["uses"]
    assert (None, "waiting") == (shown.get("decision"), shown["state"])
    assert 204 == first.end("a").status
    since = time.monotonic()
    reply = waiting.result(within(10))
    assert 201 == reply.status
    assert time.monotonic() - since < within(ANSWERS_WITHIN)
    assert "active" == state(second, "b")


def test_first_come_first_served(taken: Agents, threads: ThreadPoolExecutor) -> None:
    """Bob came before cleo, on another host; the seat is bob's, then cleo's, and never dora's who does not wait."""
    first, second = taken
    bob = wait_in(threads, second, "bob", "b", "30s")
    cleo = wait_in(threads, first, "cleo", "c", "30s")
    first.end("a")
    assert 201 == bob.result(within(10)).status
    assert not cleo.done()
    assert 409 == first.start("dora", "d", pool="clearquest").status
    second.end("b")
    assert 409 == second.start("dora", "d", pool="clearquest").status
    assert 201 == cleo.result(within(10)).status


def test_when_the_wait_is_over(taken: Agents, threads: ThreadPoolExecutor) -> None:
    """After the two seconds that were asked for: 409 capacity, and no place is left."""
    first, second = taken
    since = time.monotonic()
    reply = wait_in(threads, second, "bob", "b", "2s").result(within(10))
    assert (409, "capacity") == (reply.status, reply.document["reason"])
    assert 2 <= time.monotonic() - since < within(2 + ANSWERS_WITHIN + 1)
    assert state(second, "b") is None
    first.end("a")
    assert 201 == first.start("dora", "d", pool="clearquest").status


def test_who_ends_the_session_gives_up_the_place(taken: Agents, threads: ThreadPoolExecutor) -> None:
    """DELETE while waiting: the one who waits gets 409, and the next in the queue is first."""
    first, second = taken
    bob = wait_in(threads, second, "bob", "b", "30s")
    cleo = wait_in(threads, first, "cleo", "c", "30s")
    assert 204 == second.end("b").status
    assert 409 == bob.result(within(10)).status
    first.end("a")
    assert 201 == cleo.result(within(10)).status


def test_who_hangs_up_gives_up_the_place(taken: Agents, threads: ThreadPoolExecutor) -> None:
    """The connection of one who waits is cut: his place is gone within seconds, and he never gets a seat."""
    first, second = taken
    with closing(second.connect()) as connection:
        body, headers = question(second, "bob", "b")
        connection.request("POST", "/v1/sessions", body, headers)
        soon(lambda: "waiting" == state(second, "b"), "bob does not wait")
    soon(lambda: state(second, "b") is None, "the place of one who hung up is kept")
    first.end("a")
    assert 201 == first.start("dora", "d", pool="clearquest").status


def test_two_questions_for_one_session_have_one_answer(taken: Agents, threads: ThreadPoolExecutor) -> None:
    """A hook that asked twice: both are told of the seat, one of them that it is the same."""
    first, second = taken
    one = wait_in(threads, second, "bob", "b", "30s")
    other = threads.submit(second.start, "bob", "b", pool="clearquest", wait="30s")
    time.sleep(0.5)  # nothing shows that the second question has come
    first.end("a")
    assert [200, 201] == sorted((one.result(within(10)).status, other.result(within(10)).status))


def test_a_killed_agent_s_places_are_given_up(taken: Agents, threads: ThreadPoolExecutor) -> None:
    """Nobody waits for the answer of an agent that was killed: after its restart the place is gone."""
    first, second = taken
    waiting = wait_in(threads, second, "bob", "b", "30s")
    second.kill()
    assert isinstance(waiting.exception(within(10)), OSError)
    second.launch()
    second.wait_ready()
    assert state(second, "b") is None
    first.end("a")
    soon(lambda: first.start("dora", "d", pool="clearquest").status < 300, "a dead place is kept")


def question(agent: RunningAgent, user: str, session: str) -> tuple[str, dict[str, str]]:
    """Return the body and headers of a question that waits."""
    body = json.dumps({"user": user, "session": session, "pool": "clearquest", "wait": "5m"})
    return body, {
        "Host": agent.host,
        "Authorization": str(agent.authorization),
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }


async def crowd(agent: RunningAgent, first: RunningAgent) -> list[float]:
    """Let many wait at one agent until one gets the seat; return how long others' calls took meanwhile."""
    host, port = agent.listen.rsplit(":", 1)
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(MANY)]
    for number, (_, writer) in enumerate(connections):
        body, headers = question(agent, f"u{number:03}", f"w{number:03}")
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"POST /v1/sessions HTTP/1.1\r\n{head}\r\n{body}".encode())
    deadline = time.monotonic() + within(BOUND)
    while len((await asyncio.to_thread(agent.request, "GET", "/v1/sessions")).document) < MANY:
        assert time.monotonic() < deadline, "they do not all wait"
        await asyncio.sleep(0.2)
    took = [await timed(agent) for _ in range(20)]
    await asyncio.to_thread(first.end, "a")
    answers = [asyncio.create_task(reader.readline()) for reader, _ in connections]
    async with asyncio.timeout(within(10)):
        for each in asyncio.as_completed(answers):
            said = await each
            if not said.startswith(b"HTTP/1.1 503"):  # on a busy machine the store is too slow for some of so many
                break
    assert b"HTTP/1.1 201 Created\r\n" == said
    for _, writer in connections:
        writer.close()
    return took


async def timed(agent: RunningAgent) -> float:
    """How long health and a list take."""
    since = time.monotonic()
    assert 200 == (await asyncio.to_thread(agent.health, "/livez")).status
    assert 200 == (await asyncio.to_thread(agent.request, "GET", "/v1/sessions/w000")).status
    return time.monotonic() - since


def test_a_crowd_that_waits_holds_nobody_up(taken: Agents) -> None:
    """While 500 wait at one agent it answers others; the seat that falls free goes to one, the rest leave in time."""
    first, second = taken
    took = asyncio.run(crowd(second, first))
    assert max(took) < within(ANSWERS_WITHIN)
    deadline = time.monotonic() + within(BOUND)
    while any(each["state"] == "waiting" for each in second.request("GET", "/v1/sessions").document):
        assert time.monotonic() < deadline, "places of those who hung up are kept"
        time.sleep(0.2)


# --- hold, as the API has it ------------------------------------------------------------------------------------------


def test_the_codes_of_a_hold(taken: Agents) -> None:
    """200 with hold_until, which the session shows too; 404, 409 where the pool has no holds, 422 naming the field."""
    agent = taken["ctx-01"]
    agent.start("bob", "n", pool="no-holds")
    reply = agent.request("POST", "/v1/sessions/a/hold", {"for": "1h"})
    assert 200 == reply.status
    assert ["hold_until", "session", "uses"] == sorted(reply.document)
    assert "hold_until" in agent.request("GET", "/v1/sessions/a").document["uses"][0]
    codes = [
        agent.request("POST", f"/v1/sessions/{session}/hold", body).status
        for session, body in (("a", {}), ("none", {"for": "1h"}), ("n", {"for": "1h"}), ("a", {"for": "soon"}))
    ]
    assert [200, 404, 409, 422] == codes
    assert "for" == agent.request("POST", "/v1/sessions/a/hold", {"for": "soon"}).document["field"]
    assert 200 == agent.request("POST", "/v1/sessions/a/hold").status


def test_activity(taken: Agents) -> None:
    """204 for a session that is there, 404 for another."""
    codes = [taken["ctx-01"].request("POST", f"/v1/sessions/{each}/activity").status for each in ("a", "none")]
    assert [204, 404] == codes
