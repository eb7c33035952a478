"""Real agents whose journal is damaged, copied, or of another version: who starts, and what becomes of the sessions."""

import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.agents import Agents, RunningAgent, agents_on, soon
from tests.support.patience import within
from tests.support.servers import RedisServer, redis_server

POLICY = """\
[[pool]]
name = "clearquest"
kind = "floating"
share = "session"
capacity = 2
"""
DAMAGED = 5  #: exit status

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX's")


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    """The farm's store."""
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def farm(store: RedisServer) -> Iterator[Agents]:
    """Two agents and two seats."""
    with agents_on(store.url, policy=POLICY) as agents:
        yield agents


@pytest.fixture
def agent(farm: Agents) -> Iterator[RunningAgent]:
    """The first agent, with john's session; afterwards both run on new journals and nobody is there."""
    agent = farm["ctx-01"]
    assert 201 == agent.start("john", "7").status
    yield agent
    for each in farm:
        each.kill()
        each.launch()
        each.wait_ready()
        for session in each.request("GET", "/v1/sessions").document:
            assert 204 == each.end(session["session"]).status
        shutil.rmtree(each.state_dir / "kept", ignore_errors=True)


def counted(store: RedisServer) -> list[str]:
    """The sessions that the store counts, with their nodes."""
    with store.client() as client:
        members = client.zrange("fl:{citrix-a/clearquest/0}:sessions", 0, -1)
    assert isinstance(members, list)
    words = (member.decode().split("/") for member in members if not member.startswith(b"!"))
    return sorted(f"{node.partition('#')[0]}/{session}" for node, session, _ in words)


def journal_check(agent: RunningAgent) -> dict[str, str]:
    """What health says of the journal."""
    found: dict[str, str] = agent.health("/healthz").document["checks"]["journal"][0]
    return found


def kept_journals(agent: RunningAgent) -> list[Path]:
    """The journals that were refused."""
    return sorted((agent.state_dir / "kept").glob("*Z-journal-*"))


def test_killed_and_back(agent: RunningAgent, store: RedisServer) -> None:
    """L7: kill -9 within one boot is not visible outside."""
    for _ in range(2):
        agent.kill()
        agent.launch()
        agent.wait_ready()
        assert ["7"] == [each["session"] for each in agent.request("GET", "/v1/sessions").document]
    assert (["ctx-01/7"], "pass", []) == (counted(store), journal_check(agent)["status"], kept_journals(agent))


def test_damaged(agent: RunningAgent, store: RedisServer) -> None:
    """The agent starts, says what to do, and the seats that nobody here knows of any more are free at once."""
    agent.terminate()  # killed, its log would still have all that the file had
    (agent.state_dir / "journal.sqlite").write_bytes(b"nothing that SQLite knows" * 1000)
    agent.launch()
    agent.wait_ready()
    soon(lambda: not counted(store), "the lost life's session is still counted")
    (kept,) = kept_journals(agent)
    check = journal_check(agent)
    assert "warn" == check["status"]
    assert f"move kept/{kept.name} out of state_dir" in check["output"]
    soon(lambda: "journal.refused" in agent.log_text, "the log does not say it")
    assert 201 == agent.start("john", "7").status
    assert ["ctx-01/7"] == counted(store)
    shutil.rmtree(kept)
    soon(lambda: "pass" == journal_check(agent)["status"], "health does not see that somebody looked")


def test_copied_to_another_host(farm: Agents, agent: RunningAgent, store: RedisServer) -> None:
    """L4: a host made from another one's image is a life of its own, and does not touch the sessions of the first."""
    other = farm["ctx-02"]
    other.kill()
    shutil.rmtree(other.state_dir)
    agent.kill()
    shutil.copytree(agent.state_dir, other.state_dir)
    for each in (other, agent):
        each.launch()
        each.wait_ready()
    (kept,) = kept_journals(other)
    assert kept.name.endswith("-foreign")
    assert [] == other.request("GET", "/v1/sessions").document
    assert 201 == other.start("mary", "7").status
    assert ["ctx-01/7", "ctx-02/7"] == counted(store)
    assert 204 == other.end("7").status
    assert (["ctx-01/7"], []) == (counted(store), kept_journals(agent))


def test_an_older_copy(agent: RunningAgent, store: RedisServer, tmp_path: Path) -> None:
    """L4: a backup that is put back does not bring back sessions that are over, nor end those that are new."""
    agent.terminate()
    shutil.copy2(agent.state_dir / "journal.sqlite", tmp_path)
    agent.launch()
    agent.wait_ready()
    assert 204 == agent.end("7").status
    assert 201 == agent.start("mary", "8").status
    agent.terminate()
    shutil.copy2(tmp_path / "journal.sqlite", agent.state_dir)
    agent.launch()
    agent.wait_ready()
    assert [] == agent.request("GET", "/v1/sessions").document
    soon(lambda: not counted(store), "a session of the life that is over is still counted")
    (kept,) = kept_journals(agent)
    assert kept.name.endswith("-older")


def test_of_a_later_version(agent: RunningAgent, store: RedisServer) -> None:
    """A farmlease that is older than its journal does not start, exits with 5, and leaves the journal to the newer one."""
    agent.kill()
    with closing(sqlite3.connect(agent.state_dir / "journal.sqlite", isolation_level=None)) as journal:
        journal.execute("PRAGMA user_version = 3")
    agent.launch()
    assert agent.process is not None
    assert DAMAGED == agent.process.wait(within(20))
    assert "written by a later version of farmlease" in agent.log_text
    with closing(sqlite3.connect(agent.state_dir / "journal.sqlite", isolation_level=None)) as journal:
        journal.execute("PRAGMA user_version = 2")
    agent.launch()
    agent.wait_ready()
    assert ["7"] == [each["session"] for each in agent.request("GET", "/v1/sessions").document]
    assert ["ctx-01/7"] == counted(store)
