"""What becomes of a state folder while its agent runs, and between two: told at once, and never a reason to hang."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.support.agents import RunningAgent, agents_on, soon
from tests.support.commands import typed
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


def sessions(agent: RunningAgent) -> list[str]:
    """Return the sessions that the agent has."""
    return sorted(each["session"] for each in agent.request("GET", "/v1/sessions").document)


@pytest.mark.parametrize("happens", [removed, without_log, a_pipe, a_folder, turned_back, gone, unlocked])
def test_a_journal_that_is_not_there_any_more(agent: RunningAgent, happens: Callable[[Path], None]) -> None:
    """L7: told within two looks, and written anew: what was answered before and since outlives kill -9 of the agent."""
    assert "pass" == told(agent)[0]
    with agent.standing_still():
        happens(agent.state_dir)
    soon(lambda: told(agent)[0] == "warn", "health warns", 8)
    assert "was removed or replaced while the agent runs; it was written anew" in told(agent)[1]
    soon(lambda: "journal.put_back" in agent.log_text, "the log does not say it")
    assert 201 == agent.start("mary", "8").status
    agent.kill()
    agent.launch()
    agent.wait_ready()
    assert ["7", "8"] == sessions(agent)
    assert "pass" == told(agent)[0]


def test_what_was_found_in_its_place_is_kept(agent: RunningAgent) -> None:
    """An older copy that somebody put there is not overwritten."""
    copy = shutil.copytree(agent.state_dir, agent.state_dir.with_name("older"))
    assert 201 == agent.start("mary", "8").status
    with agent.standing_still():
        (agent.state_dir / JOURNAL).unlink()
        shutil.copy2(copy / JOURNAL, agent.state_dir / JOURNAL)
    soon(lambda: told(agent)[0] == "warn", "health warns")
    (kept,) = (agent.state_dir / "kept").iterdir()
    assert kept.name.endswith("Z-strange-journal-replaced")
    assert (copy / JOURNAL).read_bytes() == (kept / JOURNAL).read_bytes()
    assert ["7", "8"] == sessions(agent)


def test_a_folder_that_another_agent_took_over(agent: RunningAgent) -> None:
    """Nothing is written over another agent's journal: health fails until one of the two is stopped."""
    other = FileLock(agent.state_dir / "agent.lock")
    with agent.standing_still():
        agent.state_dir.rename(agent.state_dir.with_name("before"))
        agent.state_dir.mkdir(0o700)
        held = other.acquire()
    with held:
        soon(lambda: told(agent)[0] == "fail", "health fails")
        time.sleep(3)
        assert ["agent.lock"] == [each.name for each in agent.state_dir.iterdir()]
        assert (503, "fail") == (agent.health().status, told(agent)[0])
    soon(lambda: told(agent)[0] == "warn", "the agent has its folder again")
    assert ["7"] == sessions(agent)


def test_files_that_were_turned_back_in_place(server: RedisServer) -> None:
    """The open file has other content: health fails from the next heartbeat on, and the next agent does not believe it."""
    with agents_on(server.url, nodes=("ctx-01",), heartbeat="1s") as agents:
        agent = agents["ctx-01"]
        assert 201 == agent.start("john", "7").status
        copy = shutil.copytree(agent.state_dir, agent.state_dir.with_name("older"))
        time.sleep(3)
        for part in copy.glob("journal.*"):
            (agent.state_dir / part.name).write_bytes(part.read_bytes())
        soon(lambda: told(agent)[0] == "fail", "health fails")
        time.sleep(2)
        assert "fail" == told(agent)[0]
        agent.kill()
        agent.launch()
        agent.wait_ready()
        refused = [*(agent.state_dir / "kept").glob("*-journal-older")]  # a part that was cut short may be kept besides
        assert (1, "warn") == (len(refused), told(agent)[0])


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
    ended = typed(agent.config, *command, "-o", "json")
    assert (0, "") == (ended.status, ended.err)
    text = ended.out
    return json.loads(text) if text.startswith("[") else [json.loads(each) for each in text.splitlines()]
