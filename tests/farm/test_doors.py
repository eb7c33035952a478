"""Crowds at the doors of a real agent: whoever comes in numbers and says half, logons and health go on.

The example that broke a farm: 1,100 half requests of a user without rights stopped all logons, and the log grew by two
megabytes a second.
"""

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import psutil
import pytest

from tests.support.agents import RunningAgent, agents_on, soon
from tests.support.callers import as_uid
from tests.support.crowds import crowd
from tests.support.patience import within
from tests.support.servers import RedisServer, missing, redis_server

POLICY = '[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 5000\nqueue = "1m"\nshare = "session"\n'
HALF = b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Le"
NOBODY = 65_534
SILENT_LOG = 4_000  #: bytes that the log may grow by in any of these stories, beside a line for each logon and logoff
SESSIONS = 5

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uids and descriptors as Linux has them")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """The farm's store."""
    with redis_server() as running:
        yield running


@contextmanager
def limited(server: RedisServer, descriptors: int, listen: str) -> Iterator[RunningAgent]:
    """An agent that may have so many descriptors; its soft limit is lower, as a shell's is."""
    with agents_on(server.url, nodes=("ctx-01",), policy=POLICY, listen=listen) as agents:
        agent = agents["ctx-01"]
        agent.terminate()
        soft = min(descriptors, 256)
        agent.launch_by(lambda command: ["prlimit", f"--nofile={soft}:{descriptors}", *command])
        agent.wait_ready()
        yield agent


@pytest.fixture(params=[512, 4096])
def on_unix(request: pytest.FixtureRequest, server: RedisServer) -> Iterator[RunningAgent]:
    """An agent on a Unix socket, with few descriptors and with many."""
    if os.geteuid() != 0:
        missing("the right to be another user")
    with limited(server, request.param, "unix") as agent:
        yield agent


@pytest.fixture
def on_tcp(server: RedisServer) -> Iterator[RunningAgent]:
    """An agent on TCP with a token, with few descriptors."""
    with limited(server, 512, "tcp") as agent:
        yield agent


@contextmanager
def undisturbed(agent: RunningAgent) -> Iterator[None]:
    """Logons, logoffs and health are served meanwhile and afterwards, and the log stays small."""
    size = len(agent.log_text)
    try:
        yield
    finally:
        use(agent)
        lines = [line for line in agent.log_text[size:].splitlines(keepends=True) if '"session.' not in line]
        assert sum(map(len, lines)) < SILENT_LOG, "".join(lines)[:SILENT_LOG]


def use(agent: RunningAgent) -> None:
    """Log on and off some times, as root or with the token, and look at health: all at once and without a refusal."""
    for number in range(SESSIONS):
        before = time.monotonic()
        assert 201 == agent.start("john", f"s{number}").status
        assert 204 == agent.end(f"s{number}").status
        assert 200 == agent.health().status
        assert agent.agent_check().startswith((b"ready", b"up"))
        assert time.monotonic() - before < within(2)


def events(agent: RunningAgent) -> str:
    """What was logged."""
    return agent.log_text


def test_half_requests_of_one_user_stop_nobody(on_unix: RunningAgent) -> None:
    """1,100 of them: root and other users log on, and the log has a line a minute for it."""
    began = time.monotonic()
    with undisturbed(on_unix), crowd(on_unix.listen, HALF, 1_100, uid=NOBODY, then="again"):
        deadline = time.monotonic() + 6  # longer than a head may take
        while time.monotonic() < deadline:
            use(on_unix)
            assert 200 == as_uid(1, on_unix, "GET", "/v1/sessions")[0]
    minutes = (time.monotonic() - began) / 60  # less than one, unless the machine is busy
    soon(lambda: '"listener.made_room"' in events(on_unix), "the log does not say it")
    assert events(on_unix).count('"listener.made_room"') <= 1 + minutes
    assert f'"uid": {NOBODY}' in events(on_unix)
    assert 32 >= most_of_one(on_unix)


def most_of_one(agent: RunningAgent) -> int:
    """How many connections the agent's socket has."""
    assert agent.process is not None
    path = agent.listen.removeprefix("unix:")
    return sum(path == each.laddr for each in psutil.Process(agent.process.pid).net_connections("unix")) - 1


@pytest.mark.parametrize("uids", [40])
def test_many_users_at_once_do_not_squeeze_out_root(on_unix: RunningAgent, uids: int) -> None:
    """Each has his share, all of them together more than there is: root and a newcomer are served."""
    with undisturbed(on_unix), ExitStack() as stack:
        for uid in range(60_000, 60_000 + uids):
            stack.enter_context(crowd(on_unix.listen, HALF, 32, uid=uid))
        use(on_unix)
        assert 200 == as_uid(1, on_unix, "GET", "/v1/sessions")[0]


def test_a_user_whose_sessions_wait_leaves_the_others_their_places(server: RedisServer) -> None:
    """Requests that are being answered are ended for nobody: beyond his share he is told to come again."""
    if os.geteuid() != 0:
        missing("the right to be another user")
    policy = POLICY.replace("5000", "1")
    with agents_on(server.url, nodes=("ctx-01",), policy=policy, listen="unix") as agents:
        agent = agents["ctx-01"]
        assert 201 == agent.start("mary", "m").status
        body = b'{"user":"daemon","session":"%d","wait":"1m"}'
        waiting = b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        whole = body % 1
        with crowd(agent.listen, waiting + b"%d\r\n\r\n" % len(whole) + whole, 32, uid=1):
            soon(lambda: most_of_one(agent) == 32, "they do not wait")
            refused = as_uid(1, agent, "GET", "/v1/sessions")
            assert (503, True) == (refused[0], "try again" in refused[1]["detail"])
            assert 200 == as_uid(2, agent, "GET", "/v1/sessions")[0]
            assert 200 == agent.request("GET", "/v1/sessions").status
        soon(lambda: as_uid(1, agent, "GET", "/v1/sessions")[0] == 200, "he is refused for ever")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        HALF,
        b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=["silent", "half a head", "half a body", "no HTTP"],
)
def test_a_crowd_on_tcp_stops_nobody(on_tcp: RunningAgent, said: bytes) -> None:
    """Whatever half they say, who has the token logs on."""
    with undisturbed(on_tcp), crowd(on_tcp.listen, said, 1_100, then="again"):
        use(on_tcp)
        time.sleep(6)  # longer than each has
        use(on_tcp)


def test_a_crowd_of_idle_connections_stops_nobody(on_tcp: RunningAgent) -> None:
    """Each has asked once and been answered, and keeps its connection."""
    request = (
        f"GET /v1/sessions HTTP/1.1\r\nHost: {on_tcp.host}\r\nAuthorization: {on_tcp.authorization}\r\n\r\n".encode()
    )
    with undisturbed(on_tcp), crowd(on_tcp.listen, request, 600, then="answered"):
        use(on_tcp)


@pytest.mark.parametrize("which", ["health_port", "agent_check_port"])
@pytest.mark.parametrize("said", [b"", b"GET /readyz HT"], ids=["silent", "half a head"])
def test_a_crowd_at_the_balancers_doors_stops_nobody(on_tcp: RunningAgent, which: str, said: bytes) -> None:
    """Any host of the network can be it."""
    with undisturbed(on_tcp), crowd(f"127.0.0.1:{getattr(on_tcp, which)}", said, 1_100, then="again"):
        use(on_tcp)
        time.sleep(6)
        use(on_tcp)


def test_crowds_at_all_doors_at_once(on_tcp: RunningAgent) -> None:
    """The store, the journal and each door have descriptors left."""
    doors = [on_tcp.listen, *(f"127.0.0.1:{port}" for port in (on_tcp.health_port, on_tcp.agent_check_port))]
    with undisturbed(on_tcp), ExitStack() as stack:
        for door in doors:
            stack.enter_context(crowd(door, HALF, 1_100))
        use(on_tcp)


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", b"x"),
        (b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n", b" "),
    ],
    ids=["head", "body"],
)
def test_dripping_buys_no_time(server: RedisServer, head: bytes, drop: bytes) -> None:
    """A head and a body have five seconds each, however they come; nothing else is said of it but a line."""
    with agents_on(server.url, nodes=("ctx-01",), policy=POLICY, listen="unix") as agents:
        agent = agents["ctx-01"]
        began = time.monotonic()
        with closing(agent.connect()) as connection:
            connection.sock.sendall(head)
            with suppress(ConnectionError):
                while time.monotonic() - began < within(60):
                    connection.sock.sendall(drop)
                    time.sleep(0.05)
        assert 4 < time.monotonic() - began < within(7)
        soon(lambda: "listener.slow_" in agent.log_text, "the log does not say it")
        assert "Traceback" not in agent.log_text
        assert "api.failed" not in agent.log_text


def test_the_soft_limit_is_raised(on_tcp: RunningAgent) -> None:
    """A shell's or a service manager's soft limit is not the agent's: it takes what it may have."""
    assert on_tcp.process is not None
    soft, hard = resource.prlimit(on_tcp.process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard
