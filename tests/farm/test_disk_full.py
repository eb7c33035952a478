"""The disk of state_dir is full, for real: nobody new gets in, who is in goes on, and nothing is lost or doubled."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.support.agents import Agents, RunningAgent, agents_on, soon
from tests.support.servers import RedisServer, missing, redis_server

POLICY = """\
[[pool]]
name = "clearquest"
kind = "floating"
share = "session"
capacity = 100
session_timeout = "4s"

[[pool]]
name = "qlikview"
kind = "floating"
share = "session"
capacity = 100
"""
POOLS = ("clearquest", "qlikview")
PAGE = 4096

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is Linux's")


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of eight MiB in place of a folder: more than SQLite's log grows to."""
    folder.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", str(folder)]
    mounted = subprocess.run(["mount", *options], check=False, capture_output=True)
    if mounted.returncode:
        missing("the right to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    """The farm's store."""
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def farm(store: RedisServer) -> Iterator[Agents]:
    """One agent whose state lies on a small disk."""
    with agents_on(store.url, nodes=["ctx-01"], policy=POLICY) as agents:
        agent = agents["ctx-01"]
        agent.terminate()
        with small_disk(agent.state_dir):
            agent.launch()
            agent.wait_ready()
            yield agents
            agent.terminate()


@pytest.fixture
def agent(farm: Agents, store: RedisServer) -> Iterator[RunningAgent]:
    """The agent; afterwards the disk has room again, and store and node agree on who is there."""
    agent = farm["ctx-01"]
    yield agent
    make_room(agent)
    soon(
        lambda: agent.health().status == 200, f"not ready again: {agent.health('/healthz').document}\n{agent.log_text}"
    )
    soon(lambda: counted(store) == shown(agent), f"{counted(store)} but {shown(agent)}\n{agent.log_text}")
    for session in shown(agent):
        assert 204 == agent.end(session).status
    soon(lambda: not counted(store), "a seat is left")


def filler(agent: RunningAgent) -> Path:
    """The file that fills the disk."""
    return agent.state_dir / "filler"


def fill(agent: RunningAgent, pages: int = 0) -> None:
    """Fill the disk to the last byte, or leave some pages."""
    path = filler(agent)
    with path.open("ab", buffering=0) as file:
        while True:
            try:
                file.write(bytes(PAGE))
            except OSError:
                break
    os.truncate(path, max(path.stat().st_size - pages * PAGE, 0))


def make_room(agent: RunningAgent) -> None:
    """Empty the disk again."""
    filler(agent).unlink(missing_ok=True)


def counted(store: RedisServer) -> set[str]:
    """The sessions that the store counts."""
    with store.client() as client:
        found = [client.zrange(f"fl:{{citrix-a/{pool}/0}}:sessions", 0, -1) for pool in POOLS]
    members = [member for each in found for member in each]  # type: ignore[union-attr] # a list
    return {member.split(b"/")[1].decode() for member in members if not member.startswith(b"!")}


def beaten_until(client: redis.Redis, pool: str) -> float:
    """Until when the node's sessions are alive, in ms; 0: they have been ended, for it was silent for too long."""
    found = client.zrange(f"fl:{{citrix-a/{pool}/0}}:nodes", 0, -1, withscores=True)
    assert isinstance(found, list)
    return max((float(until) for node, until in found if not node.startswith(b"#")), default=0.0)


def shown(agent: RunningAgent) -> set[str]:
    """The sessions that the agent shows."""
    return {each["session"] for each in agent.request("GET", "/v1/sessions").document}


def test_the_story_of_a_full_disk(agent: RunningAgent, store: RedisServer) -> None:
    """A grant is refused and takes no seat, sessions live on past their timeout, an end is told to come again."""
    for session in ("7", "8"):
        assert 201 == agent.start("john", session, pool="clearquest").status
    fill(agent)
    denied = agent.start("mary", "9", pool="clearquest")
    assert 503 == denied.status
    assert "the journal does not work" in denied.document["detail"]
    assert "look at the disk of state_dir" in denied.document["detail"]
    assert {"7", "8"} == counted(store) == shown(agent)

    ended = agent.end("8")
    assert 503 == ended.status
    assert "look at the disk of state_dir" in ended.document["detail"]

    soon(lambda: agent.health().status == 503, "health does not say that the journal cannot be written")
    assert agent.health().body.startswith(b"fail the journal cannot be written")
    with store.client() as client:
        until = beaten_until(client, "clearquest")
        soon(lambda: beaten_until(client, "clearquest") > until + 5000, "the node does not beat any more")
    assert "7" in shown(agent)
    assert "7" in counted(store)
    assert 200 == agent.start("john", "7", pool="clearquest").status

    make_room(agent)
    assert 204 == agent.end("8").status
    assert {"7"} == counted(store) == shown(agent)
    assert 201 == agent.start("mary", "9", pool="clearquest").status
    assert {"7", "9"} == counted(store) == shown(agent)


@pytest.mark.parametrize("pages", range(12))
def test_a_little_room(agent: RunningAgent, store: RedisServer, pages: int) -> None:
    """Whichever write is the one that fails: what is answered is true, and after the disk has room both sides agree."""
    assert 201 == agent.start("john", "7", pool="clearquest").status
    fill(agent, pages)
    answers = {session: agent.start("mary", session, pool="clearquest").status for session in ("8", "9", "10")}
    assert {201, 503} >= set(answers.values())
    granted = {session for session, status in answers.items() if status == 201}
    assert granted <= shown(agent)
    assert granted <= counted(store)
    ended = {session for session in ("7", "8") if agent.end(session).status == 204}
    assert not ended & shown(agent)
    make_room(agent)
    soon(lambda: agent.health().status == 200, "not ready again")
    assert 204 == agent.end("7").status
    expected = granted - {"8"} if "8" in ended else granted
    soon(lambda: expected - {"8"} == counted(store) - {"8"}, f"{expected} but {counted(store)}\n{agent.log_text}")


@pytest.mark.parametrize("end", [RunningAgent.kill, RunningAgent.terminate])
def test_restarted_on_a_full_disk(
    agent: RunningAgent, store: RedisServer, end: Callable[[RunningAgent], object]
) -> None:
    """L7: killed or stopped on a full disk and started again, the agent keeps its sessions alive.

    In a pool that bears the time that an agent takes to start on a busy machine.
    """
    assert 201 == agent.start("john", "7", pool="qlikview").status
    fill(agent)
    end(agent)
    fill(agent)
    agent.launch()
    soon(lambda: answers(agent), f"does not start: {agent.log_text}")
    assert {"7"} == shown(agent)
    with store.client() as client:
        until = beaten_until(client, "qlikview")
        soon(lambda: beaten_until(client, "qlikview") > until + 2000, "the node does not beat any more")
    assert 503 == agent.health().status


def answers(agent: RunningAgent) -> bool:
    """Whether the agent is there, ready or not."""
    try:
        return agent.health("/livez").status == 200
    except OSError:
        return False
