"""A service manager hears of an agent's life: over a real datagram socket, from a real agent."""

import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmlease.node.systemd import ServiceManager
from tests.support.agents import RunningAgent, agents_on
from tests.support.patience import within
from tests.support.servers import RedisServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no such manager on Windows")


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, str]]:
    """A manager's socket and how NOTIFY_SOCKET names it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard, tempfile.TemporaryDirectory(prefix="fl-") as folder:
        heard.settimeout(within(20))
        name = f"{folder}/notify" if request.param == "file" else f"@farmlease-{secrets.token_hex(8)}"
        heard.bind(name.replace("@", "\0"))
        yield heard, name


def words(heard: socket.socket, count: int) -> list[str]:
    """Return the next words that the manager hears."""
    return [heard.recv(4096).decode() for _ in range(count)]


def test_each_word_is_one_datagram(manager: tuple[socket.socket, str]) -> None:
    """READY, a sign of life, STOPPING, as systemd's protocol writes them."""
    heard, name = manager
    told = ServiceManager({"NOTIFY_SOCKET": name})
    told.ready()
    told.alive()
    told.stopping()
    assert ["READY=1", "WATCHDOG=1", "STOPPING=1"] == words(heard, 3)


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    """Nobody asked, nobody listens any more, or nobody ever did: the agent goes on all the same."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
    for environ in (
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": str(tmp_path / "deaf")},
        {"NOTIFY_SOCKET": "/" + "x" * 200},
    ):
        ServiceManager(environ).ready()
    assert None is ServiceManager({"WATCHDOG_USEC": "1000000"}).watchdog


def test_a_manager_that_does_not_listen_holds_up_nobody(tmp_path: Path) -> None:
    """Its queue is full: the next word is lost and the agent goes on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as slow:
        slow.bind(str(tmp_path / "slow"))
        told = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "slow")})
        for _ in range(5000):
            told.alive()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_managers_patience(environ: dict[str, str], expected: float | None) -> None:
    """It is in microseconds, and only for the process it names: a hook or a command inherits the variables too."""
    assert expected == ServiceManager({"NOTIFY_SOCKET": "/nowhere", **environ}).watchdog


def test_an_agent_tells_its_manager(
    server: RedisServer, manager: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """READY when a session can start, signs of life twice as often as asked for, STOPPING when told to stop."""
    heard, name = manager
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    with agents_on(server.url, nodes=("ctx-01",)) as agents:
        agent = agents["ctx-01"]
        assert ["READY=1", "WATCHDOG=1", "WATCHDOG=1"] == words(heard, 3)
        assert 201 == agent.start("john", "7").status
        remaining(heard)  # or its queue may be full of signs of life by then, and what comes next is lost
        assert 0 == agent.terminate()
        assert "STOPPING=1" in remaining(heard)


def test_ready_means_that_a_session_can_start(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What systemd starts after the agent finds it answering; no READY comes from an agent that cannot start."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        name = f"farmlease-{secrets.token_hex(8)}"
        heard.bind(f"\0{name}")
        heard.settimeout(within(20))
        with agents_on(server.url, nodes=("ctx-01",)) as agents:
            agent = agents["ctx-01"]
            agent.terminate()
            monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
            agent.launch()
            assert ["READY=1"] == words(heard, 1)
            assert 201 == agent.start("john", "7").status
            assert 0 == agent.terminate()
            assert ["STOPPING=1"] == remaining(heard)
            agents.key_ring.chmod(0o644)
            agent.launch()
            assert agent.process is not None
            assert 5 == agent.process.wait(within(20))
            assert [] == remaining(heard)


def test_an_agent_that_hangs_gives_no_sign_of_life(
    server: RedisServer, manager: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signs come from the loop that serves sessions: when that stands still, so do they."""
    heard, name = manager
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    with agents_on(server.url, nodes=("ctx-01",)) as agents:
        agent = agents["ctx-01"]
        assert ["READY=1", "WATCHDOG=1"] == words(heard, 2)
        signalled(agent, signal.SIGSTOP)
        remaining(heard)
        heard.settimeout(1)
        with pytest.raises(TimeoutError):
            words(heard, 1)
        signalled(agent, signal.SIGCONT)
        heard.settimeout(within(20))
        assert ["WATCHDOG=1"] == words(heard, 1)


def signalled(agent: RunningAgent, number: signal.Signals) -> None:
    """Send the agent a signal, and wait until it stands still if that is what it says."""
    assert agent.process is not None
    agent.process.send_signal(number)
    if number is signal.SIGSTOP:
        os.waitid(os.P_PID, agent.process.pid, os.WSTOPPED)


def remaining(heard: socket.socket) -> list[str]:
    """Return what the manager was told and has not heard yet."""
    found = []
    heard.settimeout(0)
    try:
        while True:
            found.append(heard.recv(4096).decode())
    except BlockingIOError:
        return found
    finally:
        heard.settimeout(within(20))
