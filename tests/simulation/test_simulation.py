"""The simulation itself: a share of its seeds, that a replay is the same to the byte, and that it catches what it must."""

import os
import subprocess
import sys

import pytest

from tests.simulation import mutants
from tests.simulation.chance import dice
from tests.simulation.faults import FAULTS, PROFILES, Mood
from tests.simulation.life import run
from tests.simulation.series import series

#: The runs are shared out, so that all cores have their part.
_SHARES = 4
#: What a mutant may live; each of these is caught within a few seeds.
_SOON = ("seats beyond capacity", "asked again, taken again", "reboot forgotten", "ends not delivered")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("share", range(_SHARES))
def test_every_law_holds_whatever_breaks(share: int, request: pytest.FixtureRequest) -> None:
    """``--seeds`` runs of 400 events: every law holds in each of them, and every fault was there to break it."""
    each = int(request.config.getoption("--seeds")) // _SHARES
    report = series(range(share * each, (share + 1) * each), profile=("usual", "loss")[share % 2])
    sys.stdout.write(f"{report}\n")
    assert report.holds, str(report)


@pytest.mark.parametrize("profile", ["calm", "all"])
def test_a_replay_is_the_same_to_the_byte(profile: str) -> None:
    """Two processes that hash differently tell the same story of a seed, down to the last random byte."""
    command = [sys.executable, "-m", "tests.simulation", "--replay", "7", "--profile", profile, "--trace"]
    told = [
        subprocess.run(
            command, capture_output=True, check=False, env={**os.environ, "PYTHONHASHSEED": seed}, timeout=60
        ).stdout
        for seed in ("1", "2")
    ]
    assert b"sha256 of the trace" in told[0]
    assert told[0] == told[1]


def test_two_seeds_are_two_stories() -> None:
    """What happens depends on the seed."""
    assert run(1, events=50).digest != run(2, events=50).digest


def test_without_faults_nothing_breaks() -> None:
    """Calm seas: people and agents alone, and every law holds."""
    report = series(range(10), profile="calm")
    assert report.holds, str(report)


@pytest.mark.parametrize("name", _SOON)
def test_a_defect_is_caught(name: str) -> None:
    """A deliberate defect breaks a law within ten seeds."""
    assert mutants.hunt(name, 10).law


def test_every_mutant_says_something_else_than_the_code() -> None:
    """A mutant whose words are no longer in the production code would prove nothing; there are twenty and more."""
    assert len(mutants.MUTANTS) >= 20
    for mutant in mutants.MUTANTS:
        with mutant.changes():
            pass


def test_every_profile_is_made_of_known_faults() -> None:
    """A fault that is spelt wrong would never come."""
    assert all(profile <= FAULTS.keys() for profile in PROFILES.values())


def test_a_run_leaves_some_faults_out() -> None:
    """Each run has a mood of its own: over some runs every fault is known to one and unknown to another."""
    moods = [Mood(dice(seed, "mood"), PROFILES["all"]) for seed in range(40)]
    for name in FAULTS:
        assert {True, False} == {mood.knows(name) for mood in moods}
