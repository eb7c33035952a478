"""A host whose accounts are the test's: programs in a mount namespace of their own see other account files.

The C library reads them as it reads the real ones, so what is tried is the system's own look-up. A FIFO in place of the
groups is a directory that hangs: the library waits until somebody writes into it.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.patience import within
from tests.support.servers import missing, require

__all__ = ["AccountFiles"]

#: In a namespace of its own: put each file over the real one, then become the program.
_ENTER = """
import os, subprocess, sys
number = int(sys.argv[1])
pairs, program = sys.argv[2:2 + 2 * number], sys.argv[2 + 2 * number:]
for ours, real in zip(pairs[::2], pairs[1::2]):
    subprocess.run(["mount", "--bind", ours, real], check=True)
os.execv(program[0], program)
"""


@dataclass(frozen=True, slots=True)
class AccountFiles:
    """Account files in a folder: ``passwd``, ``group`` and ``nsswitch.conf``, each if it is there."""

    folder: Path

    def write(self, **texts: str) -> None:
        """Write files; each name of an argument is the file's, and ``nsswitch`` means nsswitch.conf."""
        for name, text in texts.items():
            self._file(name).write_text(text, encoding="utf-8")

    def hang(self) -> None:
        """Let every look-up of a group wait until ``answer`` is called."""
        self._file("group").unlink(missing_ok=True)
        os.mkfifo(self._file("group"))

    def command(self, program: Sequence[str]) -> list[str]:
        """Return the command that runs a program (its first word a path) on such a host."""
        require("unshare")
        if os.geteuid() != 0:
            missing("root, who may make a mount namespace,")
        pairs = [
            path
            for name, real in (("passwd", "passwd"), ("group", "group"), ("nsswitch", "nsswitch.conf"))
            if self._file(name).exists()
            for path in (str(self._file(name)), f"/etc/{real}")
        ]
        inside = [sys.executable, "-I", "-c", _ENTER, str(len(pairs) // 2), *pairs, *program]
        return ["unshare", "--mount", "--propagation", "private", "--", *inside]

    def run(self, code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run Python on such a host."""
        command = self.command([sys.executable, "-c", code, *arguments])
        environ = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.run(command, capture_output=True, text=True, timeout=within(60), check=False, env=environ)

    def _file(self, name: str) -> Path:
        return self.folder / name
