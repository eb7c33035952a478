"""Sessions and devices called as Windows, Citrix and terminals call them, with real agents, commands and hooks."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agents import RunningAgent, agents_on, soon
from tests.support.commands import Ended, typed
from tests.support.patience import within
from tests.support.servers import redis_server

POLICY = """\
[[pool]]
name = "qlikview"
kind = "named"
capacity = 10
devices_per_user = 2

[[pool]]
name = "clearquest"
kind = "floating"
capacity = 30
max_hold = "4h"
"""
IDS = ["RDP-Tcp#12", "pts/3", "-x", "7/save"]


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningAgent, Path]]:
    """One agent on a store of its own, and the file into which its hook writes what it is given."""
    program = tmp_path_factory.mktemp("hooks") / "hook.py"
    program.write_text("import os, sys\nopen(__file__ + '.told', 'ab').write(os.fsencode(sys.argv[1]) + b'\\n')\n")
    hooks = f'[hooks]\nended = ["{sys.executable}", "{program}", "{{session}}"]'
    with (
        redis_server() as store,
        agents_on(store.url, nodes=("ctx-01",), policy=POLICY, health=hooks) as agents,
    ):
        yield agents["ctx-01"], program.with_name("hook.py.told")


@pytest.fixture
def agent(hooked: tuple[RunningAgent, Path]) -> RunningAgent:
    """The agent alone."""
    return hooked[0]


def run(agent: RunningAgent, *args: str) -> Ended:
    """Run a command to its end."""
    return typed(agent.config, *args)


def run_process(agent: RunningAgent, *args: str) -> Ended:
    """Run a command as a process of its own, which gets its words as the system hands them over."""
    command = [sys.executable, "-m", "farmlease", "--config", str(agent.config), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=within(60), check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("session", IDS)
def test_the_commands_take_any_id_and_show_it(hooked: tuple[RunningAgent, Path], session: str) -> None:
    """Start, show, list, touch, save, hold and end: each is about this session, and its hook gets the id as given."""
    agent, told = hooked
    started = run(agent, "session", "start", "john", f"--session={session}", "--pool", "clearquest")
    assert (0, "") == (started.status, started.err)
    shown = run(agent, "session", "show", "-o", "json", "--", session)
    assert session == json.loads(shown.out)["session"]
    listed = json.loads(run(agent, "session", "list", "-o", "json").out)
    assert [session] == [each["session"] for each in listed]
    assert session in run(agent, "session", "list").out
    for verb, said in (
        ("touch", "touched session "),
        ("save", "saved the files of session "),
        ("hold", "holding session "),
    ):
        done = run(agent, "session", verb, "--", session)
        assert (0, said + session) == (done.status, done.out.rstrip("\n")[: len(said + session)])
    leases = json.loads(run(agent, "lease", "list", "--pool", "clearquest", "-o", "json").out)
    assert [session] == [each["session"] for lease in leases for each in lease["sessions"]]
    assert f"ended session {session}\n" == run(agent, "session", "end", "--", session).out
    soon(lambda: told.exists() and session in told.read_text().split("\n"), "the hook is not told")
    audit = [json.loads(line) for line in run(agent, "audit", "--pool", "clearquest", "-o", "json").out.splitlines()]
    assert {"acquired", "held", "released"} <= {entry["event"] for entry in audit if entry["session"] == session}


def test_what_is_no_id_is_refused(agent: RunningAgent) -> None:
    """Exit status 2 and one line that names what is wrong, without sending it to the terminal."""
    for bad in ("a\x1b[31mb", "x" * 257, os.fsdecode(b"\xff")):
        for words in (("start", "john", f"--session={bad}"), ("end", "--", bad), ("show", "--", bad)):
            ended = run_process(agent, "session", *words)
            assert (2, "", 1) == (ended.status, ended.out, ended.err.count("\n")), words
            assert "session" in ended.err
            assert "\x1b" not in ended.err


def test_a_machine_is_one_whatever_its_spelling(agent: RunningAgent) -> None:
    """Started, imported, checked, replaced and released under other spellings: one slot, shown by its folded name."""
    book = agent.state_dir.parent / "book.csv"
    book.write_text('UserName,MachineId,UtcBorrowTime\r\njohn,"Lab #3 / PC-Ä",\r\n', encoding="utf-8-sig")
    imported = run(agent, "lease", "import", str(book), "--pool", "qlikview")
    assert (0, "imported 1, known before 0, bad 0\n") == (imported.status, imported.out)
    start = ("session", "start", "john", "--session", "7", "--pool", "qlikview", "--device")
    assert 0 == run(agent, *start, "LAB #3 / pc-ä").status
    assert "lab #3 / pc-ä" == json.loads(run(agent, "session", "show", "7", "-o", "json").out)["uses"][0]["device"]
    assert 0 == run(agent, "session", "end", "7").status
    listed = json.loads(run(agent, "device", "list", "john", "-o", "json").out)
    assert ["lab #3 / pc-ä"] == [each["device"] for each in listed]
    assert "VALID\n" == run(agent, "lease", "check", "john", "--pool", "qlikview", "--device", "lab #3 / PC-ä").out
    replace = (
        "device",
        "replace",
        "john",
        "lab #3 / pc-Ä",
        "NB/2",
        "--reason",
        "broken",
        "--yes",
        "--pool",
        "qlikview",
    )
    assert "replaced device lab #3 / pc-ä by nb/2\n" == run(agent, *replace).out
    assert "instead of lab #3 / pc-ä" in run(agent, "audit", "--pool", "qlikview").out
    assert run(agent, "device", "release", "john", "nB/2", "--pool", "qlikview").out.startswith(
        "released device nb/2; "
    )
    assert 0 == run(agent, *start, "CITRIX-A").status
    assert "citrix-a" == json.loads(run(agent, "session", "show", "7", "-o", "json").out)["uses"][0]["device"]
    assert 0 == run(agent, "session", "end", "7").status


def test_nothing_in_an_id_reaches_a_terminal(agent: RunningAgent) -> None:
    """An id that would turn the direction of a line is shown with its escape; JSON has it to the letter."""
    session = "a\u202eb"
    assert 0 == run(agent, "session", "start", "john", f"--session={session}", "--pool", "clearquest").status
    for words in (("session", "list"), ("lease", "list"), ("lease", "show", "john"), ("audit",)):
        said = run(agent, *words).out
        assert r"a\u202eb" in said, words
        assert session not in said
    rows = csv.DictReader(run(agent, "session", "list", "-o", "csv").out.splitlines())
    assert r"a\u202eb" in [row["session"] for row in rows]
    assert session in [row["session"] for row in json.loads(run(agent, "session", "list", "-o", "json").out)]
    ended = run(agent, "session", "end", session)
    assert (0, "ended session a\\u202eb\n") == (ended.status, ended.out)
