"""A list that is watched: changes as lines of JSON, and no change where only the clock moved."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable

import click
import pytest

from farmlease.cli.output.format import Row
from farmlease.cli.output.watch import WatchedList, watch_list
from farmlease.errors import StoreUnavailable
from tests.support.commands import QLIKVIEW, Host
from tests.support.patience import within


def told(looks: Iterable[list[Row] | Exception], capsys: pytest.CaptureFixture[str]) -> list[Row]:
    """Watch a list that is another one at each look; return what was told."""
    waiting = list(looks)
    rests = list[float]()

    def rows() -> list[Row]:
        now = waiting.pop(0)
        if isinstance(now, Exception):
            raise now
        return now

    watched = WatchedList(rows=rows, key=("user",), table=("user",), volatile=lambda _: ("until",))
    watch_list(watched, "table", pause=rests.append, reads=len(waiting))
    assert all(rest >= 2 for rest in rests)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_change_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """What was there, what came, what is another, what went; and nothing where nothing happened."""
    john, mary = {"user": "john", "seats": 1}, {"user": "mary", "seats": 1}
    assert [
        {"change": "present", **john}, {"change": "appeared", **mary}, {"change": "changed", **john, "seats": 2},
        {"change": "gone", "user": "mary"},
    ] == told([[john], [john, mary], [john | {"seats": 2}, mary], [john | {"seats": 2}]], capsys)  # fmt: skip


def test_what_moves_with_the_clock_is_no_change(capsys: pytest.CaptureFixture[str]) -> None:
    """A lease in use ends later at each look."""
    assert [{"change": "present", "user": "john", "until": 1}] == told(
        [[{"user": "john", "until": 1}], [{"user": "john", "until": 2}]], capsys
    )


def test_a_store_that_is_away_for_a_moment_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """At the first look it is an error; later it is waited for, and what changed meanwhile is told."""
    away = StoreUnavailable("the store is away")
    assert [{"change": "present", "user": "john"}, {"change": "gone", "user": "john"}] == told(
        [[{"user": "john"}], away, []], capsys
    )
    with pytest.raises(StoreUnavailable):
        told([away], capsys)


def test_csv_cannot_be_watched() -> None:
    """A change is no row."""
    with pytest.raises(click.UsageError, match="leave -o csv out"):
        watch_list(WatchedList(rows=list, key=(), table=()), "csv")


def test_on_a_terminal_the_list_is_drawn_anew(host: Host) -> None:
    """``lease list --follow`` shows the list as it is, again and again, until Ctrl-C."""
    pty = pytest.importorskip("pty")
    host.apply(QLIKVIEW)
    host.lend("john")
    master, slave = pty.openpty()
    environ = {**os.environ, "COLUMNS": "80", "LINES": "20", "TERM": "xterm", "NO_COLOR": "1"}
    command = host.command("lease", "list", "--follow")
    with subprocess.Popen(command, stdout=slave, stdin=slave, stderr=subprocess.PIPE, env=environ) as process:
        try:
            seen, lent, deadline = "", False, time.monotonic() + within(30)
            while time.monotonic() < deadline and "Ctrl-C" not in seen.partition("mary")[2]:
                seen += os.read(master, 65536).decode()
                if "Ctrl-C" in seen and not lent:
                    host.lend("mary")
                    lent = True
        finally:
            process.send_signal(2)
            _, err = process.communicate(timeout=within(20))
    os.close(slave)
    os.close(master)
    assert (130, b"") == (process.returncode, err.strip())
    screens = seen.split("USER")[1:]
    assert "mary" not in screens[0]
    assert all(word in screens[-1] for word in ("john", "mary", "Ctrl-C ends it"))


@pytest.mark.skipif(sys.platform == "win32", reason="only a write finds out")
@pytest.mark.parametrize("followed", [("lease", "list"), ("audit", "--user", "john", "-o", "json")])
def test_a_reader_that_hangs_up_ends_it(host: Host, followed: tuple[str, ...]) -> None:
    """``| head -1`` is no error, and ends it though nothing more happens."""
    host.apply(QLIKVIEW)
    host.lend("john")
    with subprocess.Popen(
        host.command(*followed, "--follow"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"{")
            process.stdout.close()
            _, err = process.communicate(timeout=within(20))
        finally:
            process.kill()
    assert (1, b"") == (process.returncode, err)
