"""The store's time, counted on by this host's monotonic clock since it was last read.

Guaranteed: the host's wall clock has no part in it. At each heartbeat the estimate is corrected by at most 1 % of the
elapsed time, so that a stopped clock is still detected, however often it is read.
"""

from dataclasses import dataclass

from farmlease.clock import Clock
from farmlease.store.answers.recovery import CLOCK_LEAP_MS

__all__ = ["Moment", "StoreClock"]

#: An estimate is corrected by one part in so many of the time that went by: two clocks never run alike.
_CORRECTED = 100


@dataclass(frozen=True, slots=True)
class Moment:
    """A clock's time, in ms, at a moment of this host's monotonic clock, in seconds."""

    ms: int
    at: float


class StoreClock:
    """Estimates of clocks elsewhere."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self, moment: Moment | None) -> int:
        """Return what that clock shows now by our count, in ms; 0 if it was never read."""
        return 0 if moment is None else moment.ms + round((self._clock.monotonic() - moment.at) * 1000)

    def corrected(self, moment: Moment | None, shown: int) -> Moment:
        """Return our estimate of a clock that shows ``shown`` now, a little nearer to that; a new one if it was set."""
        at = self._clock.monotonic()
        if moment is None or abs(shown - self.now(moment)) > CLOCK_LEAP_MS:
            return Moment(shown, at)
        most = round((at - moment.at) * 1000 / _CORRECTED)
        return Moment(self.now(moment) + max(-most, min(shown - self.now(moment), most)), at)

    def offset(self, moment: Moment | None, shown: int) -> int:
        """Return by how much a clock that shows ``shown`` differs from our estimate, in ms; 0 if by little."""
        off = 0 if moment is None else shown - self.now(moment)
        return off if abs(off) > CLOCK_LEAP_MS else 0
