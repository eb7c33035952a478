"""A log that cannot be written: what a real agent decides stays the same, it goes on, and health says it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.farm.test_disk_full import small_disk
from tests.support.agents import RunningAgent, agents_on, soon
from tests.support.hung_disks import disk_that_hangs
from tests.support.patience import within
from tests.support.servers import RedisServer, redis_server

#: A session's name of which each character takes six in a line of the log.
LONG = "\u20ac" * 200
POLICY = '[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 2\nshare = "session"\n'

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full, pipes and tmpfs as Linux has them")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """The farm's store."""
    with redis_server() as running:
        yield running


@pytest.fixture
def agent(server: RedisServer) -> Iterator[RunningAgent]:
    """An agent that is not running, and has a folder and a policy."""
    with agents_on(server.url, nodes=("ctx-01",), policy=POLICY, settings="max_sessions = 9") as agents:
        only = agents["ctx-01"]
        only.terminate()
        yield only


def launch(agent: RunningAgent, stderr: int, *, redirected: str = "", **environment: str) -> None:
    """Start the agent with another standard error."""
    command = [sys.executable, "-m", "farmlease", "--config", str(agent.config), "agent"]
    agent.process = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {redirected}', "sh", *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def log_check(agent: RunningAgent) -> str:
    """What health says of the log: its status, and why."""
    (check,) = agent.health("/healthz").document["checks"]["log"]
    return f"{check['status']} {check['output']}"


def decides_as_ever(agent: RunningAgent, suffix: str = "") -> None:
    """Two seats are granted, a third is denied, all of it is ended, and the node stays in the balancer."""
    assert [201, 201, 409] == [agent.start("john", name + suffix).status for name in ("a", "b", "c")]
    assert 200 == agent.start("john", "a" + suffix).status
    assert 200 == agent.health().status
    assert [204, 204] == [agent.end(name + suffix).status for name in ("a", "b")]


def test_a_full_device_from_the_start_on(agent: RunningAgent) -> None:
    """The agent starts, decides, warns, says so in its metrics, and ends with status 0."""
    with Path("/dev/full").open("wb") as full:
        launch(agent, full.fileno())
    agent.wait_ready()
    decides_as_ever(agent)
    soon(lambda: log_check(agent).startswith("warn"), "health says nothing")
    assert "No space left on device" in log_check(agent)
    assert agent.health().body.startswith(b"warn the log cannot be written")
    assert b"farmlease_log_writable 0.0" in agent.health("/metrics").body
    assert b'farmlease_health_check{check="log"} 1.0' in agent.health("/metrics").body
    assert 0 == agent.terminate()


def test_a_disk_that_fills_and_gets_room_again(agent: RunningAgent, tmp_path: Path) -> None:
    """While it is full lines are lost and counted; with room again the log goes on, and health is well."""
    with small_disk(tmp_path / "log") as disk:
        log = disk / "agent.log"
        with log.open("ab") as file:
            launch(agent, file.fileno())
        agent.wait_ready()
        assert "pass written" == log_check(agent)
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(512))
                except OSError:
                    break
        for _ in range(20):  # a page of the log may have room
            decides_as_ever(agent)
        soon(lambda: log_check(agent).startswith("warn"), "health says nothing")
        filler.unlink()
        soon(lambda: log_check(agent) == "pass written", "health goes on warning")
        assert b"farmlease_log_writable 1.0" in metrics_soon(agent)
        soon(lambda: '"event": "log.lost"' in log.read_text(), "nothing says that lines are missing")
        decides_as_ever(agent)
        soon(lambda: "session.ended" in log.read_text().rpartition('"event": "log.lost"')[2], "the log does not go on")
        assert 0 == agent.terminate()


def metrics_soon(agent: RunningAgent) -> bytes:
    """The metrics, once the page is a new one."""
    time.sleep(1.1)
    return agent.health("/metrics").body


def test_a_pipe_whose_reader_has_gone(agent: RunningAgent) -> None:
    """As with ``farmlease agent 2>&1 | head``: the agent goes on without its reader."""
    reader, writer = os.pipe()
    launch(agent, writer)
    os.close(writer)
    agent.wait_ready()
    os.close(reader)
    decides_as_ever(agent)
    soon(lambda: "Broken pipe" in log_check(agent), "health says nothing")
    assert 0 == agent.terminate()


def decides_until_nobody_reads(agent: RunningAgent) -> None:
    """Have the agent decide, and log, until health says that nobody reads its log. Its lines are long ones."""
    for _ in range(200):
        decides_as_ever(agent, LONG)
        if log_check(agent).startswith("warn"):
            break
    assert "nobody reads it" in log_check(agent)


def test_a_pipe_that_nobody_reads(agent: RunningAgent) -> None:
    """As with ``| less``: nobody waits for the reader; once it reads again it has whole lines, and how many were lost."""
    reader, writer = os.pipe()
    launch(agent, writer)
    os.close(writer)
    agent.wait_ready()
    decides_until_nobody_reads(agent)
    for _ in range(60):
        decides_as_ever(agent, LONG)
    os.set_blocking(reader, False)
    read = b""

    def is_well() -> bool:
        nonlocal read
        with suppress(BlockingIOError):
            read += os.read(reader, 1 << 20)
        return log_check(agent) == "pass written"

    soon(is_well, "health goes on warning")
    lines = [json.loads(line) for line in read.splitlines()]
    assert [True] == [line["lines"] > 0 for line in lines if line["event"] == "log.lost"]
    assert 0 == agent.terminate()
    os.close(reader)


def test_a_socket_that_nobody_reads(agent: RunningAgent) -> None:
    """As the journal of systemd is one: a journal that hangs holds up no logon."""
    ours, its = socket.socketpair()
    with ours:
        with its:
            its.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            launch(agent, its.fileno())
        agent.wait_ready()
        decides_until_nobody_reads(agent)
        assert 0 == agent.terminate()


@pytest.mark.parametrize("since", ["start", "later"])
def test_a_disk_that_hangs(agent: RunningAgent, tmp_path: Path, since: str) -> None:
    """As a network disk whose server is away: the agent starts, decides and says so, and later the log is all there."""
    with disk_that_hangs(tmp_path) as (disk, hang, go_on):
        log = disk / "agent.log"
        with log.open("ab") as file:
            if since == "start":
                hang()
            launch(agent, file.fileno())
        agent.wait_ready()
        if since == "later":
            hang()
        for _ in range(3):
            before = time.monotonic()
            decides_as_ever(agent)
            assert time.monotonic() - before < within(2)
        soon(lambda: "its disk hangs" in log_check(agent), "health says nothing")
        go_on()
        soon(lambda: log_check(agent) == "pass written", "health goes on warning")
        soon(lambda: 9 == log.read_text().count('"session.granted"'), "lines are missing")
        assert "log.lost" not in log.read_text()
        assert 0 == agent.terminate()


def test_a_stopped_reader(agent: RunningAgent) -> None:
    """As with a program behind a pipe that was stopped (Ctrl-Z): as long as it stands still, and when it goes on."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as reader:
        assert reader.stdin is not None
        reader.send_signal(signal.SIGSTOP)
        launch(agent, reader.stdin.fileno())
        reader.stdin.close()
        agent.wait_ready()
        decides_until_nobody_reads(agent)
        reader.send_signal(signal.SIGCONT)
        soon(lambda: log_check(agent) == "pass written", "health goes on warning")
        assert 0 == agent.terminate()


@pytest.mark.parametrize("redirected", ["2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_error(agent: RunningAgent, redirected: str) -> None:
    """No other file of the agent gets its number, so that nothing is written into the journal or to the store."""
    launch(agent, subprocess.DEVNULL, redirected=redirected)
    agent.wait_ready()
    assert agent.process is not None
    assert "/dev/null" == str(Path(f"/proc/{agent.process.pid}/fd/2").readlink())
    decides_as_ever(agent)
    soon(lambda: "it is closed" in log_check(agent), "health says nothing")
    assert 0 == agent.terminate()


@contextmanager
def manager(folder: Path) -> Iterator[tuple[Path, Callable[[], bytes]]]:
    """A service manager's socket; yields where it is, and what has been said last."""
    path = folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(within(20))
        yield path, lambda: listener.recv(100)


@pytest.mark.parametrize("gone", ["before", "meanwhile", "full"])
def test_a_service_manager_that_is_gone(agent: RunningAgent, gone: str) -> None:
    """Its socket is not there, goes, or takes nothing more: the agent starts, decides and ends as ever."""
    with manager(agent.config.parent) as (path, said):
        if gone == "before":
            path.unlink()
        with agent.log.open("ab") as log:
            launch(agent, log.fileno(), NOTIFY_SOCKET=str(path), WATCHDOG_USEC="20000")
        agent.wait_ready()
        if gone != "before":
            assert b"READY=1" == said()
        if gone == "meanwhile":
            path.unlink()
        time.sleep(0.5)  # full: some fifty signs of life that nobody reads
        decides_as_ever(agent)
        assert "pass written" == log_check(agent)
        assert 0 == agent.terminate()
