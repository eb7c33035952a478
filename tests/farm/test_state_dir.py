"""What becomes of a state folder while its agent runs, with real agents: told at once, and never a reason to hang."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import RunningAgent, agents_on, soon
from tests.support.servers import RedisServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps open files from being removed")

JOURNAL = "journal.sqlite"


@pytest.fixture
def agent(server: RedisServer) -> Iterator[RunningAgent]:
    """An agent with a session."""
    with agents_on(server.url, nodes=("ctx-01",)) as agents:
        agent = agents["ctx-01"]
        assert 201 == agent.start("john", "7").status
        yield agent


def told(agent: RunningAgent) -> tuple[str, str]:
    """Return what health says of the journal."""
    (check,) = agent.health("/healthz").document["checks"]["journal"]
    return check["status"], check.get("output", "")


def removed(folder: Path) -> None:
    """Remove the journal's file."""
    (folder / JOURNAL).unlink()


def without_log(folder: Path) -> None:
    """Remove what was written last."""
    (folder / f"{JOURNAL}-wal").unlink()


def a_pipe(folder: Path) -> None:
    """Put a pipe there."""
    (folder / JOURNAL).unlink()
    os.mkfifo(folder / JOURNAL, 0o600)


def a_folder(folder: Path) -> None:
    """Put a folder there."""
    (folder / JOURNAL).unlink()
    (folder / JOURNAL).mkdir()


def turned_back(folder: Path) -> None:
    """Put a copy of the whole folder in its place."""
    shutil.copytree(folder, folder.with_name("copy"))
    folder.rename(folder.with_name("before"))
    folder.with_name("copy").rename(folder)


def gone(folder: Path) -> None:
    """Remove the whole folder."""
    shutil.rmtree(folder)


def unlocked(folder: Path) -> None:
    """Let another agent have the folder, too."""
    (folder / "agent.lock").unlink()


@pytest.mark.parametrize("happens", [removed, without_log, a_pipe, a_folder, turned_back, gone, unlocked])
def test_a_journal_that_is_not_there_any_more(agent: RunningAgent, happens: Callable[[Path], None]) -> None:
    """Health fails within two looks and says what is wrong; sessions go on, and the agent still ends in order."""
    assert "pass" == told(agent)[0]
    happens(agent.state_dir)
    began = time.monotonic()
    soon(lambda: told(agent)[0] == "fail", "health fails")
    assert time.monotonic() - began < 5
    assert "in state_dir was removed or replaced while the agent runs" in told(agent)[1]
    assert 503 == agent.health().status
    assert ["7"] == [each["session"] for each in agent.request("GET", "/v1/sessions").document]
    agent.terminate()


@pytest.mark.parametrize("part", [JOURNAL, f"{JOURNAL}-wal", "journal.mark", "agent.lock"])
def test_a_pipe_where_the_agent_starts(agent: RunningAgent, part: str) -> None:
    """The agent starts all the same, within the usual time."""
    agent.kill()
    (agent.state_dir / part).unlink(missing_ok=True)
    os.mkfifo(agent.state_dir / part, 0o600)
    agent.launch()
    agent.wait_ready()


def test_a_folder_that_was_turned_back_while_nothing_ran(agent: RunningAgent) -> None:
    """The store knows better: what began since has its end, the older journal is kept, and the user starts anew."""
    agent.kill()
    copy = shutil.copytree(agent.state_dir, agent.state_dir.with_name("copy"))
    agent.launch()
    agent.wait_ready()
    assert 201 == agent.start("mary", "8").status
    agent.terminate()
    shutil.rmtree(agent.state_dir)
    shutil.copytree(copy, agent.state_dir)
    agent.launch()
    agent.wait_ready()
    assert [] == agent.request("GET", "/v1/sessions").document
    assert told(agent)[0] == "warn"
    assert "older" in told(agent)[1]
    assert 201 == agent.start("mary", "8").status
    assert 201 == agent.start("john", "7").status


def test_a_folder_that_was_removed_while_nothing_ran(agent: RunningAgent) -> None:
    """It is missed, and its sessions are ended at once instead of at their deadline."""
    agent.kill()
    shutil.rmtree(agent.state_dir)
    agent.launch()
    agent.wait_ready()
    assert "missing" in told(agent)[1]
    assert [] == agent.request("GET", "/v1/sessions").document


def test_a_host_that_was_renamed(agent: RunningAgent) -> None:
    """The same session, under the new name, for the user, the farm's lists and the audit; the old name is gone."""
    agent.terminate()
    agent.config.write_text(agent.config.read_text().replace('"ctx-01"', '"ctx-09"'))
    agent.launch()
    agent.wait_ready()
    (use,) = agent.request("GET", "/v1/sessions").document
    assert ("7", "ctx-09", "active") == (use["session"], use["node"], use["state"])
    assert 200 == agent.start("john", "7").status
    assert "pass" == told(agent)[0]
    nodes = _printed(agent, "node", "list")
    assert ["ctx-09"] == [each["node"] for each in nodes]
    (renamed,) = (each for each in _printed(agent, "audit") if each["event"] == "node_renamed")
    assert ("ctx-09", "ctx-01") == (renamed["node"], renamed["detail"])
    (lease,) = _printed(agent, "lease", "list")
    assert [("ctx-09", "7")] == [(each["node"], each["session"]) for each in lease["sessions"]]


def _printed(agent: RunningAgent, *command: str) -> Any:
    """Return what a command prints as JSON: one list, or a line for each."""
    line = [sys.executable, "-m", "farmlease", "--config", str(agent.config), *command, "-o", "json"]
    text = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    return json.loads(text) if text.startswith("[") else [json.loads(each) for each in text.splitlines()]
