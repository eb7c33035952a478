"""Lists as tables, JSON and CSV: whole, plain in a pipe, and without surprises in a cell."""

import csv
import io
import json
import os
import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from farmlease.cli import printable
from farmlease.cli.output.format import Format, emit, emit_one, output_option, write_csv, write_text

LONG = "a-pool-with-a-very-long-name-" * 10
ROWS: list[dict[str, object]] = [
    {"user": "corp\\john", "pool": LONG, "lease": {"id": "a1"}, "overdraft": False, "until": None},
    {"user": "=cmd|'/C calc'!A0", "pool": "[red]x[/red]", "lease": None, "overdraft": True},
]
COLUMNS = ("user", "pool", "lease.id", "overdraft", "until")


def test_json_is_the_whole_rows(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON shows every key, also those no column names."""
    emit(iter(ROWS), ("user",), "json")
    assert ROWS == json.loads(capsys.readouterr().out)


def test_json_of_one_thing_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    """One thing is an object and no list of one."""
    emit_one({"name": "qlikview", "free": 3}, ("name",), "json")
    assert {"name": "qlikview", "free": 3} == json.loads(capsys.readouterr().out)


def test_json_survives_any_code_page(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON is ASCII, so that a pipe's encoding cannot spoil it."""
    emit([{"user": "łukasz"}], ("user",), "json")
    out = capsys.readouterr().out
    assert out.isascii()
    assert [{"user": "łukasz"}] == json.loads(out)


def test_csv_is_read_back_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Every cell is quoted and none is cut; what is missing is empty, and what a spreadsheet would run is text."""
    emit(ROWS, COLUMNS, "csv")
    out = capsys.readouterr().out
    assert out.startswith('"user","pool","lease_id","overdraft","until"\n')
    assert [
        ["corp\\john", LONG, "a1", "no", ""],
        ["'=cmd|'/C calc'!A0", "[red]x[/red]", "", "yes", ""],
    ] == list(csv.reader(io.StringIO(out)))[1:]


def test_csv_of_nothing_is_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    """A list without rows still says what its columns are."""
    emit([], ("user", "pool"), "csv")
    assert '"user","pool"\n' == capsys.readouterr().out


def test_a_table_in_a_pipe_is_plain_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Not on a terminal: no colour, no box, nothing cut or wrapped, one line each; a "[" is a "["."""
    emit(ROWS, COLUMNS, "table")
    head, first, second = capsys.readouterr().out.splitlines()
    assert ["USER", "POOL", "LEASE", "ID", "OVERDRAFT", "UNTIL"] == head.split()
    assert ["corp\\john", LONG, "a1", "no"] == first.split()
    assert "[red]x[/red]" in second
    assert head.index("POOL") == first.index(LONG) == second.index("[red]")
    assert not second.endswith(" ")


def test_lists_and_objects_in_a_cell_are_words(capsys: pytest.CaptureFixture[str]) -> None:
    """A list of devices is readable in a cell."""
    row = {"devices": [{"device": "citrix-a", "until": None}, {"device": "nb-7", "until": "2026-12-21T09:00:00Z"}]}
    emit_one(row, ("devices",), "table")
    assert "devices  citrix-a; nb-7 2026-12-21T09:00:00Z\n" == capsys.readouterr().out


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_table_on_a_terminal_folds_and_minds_no_color(no_color: str) -> None:
    """A narrow terminal gets every letter, folded and never cut; with NO_COLOR not one colour."""
    master, slave = pytest.importorskip("pty").openpty()
    code = f"from farmlease.cli.output.format import emit; emit([{{'pool': {LONG!r}}}], ['pool'], 'table')"
    environ = {**os.environ, "COLUMNS": "60", "TERM": "xterm-256color", "NO_COLOR": no_color}
    with subprocess.Popen([sys.executable, "-c", code], stdout=slave, stdin=slave, env=environ) as process:
        os.close(slave)
        out = read_all(master)
    assert 0 == process.returncode
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert LONG == "".join(plain.split()[2:])
    assert max(map(len, plain.splitlines())) <= 60
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", out)


def read_all(fd: int) -> str:
    """Read a pseudo terminal to its end."""
    parts = []
    while True:
        try:
            part = os.read(fd, 65536)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
    os.close(fd)
    return b"".join(parts).decode()


def test_the_option_is_a_table_by_default_and_refuses_others() -> None:
    """``-o`` takes table, json or csv."""

    @click.command()
    @output_option
    def show(fmt: Format) -> None:
        click.echo(fmt)

    runner = CliRunner()
    assert "table\n" == runner.invoke(show).output
    assert "csv\n" == runner.invoke(show, ["-o", "csv"]).output
    assert 2 == runner.invoke(show, ["-o", "xml"]).exit_code


def test_only_a_table_costs_rich() -> None:
    """JSON and CSV are written without importing rich."""
    code = (
        "import sys\nfrom farmlease.cli.output.format import emit\n"
        "emit([{'a': 1}], ['a'], 'json'); emit([{'a': 1}], ['a'], 'csv')\nassert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_csv_holds_nothing_that_a_terminal_could_obey(capsys: pytest.CaptureFixture[str]) -> None:
    """What would turn the direction of a line is escaped, in a pipe too: who knows where that ends."""
    write_csv([{"session": "a\u202eb\x9b"}], ["session"])
    assert '"session"\n"a\\u202eb\\x9b"\n' == capsys.readouterr().out


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_a_cell_that_a_spreadsheet_would_run_is_text(capsys: pytest.CaptureFixture[str], begins: str) -> None:
    """An apostrophe stands before it, in plain and in full width; one further in is none of these."""
    write_csv([{"device": f"{begins}1+1|x", "pool": f"q{begins}1"}], ["device", "pool"])
    (cells,) = list(csv.reader(io.StringIO(capsys.readouterr().out)))[1:]
    assert (f"'{printable(begins)}1+1|x", f"q{printable(begins)}1") == tuple(cells)


@pytest.mark.parametrize("number", [-5, "-5", "+3.50", -0.5, 7])
def test_a_number_stays_one(capsys: pytest.CaptureFixture[str], number: object) -> None:
    """Nothing can be run that is digits alone behind its sign."""
    write_csv([{"offset": number}], ["offset"])
    assert f'"offset"\n"{number}"\n' == capsys.readouterr().out


@pytest.mark.parametrize("terminal", [False, True])
def test_a_document_is_text_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    """In a pipe it is the same bytes; a terminal gets its lines, and obeys nothing of them."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    document = "# a\u202eb\r\n\tcapacity = 3\n\nlast"
    write_text(document)
    shown = "# a\\u202eb\n        capacity = 3\n\nlast\n"
    assert (shown if terminal else document) == capsys.readouterr().out
