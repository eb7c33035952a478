"""``farmlease usage``: how seats were used, for people, programs and as a picture."""

import csv
import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import QLIKVIEW, ClockedHost
from tests.support.stores import DAY, HOUR, NINE

JOHN, MARY, ANN, BOB = "CORP\\john", "CORP\\mary", "CORP\\ann", "CORP\\bob"


@pytest.fixture
def morning(clocked: ClockedHost) -> ClockedHost:
    """09:00 john, 09:30 mary, 11:00 ann and bob in vain; it is 11:45."""
    clocked.apply(QLIKVIEW)
    clocked.lend(JOHN)
    clocked.clock.advance(HOUR // 2)
    clocked.lend(MARY)
    clocked.clock.set(NINE + 2 * HOUR)
    clocked.lend(ANN)
    with pytest.raises(AssertionError, match="capacity"):
        clocked.lend(BOB)
    clocked.clock.advance(HOUR * 3 // 4)
    return clocked


def test_every_hour_has_its_peak_average_and_denials(morning: ClockedHost) -> None:
    """09:00: 1.5 of 3, at most 2; 10:00, in which nobody came or went: 2; 11:00 until now: 3 and a denial."""
    ended = morning.run("usage", "-o", "csv")
    assert (0, "") == (ended.status, ended.err)
    rows = [tuple(row.values()) for row in csv.DictReader(io.StringIO(ended.out))]
    assert [
        ("2026-01-05T09:00:00.000Z", "qlikview", "3", "2", "1.5", "0", ""),
        ("2026-01-05T10:00:00.000Z", "qlikview", "3", "2", "2.0", "0", ""),
        ("2026-01-05T11:00:00.000Z", "qlikview", "3", "3", "3.0", "1", "capacity 1"),
    ] == rows
    (*_, last) = json.loads(morning.run("usage", "-o", "json").out)
    assert ({"capacity": 1}, 2700) == (last["denials"], last["counted_s"])


def test_a_pool_is_summed_up_in_a_line(morning: ClockedHost) -> None:
    """Peak and when, average over the time that was counted, denials by reason."""
    told = morning.run("usage").out.splitlines()
    assert ["POOL", "SEATS", "PEAK", "AT", "(UTC)", "AVERAGE", "DENIED", "DENIALS"] == told[0].split()
    assert "qlikview 3 3 2026-01-05 11:00 2.1 1 capacity 1" == " ".join(told[1].split())


def test_since_begins_with_the_hour(morning: ClockedHost) -> None:
    """An hour in which nothing changed is there too when the one that did is not asked for."""
    rows = json.loads(morning.run("usage", "--since", "1h", "-o", "json").out)
    assert [("2026-01-05T10", 2), ("2026-01-05T11", 3)] == [(row["hour"][:13], row["peak"]) for row in rows]


def test_an_unknown_pool_is_one_line(morning: ClockedHost) -> None:
    """The pools there were are named."""
    ended = morning.run("usage", "--pool", "word")
    assert (1, "farmlease: there never was a pool of this name; there are qlikview\n") == (ended.status, ended.err)


def test_the_picture_is_a_png_and_always_the_same(morning: ClockedHost, tmp_path: Path) -> None:
    """The same hours give the same bytes: nothing of the machine, the user or the moment is in them."""
    files = [tmp_path / "one.png", tmp_path / "two.png"]
    for file in files:
        assert f"drew {file}\n" == morning.run("usage", "--png", str(file)).out
    one, two = (file.read_bytes() for file in files)
    assert b"\x89PNG" == one[:4]
    assert (1320, 408) == struct.unpack(">II", one[16:24])
    assert one == two


def test_a_picture_without_matplotlib_says_how_to_get_it(morning: ClockedHost, tmp_path: Path) -> None:
    """One line with pip's command, and status 1."""
    code = (
        "import sys\nsys.modules['matplotlib'] = None\nfrom farmlease.cli import main\n"
        f"main(['--config', {str(morning.config_file)!r}, 'usage', '--png', {str(tmp_path / 'x.png')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    told = "farmlease: matplotlib is not installed: pip install 'farmlease[plot]'\n"
    assert (1, told) == (done.returncode, done.stderr)


def test_a_picture_of_nothing_and_a_place_that_is_none(morning: ClockedHost, tmp_path: Path) -> None:
    """What cannot be drawn is told in one line."""
    ended = morning.run("usage", "--png", str(tmp_path / "no" / "x.png"))
    assert (1, True) == (ended.status, ended.err.endswith("x.png: cannot be written: No such file or directory\n"))
    with morning.store.client() as client:
        client.delete("fl:{citrix-a/qlikview/0}:meta")
    ended = morning.run("usage", "--png", str(tmp_path / "x.png"))
    assert "farmlease: no hour was counted in this time; give another --since or --pool\n" == ended.err


def test_hours_are_kept_for_400_days(morning: ClockedHost) -> None:
    """An hour of 401 days ago is gone, what was held since is not; reading writes nothing."""
    morning.clock.set(NINE + 401 * DAY)
    morning.lend(ANN)
    rows = json.loads(morning.run("usage", "--since", "500d", "-o", "json").out)
    assert 400 * 24 <= len(rows) <= 402 * 24
