"""Real faults on real servers: ``python -m tests.faults`` runs all kinds and prints a table.

One run again: ``python -m tests.faults --kind K --seed N``, which prints its history if it found something.
"""

import argparse
import sys

from tests.faults.kinds import KINDS
from tests.faults.lanes import perform_all, planned, story, table, unused


def main() -> int:
    """Run what is asked for; 1 if anything was violated, or a kind of fault proved nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--runs", type=int, default=120, help="runs in all (default: 120)")
    parser.add_argument("--kind", action="append", choices=sorted(KINDS), help="only this kind; may be repeated")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--first", type=int, default=1, help="first seed (default: 1)")
    parser.add_argument("--processes", type=int, default=2, help="each plays some runs at once (default: 2)")
    parser.add_argument("--history", action="store_true", help="print the history of every run")
    given = parser.parse_args()
    kinds = given.kind or sorted(KINDS)
    asked = (
        [(kind, given.seed) for kind in kinds] if given.seed is not None else planned(kinds, given.runs, given.first)
    )
    outcomes = perform_all(asked, given.processes)
    for outcome in outcomes:
        if outcome.violations or given.history:
            sys.stdout.write(f"\n{story(outcome)}\n")
    sys.stdout.write(f"{table(outcomes)}\n")
    if nothing := unused(outcomes):
        sys.stdout.write(f"never struck, or nobody got in: {', '.join(nothing)}\n")
    return 1 if nothing or any(outcome.violations for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
