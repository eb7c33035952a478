"""What a storm of probes costs the logons of a host: a thousand a second, with slow and half-sent ones among them."""

import itertools
from statistics import median

from tests.benchmarks.agent import running_agent, starts
from tests.benchmarks.figures import Figure, p99, ratios, side_by_side
from tests.support.storm import raging

__all__ = ["probe_figures"]

RATE = 1_000  #: probes a second


async def probe_figures(scale: int) -> list[Figure]:
    """Time session starts, one after another, in peace and in a storm by turns."""
    calls, turns, rates = 1_000 // scale, itertools.count(), list[float]()
    with running_agent() as agent:

        async def in_peace() -> float:
            _, took = await agent.ask(starts(f"round{next(turns)}", calls), 1)
            return p99(took)

        async def in_the_storm() -> float:
            with raging(agent.health, RATE) as storm:
                slowest = await in_peace()
            assert storm.told["probes"] == storm.told["answered"], storm.told
            rates.append(storm.told["answered"] / storm.told["seconds"])
            return slowest

        mine, other = await side_by_side(in_the_storm, in_peace)
    return [
        Figure(
            id="P14",
            what=f"p99 of POST /v1/sessions under {RATE:,} probes a second and 170 slow connections / in peace",
            rounds=ratios(mine, other),
            floor=2.0,
            goal=1.5,
            at_most=True,
            detail=f"{median(mine):.1f} / {median(other):.1f} ms; {median(rates):,.0f} probes a second, each answered",
        )
    ]
