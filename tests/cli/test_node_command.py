"""``farmlease node …``: the nodes in words and for programs, and when one is empty."""

import csv
import io
import json
import os
import re
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from farmlease.admin.nodes import Occupancy
from farmlease.cli.node.commands import time_ago
from farmlease.cli.node.drain_wait import empty_text, remaining_text
from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.domain.node_view import SILENT_MS, NodeView, Wish
from tests.support.commands import QLIKVIEW, ClockedHost, me
from tests.support.stores import HOUR, NINE

FIELDS = [
    "node", "state", "sessions", "owed", "version", "health", "health_listen", "incarnation", "namesakes",
    "started_at", "since", "last_heard_at", "heard_ago_s", "drain",
]  # fmt: skip
VIEW = NodeView(
    node="ctx-01", incarnation="1", version="1.2", sessions=0, owed=0, draining=True, stopping=False, health="warn",
    listen="0.0.0.0:8732", started_at=NINE, seen_at=NINE, now=NINE, wish=Wish(version=1, draining=True, at=NINE),
)  # fmt: skip


@pytest.fixture
def nodes(clocked: ClockedHost) -> ClockedHost:
    """A farm of three nodes, of which one was not heard of for an hour."""
    clocked.apply(QLIKVIEW)
    clocked.lend("john")
    clocked.report("ctx-03", sessions=4)
    clocked.clock.advance(HOUR)
    clocked.report("ctx-01", sessions=1)
    clocked.report("ctx-02", health="fail")
    return clocked


def rows(host: ClockedHost, *args: str) -> list[dict[str, Any]]:
    """Return the nodes, as a program reads them."""
    ended = host.run("node", "list", *args, "-o", "json")
    assert (0, "") == (ended.status, ended.err)
    found: list[dict[str, Any]] = json.loads(ended.out)
    return found


def test_the_list_is_in_words_and_for_programs(nodes: ClockedHost) -> None:
    """A line for each node; JSON and CSV have every field."""
    listed = rows(nodes)
    assert [FIELDS] * 3 == [list(row) for row in listed]
    assert [("ctx-01", "ready"), ("ctx-02", "failing"), ("ctx-03", "silent")] == [
        (row["node"], row["state"]) for row in listed
    ]
    assert ("2026-01-05T09:00:00.000Z", 3600, 4) == tuple(
        listed[2][name] for name in ("since", "heard_ago_s", "sessions")
    )
    table = [re.split(r"\s{2,}", line) for line in nodes.run("node", "list").out.splitlines()]
    assert ["NODE", "STATE", "SESSIONS", "HEALTH", "VERSION", "HEARD", "SINCE (UTC)"] == table[0]
    assert ["ctx-03", "silent", "4", "pass", "1.2", "1 h ago", "2026-01-05 09:00"] == table[3]
    assert 4 == len(list(csv.reader(io.StringIO(nodes.run("node", "list", "-o", "csv").out))))
    assert ["ctx-02"] == [row["node"] for row in rows(nodes, "--state", "failing")]


def test_what_was_wished_and_is_not_done_yet_is_told(nodes: ClockedHost) -> None:
    """Between the wish and the node's next report; who drained it is there to be read."""
    assert 0 == nodes.run("node", "drain", "ctx-01").status
    ended = nodes.run("node", "drain", "ctx-03")
    late = "it is silent now, and will read this when its agent runs; sessions left: 4"
    assert (0, f"ctx-03 takes no new users in a few seconds; {late}\n") == (ended.status, ended.out)
    table = nodes.run("node", "list").out
    assert "ready, to drain" in table
    assert "silent, to drain" in table
    drain = rows(nodes)[0]["drain"]
    assert (True, "2026-01-05T10:00:00.000Z") == (drain["wished"], drain["at"])
    assert me() == drain["by"]
    assert "ctx-01 takes users again in a few seconds\n" == nodes.run("node", "undrain", "ctx-01").out
    assert "to drain" not in nodes.run("node", "list").out.splitlines()[1]


def test_a_wrong_key_ring_drains_nobody(nodes: ClockedHost) -> None:
    """Who it was would be sealed with a key that the farm does not have."""
    nodes.ring_file.unlink()
    keyring_file.create(nodes.ring_file, KeyRing.generate(0))
    for verb in ("drain", "undrain"):
        ended = nodes.run("node", verb, "ctx-02")
        assert (5, "") == (ended.status, ended.out)
    assert not rows(nodes)[1]["drain"]["wished"]


def test_hosts_of_one_name_are_one_line_that_says_so(nodes: ClockedHost) -> None:
    """What one of them says is not true of the other: nobody is told that it is safe to reimage."""
    for life in ("2", "1"):
        nodes.report("ctx-01", incarnation=life, draining=True)
    assert "ctx-01  2 hosts of this name" in nodes.run("node", "list").out
    assert 1 == rows(nodes)[0]["namesakes"]
    ended = nodes.run("node", "drain", "ctx-01", "--wait", "0")
    assert (1, True) == (ended.status, "2 hosts report under this name" in ended.err)


def test_a_node_that_was_told_to_end_is_stopping(nodes: ClockedHost) -> None:
    """It goes on for its shutdown_delay, and the list says that it will not for long."""
    nodes.report("ctx-01", leaving=True, health="fail")
    assert "ctx-01  stopping" in nodes.run("node", "list").out
    assert ["ctx-01"] == [row["node"] for row in rows(nodes, "--state", "stopping")]


def test_a_silent_node_is_empty_when_the_store_counts_nobody(nodes: ClockedHost) -> None:
    """Its last word was four sessions; by the store's count there is none, and it is said so."""
    ended = nodes.run("node", "drain", "ctx-03", "--wait", "5s")
    assert (0, "") == (ended.status, ended.err)
    assert (
        "ctx-03 is silent since 2026-01-05 09:00 UTC, had delivered everything then, and by the store's count has "
        "no session left: safe to reimage\n"
    ) == ended.out


def test_a_silent_node_with_sessions_is_not_empty(nodes: ClockedHost) -> None:
    """The session that john has on ctx-01 lives until its node's deadline."""
    nodes.clock.advance(SILENT_MS + 1)
    ended = nodes.run("node", "drain", "ctx-01", "--wait", "0")
    assert 1 == ended.status
    assert "1 session left by the store's count until the session_timeout is over" in ended.err
    nodes.clock.advance(HOUR)
    assert 0 == nodes.run("node", "drain", "ctx-01", "--wait", "0").status


@pytest.mark.parametrize(
    ("occupancy", "told"),
    [
        (Occupancy(VIEW, 2, counted=False), "2 sessions left"),
        (Occupancy(replace(VIEW, draining=False), 1, counted=False), "1 session left, and the node has not read"),
        (
            Occupancy(replace(VIEW, owed=3), 0, counted=False),
            "no session is left, 3 session ends or saved files are not delivered",
        ),
        (
            Occupancy(replace(VIEW, owed=3, stopping=True), 0, counted=True),
            "and on its disk only: start its agent once",
        ),
    ],
)
def test_what_is_left_is_told(occupancy: Occupancy, told: str) -> None:
    """Sessions, what only the node knows, and a node that has not heard: none of it is empty."""
    assert not occupancy.empty
    assert told in remaining_text(occupancy)


def test_empty_is_empty() -> None:
    """Nobody is on it, nobody new can come, nothing lies there that only it knows."""
    assert Occupancy(VIEW, 0, counted=False).empty
    assert not Occupancy(replace(VIEW, draining=False), 0, counted=False).empty
    assert "ctx-01 is empty and has delivered everything: safe to reimage" == empty_text(
        Occupancy(VIEW, 0, counted=False)
    )


def test_how_long_ago_is_read_at_a_glance() -> None:
    """By the largest unit."""
    spans = (0, 59, 60, 7199, 86_400)
    assert ["0 s ago", "59 s ago", "1 min ago", "1 h ago", "1 d ago"] == [
        time_ago({"heard_ago_s": span}) for span in spans
    ]


def test_a_wait_shows_a_bar_on_a_terminal(nodes: ClockedHost) -> None:
    """What is left is told beside a bar, which is gone in the end."""
    master, slave = pytest.importorskip("pty").openpty()
    command = nodes.command("node", "drain", "ctx-01", "--wait", "0")
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    done = subprocess.run(command, stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=environ, check=False)
    os.close(slave)
    told = os.read(master, 65536).decode()
    os.close(master)
    assert (1, True) == (done.returncode, b"is not empty after 0s" in done.stderr)
    assert "ctx-01: 1 session left, and the node has not" in told
    assert "\x1b[" in told
