"""How long a test waits for what another process does, and how late a promise in seconds may be kept.

On a machine that does nothing else, the figure and as much again, as another machine may be half as fast; on a busy one as
many times more as others want its cores: a limit is for finding what hangs or asks too often, and not for measuring the
machine.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["SLOWER", "turns", "until", "within"]

#: How many times slower than ours a machine is that does nothing else.
SLOWER = 2.0
#: Windows does not say what it does.
UNKNOWN = 3.0


def within(seconds: float) -> float:
    """Return the limit in seconds for something that takes ``seconds`` at most on our machine where nothing else goes on."""
    return seconds * max(SLOWER, _wanted() / (os.cpu_count() or 1))


def _wanted() -> float:
    """Return how many would run at once: over the last minute, or at this moment where those are more."""
    if not hasattr(os, "getloadavg"):
        return UNKNOWN * (os.cpu_count() or 1)
    try:
        at_once, _, _ = Path("/proc/loadavg").read_text().split()[3].partition("/")
    except OSError:
        at_once = "0"
    return max(os.getloadavg()[0], float(at_once))


def turns(seconds: float) -> Iterator[None]:
    """Yield once, and then as long as something may take that takes ``seconds`` where nothing else goes on.

    The limit is looked up at each turn: what makes a machine busy begins in the midst of the waiting.
    """
    began, longest = time.monotonic(), 0.0
    while True:
        yield
        longest = max(longest, within(seconds))
        if time.monotonic() - began > longest:
            return


async def until(holds: Callable[[], bool], otherwise: str = "it does not come about", seconds: float = 10) -> None:
    """Wait for something that goes on in the test's own loop, in a thread or in another process; fail if it never comes."""
    for _ in turns(seconds):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(otherwise)
