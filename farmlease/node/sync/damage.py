"""What each pool lacks in the store, and which keys are of another type, as the last heartbeat learned it."""

from collections.abc import Mapping

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
        #: Event of the log to what was seen at the last look, by key.
        self._seen: dict[str, dict[str, str]] = {}

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
        self._note("store.evicts", {text: text} if text else {})

    def of_other_types(self, texts: Mapping[str, str]) -> None:
        """Note keys of another type and what to do; a refusal that names the key has told it already."""
        told = " ".join(self._refusals.values())
        self._note("store.key_damaged", {key: text for key, text in texts.items() if key not in told})

    def lost(self, texts: Mapping[str, str]) -> None:
        """Note which of the farm's own keys have lost something, and what to do."""
        self._note("store.farm_key_lost", texts)

    def foreign(self, texts: Mapping[str, str]) -> None:
        """Note in which keys something lies that farmlease did not write, and what to do."""
        self._note("store.foreign", texts)

    def _note(self, event: str, texts: Mapping[str, str]) -> None:
        for key in texts.keys() - self._seen.get(event, {}).keys():
            _log.error(event, why=texts[key])
        self._seen[event] = dict(texts)

    @property
    def texts(self) -> tuple[str, ...]:
        """What is damaged and what to do, in words."""
        lacking = (damage_text(pool, missing) for pool, missing in sorted(self._missing.items()) if missing)
        seen = (text for texts in self._seen.values() for text in texts.values())
        return tuple(dict.fromkeys([*self._refusals.values(), *lacking, *seen]))
