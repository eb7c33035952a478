"""The node's key ring while the agent runs: read again when its file changes, and reported to the farm.

Guaranteed: a key ring that is broken, another farm's, or older than the one in use is refused, and the one in use
stays. A key that is gone from the file is dropped only when it seals nothing on this node any more, and not before all
calls under way have reached the store. Until then this node reports the key as in use.

This module must never write a secret anywhere, and never stop a session because of a file.
"""

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import structlog

from farmlease.clock import Clock
from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.errors import FarmleaseError, JournalFailed, KeyRingRejected, StoreError
from farmlease.farm import Farm
from farmlease.node.concurrency import in_thread
from farmlease.node.journal.state import State

__all__ = ["LOOK_EVERY", "KeyringReload", "KeyringTiming"]

_log = structlog.get_logger(__name__)

#: Seconds between two looks at the file.
LOOK_EVERY = 2.0
#: Seconds beyond what a call to the store may take, after which nothing sealed before a change is under way any more.
_MARGIN = 3.0

_Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Change:
    """A change that has not settled: when it began, the ring as in the file, and the primary before it."""

    at: float
    ring: KeyRing
    before: str


@dataclass(frozen=True, slots=True)
class KeyringTiming:
    """``every_ms``: between two reports to the farm. ``store_timeout_ms``: what a call to the store may take."""

    every_ms: int
    store_timeout_ms: int


class KeyringReload:
    """The reloading of one node's key ring. ``trouble``: why the file is not in use, if so."""

    def __init__(self, state: State, farm: Farm, clock: Clock, path: Path, timing: KeyringTiming) -> None:
        self._state = state
        self._sealer = farm.sealer
        self._seals = farm.seals
        self._clock = clock
        self._path = path
        self._every_ms = timing.every_ms
        self._settles = 2 * timing.store_timeout_ms / 1000 + _MARGIN
        self._ring = farm.sealer.ring  #: as in the file
        self._stamp: _Stamp | None = None
        self._change: _Change | None = None
        self._unsure = True  #: whether anything in the journal may be sealed with another key than the primary
        self._holds: dict[str, int] = {}  #: how much of it was, when that was last looked into
        self._failing = False
        self._reported: tuple[float, dict[str, object]] | None = None
        self.trouble: str | None = None

    async def look(self) -> None:
        """Read the file if it changed, seal anew what its primary key does not seal, and report the keys in use."""
        await self._reread()
        try:
            await self._reseal()
        except (JournalFailed, OSError) as error:
            if not self._failing:
                _log.error("ring.not_resealed", why=str(error))
            self._failing = True
        else:
            self._failing = False
            self._settle()
        try:
            await self._report()
        except StoreError as error:
            _log.debug("ring.not_reported", why=str(error))

    async def _reread(self) -> None:
        stamp = await in_thread(lambda: _stamp(self._path))
        if stamp == self._stamp and self.trouble is None:
            return
        try:
            self._adopt(await in_thread(lambda: keyring_file.load(self._path)))
        except FarmleaseError as error:
            if self.trouble != str(error):
                _log.error("ring.refused", why=str(error))
            self.trouble = str(error)
        else:
            self.trouble = None
        self._stamp = stamp

    def _adopt(self, ring: KeyRing) -> None:
        """Use a key ring, and still open with the one before."""
        if ring == self._ring:
            return
        before = self._sealer.ring
        created = {key.id: key.created_at for key in (*before.keys, *ring.keys)}
        older = before.primary not in ring.ids and created[ring.primary] < created[before.primary]
        if older and before.is_of_the_farm(ring):
            lacking = f"{self._path} is an older key ring, without key {before.primary}: copy the newest one here"
            raise KeyRingRejected(lacking)
        self._sealer.adopt(ring.with_keys_of(before))
        reported = self._change.before if self._change else before.primary
        self._change = _Change(self._clock.monotonic(), ring, reported)
        self._unsure = True
        self._ring = ring
        _log.info("ring.adopted", primary=ring.primary, keys=list(ring.ids))

    async def _reseal(self) -> None:
        """Seal what lies in the journal anew, as far as another key seals it.

        Whatever is written is sealed with the primary, so there is nothing to look for once all of it is.
        """
        if not self._unsure:
            return
        self._holds = await self._stale()
        if not self._holds:
            return
        state = self._state
        state.sessions.reseal()
        state.policy.reseal()
        state.store_state.write()
        state.outbox.reseal()
        for number, (index, pool) in enumerate(state.journal.all_receipts()):
            state.receipts.reseal(index, pool)
            if number % 50 == 0:
                await asyncio.sleep(0)
        await in_thread(lambda: state.versions.reseal(self._sealer))
        self._holds = await self._stale()
        _log.info("ring.resealed", left=self._holds)

    async def _stale(self) -> dict[str, int]:
        """Return how much of the journal, and of the kept versions, each key seals, but for the primary."""
        primary = self._ring.primary
        kept = await in_thread(lambda: self._state.versions.stale(primary))
        return dict(Counter(self._state.journal.sealed_with()) + kept - Counter({primary: sys.maxsize}))

    def _settle(self) -> None:
        """Let go of what is gone from the file, once nothing can need it."""
        if self._holds or (self._change and self._clock.monotonic() - self._change.at < self._settles):
            return
        if self._change is not None:
            self._sealer.adopt(self._change.ring)
            self._change = None
        self._unsure = False

    async def _report(self) -> None:
        report: dict[str, object] = {
            "every": self._every_ms,
            "primary": self._change.before if self._change else self._ring.primary,
            "opens": list(self._ring.ids),
            "holds": self._holds,
        }
        now = self._clock.monotonic()
        if self._reported is None or self._reported[1] != report or now - self._reported[0] >= self._every_ms / 1000:
            await self._seals.tell(self._state.node, report)
            self._reported = (now, report)


def _stamp(path: Path) -> _Stamp:
    """Return what is different once a file is another one; empty if it cannot be looked at."""
    try:
        status = path.lstat()
    except OSError:
        return ()
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
