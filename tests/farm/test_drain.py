"""A node is emptied from anywhere, with real agents and a real store: balancer, users, administrator."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.support.agents import Agents, RunningAgent, agents_on, soon
from tests.support.commands import typed
from tests.support.patience import within
from tests.support.servers import RedisServer, redis_server


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    """A real redis-server."""
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def farm(store: RedisServer) -> Iterator[Agents]:
    """Two agents whose heartbeats are far apart: nothing here may wait for one."""
    with agents_on(store.url, heartbeat="60s") as running:
        yield running


def listed(agent: RunningAgent) -> dict[str, dict[str, object]]:
    """The nodes as another host's administrator sees them."""
    ended = typed(agent.config, "node", "list", "-o", "json")
    assert (0, "") == (ended.status, ended.err)
    return {row["node"]: row for row in json.loads(ended.out)}


def test_the_balancer_hears_of_a_drain_within_five_seconds(farm: Agents) -> None:
    """From another host: /readyz says 503 warn, nobody new gets in, who is there may come back, and undrain ends it."""
    here, there = farm["ctx-01"], farm["ctx-02"]
    assert 201 == there.start("CORP\\john", "7").status
    began = time.monotonic()
    ended = typed(here.config, "node", "drain", "ctx-02")
    assert (0, "") == (ended.status, ended.err)
    assert ended.out.startswith("ctx-02 takes no new users")
    soon(lambda: there.health().status == 503, "the balancer was not told")
    assert time.monotonic() - began < within(5)
    assert there.health().body.startswith(b"warn draining, 1 session left")
    assert (503, "draining") == ((refused := there.start("CORP\\mary", "8")).status, refused.document["reason"])
    assert 201 == there.start("CORP\\john", "9").status
    soon(lambda: listed(here)["ctx-02"]["state"] == "draining", "the list does not say that the node drains")
    assert "ready" == listed(here)["ctx-01"]["state"]
    assert 0 == typed(here.config, "node", "undrain", "ctx-02").status
    soon(lambda: there.health().status == 200, "the balancer was not told that the node takes users again")
    assert [204, 204] == [there.end("7").status, there.end("9").status]


def test_a_drain_waits_until_it_is_safe_to_reimage(farm: Agents) -> None:
    """In a pipe a line for each change, and at the end that nobody and nothing is left."""
    here, there = farm["ctx-01"], farm["ctx-02"]
    for session in ("1", "2"):
        assert 201 == there.start("CORP\\john", session).status
    soon(lambda: listed(here)["ctx-02"]["sessions"] == 2, "the sessions are not reported")
    command = [
        sys.executable,
        "-m",
        "farmlease",
        "--config",
        str(here.config),
        "node",
        "drain",
        "ctx-02",
        "--wait",
        "10m",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        assert "2 sessions left" in waiting.stdout.readline()
        soon(lambda: there.health().status == 503, "the node does not drain")
        for session in ("1", "2"):
            there.end(session)
        out, err = waiting.communicate(timeout=within(30))
    assert (0, "") == (waiting.returncode, err)
    assert "ctx-02 is empty and has delivered everything: safe to reimage" == out.splitlines()[-1]
    assert 0 == typed(here.config, "node", "undrain", "ctx-02").status
    soon(lambda: there.health().status == 200, "the node does not take users again")


def test_a_wait_that_is_over_says_what_is_left(farm: Agents) -> None:
    """Exit status 1, one line, and the node goes on draining."""
    here, there = farm["ctx-01"], farm["ctx-02"]
    assert 201 == there.start("CORP\\john", "1").status
    ended = typed(here.config, "node", "drain", "ctx-02", "--wait", "4s")
    assert (1, "farmlease: ctx-02 is not empty after 4s: 1 session left; it goes on draining\n") == (
        ended.status, ended.err,
    )  # fmt: skip
    soon(lambda: there.health().status == 503, "the node does not drain")
    assert 204 == there.end("1").status
    assert 0 == typed(here.config, "node", "undrain", "ctx-02").status
    soon(lambda: there.health().status == 200, "the node does not take users again")


def test_what_is_mistyped_is_told(farm: Agents) -> None:
    """An unknown node names near ones, a wait that is no duration says where the name stands."""
    ended = typed(farm["ctx-01"].config, "node", "drain", "ctx-2")
    assert (1, "farmlease: there is no node ctx-2; did you mean ctx-02 or ctx-01? see `farmlease node list`\n") == (
        ended.status, ended.err,
    )  # fmt: skip
    ended = typed(farm["ctx-01"].config, "node", "drain", "--wait", "ctx-02")
    assert (2, 1) == (ended.status, ended.err.count("\n"))


def test_without_a_store_it_is_status_4(farm: Agents, tmp_path: Path) -> None:
    """A store that is away is told as such."""
    away = tmp_path / "farmlease.toml"
    text = farm["ctx-01"].config.read_text()
    away.write_text(text.replace('url = "', f'url = "unix://{tmp_path}/none.sock"\n#'))
    for args in (("list",), ("drain", "ctx-02"), ("undrain", "ctx-02"), ("drain", "ctx-02", "--wait", "1s")):
        ended = typed(away, "node", *args)
        assert (4, "", 1) == (ended.status, ended.out, ended.err.count("\n")), ended.err


def test_a_drain_survives_the_store_and_the_agent() -> None:
    """FLUSHALL and kill -9 together neither undrain a node nor drain it for ever."""
    with redis_server() as store, agents_on(store.url, nodes=("ctx-01",), heartbeat="1s") as running:
        node = running["ctx-01"]
        assert 0 == typed(node.config, "node", "drain", "ctx-01").status
        soon(lambda: node.health().status == 503, "the node does not drain")
        node.kill()
        with store.client() as client:
            client.flushall()
        node.launch()
        soon(lambda: listed(node).get("ctx-01", {}).get("state") == "draining", "the wish was lost")
        assert 503 == node.health().status
        assert 0 == typed(node.config, "node", "undrain", "ctx-01").status
        soon(lambda: node.health().status == 200, "the node does not take users again")


def test_a_list_that_is_watched_tells_changes(farm: Agents) -> None:
    """In a pipe ``--follow`` tells what is there, and then each change as a line of JSON."""
    here, there = farm["ctx-01"], farm["ctx-02"]
    command = [sys.executable, "-m", "farmlease", "--config", str(here.config), "node", "list", "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        try:
            assert watching.stdout is not None
            first = [json.loads(watching.stdout.readline()) for _ in range(2)]
            assert [("present", "ctx-01"), ("present", "ctx-02")] == [(row["change"], row["node"]) for row in first]
            assert 201 == there.start("CORP\\john", "1").status
            change = json.loads(watching.stdout.readline())
            assert ("changed", "ctx-02", 1) == (change["change"], change["node"], change["sessions"])
        finally:
            watching.terminate()
    there.end("1")


def answers(node: RunningAgent) -> bool:
    """Whether the agent is there, draining or not."""
    with suppress(OSError, HTTPException):
        return node.health("/livez").status == 200
    return False


def test_a_broker_is_told_once_of_each_change(tmp_path: Path) -> None:
    """From another host and on the node itself; an agent that starts again says nothing of what is known."""
    told = tmp_path / "told"
    hooks = "\n".join(
        f"""{name} = ["/bin/sh", "-c", 'echo "$@" >> {told}', "hook", "{name}", "{{node}}"]"""
        for name in ("drained", "undrained")
    )
    with (
        redis_server() as store,
        agents_on(store.url, nodes=("ctx-01",), health=f"[hooks]\n{hooks}") as agents,
    ):
        node, lines = agents["ctx-01"], list[str]()
        for command, line in (("drain", "drained ctx-01\n"), ("undrain", "undrained ctx-01\n")):
            assert 0 == typed(node.config, "node", command, "ctx-01").status
            lines.append(line)
            soon(lambda: told.exists() and told.read_text() == "".join(lines), f"not told of {command}")
            assert 0 == node.terminate()
            node.launch()
            soon(lambda: answers(node), "the agent does not start")
        assert 204 == node.request("PUT", "/v1/drain").status
        soon(lambda: told.read_text().count("\n") == 3, "not told of a drain on the node itself")
    assert "".join([*lines, "drained ctx-01\n"]) == told.read_text()
