"""``python -m tests.simulation``: live many seeds, or replay one to the byte.

Exit status 0 if every law held and every fault came, else 1.
"""

import argparse
import sys

from tests.simulation.faults import PROFILES
from tests.simulation.life import run
from tests.simulation.series import series


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to live")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--events", type=int, default=400, help="how much is to happen before each run calms down")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="usual", help="which faults come")
    parser.add_argument("--replay", type=int, metavar="SEED", help="live this one seed and print its digest")
    parser.add_argument("--trace", action="store_true", help="with --replay: print everything that happened")
    given = parser.parse_args()
    if given.replay is None:
        seeds = range(given.first, given.first + given.seeds)
        report = series(seeds, events=given.events, profile=given.profile, jobs=given.jobs)
        sys.stdout.write(f"{report}\n")
        return 0 if report.holds else 1
    outcome = run(given.replay, events=given.events, profile=given.profile, trace=given.trace)
    if given.trace:
        sys.stdout.write(outcome.trace)
    for violation in outcome.violations:
        sys.stdout.write(f"entry {violation.entry}: {violation.law}: {violation.what}\n")
    sys.stdout.write(f"sha256 of the trace: {outcome.digest}\n")
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
