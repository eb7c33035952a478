"""Time as an argument.

A node needs time for its own waiting only. What is shared (deadlines, fences) is decided by the store's clock, so a
host whose clock is wrong harms nobody (law L5).
"""

import asyncio
import sys
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """What farmlease asks of time; a test hands in its own."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC by this host's wall clock."""

    def monotonic(self) -> float:
        """Seconds that never go back, from a start that is the same for every process of one boot."""

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""


class SystemClock:
    """The host's own clock."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds since about the boot; on Linux those that a virtual machine slept through count too."""
        return _since_boot()

    async def sleep(self, seconds: float) -> None:
        """Sleep without blocking the event loop."""
        await asyncio.sleep(seconds)


if sys.platform == "linux":

    def _since_boot() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:

    def _since_boot() -> float:
        return time.monotonic()
