"""A session that lives as long as a process, with real agents and processes: ``farmlease run`` and ``pid``."""

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.agents import RunningAgent, agents_on, soon
from tests.support.patience import within
from tests.support.servers import redis_server

POLICY = """\
[[pool]]
name = "clearquest"
kind = "floating"
capacity = 2

[[rule]]
users = ['corp\\intern-*']
access = "denied"

[[rule]]
users = ['reader']
access = "restricted"

[[rule]]
apps = ["viewer"]
access = "restricted"
"""
ENDS_WITHIN = 5.0  #: seconds after its process that a session is over


@pytest.fixture(scope="module")
def agent() -> Iterator[RunningAgent]:
    """One agent on a store of its own."""
    with redis_server() as store, agents_on(store.url, nodes=("ctx-01",), policy=POLICY) as agents:
        yield agents["ctx-01"]


@pytest.fixture(autouse=True)
def nobody_left(agent: RunningAgent) -> Iterator[None]:
    """Every test begins without a session."""
    yield
    for each in sessions(agent):
        agent.end(each)


def sessions(agent: RunningAgent) -> list[str]:
    """The ids of the sessions that the agent shows."""
    return [each["session"] for each in agent.request("GET", "/v1/sessions").document]


def command(agent: RunningAgent, *typed: str, user: str = "ann") -> list[str]:
    """The command line of ``farmlease run``."""
    return [sys.executable, "-m", "farmlease", "--config", str(agent.config), "run", "--user", user, "--", *typed]


def run(agent: RunningAgent, *typed: str, user: str = "ann") -> subprocess.CompletedProcess[str]:
    """Run a program under a seat, to its end."""
    return subprocess.run(
        command(agent, *typed, user=user),
        capture_output=True,
        text=True,
        check=False,
        timeout=within(30),
        env=environment(),
    )


@contextmanager
def running(agent: RunningAgent, *typed: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program under a seat; yields when it has printed its first line."""
    with subprocess.Popen(command(agent, *typed), stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stdout is not None
            assert "ready\n" == process.stdout.readline()
            yield process
        finally:
            process.kill()


def environment() -> dict[str, str]:
    """The environment without anything that is meant for farmlease."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FARMLEASE_")}


def over_in_time(agent: RunningAgent, since: float) -> None:
    """Fail unless the agent shows no session within five seconds."""
    soon(lambda: not sessions(agent), "the session outlives its process")
    assert time.monotonic() - since < within(ENDS_WITHIN)


@pytest.mark.parametrize("status", [0, 7])
def test_the_exit_status_is_the_program_s(agent: RunningAgent, status: int) -> None:
    """The program's status and output are the command's, and its session ends with it."""
    done = run(agent, "sh", "-c", f"echo hello; exit {status}")
    assert (status, "hello\n", "") == (done.returncode, done.stdout, done.stderr)
    over_in_time(agent, time.monotonic())


def test_the_session_is_there_while_the_program_runs(agent: RunningAgent) -> None:
    """The program is this user's session, in this pool, and what looks like an option of ours is the program's."""
    with running(agent, "sh", "-c", 'echo ready; test "$1" = --user && sleep 600', "sh", "--user"):
        (shown,) = agent.request("GET", "/v1/sessions").document
        assert ("ann", "clearquest", "active") == (shown["user"], shown["pool"], shown["state"])
        time.sleep(1.5)  # the agent looks for its process once a second
        assert [shown["session"]] == sessions(agent)


def test_signals_reach_the_program(agent: RunningAgent) -> None:
    """SIGTERM to the command is the program's to handle; one it does not handle ends it, as anywhere."""
    with running(
        agent, "sh", "-c", "trap 'echo told; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    ) as process:
        process.terminate()
        assert process.stdout is not None
        assert "told\n" == process.stdout.readline()
        assert 9 == process.wait(within(10))
    with running(agent, "sh", "-c", "echo ready; exec sleep 600") as process:
        process.terminate()
        assert -signal.SIGTERM == process.wait(within(10))
    over_in_time(agent, time.monotonic())


def test_a_broken_pipe_ends_the_program_quietly(agent: RunningAgent) -> None:
    """SIGPIPE is as it would be without us: Python ignores it, the program must not inherit that."""
    done = run(agent, "sh", "-c", "yes | head -n 1")
    assert ("y\n", "") == (done.stdout, done.stderr)


def test_a_killed_program_s_session_ends_within_five_seconds(agent: RunningAgent) -> None:
    """Kill -9: nobody says goodbye, and the seat is free within five seconds all the same."""
    with running(agent, "sh", "-c", "echo ready; exec sleep 600") as process:
        assert 1 == len(sessions(agent))
        process.kill()
        over_in_time(agent, time.monotonic())


def test_who_is_denied_does_not_start_the_program(agent: RunningAgent, tmp_path: Path) -> None:
    """Denied: exit status 3, the reason, and no program; restricted use starts it without a seat."""
    done = run(agent, "touch", str(tmp_path / "started"), user="CORP\\intern-1")
    assert (3, False) == (done.returncode, (tmp_path / "started").exists())
    assert done.stdout.startswith("denied: ")
    assert 0 == run(agent, "touch", str(tmp_path / "started"), user="reader").returncode
    assert (True, []) == ((tmp_path / "started").exists(), sessions(agent))


def test_without_an_agent_the_program_is_not_started(agent: RunningAgent, tmp_path: Path) -> None:
    """Exit status 4 and one line when the agent cannot be reached."""
    config = tmp_path / "farmlease.toml"
    config.write_text(agent.config.read_text().replace(agent.listen, "127.0.0.1:1"))
    typed = command(agent, "touch", str(tmp_path / "started"))
    typed[typed.index(str(agent.config))] = str(config)
    done = subprocess.run(typed, capture_output=True, text=True, check=False, timeout=within(30), env=environment())
    assert (4, 1, False) == (done.returncode, len(done.stderr.splitlines()), (tmp_path / "started").exists())


def test_a_program_that_is_not_there(agent: RunningAgent, tmp_path: Path) -> None:
    """127 if there is none, 126 if it is no program, as shells say it; the session is over at once."""
    assert (127, []) == (run(agent, "no-such-program").returncode, sessions(agent))
    plain = tmp_path / "plain"
    plain.write_text("no program")
    done = run(agent, str(plain))
    assert (126, [], 1) == (done.returncode, sessions(agent), len(done.stderr.splitlines()))


def test_for_whoever_runs_it(agent: RunningAgent) -> None:
    """Without --user it is the caller, as the system names them."""
    line = [each for each in command(agent, "sh", "-c", "echo ready; exec sleep 600") if each not in {"--user", "ann"}]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stdout is not None
            assert "ready\n" == process.stdout.readline()
            (shown,) = agent.request("GET", "/v1/sessions").document
            assert pwd.getpwuid(os.getuid()).pw_name == shown["user"]
        finally:
            process.kill()


def test_the_app_decides_as_the_rules_say(agent: RunningAgent) -> None:
    """A rule about the program matches the one that --app names, and no other."""
    for app, taken in (("viewer", []), ("clearquest", ["clearquest"])):
        line = command(agent, "sh", "-c", "echo ready; exec sleep 600")
        line[line.index("--") : line.index("--")] = ["--app", app]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment()) as process:
            try:
                assert process.stdout is not None
                assert "ready\n" == process.stdout.readline()
                assert taken == [each["pool"] for each in agent.request("GET", "/v1/sessions").document]
            finally:
                process.kill()


def test_a_hook_s_pid(agent: RunningAgent) -> None:
    """A session started for another process ends with that one, also under an agent that was killed meanwhile."""
    with subprocess.Popen(["sleep", "600"]) as process:
        assert 201 == agent.start("ann", "7", pid=process.pid).status
        agent.kill()
        agent.launch()
        agent.wait_ready()
        time.sleep(1.5)  # the agent looks for its process once a second
        assert ["7"] == sessions(agent)
        process.kill()
        over_in_time(agent, time.monotonic())


def test_a_pid_that_is_nobody(agent: RunningAgent) -> None:
    """A session for a process that is gone already does not begin: the answer names the field, and no seat is taken."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    refused = agent.start("ann", "7", pid=process.pid)
    assert (422, "pid") == (refused.status, refused.document["field"])
    assert "it has ended, or the number is of another PID namespace" in refused.document["detail"]
    assert [] == sessions(agent)
