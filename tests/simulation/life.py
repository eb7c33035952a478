"""A run from its seed to its outcome: the world is made, lived and left behind.

It must never leave anything of itself to the next run: no file, no task, no memory.
"""

import asyncio
import gc
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.simulation.chance import seeded
from tests.simulation.history import Violation
from tests.simulation.loop import VirtualLoop
from tests.simulation.world import World

__all__ = ["Outcome", "run", "uncollected"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to."""

    seed: int
    events: int
    passed: float  #: virtual seconds
    hosts: int
    came: Counter[str]
    violations: list[Violation]
    digest: str
    trace: str  #: empty unless asked for, or a law was broken


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect nothing meanwhile: a run is short, and what some of them leave behind is collected together."""
    _warm_up()
    within = not gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not within:
            gc.collect()
            gc.enable()


@cache
def _warm_up() -> None:
    """Keep what is there before the first run out of every later collection."""
    gc.collect()
    gc.freeze()


@uncollected()
def run(
    seed: int,
    *,
    events: int = 400,
    profile: str = "usual",
    trace: bool = False,
    prepare: Callable[[World], None] = lambda _: None,
) -> Outcome:
    """Live one seed; ``prepare`` may change the world before it begins (for mutants)."""
    loop, complaints = VirtualLoop(), list[str]()
    shm = Path("/dev/shm")  # noqa: S108 - the journals of a run are nobody's secret
    folder = Path(tempfile.mkdtemp(prefix="fl-sim-", dir=shm if shm.is_dir() else None))
    world: World | None = None
    try:
        with seeded(seed, loop, complaints):
            asyncio.set_event_loop(loop)
            world = World(seed, loop, folder, profile, prepare)
            try:
                loop.run_until_complete(world.live(events))
            except Exception as error:  # noqa: BLE001 - whatever ends a run is what it found
                world.broken("run", f"{type(error).__name__}: {error}")
            for what in (*loop.faults, *filter(_is_fault, complaints)):
                world.broken("fault", what.replace("\n", " | ")[-1500:])
            for host in world.hosts:
                if host.up:
                    host.node.state.journal.close()
    finally:
        asyncio.set_event_loop(None)
        loop.close()
        shutil.rmtree(folder, ignore_errors=True)
    history = world.history
    return Outcome(
        seed, history.events, loop.passed, len(world.hosts), world.mood.came, history.violations, history.digest,
        history.trace if trace or history.violations else "",
    )  # fmt: skip


def _is_fault(complaint: str) -> bool:
    """Whether a line of the log is about something nobody foresaw; a store that is away is none."""
    return "Traceback" in complaint and "farmlease.errors.Store" not in complaint.rstrip().rpartition("\n")[2]
