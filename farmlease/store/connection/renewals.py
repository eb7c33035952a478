"""What could not be renewed although the one before still serves: connections, and the files they are made of.

Nothing fails by it yet, so nobody would notice: the log says it once, and health as long as it lasts.
"""

import time
from collections.abc import Iterable

__all__ = ["Renewals"]

#: Seconds after which a failure counts no more that has not come again: the place is gone, for instance of a Cluster.
_FORGET_AFTER = 300.0


class Renewals:
    """Why each thing could not be renewed, by what it is."""

    def __init__(self) -> None:
        self._failures: dict[str, tuple[str, float]] = {}

    def note(self, what: str, why: str, *, lasts: bool = False) -> bool:
        """Note why something could not be renewed, "" if it could; return whether that is bad news.

        ``lasts``: until it is noted as renewed.
        """
        before, _ = self._failures.pop(what, ("", 0.0))
        if why:
            self._failures[what] = why, float("inf") if lasts else time.monotonic() + _FORGET_AFTER
        return bool(why) and why != before

    @property
    def failures(self) -> Iterable[str]:
        """Why each of those that failed could not be renewed."""
        now = time.monotonic()
        return tuple(dict.fromkeys(why for why, until in self._failures.values() if until > now))
