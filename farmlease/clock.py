"""Time as an argument.

A node needs time for its own waiting only. The store's clock decides what is shared (deadlines, fences), so that a
host whose clock is wrong changes nothing for others (law L5). What that clock shows between two looks at it is counted
on by this host's monotonic clock: its wall clock has no part in that either.
"""

import asyncio
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Protocol

__all__ = ["Clock", "DistantClock", "Moment", "SystemClock"]

#: An estimate is corrected by one part in so many of the time that went by: two clocks never run alike.
_CORRECTED = 100


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


@dataclass(frozen=True, slots=True)
class Moment:
    """A clock's time, in ms, at a moment of this host's monotonic clock, in seconds."""

    ms: int
    at: float


class DistantClock:
    """Estimates of the time of clocks elsewhere. One that differs by more than ``leap_ms`` from its estimate was set.

    At each look the estimate is corrected by at most 1 % of the time that went by, so that a stopped clock is still
    detected, however often it is read.
    """

    def __init__(self, clock: Clock, leap_ms: int) -> None:
        self._clock = clock
        self._leap_ms = leap_ms

    def now(self, moment: Moment | None) -> int:
        """Return what that clock shows now by our count, in ms; 0 if it was never read."""
        return 0 if moment is None else moment.ms + round((self._clock.monotonic() - moment.at) * 1000)

    def corrected(self, moment: Moment | None, shown: int) -> Moment:
        """Return our estimate of a clock that shows ``shown`` now, a little nearer to that; a new one if it was set."""
        at = self._clock.monotonic()
        if moment is None or abs(shown - self.now(moment)) > self._leap_ms:
            return Moment(shown, at)
        most = round((at - moment.at) * 1000 / _CORRECTED)
        return Moment(self.now(moment) + max(-most, min(shown - self.now(moment), most)), at)

    def offset(self, moment: Moment | None, shown: int) -> int:
        """Return by how much a clock that shows ``shown`` differs from our estimate, in ms; 0 if by little."""
        off = 0 if moment is None else shown - self.now(moment)
        return off if abs(off) > self._leap_ms else 0
