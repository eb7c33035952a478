"""Tables as a person sees them: within the terminal, whole, and drawn while the rows still come."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout

import pytest

from farmlease.cli.output.format import write_rows
from farmlease.cli.output.table import PAGE, screen_lines, write

HEADINGS = ["USER", "POOL", "STATE", "SEATS"]
LONG = ["corp\\maximiliane-von-und-zu-hohenstein", "clearquest-floating-with-a-long-name", "active", "12"]


def drawn(lines: list[list[str]], width: int | None, headings: list[str] | None = HEADINGS) -> list[str]:
    """Return the lines of a table."""
    out = io.StringIO()
    with redirect_stdout(out):
        write(lines, headings, width)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_a_table_keeps_within_the_terminal_and_loses_nothing(width: int) -> None:
    """However narrow, no line is wider than the terminal, and every letter of a cell is there, in its column."""
    lines = drawn([LONG, ["j", "q", "i", "3"]], width)
    assert max(map(len, lines)) <= width
    rule = next(number for number, line in enumerate(lines) if line and set(line) <= {"─", "-"})
    rest = lines[rule + 1 :]
    second = lines[0].index("P")
    assert LONG[0] == "".join(line[:second].strip() for line in rest[:-1])
    assert sorted("".join(LONG) + "jqi3") == sorted("".join(rest).replace(" ", ""))


def test_short_columns_do_not_give_way() -> None:
    """What is long is folded, and a date beside it stays whole."""
    lines = drawn([["x" * 100, "2026-12-21 10:00"]], 60, ["USER", "EXPIRES (UTC)"])
    assert "2026-12-21 10:00" in lines[2]


def test_a_name_is_broken_at_its_joints() -> None:
    """Where a name has a hyphen, dot or slash it is broken there."""
    lines = drawn([["clearquest-floating-with-a-long-name"]], 20, ["POOL"])
    assert ["clearquest-floating-", "with-a-long-name"] == lines[2:]


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("8 on ctx-01, 9 on ctx-01", ["8 on ctx-01,", "9 on ctx-01"]),
        ("NB-4711, citrix-a, NB-4712", ["NB-4711,", "citrix-a,", "NB-4712"]),
        ("room on /var/lib/state", ["room on", "/var/lib/state"]),
        ("on /var/lib/farmlease/state", ["on /var/lib/", "farmlease/state"]),
    ],
)
def test_a_list_is_broken_between_its_things_and_a_sentence_between_words(cell: str, told: list[str]) -> None:
    """A session stays beside its host, and a name or path that has room in a line of its own is not broken."""
    assert told == drawn([[cell]], 16, ["SESSIONS"])[2:]


def test_numbers_stand_below_each_other() -> None:
    """A column of numbers is read by its last digit, with decimals or without."""
    assert ["NAME  USED", "a        7", "b       12"] == drawn([["a", "7"], ["b", "12"]], None, ["NAME", "USED"])
    assert ["NAME  MEAN", "a      7.5", "b     12.0"] == drawn([["a", "7.5"], ["b", "12.0"]], None, ["NAME", "MEAN"])
    assert ["NAME  VERSION", "a     7.0.15"] == drawn([["a", "7.0.15"]], None, ["NAME", "VERSION"])


def test_what_a_terminal_would_obey_is_not_shown() -> None:
    """An escape sequence in a name does nothing; a wide sign takes the two columns it needs."""
    assert r"a\x1b[31mb" == drawn([["a\x1b[31mb"]], None, ["USER"])[1]
    _, first, second = drawn([["東京", "1"], ["john", "2"]], None, ["USER", "SEATS"])
    assert ("東京      1", "john      2") == (first, second)


def test_a_long_table_is_drawn_while_rows_come() -> None:
    """The first page is out before the second is asked for: a table of any length is never held."""
    out, before = io.StringIO(), list[int]()

    def rows() -> Iterator[list[str]]:
        for number in range(3 * PAGE):
            before.append(out.getvalue().count("\n"))
            yield [f"user-{number}"]

    with redirect_stdout(out):
        write(rows(), ["USER"], None)
    assert 3 * PAGE + 1 == out.getvalue().count("\n")
    assert [0] * PAGE + [PAGE + 1] * PAGE + [2 * PAGE + 1] * PAGE == before


def test_json_is_written_while_rows_come() -> None:
    """A list of objects is never held as a whole either, and is one document all the same."""
    out, before = io.StringIO(), list[int]()

    def rows() -> Iterator[dict[str, object]]:
        for number in range(3):
            before.append(out.getvalue().count("\n"))
            yield {"number": number}

    with redirect_stdout(out):
        write_rows(rows())
    assert [{"number": number} for number in range(3)] == json.loads(out.getvalue())
    assert [0, 1, 2] == before


def test_a_screen_holds_what_it_can() -> None:
    """What is watched is cut at the screen's height, and it is said that there is more."""
    lines = [[f"user-{number}"] for number in range(100)]
    shown, more = screen_lines(lines, ["USER"], 80, 10)
    assert (10, True, "user-7") == (len(shown), more, shown[-1])
    shown, more = screen_lines(lines[:8], ["USER"], 80, 10)
    assert (10, False) == (len(shown), more)


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_are_off_with_no_color_and_in_pipes(no_color: str) -> None:
    """On a terminal the headings stand out, unless NO_COLOR is set; a pipe gets plain text in any case."""
    master, slave = pytest.importorskip("pty").openpty()
    code = "from farmlease.cli.output.format import emit; emit([{'pool': 'q'}], ['pool'], 'table')"
    environ = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": no_color}
    done = subprocess.run([sys.executable, "-c", code], stdout=slave, stdin=slave, env=environ, check=True)
    os.close(slave)
    told = os.read(master, 65536).decode()
    os.close(master)
    assert (0, no_color == "") == (done.returncode, "\x1b[" in told)
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True)
    assert "POOL\nq\n" == piped.stdout
