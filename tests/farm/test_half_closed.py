"""Callers who send no more before they have their answer (``shutdown(SHUT_WR)``), on real agents: they are answered."""

import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.support.agents import Agents, RunningAgent, agents_on, soon
from tests.support.patience import within
from tests.support.servers import redis_server

POLICY = """\
[[pool]]
name = "clearquest"
kind = "floating"
capacity = 1
share = "session"
queue = "10m"
"""
#: A waiting caller is asked twice a second whether he is there, and his session looks each second.
NOTICED_WITHIN = 5.0


@pytest.fixture(
    scope="module",
    params=[
        "tcp",
        pytest.param("unix", marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows has no Unix sockets")),
    ],
)
def farm(request: pytest.FixtureRequest) -> Iterator[Agents]:
    """An agent with one seat, of either kind of address."""
    with redis_server() as store, agents_on(store.url, nodes=["ctx-01"], policy=POLICY, listen=request.param) as agents:
        yield agents


@pytest.fixture
def agent(farm: Agents) -> Iterator[RunningAgent]:
    """The agent, with no session afterwards."""
    yield farm["ctx-01"]
    for each in farm["ctx-01"].request("GET", "/v1/sessions").document:
        farm["ctx-01"].end(each["session"])


@contextmanager
def half_closed(agent: RunningAgent, *messages: bytes) -> Iterator[socket.socket]:
    """Send requests, and say that this is all."""
    with closing(agent.connect()) as connection:
        if connection.sock is None:
            connection.connect()
        connection.sock.sendall(b"".join(messages))
        connection.sock.shutdown(socket.SHUT_WR)
        connection.sock.settimeout(within(30))
        yield connection.sock


def message(agent: RunningAgent, method: str, path: str, document: object = None, version: str = "1.1") -> bytes:
    """Write down a request."""
    body = b"" if document is None else json.dumps(document).encode()
    token = f"Authorization: {agent.authorization}\r\n" if agent.authorization else ""
    head = f"{method} {path} HTTP/{version}\r\nHost: {agent.host}\r\n{token}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def start(agent: RunningAgent, session: str, wait: str | None = None, version: str = "1.1") -> bytes:
    """Write down a start; of another user for each session."""
    given = {"user": session, "session": session, "pool": "clearquest"} | ({} if wait is None else {"wait": wait})
    return message(agent, "POST", "/v1/sessions", given, version)


def read_all(connection: socket.socket) -> bytes:
    """Return all that comes until the agent closes the connection."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def states(agent: RunningAgent) -> dict[str, str]:
    """The sessions that the agent shows, with their states."""
    return {each["session"]: each["state"] for each in agent.request("GET", "/v1/sessions").document}


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_call_is_answered(agent: RunningAgent, version: str) -> None:
    """Whole, and then the connection ends at once, whatever was said of keeping it."""
    began = time.monotonic()
    with half_closed(agent, start(agent, "ann", version=version)) as connection:
        answer = read_all(connection)
    assert time.monotonic() - began < within(2)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (True, "ann", "granted") == (
        head.startswith(b"HTTP/1.1 201 "),
        json.loads(body)["session"],
        json.loads(body)["decision"],
    )
    assert {"ann": "active"} == states(agent)


def test_a_target_may_begin_with_the_agents_address(agent: RunningAgent) -> None:
    """As HTTP allows it, and a proxy writes it."""
    with half_closed(agent, message(agent, "GET", f"http://{agent.host}/v1/sessions?user=ann")) as connection:
        assert read_all(connection).endswith(b"\r\n\r\n[]")
    with half_closed(agent, message(agent, "GET", "http://evil.example/v1/sessions")) as connection:
        assert read_all(connection).startswith(b"HTTP/1.1 403 ")


def test_several_calls_are_answered_in_order(agent: RunningAgent) -> None:
    """All that were whole when the caller said that he sends no more; half a call is none."""
    calls = [
        start(agent, "ann"),
        message(agent, "GET", "/v1/sessions/ann"),
        message(agent, "DELETE", "/v1/sessions/ann"),
    ]
    with half_closed(agent, *calls, start(agent, "ben")[:-5]) as connection:
        answer = read_all(connection)
    assert [b"201", b"200", b"204"] == [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert {} == states(agent)


def test_half_a_call_ends_the_connection_at_once(agent: RunningAgent) -> None:
    """Nothing is begun by it."""
    began = time.monotonic()
    for cut in (10, -5):
        with half_closed(agent, start(agent, "ann")[:cut]) as connection:
            assert b"" == read_all(connection)
    assert time.monotonic() - began < within(2)
    assert {} == states(agent)


def test_who_waits_in_the_queue_gets_his_seat(agent: RunningAgent) -> None:
    """However long it takes; what comes before is skipped by every client of HTTP/1.1."""
    assert 201 == agent.start("ann", "ann").status
    with half_closed(agent, start(agent, "ben", wait="60s")) as connection:
        soon(lambda: states(agent).get("ben") == "waiting", "ben does not wait")
        time.sleep(2)  # some looks
        assert "waiting" == states(agent)["ben"]
        agent.end("ann")
        *interim, last = read_all(connection).split(b"HTTP/1.1 ")[1:]
    assert ({b"100 Continue\r\n\r\n"}, b"201") == (set(interim), last[:3])
    assert {"ben": "active"} == states(agent)


def test_who_waits_and_then_goes_gives_up_his_place(agent: RunningAgent) -> None:
    """Within seconds, as one who goes without a word."""
    assert 201 == agent.start("ann", "ann").status
    with half_closed(agent, start(agent, "ben", wait="60s")):
        soon(lambda: states(agent).get("ben") == "waiting", "ben does not wait")
    soon(lambda: "ben" not in states(agent), "the place of one who has gone is kept", NOTICED_WITHIN)
