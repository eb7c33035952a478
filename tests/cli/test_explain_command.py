"""``farmlease explain``: what a start would get and why, in words and for programs; nothing is taken."""

import json
import subprocess
import sys

import pytest

from farmlease.errors import EXIT_DENIED, EXIT_UNAVAILABLE
from tests.support.agents import agents_on
from tests.support.commands import QLIKVIEW, Ended, Host
from tests.support.patience import within
from tests.support.seats import contents
from tests.support.servers import RedisServer

RULE = '\n[[rule]]\ngroups = ["interns"]\naccess = "denied"\n\n[[rule]]\npools = ["qlikview"]\n'
JOHN = "CORP\\John"


@pytest.fixture
def farm(host: Host) -> Host:
    """A farm with three seats, on whose node ctx-01 John works; ctx-02 drains."""
    host.apply(QLIKVIEW + RULE)
    host.report("ctx-01")
    host.report("ctx-02", draining=True)
    host.lend(JOHN)
    return host


def explained(host: Host, *args: str) -> Ended:
    """Explain; the store holds the same as before."""
    with host.store.client() as raw:
        before = contents(raw)
        ended = host.run("explain", *args)
        assert before == contents(raw)
    return ended


def test_a_start_on_any_node_is_explained_by_the_store(farm: Host) -> None:
    """The name with its line, the groups, the rule with its line, limits and claims, the answer, what would change it."""
    ended = explained(farm, JOHN, "--node", "ctx-01", "--group", "designers")
    assert (0, "") == (ended.status, ended.err)
    first, *lines = ended.out.split("\n")
    assert first.startswith("corp\\john on ctx-01: granted pool qlikview, until 20")
    assert first.endswith("the user holds a lease here, and a start goes on with it")
    assert [
        "  name      corp is the domain corp (line 3)",
        "  groups    designers (as given; those that the host would add are not known here)",
        "  rule      rule 2 (line 14): gives qlikview",
    ] == lines[:3]
    assert lines[3].startswith("  pool      qlikview (named): granted pool qlikview, until ")
    assert (
        "            seats 1 of 3, quarantined 0, reserved 0, devices 1 of 2, sessions 1 of 256, waiting 0, places 0 of 16"
        == lines[4]
    )
    assert "            with session s-john-citrix-a on ctx-01" in lines
    assert (
        "  changes   Nothing is in the way: a start goes on with the lease that the user has in pool qlikview." in lines
    )


@pytest.mark.parametrize(
    ("args", "status", "reason"),
    [
        (("mary", "--node", "ctx-01", "--device", "nb-1"), EXIT_DENIED, "quarantined"),
        (("mary", "--node", "ctx-01", "--group", "Interns"), EXIT_DENIED, "not_entitled"),
        (("mary", "--node", "ctx-02"), EXIT_DENIED, "draining"),
        (("mary", "--node", "ctx-01", "--pool", "other"), EXIT_DENIED, "unknown_pool"),
        (("jim", "--node", "ctx-01"), EXIT_DENIED, "revoked"),
    ],
)
def test_a_denial_is_told_with_its_reason(farm: Host, args: tuple[str, ...], status: int, reason: str) -> None:
    """The exit status is a start's; the first line has the reason and its sentence, the last what would change it."""
    farm.lend("corp\\zoe", "corp\\jim", ended=True)
    farm.run("lease", "revoke", r"corp\jim", "--pool", "qlikview", "--reason", "left us", "--yes")
    ended = explained(farm, *(rf"corp\{args[0]}", *args[1:]))
    assert (status, "") == (ended.status, ended.err)
    assert f": denied, {reason}: " in ended.out.split("\n")[0]
    assert "\n  changes   " in ended.out
    document = json.loads(explained(farm, *(rf"corp\{args[0]}", *args[1:]), "-o", "json").out)
    assert ("denied", reason) == (document["answer"]["decision"], document["answer"]["reason"])


def test_who_drains_goes_on_for_those_who_are_there(farm: Host) -> None:
    """John has a session on the node, so a further one is let in there."""
    farm.report("ctx-01", draining=True)
    assert 0 == explained(farm, JOHN, "--node", "ctx-01").status
    assert EXIT_DENIED == explained(farm, r"corp\mary", "--node", "ctx-01").status


def test_a_node_that_there_is_not_is_told(farm: Host) -> None:
    """With the names that are near."""
    ended = explained(farm, JOHN, "--node", "ctx-03")
    assert (1, "") == (ended.status, ended.out)
    assert "there is no node ctx-03; did you mean" in ended.err


def test_without_an_agent_the_way_to_the_store_is_told(farm: Host) -> None:
    """Status 4, and what to type."""
    ended = explained(farm, JOHN)
    assert (EXIT_UNAVAILABLE, "") == (ended.status, ended.out)
    assert "--node" in ended.err


def test_a_terminal_of_80_columns_shows_it_folded(farm: Host) -> None:
    """No line is longer, and what is folded is indented."""
    shown = farm.run_on_terminal("explain", JOHN, "--node", "ctx-01", columns=80)
    assert max(map(len, shown.split("\n"))) <= 80
    assert "\x1b" not in shown


@pytest.mark.skipif(sys.platform == "win32", reason="asks for the groups of root")
def test_the_agent_of_this_node_explains_with_the_groups_that_it_sees(server: RedisServer) -> None:
    """Nothing is taken; root's groups are those of the host, and a start is then answered the same."""
    policy = (QLIKVIEW + RULE.replace("interns", "root")).replace("{", "{{").replace("}", "}}")
    with agents_on(server.url, nodes=("ctx-01",), policy=policy) as agents:
        agent = agents["ctx-01"]

        def run(*args: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "farmlease", "--config", str(agent.config), *args]
            return subprocess.run(command, capture_output=True, text=True, check=False, timeout=within(20))

        told = run("explain", "root")
        assert (EXIT_DENIED, "") == (told.returncode, told.stderr)
        assert "root on ctx-01: denied, not_entitled: " in told.stdout
        assert "(as this host sees them)" in told.stdout
        assert EXIT_DENIED == run("session", "start", "root", "--session", "1").returncode
        granted = json.loads(run("explain", JOHN, "-o", "json").stdout)
        assert ("granted", "new") == (granted["answer"]["decision"], granted["answer"]["how"])
        assert [] == agent.request("GET", "/v1/sessions").document
        assert 0 == run("session", "start", JOHN, "--session", "2").returncode
