"""A fail-over behind one address, or one name, while agents run: starts go on, and no agent is restarted."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.agents import Agents, RunningAgent, agents_on, soon
from tests.support.members import Member, on_quiet_ports, wait_until
from tests.support.patience import within
from tests.support.proxy import proxy
from tests.support.servers import require

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a redis-server and mount namespaces")

POLICY = """\
[[pool]]
name = "clearquest"
kind = "floating"
capacity = 10
session_timeout = "60s"
"""
NAME = "store.farm.example"


@contextmanager
def twins() -> Iterator[tuple[Member, Member]]:
    """Run a master at 127.0.0.1 and its replica at 127.0.0.2, on one port."""

    def make(folder: Path, ports: list[int]) -> list[Member]:
        given = ("--save", "", "--repl-diskless-sync-delay", "0")
        follow = f"replicaof 127.0.0.1 {ports[0]}\n"
        master = Member(folder / "first", *given, port=ports[0])
        return [master, Member(folder / "second", *given, "--bind", "127.0.0.2", port=ports[0], config=follow)]

    with on_quiet_ports(1, make) as (first, second):
        wait_until(lambda: second.replicates(first) or None, "a replica")
        yield first, second


def demote(first: Member, second: Member) -> None:
    """Make the second the master and the first its replica, as an administrator or an operator does."""
    wait_until(lambda: second.replicates(first) or None, "a replica with all that its master has")
    second.ask("REPLICAOF", "NO", "ONE")
    first.ask("REPLICAOF", "127.0.0.2", second.port)


def goes_on(agents: Agents, first: Member, second: Member) -> None:
    """Both nodes let users in again, by the new master, in the life they had; nobody has lost anything."""
    lives = [agent.process.pid for agent in agents if agent.process is not None]
    began = time.monotonic()
    for number, agent in enumerate(agents):
        soon(lambda: granted_by_store(agent, f"new{number}"), f"{agent.node} lets nobody in", 20)  # noqa: B023 - at once
    assert time.monotonic() - began < within(60)
    for agent in agents:
        soon(lambda: agent.health("/livez").status == 200, "not alive")  # noqa: B023 - at once
        assert [("clearquest", "active")] * 2 == [(row["pool"], row["state"]) for row in sessions(agent)]
    assert lives == [agent.process.pid for agent in agents if agent.process is not None]
    assert "4" == str(second.ask("ZCARD", "fl:{citrix-a/clearquest/0}:seats"))
    assert second.is_master()
    assert not first.is_master()


def granted_by_store(agent: RunningAgent, user: str) -> bool:
    """Ask for a session."""
    reply = agent.start(user, user)
    return reply.status in {200, 201} and reply.document["source"] == "store"


def sessions(agent: RunningAgent) -> list[dict[str, str]]:
    """Return the uses of a node."""
    found: list[dict[str, str]] = agent.request("GET", "/v1/sessions").document
    return found


@pytest.mark.parametrize("cut", [False, True], ids=["connections stay", "connections end"])
def test_the_master_behind_a_proxy_is_another_one(*, cut: bool) -> None:
    """As behind HAProxy or a virtual address: also where open connections go on leading to the demoted server."""
    with (
        twins() as (first, second),
        proxy(first.port) as way,
        agents_on(f"redis://127.0.0.1:{way.port}/0", policy=POLICY) as agents,
    ):
        for number, agent in enumerate(agents):
            assert 201 == agent.start(f"old{number}", f"old{number}").status
        demote(first, second)
        way.lead_to(second.port, "127.0.0.2")
        if cut:
            way.cut()
            way.mend()
        goes_on(agents, first, second)


def test_the_name_of_the_store_leads_elsewhere(tmp_path: Path) -> None:
    """As with DNS that follows the master: agents that run resolve the name anew, in a namespace with hosts of its own."""
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 localhost {NAME}\n")
    unshare = require("unshare")
    inside = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    with twins() as (first, second), ExitStack() as stack:
        agents = stack.enter_context(agents_on(f"redis://127.0.0.1:{first.port}/0", policy=POLICY))
        for agent in agents:
            assert 0 == agent.terminate()
            agent.config.write_text(agent.config.read_text().replace("redis://127.0.0.1:", f"redis://{NAME}:"))
            agent.launch_by(lambda command: [unshare, "--mount", "sh", "-c", inside, "sh", *command])
        for number, agent in enumerate(agents):
            agent.wait_ready()
            assert 201 == agent.start(f"old{number}", f"old{number}").status
        demote(first, second)
        hosts.write_text(f"127.0.0.1 localhost\n127.0.0.2 {NAME}\n")
        goes_on(agents, first, second)
