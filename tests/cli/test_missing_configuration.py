"""A host without a configuration: each command says that the file is missing, and nothing else is blamed for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from farmlease.config.source import standard_files

pytestmark = pytest.mark.skipif(standard_files().config.exists(), reason="this host has a configuration of its own")

FROM_FILE = [
    ["pool", "list"],
    ["lease", "list"],
    ["lease", "check", "john"],
    ["node", "list"],
    ["device", "list", "john"],
    ["identity", "check"],
    ["usage"],
    ["audit"],
    ["key", "generate"],
    ["key", "list"],
    ["bench", "--users", "2", "--nodes", "1"],
    ["agent"],
    ["pool", "apply", "pools.toml"],
]
BY_AGENT = [
    ["session", "list"],
    ["session", "start", "john", "--session", "7"],
    ["session", "end", "7"],
    ["run", "--", "true"],
    ["health"],
]


def run(words: list[str], folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a host without configuration."""
    (folder / "pools.toml").write_text('[[pool]]\nname = "p"\nkind = "named"\ncapacity = 1\n')
    plain = {name: value for name, value in os.environ.items() if not name.startswith("FARMLEASE_")}
    command = [sys.executable, "-m", "farmlease", *words]
    return subprocess.run(
        command, cwd=folder, env={**plain, **environ}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("words", FROM_FILE, ids=" ".join)
def test_a_missing_file_is_called_missing(words: list[str], tmp_path: Path) -> None:
    """Neither a default nor the store is blamed, and the line says how a configuration is made."""
    done = run(words, tmp_path)
    assert (2, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert done.stderr.startswith(f"farmlease: there is no configuration file {standard_files().config}: ")
    assert "`farmlease init`" in done.stderr


@pytest.mark.parametrize("words", BY_AGENT, ids=" ".join)
def test_so_does_what_asks_the_agent(words: list[str], tmp_path: Path) -> None:
    """An agent configured by its environment may answer at the usual place; if none does, the file comes first."""
    done = run(words, tmp_path)
    assert (4, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert done.stderr.startswith(f"farmlease: there is no configuration file {standard_files().config}: ")


@pytest.mark.parametrize("words", [*FROM_FILE[:3], *BY_AGENT], ids=" ".join)
def test_a_named_file_that_is_not_there_is_wrong_usage(words: list[str], tmp_path: Path) -> None:
    """By option or by variable, it is named, and so is what makes one."""
    for done in (
        run(["--config", "nowhere.toml", *words], tmp_path),
        run(words, tmp_path, FARMLEASE_CONFIG="nowhere.toml"),
    ):
        assert (2, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
        assert done.stderr.startswith("farmlease: nowhere.toml: there is no such file; make it with `farmlease init`")
