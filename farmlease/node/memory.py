"""What this node remembers of the store: which one it was, who else was there, and what time it was.

By it the node notices a store that was emptied, rolled back or replaced, and goes on counting the store's time while
the store is away. Guaranteed: the time is the store's own plus what this host's monotonic clock counted since; the
host's wall clock has no part in it.
"""

from dataclasses import dataclass, field, replace

import structlog
from pydantic import TypeAdapter, ValidationError

from farmlease.clock import Clock
from farmlease.errors import JournalFailed, RecordRejected
from farmlease.node.journal import Journal
from farmlease.seal import Purpose, Sealer
from farmlease.store.answers import Beat, Taken
from farmlease.store.recovery import Known, Recovering

__all__ = ["Memory"]

_log = structlog.get_logger(__name__)

#: Milliseconds by which the store's clock may differ from our count; the scripts have the same number.
_LEAP = 60_000
#: Milliseconds for which a store whose clock went back is reported; then its time is taken as it is.
_TOLD_FOR = 3_600_000

_DOCUMENT = "memory"


@dataclass(frozen=True, slots=True)
class _Shard:
    """What is known of one pool's shard. ``fence``: the highest seen. ``deadline``: of this node, by the store."""

    epoch: int = 0
    fence: int = 0
    deadline: int = 0
    nodes: int = 0  #: how many there were when the roster was read
    roster: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Anchor:
    """The store's time, in ms, at a moment of this host's monotonic clock, in seconds, in one life of the node."""

    incarnation: str
    store_ms: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    anchor: _Anchor | None = None
    shards: dict[str, _Shard] = field(default_factory=dict)


_FORM = TypeAdapter(_Remembered)


class Memory:
    """The memory of one node. It outlives the agent; after a boot the time is forgotten."""

    def __init__(self, *, journal: Journal, sealer: Sealer, node: str, clock: Clock) -> None:
        self._journal = journal
        self._sealer = sealer
        self._node = node
        self._clock = clock
        found = self._read()
        self._shards = dict(found.shards)
        self._anchor = found.anchor if found.anchor and found.anchor.incarnation == journal.incarnation else None
        #: Milliseconds by which the store's clock is off: ahead (and held back by the store) or behind.
        self.clock_off_ms = 0

    def known(self, pool: str) -> Known:
        """Return what the store is to be asked with."""
        shard = self._shards.get(pool, _Shard())
        return Known(epoch=shard.epoch, fence=shard.fence, expected=self.store_now())

    def roster(self, pool: str) -> tuple[str, ...]:
        """Every node (node#incarnation) that was alive in a pool when that was last asked."""
        return self._shards.get(pool, _Shard()).roster

    def store_now(self) -> int:
        """The store's time in ms, counted on since it was last heard of; 0 if it never was in this life."""
        if self._anchor is None:
            return 0
        return self._anchor.store_ms + round((self._clock.monotonic() - self._anchor.at) * 1000)

    def is_alive(self, pool: str) -> bool:
        """Whether this node's deadline in a pool has not passed by the store's time, as far as that is known here."""
        return 0 < self.store_now() < self._shards.get(pool, _Shard()).deadline

    def beaten(self, pool: str, beat: Beat) -> bool:
        """Remember what a heartbeat said. True if the roster should be read anew."""
        before = self._shards.get(pool, _Shard())
        after = replace(before, epoch=beat.epoch, fence=max(before.fence, beat.fence), deadline=beat.deadline)
        self._shards[pool] = after
        self._heard(beat.now, beat.skew)
        return beat.nodes != after.nodes

    def granted(self, pool: str, taken: Taken) -> None:
        """Remember the fence of a grant."""
        shard = self._shards.get(pool, _Shard())
        self._shards[pool] = replace(shard, fence=max(shard.fence, taken.fence))

    def met(self, pool: str, nodes: list[str], count: int) -> None:
        """Remember who is there."""
        self._shards[pool] = replace(self._shards.get(pool, _Shard()), nodes=count, roster=tuple(nodes))

    def recovered(self, pool: str, found: Recovering) -> None:
        """All that this node has is restored: this is the store that it knows from now on."""
        self._shards[pool] = replace(self._shards.get(pool, _Shard()), epoch=found.epoch)
        self.write()

    def write(self) -> None:
        """Write the memory down. A disk that does not take it is no reason to stop."""
        body = _FORM.dump_json(_Remembered(anchor=self._anchor, shards=self._shards))
        try:
            self._journal.write_document(_DOCUMENT, self._sealer.seal(Purpose.RECEIPT, self._node, (_DOCUMENT,), body))
        except JournalFailed as error:
            _log.error("memory.not_written", why=str(error))

    def _heard(self, now: int, skew: int) -> None:
        """Go by the store's time, but for a clock that went back or stands still: that is told, and counted on over."""
        counted = self.store_now()
        behind = counted - now if counted else 0
        if behind > _LEAP and not self._told_long_enough():
            self._tell(-behind)
            return
        self._anchor = _Anchor(incarnation=self._journal.incarnation, store_ms=now, at=self._clock.monotonic())
        self._tell(skew)

    def _told_long_enough(self) -> bool:
        return self._anchor is None or self._clock.monotonic() - self._anchor.at > _TOLD_FOR / 1000

    def _tell(self, off: int) -> None:
        if bool(off) != bool(self.clock_off_ms):
            _log.error("store.clock", off_ms=off) if off else _log.info("store.clock_right")
        self.clock_off_ms = off

    def _read(self) -> _Remembered:
        body = self._journal.document(_DOCUMENT)
        if body is None:
            return _Remembered()
        try:
            return _FORM.validate_json(self._sealer.unseal(Purpose.RECEIPT, self._node, (_DOCUMENT,), body))
        except (RecordRejected, ValidationError):
            _log.error("memory.rejected")
            return _Remembered()
