"""Colours by state: on a terminal that has them, for words that are known, and nowhere else."""

import os
import re
import subprocess
import sys

import pytest

from farmlease.cli.output.colours import Tone, tone_of
from farmlease.domain.diagnosis.finding import Verdict
from farmlease.domain.node_view import NodeState

TABLE = (
    "from farmlease.cli.output.format import emit; "
    "emit([{'user': 'ready', 'state': 'active'}, {'user': 'john', 'state': 'silent, to drain'}],"
    " ['user', 'state'], 'table')"
)


def on_terminal(code: str, **environ: str) -> str:
    """Return what a program prints on a terminal of its own."""
    ours, theirs = pytest.importorskip("pty").openpty()
    plain = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "TERM"}}
    subprocess.run([sys.executable, "-c", code], stdout=theirs, stdin=theirs, env=plain | environ, check=True)
    os.close(theirs)
    told = os.read(ours, 65536).decode().replace("\r\n", "\n")
    os.close(ours)
    return told


@pytest.mark.parametrize("state", [*NodeState, *Verdict])
def test_every_state_of_nodes_and_checks_has_a_tone(state: str) -> None:
    """No state that an administrator looks for is without a colour."""
    assert tone_of(state) is not None


def test_a_tone_is_of_the_first_word() -> None:
    """What follows a state explains it; a word that is no state has no colour."""
    assert Tone.BAD is tone_of("silent, to drain")
    assert Tone.PASSING is tone_of("WARN: something")
    assert None is tone_of("3 hosts of this name")
    assert None is tone_of("")


def test_states_are_coloured_and_names_are_not() -> None:
    """Only the column of states is coloured, each by its word, and the columns still stand below each other."""
    told = on_terminal(TABLE, TERM="xterm-256color", COLUMNS="80")
    assert "ready  \x1b[32mactive\x1b[0m" in told
    assert "john   \x1b[31msilent, to drain\x1b[0m" in told
    assert ["USER   STATE", "ready  active", "john   silent, to drain"] == [
        line for line in re.sub(r"\x1b\[[0-9;]*m", "", told).splitlines() if line[0].isalpha()
    ]


def test_a_folded_state_keeps_its_colour() -> None:
    """Each line of a cell that is folded has the colour of the whole."""
    code = "from farmlease.cli.output.table import write; write([['silent, to be drained']], ['STATE'], 12)"
    told = on_terminal(code, TERM="xterm")
    assert 2 == told.count("\x1b[31m")


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}], ids=["dumb", "NO_COLOR"])
def test_a_plain_terminal_gets_no_escape_at_all(environ: dict[str, str]) -> None:
    """Neither colours nor bold headings."""
    assert "\x1b" not in on_terminal(TABLE, **environ)
