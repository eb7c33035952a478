"""Whether the store answers, by the last call that any part of this node made.

A store with a damaged key answers: only what needs that key fails, and the heartbeat tells health of it.
"""

import structlog

from farmlease.errors import FarmleaseError, KeyDamaged

__all__ = ["StoreAvailability"]

_log = structlog.get_logger(__name__)


class StoreAvailability:
    """``answers``: the last call succeeded. ``is_away``: the last call failed; both False before the first call."""

    def __init__(self) -> None:
        self.answers = self.is_away = False

    def failed(self, error: FarmleaseError) -> None:
        """Note that a call failed; the first failure in a row is logged."""
        if isinstance(error, KeyDamaged):
            return
        if not self.is_away:
            _log.error("store.away", why=str(error))
        self.answers, self.is_away = False, True

    def succeeded(self) -> None:
        """Note that a call succeeded."""
        if self.is_away:
            _log.info("store.back")
        self.answers, self.is_away = True, False
