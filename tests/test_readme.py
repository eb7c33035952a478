"""The README is true: its commands run as written, its drawing is the table."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from farmlease.domain.session_states import diagram
from tests.support.agents import distant_port

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def between(begin: str, end: str) -> str:
    """Return the README's text between two of its comments."""
    found = re.search(rf"<!-- {begin}.*?-->(.*?)<!-- {end} -->", README, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_drawing_of_a_sessions_states_is_the_table() -> None:
    """The documentation is generated from the table."""
    assert (
        diagram().strip()
        == between("session states", "end of session states")
        .strip()
        .removeprefix("```mermaid")
        .removesuffix("```")
        .strip()
    )


def commands(begin: str, end: str) -> list[str]:
    """Return the README's blocks of commands between two of its comments."""
    return re.findall(r"```sh\n(.*?)```", between(begin, end), re.DOTALL)


def run(lines: str) -> "subprocess.CompletedProcess[str]":
    """Run lines in a shell that ends with the first that fails, from an empty folder.

    The tour's two ports are others, as an agent may be running on this machine, and nothing else is changed.
    """
    for port in ("8731", "8732"):
        assert 1 == lines.count(f"127.0.0.1:{port}")
        lines = lines.replace(f"127.0.0.1:{port}", f"127.0.0.1:{distant_port()}")
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
            ["bash", "-euc", lines], cwd=short, env=environ, capture_output=True, text=True, timeout=100, check=False
        )
    finally:
        shutil.rmtree(short)
    assert 0 == told.returncode, told.stderr
    return told


def test_a_rotation_runs_as_written() -> None:
    """On the machine of the tour, its agent running, a new key comes into use and the old one goes."""
    (set_up, *_), (steps,) = commands("tour", "end of tour"), commands("rotation", "end of rotation")
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
    told = run("\n".join(commands("tour", "end of tour")))
    assert r"granted qlikview to corp\john on ctx-01" in told.stdout
    assert "a borrowed licence" in told.stdout
    assert "exit status 3" in told.stdout
    assert "VALID" in told.stdout
