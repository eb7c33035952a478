"""At least a hundred seeded runs with real faults on real servers. ``python -m tests.faults --kind K --seed N`` repeats one."""

import sys
from collections.abc import Sequence

import pytest

from tests.faults.kinds import KINDS
from tests.faults.lanes import perform_all, planned, story, table
from tests.faults.run import Outcome
from tests.servers import require

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's"),
    pytest.mark.timeout(400),
    pytest.mark.xdist_group("faults"),  # all of them are judged of the same runs
]

PROCESSES = 3


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Sequence[Outcome]:
    """Perform all runs at once: they are mostly waiting."""
    require("redis-server")
    runs = request.config.getoption("--fault-runs", default=120)
    found = perform_all(planned(sorted(KINDS), runs, first=1), PROCESSES)
    sys.stdout.write(f"seeds 1 to {max(each.seed for each in found)} of each kind\n{table(found)}\n")
    return found


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_nothing_is_lost_and_nobody_is_over_the_limit(kind: str, outcomes: Sequence[Outcome]) -> None:
    """L1, L3, L4, L5, L7, L9: whatever breaks, by what users were told and by what store and agents have afterwards."""
    mine = [each for each in outcomes if each.kind == kind]
    bad = [story(each) for each in mine if each.violations]
    assert not bad, "\n\n".join(bad)
    assert 0 < sum(each.struck for each in mine)
    assert 0 < sum(each.grants for each in mine)


def test_there_are_enough_runs(outcomes: Sequence[Outcome]) -> None:
    """Every kind has runs of its own, and all together are a hundred at least unless fewer were asked for."""
    assert set(KINDS) == {each.kind for each in outcomes}
