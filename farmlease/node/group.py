"""The life of a process as a group of actors: the first to stop interrupts all, and the group ends when all have."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

__all__ = ["Actor", "run_group"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Something that runs until it is done or interrupted. ``interrupt`` makes ``run`` return soon; may come twice."""

    run: Callable[[], Awaitable[None]]
    interrupt: Callable[[], None]


async def run_group(actors: Sequence[Actor]) -> None:
    """Run all actors to their end. Raises what the first one to fail raised."""
    tasks = [asyncio.ensure_future(actor.run()) for actor in actors]
    first: set[asyncio.Future[None]] = set()
    try:
        first, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for actor in actors:
            actor.interrupt()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in (*first, *tasks):
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
