"""What each pool lacks in the store, and which keys are of another type, as the last heartbeat learned it."""

import structlog

from farmlease.domain.store_damage import damage_text
from farmlease.errors import KeyDamaged

__all__ = ["StoreDamage"]

_log = structlog.get_logger(__name__)


class StoreDamage:
    """The damage in the store, by pool."""

    def __init__(self) -> None:
        self._missing: dict[str, tuple[str, ...]] = {}
        self._refusals: dict[str, str] = {}
        self._eviction = ""

    def note(self, pool: str, missing: tuple[str, ...]) -> None:
        """Note what a pool lacks."""
        if missing == self._missing.get(pool, ()):
            return
        self._missing[pool] = missing
        if missing:
            _log.error("store.damaged", pool=pool, missing=" ".join(missing))
        else:
            _log.info("store.whole", pool=pool)

    def refused(self, pool: str, error: KeyDamaged) -> None:
        """Note that the store refused a pool's heartbeat ("": a look at the policy) because of a key's type."""
        if self._refusals.get(pool) != str(error):
            _log.error("store.key_damaged", pool=pool, why=str(error))
        self._refusals[pool] = str(error)

    def answered(self, pool: str) -> None:
        """Note that it refused nothing."""
        self._refusals.pop(pool, None)

    def evicting(self, text: str) -> None:
        """Note that the store may drop keys, or has, in words; "" if it does not."""
        if text and text != self._eviction:
            _log.error("store.evicts", why=text)
        self._eviction = text

    @property
    def texts(self) -> tuple[str, ...]:
        """What is damaged and what to do, in words."""
        lacking = (damage_text(pool, missing) for pool, missing in sorted(self._missing.items()) if missing)
        return (*dict.fromkeys(self._refusals.values()), *lacking, *filter(None, [self._eviction]))
