"""No test takes a slow machine for a fault: what it waits for has the time that the machine needs."""

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import patience
from tests.support.patience import turns, within

TESTS = Path(__file__).parent
#: Rooms with machines or programs of their own.
APART = {"desktops", "benchmarks", "simulation", "snapshots"}
WAITS = {"wait", "settimeout", "result", "communicate"}
#: Seconds after which pytest ends any test that hangs (pyproject.toml); no test has less.
HANGS = 600


def is_fixed(node: ast.expr) -> bool:
    """Whether a limit is a number of seconds, as it is or by the name of a constant."""
    match node:
        case ast.Constant(value=float() | int()):
            return True
        case ast.Name(id=name):
            return name.isupper()
    return False


def is_instant(node: ast.expr) -> bool:
    """Whether a limit is so short that nothing is waited for."""
    return isinstance(node, ast.Constant) and isinstance(node.value, float | int) and node.value <= 1


def is_limit(node: ast.AST) -> bool:
    """Whether this ends a wait, or judges how long something took, by a fixed number of seconds."""
    found = False
    match node:
        case ast.Call(func=ast.Attribute(attr=name), args=[seconds]) if name in WAITS:
            found = is_fixed(seconds) and not is_instant(seconds)
        case ast.Call(func=ast.Attribute(attr="join"), args=[ast.Constant(value=float() | int())]):
            found = True
        case ast.Call(func=ast.Attribute(value=ast.Name(id="asyncio"), attr="timeout"), args=[seconds]):
            found = is_fixed(seconds)
        case ast.Call(
            func=ast.Attribute(ast.Attribute(attr="mark"), "timeout"), args=[ast.Constant(float() | int() as most)]
        ):
            found = most < HANGS
        case ast.keyword(arg="timeout", value=seconds):
            found = is_fixed(seconds)
        case ast.Compare(left=ast.BinOp() as left, ops=[ast.Lt() | ast.LtE()], comparators=[most]):
            clocks = (each for each in ast.walk(left) if isinstance(each, ast.Attribute))
            found = is_fixed(most) and any(each.attr in {"monotonic", "perf_counter"} for each in clocks)
    return found


def fixed_limits(tree: ast.AST) -> Iterator[int]:
    """Yield the lines with such a limit."""
    for node in ast.walk(tree):
        if is_limit(node):
            assert isinstance(node, ast.expr | ast.keyword)
            yield node.lineno


def test_limits_are_the_machines() -> None:
    """A number of seconds is what our machine needs where nothing else goes on, and goes through ``within``."""
    found = [
        f"{file.relative_to(TESTS)}:{line}"
        for file in sorted(TESTS.rglob("*.py"))
        if not APART & set(file.relative_to(TESTS).parts)
        for line in fixed_limits(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert [] == found


@pytest.mark.parametrize(
    "line",
    [
        "process.wait(20)",
        "run(command, timeout=60)",
        "asyncio.timeout(5)",
        "assert time.monotonic() - began < 2",
        "future.result(10)",
        "thread.join(10)",
        "asyncio.timeout(PATIENCE)",
        "run(command, timeout=PATIENCE)",
        "assert time.monotonic() - began < BOUND",
        "pytest.mark.timeout(60)",
    ],
)
def test_a_fixed_limit_is_found(line: str) -> None:
    """However it is written."""
    assert [1] == [*fixed_limits(ast.parse(line))]


def test_a_busy_machine_has_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many times more as others want its cores; never less than twice the figure."""
    monkeypatch.setattr(patience, "os", SimpleNamespace(cpu_count=lambda: 3))
    for wanted, expected in ((0.0, 20.0), (5.0, 20.0), (30.0, 100.0)):
        monkeypatch.setattr(patience, "_wanted", lambda wanted=wanted: wanted)
        assert expected == within(10)


@pytest.mark.parametrize(("busy", "looks"), [((0.0, 0.0), 2), ((0.0, 1e9, 0.0, 0.0), 4)])
def test_what_makes_it_busy_may_begin_in_the_midst_of_a_wait(
    monkeypatch: pytest.MonkeyPatch, busy: tuple[float, ...], looks: int
) -> None:
    """The limit is looked up at each turn, the longest one counts, and one look is had however late it is."""
    monkeypatch.setattr(patience, "_wanted", iter(busy).__next__)
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=iter([0.0, 19.0, 21.0, 22.0, 1e12]).__next__))
    assert looks == len([*turns(10)])
