"""Seeded runs with real faults on real servers, two of each kind; ``python -m tests.faults`` does more of them."""

import sys

import pytest

from tests.faults.kinds import KINDS
from tests.faults.lanes import perform_all, planned, story, table, unused
from tests.support.servers import require

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's"),
    pytest.mark.timeout(1200),
]

PROCESSES = 2


def test_nothing_is_lost_and_nobody_is_over_the_limit(request: pytest.FixtureRequest) -> None:
    """L1, L3, L4, L5, L7, L9: whatever breaks, by what users were told and by what store and agents have afterwards.

    One test for all runs: they go on at once, as they are mostly waiting.
    """
    require("redis-server")
    runs = request.config.getoption("--fault-runs") or 2 * len(KINDS)
    outcomes = perform_all(planned(sorted(KINDS), runs, first=1), PROCESSES)
    sys.stdout.write(f"seeds 1 to {max(each.seed for each in outcomes)} of each kind\n{table(outcomes)}\n")
    bad = [story(each) for each in outcomes if each.violations]
    assert not bad, "\n\n".join(bad)
    assert not unused(outcomes)
