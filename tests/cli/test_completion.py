"""The shell completes commands, options and their values, as a real bash asks for them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import within
from tests.support.servers import require


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the command as it is installed, and what bash was told to source."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "farmlease"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m farmlease "$@"\n')
    command.chmod(0o755)
    return folder


def offered(folder: Path, *typed: str) -> list[str]:
    """Return what bash offers for the last of the words ``typed`` after ``farmlease``."""
    words = " ".join(f"'{word}'" for word in ("farmlease", *typed))
    script = (
        f'export PATH="{folder}:$PATH"\neval "$(_FARMLEASE_COMPLETE=bash_source farmlease)"\n'
        f"COMP_WORDS=({words})\nCOMP_CWORD={len(typed)}\n_farmlease_completion farmlease\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        [require("bash"), "-euc", script], capture_output=True, text=True, check=True, timeout=within(60)
    )
    assert "" == done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "offers"),
    [
        (("no",), ["node"]),
        (("node", ""), ["drain", "list", "undrain"]),
        (("node", "list", "--state", "dr"), ["draining"]),
        (("lease", "list", "-o", ""), ["table", "json", "csv"]),
        (("lease", "list", "--f"), ["--follow"]),
        (("session", "list", "--state", "w"), ["waiting"]),
    ],
)
def test_bash_completes(completed: Path, typed: tuple[str, ...], offers: list[str]) -> None:
    """Commands, options and the values that an option takes; nothing is read from a farm for it."""
    assert offers == offered(completed, *typed)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(completed: Path, shell: str) -> None:
    """What the documents tell to source exists for each shell."""
    done = subprocess.run(
        [completed / "farmlease"], env={"_FARMLEASE_COMPLETE": f"{shell}_source"}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "_FARMLEASE_COMPLETE" in done.stdout
