"""All runs, in as little time as two cores allow: runs are mostly waiting, so many go on at once.

A *lane* is a ground and the runs that happen on it one after the other. Every process has its share of the lanes and
lets some of them go on at the same time.
"""

import asyncio
import multiprocessing
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress

from tests.faults.grounds import Ground, ground
from tests.faults.history import History
from tests.faults.kinds import KINDS
from tests.faults.run import Outcome, listen_to_logs, perform
from tests.support.patience import SLOWER, within

__all__ = ["Asked", "perform_all", "planned", "story", "table", "unused"]

Asked = tuple[str, int]  #: kind and seed

#: Lanes that go on at once in one process; fewer on a busy machine, where they would be most of what it does.
AT_ONCE = 6
#: Seconds after which a run is given up.
LONGEST = 60.0
#: Runs on one ground: a Sentinel farm and a Cluster take their time to start.
PER_GROUND = {"alone": 1, "moving": 4, "sentinels": 4, "cluster": 4, "agents": 6}


def planned(kinds: Sequence[str], runs: int, first: int) -> list[Asked]:
    """Share a number of runs out among kinds: every kind with seeds from ``first`` on."""
    return [(kinds[number % len(kinds)], first + number // len(kinds)) for number in range(runs)]


def perform_all(asked: Sequence[Asked], processes: int) -> list[Outcome]:
    """Perform all runs and return what became of them, in order of kind and seed."""
    lanes = sorted(_lanes(asked), key=len, reverse=True)
    shares = [share for number in range(processes) if (share := lanes[number::processes])]
    if len(shares) == 1:
        outcomes = _share(shares[0])
    else:
        with ProcessPoolExecutor(len(shares), multiprocessing.get_context("spawn")) as pool:
            outcomes = [outcome for share in pool.map(_share, shares) for outcome in share]
    return sorted(outcomes, key=lambda outcome: (list(KINDS).index(outcome.kind), outcome.seed))


def _lanes(asked: Sequence[Asked]) -> list[list[Asked]]:
    """Put runs together that may have one ground after the other."""
    lanes, open_lanes = list[list[Asked]](), dict[tuple[str, tuple[str, ...], bool], list[Asked]]()
    for each in asked:
        kind = KINDS[each[0]]
        where = (kind.ground, kind.options, kind.lines)
        lane = open_lanes.setdefault(where, [])
        lane.append(each)
        if len(lane) == PER_GROUND[kind.ground]:
            lanes.append(open_lanes.pop(where))
    return lanes + list(open_lanes.values())


def _share(lanes: list[list[Asked]]) -> list[Outcome]:
    listen_to_logs()
    return asyncio.run(_side_by_side(lanes))


async def _side_by_side(lanes: list[list[Asked]]) -> list[Outcome]:
    places = asyncio.Semaphore(max(2, round(AT_ONCE * SLOWER / within(1))))

    async def in_place(lane: list[Asked]) -> list[Outcome]:
        async with places:
            return await _lane(lane)

    return [outcome for lane in await asyncio.gather(*map(in_place, lanes)) for outcome in lane]


async def _lane(lane: list[Asked]) -> list[Outcome]:
    """Perform runs one after the other; servers that a run did not leave whole are replaced for the next."""
    outcomes, left = list[Outcome](), list(lane)
    while left:
        kind = KINDS[left[0][0]]
        async with ground(kind.ground, kind.options, lines=3 if kind.lines else 0) as there:
            with suppress(TimeoutError):
                while left:
                    outcomes.append(await _run(*left.pop(0), there))
                    if left:
                        await asyncio.to_thread(there.whole)
    return outcomes


async def _run(name: str, seed: int, there: Ground) -> Outcome:
    began, history = time.monotonic(), History()
    try:
        async with asyncio.timeout(within(LONGEST)):
            return await asyncio.create_task(perform(KINDS[name], seed, there, history))
    except Exception:  # noqa: BLE001 - whatever it was, it is this run's, and the others go on
        text = traceback.format_exc()
        why = (f"harness: {text.splitlines()[-1]}",)
        return Outcome(name, seed, 0, why, 0, 0, 0, time.monotonic() - began, (*history.lines(), text))


def story(outcome: Outcome) -> str:
    """Return a run for people: what was violated, its history, and how to repeat it."""
    head = f"--- {outcome.kind}, seed {outcome.seed}: {', '.join(outcome.violations) or 'nothing violated'}"
    again = f"again: python -m tests.faults --kind {outcome.kind} --seed {outcome.seed}"
    return "\n".join((head, *outcome.history, again))


def unused(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the kinds of which the runs show nothing: the fault never struck, or nobody got in meanwhile."""
    struck, granted = dict[str, int](), dict[str, int]()
    for each in outcomes:
        struck[each.kind] = struck.get(each.kind, 0) + each.struck
        granted[each.kind] = granted.get(each.kind, 0) + each.grants
    return [kind for kind in struck if not struck[kind] or not granted[kind]]


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a table: kind of fault, runs, how often it struck, what was asked and granted, violations, seconds."""
    rows: list[tuple[str, ...]] = [("kind", "runs", "struck", "calls", "grants", "lost", "violations", "seconds")]
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.kind == kind]
        rows.append(_row(kind, mine))
    rows.append(_row("all", outcomes))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(name: str, mine: Sequence[Outcome]) -> tuple[str, ...]:
    return (
        name,
        *(str(number) for number in (len(mine), sum(each.struck for each in mine), sum(each.calls for each in mine))),
        str(sum(each.grants for each in mine)),
        str(sum(each.losses for each in mine)),
        str(sum(len(each.violations) for each in mine)),
        f"{sum(each.seconds for each in mine):.0f}",
    )
