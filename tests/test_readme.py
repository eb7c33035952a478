"""The README is true: its commands run as written, its drawing is the table."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from farmlease.domain.session import diagram

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


def test_the_tour_runs_as_written(tmp_path: Path) -> None:
    """Every command of the tour does what its text says, in a shell, from an empty folder."""
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", between("tour", "end of tour"), re.DOTALL))
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
            ["bash", "-euc", lines], cwd=short, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        shutil.rmtree(short)
    assert 0 == told.returncode, told.stderr
    assert r"granted qlikview to corp\john on ctx-01" in told.stdout
    assert "a borrowed licence" in told.stdout
    assert "exit status 3" in told.stdout
    assert "VALID" in told.stdout
