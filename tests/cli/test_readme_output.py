"""What ``deploy/ADMIN.md`` shows of a command's output is what the command says."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from farmlease.admin.nodes import Occupancy
from farmlease.cli.node.drain_wait import empty_text, remaining_text
from farmlease.domain.node_view import NodeView, Wish
from tests.support.commands import CLEARQUEST, QLIKVIEW, ClockedHost, me
from tests.support.stores import HOUR

ADMIN = (Path(__file__).parents[2] / "deploy" / "ADMIN.md").read_text(encoding="utf-8")


def shown(*words: str) -> str:
    """Return what the document shows for a command."""
    found = re.search(rf"```console\n\$ farmlease {re.escape(shlex.join(words))}\n(.*?)```", ADMIN, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def morning(clocked: ClockedHost) -> ClockedHost:
    """09:00 john and mary, 10:00 anna, and john in vain in the other pool; then john's lease is revoked, by root."""
    clocked.apply(QLIKVIEW + CLEARQUEST)
    clocked.lend("CORP\\john", "CORP\\mary", session="7")
    clocked.clock.advance(HOUR)
    clocked.lend("CORP\\anna", session="3")
    clocked.lend("CORP\\mary", pool="clearquest", session="8")
    with pytest.raises(AssertionError, match="capacity"):
        clocked.lend("CORP\\john", pool="clearquest", session="8")
    clocked.clock.advance(1000)
    revoked = clocked.run("lease", "revoke", "CORP\\john", "--pool", "qlikview", "--reason", "left us", "--yes")
    assert 0 == revoked.status
    clocked.report("ctx-02")
    assert 0 == clocked.run("node", "drain", "ctx-02").status
    clocked.clock.advance(HOUR // 2)
    return clocked


@pytest.mark.parametrize("options", [("--user", r"CORP\john"), ("--since", "1h")], ids=" ".join)
def test_the_audit_is_as_shown(morning: ClockedHost, options: tuple[str, ...]) -> None:
    """The document's lines are a real run's, to the letter, but for who ran it."""
    told = morning.run("audit", *options)
    assert (0, "") == (told.status, told.err)
    assert told.out.replace(me(), "root on ctx-01") == shown("audit", *options)


def test_usage_is_as_shown(morning: ClockedHost) -> None:
    """So is the table, with the drawing that a terminal gets."""
    assert shown("usage") == morning.run_on_terminal("usage", NO_COLOR="1")


def test_the_drain_is_as_shown() -> None:
    """While a node empties, the lines are those that the command prints for what is left on it."""
    view = NodeView(
        node="ctx-02", incarnation="a", version="0.1.0", sessions=2, owed=0, draining=False, stopping=False,
        health="pass", listen="", started_at=0, seen_at=0, now=0, wish=Wish(),
    )  # fmt: skip
    shut = replace(view, draining=True)
    printed = [
        f"ctx-02: {remaining_text(Occupancy(each, count, counted=False))}"
        for each, count in ((view, 2), (shut, 2), (shut, 1))
    ]
    printed.append(empty_text(Occupancy(shut, 0, counted=False)))
    assert "\n".join(["$ farmlease node drain ctx-02 --wait 8h", *printed, "$ "]) in ADMIN
