"""What each pool lacks in the store, as the last heartbeat there learned it."""

import structlog

from farmlease.domain.store_damage import IN_RECEIPTS, damage_text

__all__ = ["StoreDamage"]

_log = structlog.get_logger(__name__)


class StoreDamage:
    """The damage in the store, by pool."""

    def __init__(self) -> None:
        self._missing: dict[str, tuple[str, ...]] = {}

    def note(self, pool: str, missing: tuple[str, ...]) -> bool:
        """Note what a pool lacks; return whether that is new, and something that nodes may have."""
        before = self._missing.get(pool, ())
        if missing == before:
            return False
        self._missing[pool] = missing
        if missing:
            _log.error("store.damaged", pool=pool, missing=" ".join(missing))
        else:
            _log.info("store.whole", pool=pool)
        return bool(IN_RECEIPTS & ({*missing} - {*before}))

    @property
    def texts(self) -> tuple[str, ...]:
        """What each pool lacks and what to do, in words."""
        return tuple(damage_text(pool, missing) for pool, missing in sorted(self._missing.items()) if missing)
