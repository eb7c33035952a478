"""Time as an argument.

A node needs time for its own waiting only. The store's clock decides what is shared (deadlines, fences), so that a
host whose clock is wrong changes nothing for others (law L5).
"""

import asyncio
import sys
import time
from functools import partial
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """The time that farmlease reads; a test passes in its own."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC by this host's wall clock."""

    def monotonic(self) -> float:
        """Seconds that never go back, from a start that is the same for every process of one boot."""

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""


if sys.platform == "linux":
    _since_boot = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
else:
    _since_boot = time.monotonic


class SystemClock:
    """The host's own clock."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return time.time_ns() // 1_000_000

    #: Seconds since about the boot; on Linux those that a virtual machine slept through count too.
    monotonic = staticmethod(_since_boot)

    async def sleep(self, seconds: float) -> None:
        """Sleep without blocking the event loop."""
        await asyncio.sleep(seconds)
