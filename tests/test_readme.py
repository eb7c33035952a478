"""The documents are true: their commands exist and run as written, the drawing is the table, the README stays short."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from farmlease.domain.session_states import diagram
from tests.support.command_lines import check, command_lines
from tests.support.patience import within
from tests.support.ports import distant_port

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
HOUSE = ROOT / "farmlease" / "README.md"
ADMIN = ROOT / "deploy" / "ADMIN.md"
TESTS = ROOT / "tests" / "README.md"


def between(file: Path, begin: str, end: str) -> str:
    """Return a document's text between two of its comments."""
    found = re.search(rf"<!-- {begin}.*?-->(.*?)<!-- {end} -->", file.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_drawing_of_a_sessions_states_is_the_table() -> None:
    """The documentation is generated from the table."""
    assert (
        diagram().strip()
        == between(HOUSE, "session states", "end of session states")
        .strip()
        .removeprefix("```mermaid")
        .removesuffix("```")
        .strip()
    )


def commands(file: Path, begin: str, end: str) -> list[str]:
    """Return a document's blocks of commands between two of its comments."""
    return re.findall(r"```sh\n(.*?)```", between(file, begin, end), re.DOTALL)


def run(lines: str) -> "subprocess.CompletedProcess[str]":
    """Run lines in a shell that ends with the first that fails, from an empty folder.

    The tour's port is another, as an agent may be running on this machine, and nothing else is changed.
    """
    assert 1 == lines.count("127.0.0.1:8732")
    lines = lines.replace("127.0.0.1:8732", f"127.0.0.1:{distant_port()}")
    short = Path("/tmp") / f"fl-tour-{os.getpid()}"  # noqa: S108 - a Unix socket's path must be short
    short.mkdir()
    programs = short / "bin"
    programs.mkdir()
    command = programs / "farmlease"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m farmlease "$@"\n')
    command.chmod(0o755)
    environ = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    try:
        told = subprocess.run(
            ["bash", "-euc", lines],
            cwd=short,
            env=environ,
            capture_output=True,
            text=True,
            timeout=within(100),
            check=False,
        )
    finally:
        shutil.rmtree(short)
    assert 0 == told.returncode, told.stderr
    return told


def test_a_rotation_runs_as_written() -> None:
    """On the machine of the tour, its agent running, a new key comes into use and the old one goes."""
    (set_up, *_) = commands(README, "tour", "end of tour")
    (steps,) = commands(ADMIN, "rotation", "end of rotation")
    told = run(
        f"{set_up}\nfarmlease session start 'CORP\\john' --session 7\n{steps}\nfarmlease session list\nkill %1 && wait"
    )
    removed = re.search(r"removed key (\w{8}) from", told.stdout)
    assert removed is not None
    _, after = told.stdout.split(removed[0])
    assert removed[1] not in after
    assert 1 == after.count("primary")
    assert r"corp\john" in after


def test_the_tour_runs_as_written() -> None:
    """Every command of the tour does what its text says, in a shell, from an empty folder."""
    told = run("\n".join(commands(README, "tour", "end of tour")))
    assert r"granted qlikview to corp\john on ctx-01" in told.stdout
    assert "a borrowed licence" in told.stdout
    assert "exit status 3" in told.stdout
    assert "VALID" in told.stdout
    (shown,) = re.findall(r"\n\n```\n(.*?)```", between(README, "tour", "end of tour"), re.DOTALL)
    printed = told.stdout.splitlines()
    for line in shown.splitlines():
        assert any(each.startswith(line.removesuffix("…")) for each in printed), line


def test_the_readme_is_for_ten_minutes() -> None:
    """It is one document for a stranger, and everything else stands elsewhere."""
    assert 150 <= len(README.read_text(encoding="utf-8").splitlines()) <= 250


@pytest.mark.parametrize("file", [README, HOUSE, TESTS], ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_command_of_the_documents_exists(file: Path) -> None:
    """Each command line is one that farmlease takes; for ``deploy/`` this is tested in tests/deploy/."""
    for line in command_lines(file):
        try:
            check(shlex.split(line))
        except (click.ClickException, AssertionError, ValueError) as error:
            pytest.fail(f"{file.name}: farmlease {line}: {error}")
