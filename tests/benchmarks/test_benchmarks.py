"""The benchmark itself: its arithmetic, its rows for what is missing or broken, and a tiny run of the cheap groups.

No figure is held against its goal here: a test is no place for measuring.
"""

import http.client
import json
import shutil
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing

import psutil
import pytest

from tests.benchmarks import __main__ as program
from tests.benchmarks.agent import running_agent
from tests.benchmarks.agent_with_empty_route import EMPTY
from tests.benchmarks.etcd import etcd_figures
from tests.benchmarks.figures import (
    Figure,
    Missing,
    on_the_clients_core,
    on_the_servers_core,
    p99,
    side_by_side,
)
from tests.benchmarks.growth import LARGE, Call, Costs, costs, page
from tests.benchmarks.peers import peer_figures
from tests.benchmarks.store import acquire_figure
from tests.benchmarks.throughput import against_redis_benchmark, throughput_figures, with_a_log
from tests.support.servers import require

Measure = Callable[[int], Awaitable[list[Figure]]]


def figure(*rounds: float, at_most: bool = True, goal: float | None = 1.0, broken: str = "") -> Figure:
    """A figure with a floor of 2 and a goal of 1, or the other way round."""
    floor = 2.0 if at_most else 0.5
    return Figure(id="P0", what="x", rounds=rounds, floor=floor, goal=goal, at_most=at_most, broken=broken)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("goal", figure(1.0)),
        ("floor", figure(1.01)),
        ("floor", figure(2.0)),
        ("short", figure(2.01)),
        ("goal", figure(1.0, at_most=False)),
        ("floor", figure(0.99, at_most=False)),
        ("floor", figure(0.5, at_most=False)),
        ("short", figure(0.49, at_most=False)),
        ("goal", figure(9.0, 0.5, 0.7)),
        ("short", figure(0.1, 9.0, 9.0)),
        ("reported", figure(9.0, goal=None)),
        ("missing", figure()),
        ("broken", figure(0.5, broken="no seat was held")),
    ],
)
def test_a_figure_is_held_against_its_goal_by_its_median(expected: str, found: Figure) -> None:
    """At most or at least, on the line counts as reached, one bad round does not matter, and nothing broken is good."""
    assert expected == found.verdict
    assert {"value": found.value, "verdict": expected}.items() <= found.document().items()


def test_p99_is_what_one_in_a_hundred_exceeds() -> None:
    """Of a thousand values, ten are greater."""
    assert 10 == sum(value > p99(range(1_000)) for value in range(1_000))


async def test_both_sides_are_measured_in_turns_and_the_first_round_does_not_count() -> None:
    """Who goes first changes from round to round, so that neither always finds the machine as the other left it."""
    asked: list[str] = []

    async def side(name: str) -> float:
        asked.append(name)
        return len(asked)

    mine, other = await side_by_side(lambda: side("mine"), lambda: side("other"), 3)
    assert ["other", "mine", "mine", "other", "other", "mine", "mine", "other"] == asked
    assert ((3, 6, 7), (4, 5, 8)) == (mine, other)


def run(monkeypatch: pytest.MonkeyPatch, groups: list[tuple[str, Measure]], *words: str) -> int:
    """Run the program with these groups in place of its own; returns its exit status."""
    monkeypatch.setattr(program, "GROUPS", groups)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    with pytest.raises(SystemExit) as ended:
        program.main()
    return int(ended.value.code or 0)


def test_each_figure_has_a_group() -> None:
    """None of the thirteen figures is forgotten."""
    named = {name for ids, _ in program.GROUPS for name in ids.split()}
    assert {f"P{number}" for number in range(1, 14)} <= named


async def tiny(scale: int) -> list[Figure]:
    """One cheap figure, really measured."""
    return [await acquire_figure(40 // scale)]


async def peerless(scale: int) -> list[Figure]:
    """Whose peer is not there."""
    raise Missing(f"the peer is not installed, at a scale of {scale}")


async def untrue(scale: int) -> list[Figure]:
    """Whose effect is not there."""
    assert scale == 0, "[40] seats were to be held"
    return []


def test_one_document_of_all_figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints what was measured and a row for the peer that is not installed; --only leaves the others out."""
    groups: list[tuple[str, Measure]] = [("P1", tiny), ("P6", peerless), ("P7", untrue)]
    assert 0 == run(monkeypatch, groups, "--json", "--only", "P1", "--only", "P6", "--quick")
    first, second = json.loads(capsys.readouterr().out)
    assert ("P1", 5, 35) == (first["id"], len(first["rounds"]), first["floor"])
    assert 1 < first["value"] < 500
    assert sorted(first["rounds"])[2] == first["value"]
    assert ("P6", "missing", None) == (second["id"], second["verdict"], second["value"])
    assert "the peer is not installed, at a scale of 10" == second["missing"]


def test_what_breaks_is_a_row_and_the_rest_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A figure whose effect is not there has no value, says so, ends the program with 1, and takes no other with it."""
    assert 1 == run(monkeypatch, [("P7", untrue), ("P6", peerless)])
    table = capsys.readouterr().out
    assert "[40] seats were to be held" in table
    assert ("broken" in table, "missing" in table) == (True, True)


async def test_peers_are_measured_and_a_missing_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide two libraries: theirs are rows that say what to install, and all others have figures."""
    for module in ("pottery", "redis_lock", "limits"):
        monkeypatch.setitem(sys.modules, module, None)
    found = {each.id: each for each in await peer_figures(100)}
    missing = {name: each.missing for name, each in found.items() if each.verdict == "missing"}
    assert {
        "P6b": "python-redis-lock is not installed (pip install '.[bench]')",
        "P6c": "pottery is not installed (pip install '.[bench]')",
        "P6d": "limits is not installed (pip install '.[bench]')",
    } == missing
    assert (5, 5) == (len(found["P6a"].rounds), len(found["P6e"].rounds))


@pytest.mark.parametrize(
    ("hidden", "says"), [("etcd", "Debian: etcd-server"), ("redis-benchmark", "Debian: redis-tools")]
)
async def test_a_missing_program_says_what_to_install(monkeypatch: pytest.MonkeyPatch, hidden: str, says: str) -> None:
    """Without the program its figures are rows that name the package."""
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **given: None if name == hidden else which(name, **given))
    found = await etcd_figures(100) if hidden == "etcd" else (await throughput_figures(1_000))[:2]
    assert [True, True] == [each.verdict == "missing" and says in each.missing for each in found]


async def test_throughput_is_measured_beside_redis_benchmark() -> None:
    """Both sides really take seats, as many as they say."""
    require("redis-benchmark")
    for found in (await against_redis_benchmark("P3", 5, 50, floor=0, goal=0), await with_a_log(50)):
        assert (5, True) == (len(found.rounds), all(0.001 < each < 1_000 for each in found.rounds))


def test_the_empty_route_is_behind_the_same_gate() -> None:
    """What a session start is compared with passes the token's check as it does, and answers 204."""
    with running_agent("-m", "tests.benchmarks.agent_with_empty_route") as agent:
        answers = []
        for token in (agent.token, "wrong"):
            with closing(http.client.HTTPConnection("127.0.0.1", agent.port, timeout=30)) as connection:
                connection.request("GET", EMPTY, headers={"Authorization": f"Bearer {token}"})
                answers.append(connection.getresponse().status)
    assert [204, 401] == answers


async def test_growth_is_measured() -> None:
    """Each call of a trial costs time and bytes, and a lease's memory is near what the README beside this says."""
    found = await costs(30)
    for call in (found.taken, found.joined, found.released, found.heartbeat):
        assert (call.micros > 1, 100 < call.network < 10_000) == (True, True)
    assert found.taken.network > found.heartbeat.network
    assert 300 < found.lease < 5_000
    assert 20 < found.entry < 1_000


def test_growth_is_computed_as_it_is_shown() -> None:
    """The arithmetic of the README beside this, on round costs."""
    call = Call(micros=100, network=1_000)
    cost = Costs(taken=call, joined=call, released=call, heartbeat=Call(50, 500), lease=1_000, entry=100)
    lines = page(cost, LARGE).replace("\N{MULTIPLICATION SIGN}", "x").splitlines()
    assert {
        "| leases | 100,000 users x 2 pools each | 200,000 |",
        "| everybody logs on within 30 min, each to a new lease | 200,000 ÷ 1,800 s = 111 a second x 100 µs | 1.1 % of a core |",
        "| nodes stay alive | 2,000 nodes x 20 pools ÷ 60 s = 667 a second x 50 µs | 3.3 % of a core |",
        "| memory of the leases, each with a session | 200,000 x 1,000 B | 200 MB |",
        "| memory of the audit, when full | 20 pools x 100,000 lines x 100 B | 200 MB |",
        "| network in the logon storm | (111 x 1,000 B + 667 x 500 B) x 8 | 3.6 Mbit/s |",
        "| the most that one core of Redis could grant | 1 s ÷ 100 µs | 10,000 a second |",
    } <= set(lines)


def test_a_server_that_is_started_while_we_measure_is_on_the_servers_core() -> None:
    """Else it would share a core with who measures it, and be compared with one that does not."""
    process = psutil.Process()
    cores = process.cpu_affinity()
    with on_the_clients_core():
        with on_the_servers_core():
            assert cores[:1] == process.cpu_affinity()
        assert cores[:2][-1:] == process.cpu_affinity()
    assert cores == process.cpu_affinity()
