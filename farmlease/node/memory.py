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
#: Seconds for which a store whose clock went back is reported; then its time is taken as it is.
_TOLD_FOR = 3_600

_DOCUMENT = "memory"


@dataclass(frozen=True, slots=True)
class _Moment:
    """The store's time, in ms, at a moment of this host's monotonic clock, in seconds."""

    store_ms: int
    at: float


@dataclass(frozen=True, slots=True)
class _Shard:
    """What is known of one pool's shard. ``fence``: the highest seen. ``deadline``: of this node, by the store."""

    epoch: int = 0
    fence: int = 0
    deadline: int = 0
    nodes: int = 0  #: how many there were when the roster was read
    roster: tuple[str, ...] = ()
    heard: _Moment | None = None  #: when the store was last heard of
    right: _Moment | None = None  #: when its clock was last found right
    off_ms: int = 0  #: by how much it was off then: ahead (and held back by the store) or behind


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    incarnation: str = ""  #: in which the moments mean something
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
        if found.incarnation != journal.incarnation:
            self._shards = {pool: replace(each, heard=None, right=None) for pool, each in self._shards.items()}

    @property
    def clock_off_ms(self) -> int:
        """By how much the store's clock is off, in ms: ahead (and held back by the store) or behind."""
        return max((each.off_ms for each in self._shards.values()), key=abs, default=0)

    def known(self, pool: str) -> Known:
        """Return what the store is to be asked with."""
        shard = self._shard(pool)
        return Known(
            epoch=shard.epoch, fence=shard.fence, expected=self._since(shard.heard), counted=self.store_now(pool)
        )

    def store_now(self, pool: str) -> int:
        """The store's time in ms, counted on since it was last found right; 0 if it never was in this life."""
        return self._since(self._shard(pool).right)

    def is_alive(self, pool: str) -> bool:
        """Whether this node's deadline in a pool has not passed by the store's time, as far as that is known here."""
        return 0 < self.store_now(pool) < self._shard(pool).deadline

    def roster(self, pool: str) -> tuple[str, ...]:
        """Every node (node#incarnation) that was alive in a pool when that was last asked."""
        return self._shard(pool).roster

    def beaten(self, pool: str, beat: Beat) -> bool:
        """Remember what a heartbeat said. True if the roster should be read anew."""
        before = self._shard(pool)
        after = replace(before, epoch=beat.epoch, fence=max(before.fence, beat.fence), deadline=beat.deadline)
        self._shards[pool] = self._timed(after, beat.now, beat.skew)
        return beat.nodes != after.nodes

    def granted(self, pool: str, taken: Taken) -> None:
        """Remember the fence of a grant."""
        shard = self._shard(pool)
        self._shards[pool] = replace(shard, fence=max(shard.fence, taken.fence))

    def met(self, pool: str, nodes: list[str], count: int) -> None:
        """Remember who is there."""
        self._shards[pool] = replace(self._shard(pool), nodes=count, roster=tuple(nodes))

    def met_anew(self, pool: str, found: Recovering) -> None:
        """Go by the time of a store that is being recovered, where none is known since the boot: a heartbeat is far."""
        shard = self._shard(pool)
        if shard.right is None:
            self._shards[pool] = replace(shard, right=_Moment(found.now, self._clock.monotonic()))

    def recovered(self, pool: str, found: Recovering) -> None:
        """All that this node has is restored: this is the store that it knows from now on."""
        self._shards[pool] = replace(self._shard(pool), epoch=found.epoch)
        self.write()

    def write(self) -> None:
        """Write the memory down. A disk that does not take it is no reason to stop."""
        body = _FORM.dump_json(_Remembered(incarnation=self._journal.incarnation, shards=self._shards))
        try:
            self._journal.write_document(_DOCUMENT, self._sealer.seal(Purpose.RECEIPT, self._node, (_DOCUMENT,), body))
        except JournalFailed as error:
            _log.error("memory.not_written", why=str(error))

    def _shard(self, pool: str) -> _Shard:
        return self._shards.get(pool, _Shard())

    def _timed(self, shard: _Shard, now: int, skew: int) -> _Shard:
        """Go by the store's time, but for a clock that went back or stands still: that is told, and counted on over."""
        moment = _Moment(now, self._clock.monotonic())
        behind = self._since(shard.right) - now if shard.right else 0
        goes_on = shard.right is None or moment.at - shard.right.at > _TOLD_FOR
        off, right = (-behind, shard.right) if behind > _LEAP and not goes_on else (skew, moment)
        if bool(off) != bool(shard.off_ms):
            _log.error("store.clock", off_ms=off) if off else _log.info("store.clock_right")
        return replace(shard, heard=moment, right=right, off_ms=off)

    def _since(self, moment: _Moment | None) -> int:
        return 0 if moment is None else moment.store_ms + round((self._clock.monotonic() - moment.at) * 1000)

    def _read(self) -> _Remembered:
        body = self._journal.document(_DOCUMENT)
        if body is None:
            return _Remembered()
        try:
            return _FORM.validate_json(self._sealer.unseal(Purpose.RECEIPT, self._node, (_DOCUMENT,), body))
        except (RecordRejected, ValidationError):
            _log.error("memory.rejected")
            return _Remembered()
