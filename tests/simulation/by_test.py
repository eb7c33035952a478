"""Defects that one test of pytest catches, and no seed: their test is run as the code is, and with the defect."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from farmlease.store.connection.connection import Connection
from farmlease.store.script import Argument, Script
from tests.simulation.server import scripts

__all__ = ["catches", "scripts_that_say"]


def catches(test: str, changes: Callable[[], AbstractContextManager[None]]) -> bool:
    """Whether a test passes, and fails with these changes. AssertionError if it does not pass without them."""
    assert _run(test) is pytest.ExitCode.OK, f"{test} does not pass"
    with changes():
        return _run(test) is pytest.ExitCode.TESTS_FAILED


@contextmanager
def scripts_that_say(old: str, new: str) -> Iterator[None]:
    """Have each server that a connection leads to run scripts that say ``new`` for ``old``."""
    assert any(old in each.text for each in scripts().values()), f"no script says {old!r}"
    call = Connection.call

    async def rewritten(
        connection: Connection, script: Script, keys: Sequence[str], args: Sequence[Argument]
    ) -> list[Any]:
        text = script.text.replace(old, new)
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        return await call(connection, replace(script, text=text, sha=sha), keys, args)

    with patch.object(Connection, "call", rewritten):
        yield


def _run(test: str) -> int | pytest.ExitCode:
    """Run one test in this process, where the changes are."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return pytest.main(
            ["-q", "-n", "0", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning", test]
        )
