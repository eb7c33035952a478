"""Two checkouts are measured in turns, each of them is the one that it is meant to be, and 5 % decide."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.benchmarks import __main__ as program
from tests.benchmarks import against
from tests.benchmarks.against import ACQUIRE, COMMAND_WALL, HEARTBEAT, Comparison, Quantity
from tests.benchmarks.checkout import Checkout, WrongPackageError
from tests.benchmarks.figures import Missing

if not (against.ROOT / ".git").exists():
    pytest.skip("not a checkout of git", allow_module_level=True)


def comparison(quantity: Quantity, *pairs: tuple[float, float]) -> Comparison:
    """A quantity as it was before and is here, round by round."""
    before, here = zip(*pairs, strict=True)
    return Comparison(quantity, before, here)


@pytest.mark.parametrize(
    ("slower", "found"),
    [
        (False, comparison(ACQUIRE, (100, 105))),
        (True, comparison(ACQUIRE, (1000, 1051))),
        (False, comparison(ACQUIRE, (100, 50))),
        (False, comparison(ACQUIRE, (100, 100), (100, 500), (100, 90))),
        (True, comparison(ACQUIRE, (100, 110), (100, 50), (100, 110))),
        (False, comparison(COMMAND_WALL, (100, 500))),
    ],
)
def test_five_per_cent_above_are_the_limit(slower: bool, found: Comparison) -> None:  # noqa: FBT001 - a parameter
    """Of the medians, on the line counts as before, faster is welcome, and only server and agent are judged."""
    assert slower == found.is_slower


def test_the_spread_is_that_of_the_middle_half_of_the_rounds() -> None:
    """So that one round in which the machine was busy does not hide what the others say."""
    assert (0.5, 2.0) == comparison(ACQUIRE, (2, 1), (1, 2)).spread
    assert (2.0, 7.0) == comparison(ACQUIRE, *((1, ratio) for ratio in (9, 7, 1, 2, 5, 3, 0, 8))).spread


async def test_both_are_measured_in_turns() -> None:
    """Who goes first changes, the first round does not count, and when the time is over the round is the last."""
    asked: list[str] = []

    async def turn(agent: Any, _: str) -> dict[Quantity, float]:
        asked.append(agent)
        return {ACQUIRE: len(asked)}

    both: Any = ("before", "here")
    pairs = await against.in_turns(both, turn, 3, time.monotonic() + 60)
    assert ["before", "here", "here", "before", "before", "here", "here", "before"] == asked
    assert [(4, 3), (5, 6), (8, 7)] == [(before[ACQUIRE], here[ACQUIRE]) for before, here in pairs]
    assert 1 == len(await against.in_turns(both, turn, 3, time.monotonic()))


def test_the_table_says_what_was_measured_and_which_is_slower(capsys: pytest.CaptureFixture[str]) -> None:
    """One row for each quantity: both medians, their ratio, its spread and the verdict; the judgement below."""
    even = comparison(HEARTBEAT, (80, 80), (40, 44))
    against.show("v1", [comparison(ACQUIRE, (100, 120), (200, 240)), even, comparison(COMMAND_WALL, (90, 180))])
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert [
        [ACQUIRE.what, "µs", "150", "180", "1.200", "1.20 … 1.20", "slower"],
        [HEARTBEAT.what, "µs", "60", "62", "1.033", "1.00 … 1.10", "as before"],
        [COMMAND_WALL.what, "ms", "90", "180", "2.000", "2.00 … 2.00", "reported"],
    ] == [row for row in rows if row]
    assert f"more than 5% above v1, by the medians of 2 rounds: {ACQUIRE.what} (1.200)" == against.judgement(
        "v1", [comparison(ACQUIRE, (100, 120), (200, 240)), even]
    )
    assert "server and agent are within 5% of v1, by the medians of 2 rounds" == against.judgement("v1", [even])


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the program; returns its exit status."""
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    with pytest.raises(SystemExit) as ended:
        program.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--against", "HEAD", "--only", "P1"], "neither --only nor --json"),
        (["--against", "HEAD", "--json"], "neither --only nor --json"),
        (["--rounds", "3"], "--rounds goes with --against"),
        (["--against", "HEAD", "--rounds", "0"], "invalid"),
        (["--against", "HEAD", "--rounds", "many"], "invalid"),
        (["--against", "no-such-revision"], "there is no such revision"),
        (["--against", "--help-me"], "expected one argument"),
        (["--against=--all"], "there is no such revision"),
    ],
)
def test_wrong_arguments_are_said(
    words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What does not go together, and a revision that there is not, ends with 2 before anything is started."""
    assert 2 == run(monkeypatch, *words)
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(("ratio", "status"), [(1.05, 0), (1.06, 1)])
def test_the_exit_status_is_the_judgement(ratio: float, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """0: server and agent as before. 1: slower. The rounds and the scale are those that were asked for."""
    asked: list[tuple[int, int]] = []

    async def measure(_: object, rounds: int, scale: int) -> list[Comparison]:
        asked.append((rounds, scale))
        return [comparison(ACQUIRE, (100, 100 * ratio))]

    monkeypatch.setattr(against, "measure", measure)
    assert status == run(monkeypatch, "--against", "HEAD", "--rounds", "7", "--quick")
    assert [(7, 10)] == asked


def test_a_revision_is_checked_out_for_as_long_as_it_is_measured() -> None:
    """Its package is there, its processes use it, and nothing of it is left, whatever happens meanwhile."""
    seen: list[Path] = []

    def use() -> None:
        with against.worktree("HEAD") as folder:
            seen.append(folder)
            Checkout(folder).run("--version")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()
    assert [False] == [folder.exists() for folder in seen]
    assert str(seen[0]) not in against.git("worktree", "list")


def test_a_process_that_has_another_package_is_not_measured(tmp_path: Path) -> None:
    """Each process says from where it has it."""
    (tmp_path / "farmlease").mkdir()
    (tmp_path / "farmlease" / "__init__.py").touch()
    (tmp_path / "farmlease" / "__main__.py").touch()
    Checkout(tmp_path).run()
    with pytest.raises(WrongPackageError, match=r"was to use .*elsewhere.* used "):
        Checkout(tmp_path / "elsewhere").check(f"{tmp_path}/farmlease/__init__.py\n")


def test_a_command_that_fails_is_no_figure() -> None:
    """A session that was not started took no time that counts."""
    with pytest.raises(RuntimeError, match=r"exit status 2: .*no-such-command"):
        Checkout(against.ROOT).run("no-such-command")


def test_cpu_time_is_that_of_the_process() -> None:
    """By the clock of a process, which others can read too."""
    before, began = against.cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() < began + 0.05:
        pass
    spent = against.cpu_seconds(os.getpid()) - before
    assert spent == pytest.approx(time.process_time() - began, abs=0.005)


def test_a_server_without_histograms_is_missing_one() -> None:
    """Redis 6 has none."""
    with pytest.raises(Missing, match="Redis 7"):
        against.Scripts(server_that_says(9)).micros(9)


def test_too_few_calls_are_no_figure() -> None:
    """A server that did not run the scripts would be the fastest."""
    agent = server_that_says(9, latency_percentiles_usec_evalsha={"p50": 90.5})
    assert 90.5 == against.Scripts(agent).micros(9)
    with pytest.raises(AssertionError, match="ran 9 scripts, where 10 were to be run"):
        against.Scripts(agent).micros(10)


def server_that_says(calls: int, **times: dict[str, float]) -> Any:
    """An agent whose server has run so many scripts, and what else it knows."""
    statistics = {
        "commandstats": {"cmdstat_evalsha": {"calls": calls}, "cmdstat_info": {"calls": 90}},
        "latencystats": times,
    }

    class Client:
        """A server that says that."""

        info = staticmethod(statistics.__getitem__)
        __enter__ = lambda self: self  # noqa: E731 - the shortest
        __exit__ = config_resetstat = lambda *_: None

    return SimpleNamespace(store=SimpleNamespace(client=Client))


def test_nothing_of_the_package_is_in_the_measuring_process() -> None:
    """It may have other modules than what is measured."""
    code = "import sys, tests.benchmarks.__main__; sys.exit(any(name.startswith('farmlease') for name in sys.modules))"
    assert 0 == subprocess.run([sys.executable, "-c", code], cwd=against.ROOT, check=False).returncode


def test_this_tree_against_its_own_commit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Really measured, if only for a moment: every quantity has a row, and the judgement is the exit status."""
    status = run(monkeypatch, "--against", "HEAD", "--rounds", "1", "--quick")
    shown = capsys.readouterr().out
    quantities = [HEARTBEAT, ACQUIRE, against.RELEASE, COMMAND_WALL, against.COMMAND_CPU]
    for each in (*quantities, *against.START_AND_END[1], *against.START_AND_END[50]):
        assert each.what in shown
    judgements = ["server and agent are within 5% of HEAD", "more than 5% above HEAD"]
    assert [status == 0, status == 1] == [each in shown for each in judgements]
