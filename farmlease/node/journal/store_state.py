"""What this node remembers of the store: which one it was, who else was there, and what time it was.

By it the node notices a store that was emptied, rolled back or replaced, and goes on counting the store's time while
the store is away. Guaranteed: the time is the store's own plus what this host's monotonic clock counted since; the
host's wall clock has no part in it. A count follows the store's clock by very little at each heartbeat, so that a clock
that stands still is noticed however often it is heard. And the fence of a grant is in the journal from before anybody
hears of the grant: with its session, and from the end of that on in the memory.
"""

from dataclasses import dataclass, field, replace
from typing import TypeVar

import structlog
from pydantic import TypeAdapter, ValidationError

from farmlease.clock import Clock
from farmlease.crypto.seal import Purpose, Sealer
from farmlease.errors import JournalFailed, RecordRejected
from farmlease.node.journal.journal import Journal
from farmlease.node.journal.sessions import SessionTable
from farmlease.store.answers.recovery import CLOCK_LEAP_MS, Recovering
from farmlease.store.answers.session import Beat, Known

__all__ = ["StoreState"]

_log = structlog.get_logger(__name__)

T = TypeVar("T")

#: A count follows the store's clock by one part in so many of the time that went by: two clocks are never the same.
_FOLLOWS = 100

_DOCUMENT = "memory"
#: The highest fence of each pool, apart from the rest, which is long: it may have to be written between two heartbeats.
_FENCES = "fences"


@dataclass(frozen=True, slots=True)
class _Moment:
    """A clock's time, in ms, at a moment of this host's monotonic clock, in seconds."""

    ms: int
    at: float


@dataclass(frozen=True, slots=True)
class _Shard:
    """What is known of one pool's shard. ``fence``: the highest seen. ``deadline``: of this node, by the store."""

    epoch: int = 0
    fence: int = 0
    deadline: int = 0
    nodes: int = 0  #: how many there were when the roster was read
    roster: tuple[str, ...] = ()
    time: _Moment | None = None  #: of the store, as it was last heard of
    line: int = 0  #: of counts to which that belongs
    clock: _Moment | None = None  #: of its server, as it has gone on since this node first heard of it
    off_ms: int = 0  #: by how much the server's clock was off when it was last heard of: ahead or behind


_UNKNOWN = _Shard()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    incarnation: str = ""  #: in which the moments mean something
    shards: dict[str, _Shard] = field(default_factory=dict)


_FORM = TypeAdapter(_Remembered)
_FENCES_FORM = TypeAdapter(dict[str, int])


class StoreState:
    """The memory of one node. It outlives the agent; after a boot the time is forgotten."""

    def __init__(self, *, journal: Journal, sealer: Sealer, node: str, clock: Clock, sessions: SessionTable) -> None:
        self._journal = journal
        self._sealer = sealer
        self._node = node
        self._clock = clock
        found = self._read(_DOCUMENT, _FORM) or _Remembered()
        self._shards = dict(found.shards)
        #: Pool to the fence that is in the journal whatever becomes of its sessions.
        self._written: dict[str, int] = {}
        for pool, fence in (self._read(_FENCES, _FENCES_FORM) or {}).items():
            self.see_fence(pool, fence)
            self._written[pool] = fence
        for session in sessions:
            if session.grant is not None:
                self.see_fence(session.pool, session.grant.fence)
        if found.incarnation != journal.incarnation:
            self._shards = {pool: replace(each, time=None, clock=None, off_ms=0) for pool, each in self._shards.items()}

    @property
    def clock_off_ms(self) -> int:
        """By how much the store's clock is off from when this node first heard of it, in ms: ahead or behind."""
        return max((each.off_ms for each in self._shards.values()), key=abs, default=0)

    def known(self, pool: str) -> Known:
        """Return what the store is to be asked with."""
        shard = self._shard(pool)
        return Known(
            epoch=shard.epoch, fence=shard.fence, expected=self._since(shard.time), clock_generation=shard.line
        )

    def store_now(self, pool: str) -> int:
        """The store's time in ms, counted on since it was last heard; 0 if it never was in this life."""
        return self._since(self._shard(pool).time)

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
        self._shards[pool] = self._told(self._timed(after, beat.now, beat.clock_generation), beat.now + beat.skew)
        return beat.nodes != after.nodes

    def behind(self, pool: str, now: int) -> int:
        """By how many ms the store's time went on without being counted here, if it is ``now``; 0 if by little."""
        heard = self._shard(pool).time
        ahead = 0 if heard is None else now - self._since(heard)
        return ahead if ahead > CLOCK_LEAP_MS else 0

    def entered(self, pool: str, found: Recovering) -> None:
        """Remember the time of a store that is taking this node in; the epoch only once all is restored."""
        self._shards[pool] = self._timed(self._shard(pool), found.now, found.clock_generation)

    def see_fence(self, pool: str, fence: int) -> None:
        """Remember the fence of a grant, which is written down with its session."""
        shard = self._shard(pool)
        if fence > shard.fence:
            self._shards[pool] = replace(shard, fence=fence)

    def keep_fence(self, pool: str) -> None:
        """Write a pool's fence down, unless it is: the session that had it is about to leave the journal.

        The store may forget it, and only the fence tells. JournalFailed if the disk refuses.
        """
        if self._shard(pool).fence > self._written.get(pool, 0):
            self._write_fences()

    def held_until(self, pool: str, until: int, span_ms: int) -> int:
        """Return when a hold is over that the store has just given for ``span_ms``, until ``until`` by its clock.

        It is later where that clock has stood still since it was heard last: once it runs on, that time has passed for
        the hold too.
        """
        heard = self._shard(pool).time
        counted = self._since(heard)
        if heard is None or counted - (until - span_ms) <= CLOCK_LEAP_MS:
            return until
        return until + min(counted - (until - span_ms), counted - heard.ms)

    def met(self, pool: str, nodes: list[str], count: int) -> None:
        """Remember who is there."""
        self._shards[pool] = replace(self._shard(pool), nodes=count, roster=tuple(nodes))

    def recovered(self, pool: str, found: Recovering) -> None:
        """All that this node has is restored: this is the store that it knows from now on."""
        self._shards[pool] = replace(self._shard(pool), epoch=found.epoch)
        self.write()

    def write(self) -> None:
        """Write the memory down. A disk that does not take it is no reason to stop."""
        try:
            body = _FORM.dump_json(_Remembered(incarnation=self._journal.incarnation, shards=self._shards))
            self._write(_DOCUMENT, body)
            self._write_fences()
        except JournalFailed as error:
            _log.error("memory.not_written", why=str(error))

    def _write_fences(self) -> None:
        fences = {pool: each.fence for pool, each in self._shards.items()}
        self._write(_FENCES, _FENCES_FORM.dump_json(fences))
        self._written = fences

    def _write(self, name: str, body: bytes) -> None:
        self._journal.write_document(name, self._sealer.seal(Purpose.RECEIPT, self._node, (name,), body))

    def _shard(self, pool: str) -> _Shard:
        return self._shards.get(pool, _UNKNOWN)

    def _timed(self, shard: _Shard, now: int, line: int) -> _Shard:
        """Count the store's time on; from anew where it does not go on as counted."""
        return replace(shard, time=self._followed(shard.time if line == shard.line else None, now), line=line)

    def _told(self, shard: _Shard, clock: int) -> _Shard:
        """Tell by how much the server's clock is off."""
        followed = self._followed(shard.clock, clock)
        off = 0 if shard.clock is None else clock - self._since(shard.clock)
        if abs(off) <= CLOCK_LEAP_MS:
            off = 0
        if bool(off) != bool(shard.off_ms):
            _log.error("store.clock", off_ms=off) if off else _log.info("store.clock_right")
        return replace(shard, clock=shard.clock if off else followed, off_ms=off)

    def _followed(self, moment: _Moment | None, shown: int) -> _Moment:
        """Return our count of a clock that shows ``shown`` now, a little nearer to that; a new one if it has leapt."""
        at = self._clock.monotonic()
        if moment is None or abs(shown - self._since(moment)) > CLOCK_LEAP_MS:
            return _Moment(shown, at)
        most = round((at - moment.at) * 1000 / _FOLLOWS)
        return _Moment(self._since(moment) + max(-most, min(shown - self._since(moment), most)), at)

    def _since(self, moment: _Moment | None) -> int:
        return 0 if moment is None else moment.ms + round((self._clock.monotonic() - moment.at) * 1000)

    def _read(self, name: str, form: TypeAdapter[T]) -> T | None:
        body = self._journal.document(name)
        if body is None:
            return None
        try:
            return form.validate_json(self._sealer.unseal(Purpose.RECEIPT, self._node, (name,), body))
        except (RecordRejected, ValidationError):
            _log.error("memory.rejected")
            return None
