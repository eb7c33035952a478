"""How far one has to go through the house to follow a session start."""

import sys
from pathlib import Path

import pytest

from tests.benchmarks import start_trace
from tests.benchmarks.checkout import Checkout
from tests.benchmarks.traced import OUTSIDE, Calls

MOST_FILES = 50
MOST_CROSSINGS = 162


@pytest.fixture(scope="module")
def trace() -> start_trace.StartTrace:
    """One real start."""
    return start_trace.trace_start(Checkout(start_trace.ROOT))


def test_a_session_start_does_not_lead_through_the_whole_house(trace: start_trace.StartTrace) -> None:
    """The files entered for a first grant with one file, and how often it goes from one into another, are bounded."""
    assert len(trace.files) <= MOST_FILES
    assert trace.crossings <= MOST_CROSSINGS


def test_the_trace_has_command_agent_and_store(trace: start_trace.StartTrace) -> None:
    """What runs in another process, in a thread or in the server is part of the start."""
    entered = "\n".join(trace.files)
    assert "" == "".join(
        each for each in ("cli/", "domain/", "node/", "store/", "posix.py", "acquire.lua") if each not in entered
    )
    assert len(trace.files) == len(set(trace.files))


def test_calls_are_counted_between_files_through_libraries(tmp_path: Path) -> None:
    """A call by way of a library is its caller's, bodies of modules and classes are none, and nobody else's count."""
    package = tmp_path / "package"
    package.mkdir()
    calls = Calls(package)
    (package / "one.py").write_text("class Body: pass\ndef called(_): return lambda: None\n")
    (package / "two.py").write_text(
        "import functools\ndef calls(f): return functools.reduce(lambda a, b: f(b), [0, 1])\n"
    )
    one, two = ({"__name__": "any"} for _ in range(2))
    sys.setprofile(calls.note)
    try:
        for file, names in (("one.py", one), ("two.py", two)):
            exec(compile((package / file).read_text(), str(package / file), "exec"), names)  # noqa: S102 - our own
        two["calls"](one["called"])()
    finally:
        sys.setprofile(None)
    assert [(OUTSIDE, "two.py"), ("two.py", "two.py"), ("two.py", "one.py"), (OUTSIDE, "one.py")] == calls.made


def test_the_program_prints_each_file_and_the_sums(
    trace: start_trace.StartTrace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for each file, one with both numbers, and with -v one for each pair."""
    monkeypatch.setattr(start_trace, "trace_start", lambda _: trace)
    for words, pairs in (([], 0), (["-v"], len(trace.pairs))):
        monkeypatch.setattr(sys, "argv", ["start_trace", *words])
        start_trace.main()
        lines = capsys.readouterr().out.splitlines()
        assert list(trace.files) == lines[: len(trace.files)]
        assert f"{len(trace.files)} files entered, {trace.crossings} crossings" == lines[len(trace.files)]
        assert pairs == len(lines) - len(trace.files) - 1
