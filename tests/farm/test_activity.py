"""Who works keeps the seat, with nothing set up: real agents, systemd's loginctl, and a real bus with a logind on it."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.agents import Agents, RunningAgent, agents_on, soon
from tests.support.commands import typed
from tests.support.login import MockedLogind, logind_on_a_bus, scope, scoped
from tests.support.pam_hosts import pam_service
from tests.support.patience import within
from tests.support.servers import RedisServer, redis_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="logind is Linux's")

POLICY = """
[[pool]]
name = "clearquest"
kind = "floating"
capacity = 2
share = "session"
idle_timeout = "IDLE"
reacquire = {{ attempts = 0 }}
"""


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    """A real redis-server."""
    with redis_server() as running:
        yield running


@pytest.fixture
def idle_timeout() -> float:
    """Seconds in which the agent asks logind several times; on a busy machine it asks later."""
    return min(within(2), 12)


@pytest.fixture
def logind(tmp_path: Path) -> Iterator[MockedLogind]:
    """The host's logind."""
    with logind_on_a_bus(tmp_path) as host:
        yield host


@pytest.fixture
def agents(
    logind: MockedLogind, store: RedisServer, idle_timeout: float, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Agents]:
    """An agent on a host with that logind."""
    monkeypatch.setenv("PATH", str(logind.programs), prepend=":")
    store.client().flushall()
    with agents_on(store.url, nodes=("ctx-01",), policy=POLICY.replace("IDLE", f"{idle_timeout:.0f}s")) as running:
        yield running


def states(agent: RunningAgent) -> dict[str, str]:
    """Return the agent's sessions and their states."""
    return {each["user"]: each["state"] for each in agent.request("GET", "/v1/sessions").document}


def watched(agent: RunningAgent, logind: MockedLogind, idle: str, timeout: float) -> None:
    """Both work for longer than idle_timeout; then mary's desktop says that it idles, and only she loses her seat."""
    working = time.monotonic() + 2 * timeout
    while time.monotonic() < working:
        assert {"john": "active", "mary": "active"} == states(agent)
        time.sleep(0.2)
    logind.idle(idle, on=True)
    soon(lambda: states(agent).get("mary") == "lost", "who idles keeps the seat", 5 * timeout)
    assert "active" == states(agent)["john"]


def test_programs_under_run_are_watched(agents: Agents, logind: MockedLogind, idle_timeout: float) -> None:
    """Each in the scope of its login session, as systemd puts it there."""
    agent = agents["ctx-01"]
    with ExitStack() as stack:
        for user, session in (("john", "51"), ("mary", "52")):
            logind.add(session)
            run = [sys.executable, "-m", "farmlease", "--config", str(agent.config), "run", "--user", user]
            stack.enter_context(scoped(f"session-{session}.scope", *run, "--", "sleep", "600"))
        soon(lambda: len(states(agent)) == 2, "the programs do not start")
        watched(agent, logind, "52", idle_timeout)


def test_sessions_of_pam_are_watched(agents: Agents, logind: MockedLogind, idle_timeout: float) -> None:
    """By the process that opened them, which logind's own module has put into the scope."""
    with pam_service(agents) as host, ExitStack() as stack:
        logons = []
        for user, session in (("john", "61"), ("mary", "62")):
            logind.add(session)
            place = stack.enter_context(scope(f"session-{session}.scope"))
            logons.append(host.log_on(user, f"tty-{user}", place))
        try:
            soon(lambda: len(states(host.agent)) == 2, "the sessions do not open")
            watched(host.agent, logind, "62", idle_timeout)
        finally:
            for each in logons:
                each.let_go()


def test_the_doctor_says_whether_anything_reports(
    agents: Agents, logind: MockedLogind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With logind all is well; without it the pool that needs it is named, and health warns of a session that will end."""
    agent = agents["ctx-01"]
    found = examined(agent)
    assert "activity" in found
    assert "logind reports" in found
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "loginctl").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "none" / "loginctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "none"), prepend=":")
    assert "no logind answers on this host, so sessions in clearquest end" in examined(agent)
    assert 201 == agent.start("john", "7").status
    soon(lambda: b"nothing reports activity" in agent.health("/healthz").body, "health does not warn")


def examined(agent: RunningAgent) -> str:
    """Return what the doctor finds."""
    return typed(agent.config, "doctor", "-o", "csv").out
