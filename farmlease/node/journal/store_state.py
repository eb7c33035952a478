"""What this node remembers of the store: which one it was, which nodes it counted, and what time it showed.

From it the node notices a store that was emptied, rolled back or replaced, and estimates the store's time while the
store is away. Guaranteed: the fence of a grant is in the journal before the grant is answered: with its session, and
from the end of that session on in the document of fences.
"""

from dataclasses import dataclass, field, replace
from typing import TypeVar

import structlog
from pydantic import TypeAdapter, ValidationError

from farmlease.clock import Clock, DistantClock, Moment
from farmlease.crypto.seal import NodeSealer
from farmlease.errors import JournalFailed, RecordRejected
from farmlease.node.journal.journal import Journal
from farmlease.node.journal.sessions import SessionTable
from farmlease.store.answers.recovery import CLOCK_LEAP_MS, FENCE_AHEAD_MS, Recovering
from farmlease.store.answers.session import Beat, Known

__all__ = ["StoreState"]

_log = structlog.get_logger(__name__)

T = TypeVar("T")

_DOCUMENT = "memory"
#: The highest fence of each pool, apart from the rest, which is long: it may have to be written between two heartbeats.
_FENCES = "fences"
_LIVES = 16  #: of this node, that are remembered


@dataclass(frozen=True, slots=True)
class _Shard:
    """What is known of one pool's shard. ``fence``: the highest seen. ``deadline``: of this node, by the store."""

    epoch: int = 0
    fence: int = 0
    deadline: int = 0
    #: When the store last heard of each life of this node, in its ms.
    heard: dict[str, int] = field(default_factory=dict)
    nodes: int = 0  #: how many there were when the roster was read
    roster: tuple[str, ...] = ()
    window_until: int = 0  #: end of the recovery window that this node joined last
    time: Moment | None = None  #: estimate of the store's time
    line: int = 0  #: generation of the time estimate; the scripts begin a new one when the clock is corrected
    clock: Moment | None = None  #: estimate of the server's own clock, from when this node first read it
    off_ms: int = 0  #: by how much the server's clock differed when it was last read: ahead or behind


_UNKNOWN = _Shard()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    incarnation: str = ""  #: in which the moments mean something
    shards: dict[str, _Shard] = field(default_factory=dict)


_FORM = TypeAdapter(_Remembered)
_FENCES_FORM = TypeAdapter(dict[str, int])


class StoreState:
    """What one node remembers of the store. It outlives the agent; after a boot the time is forgotten."""

    def __init__(self, journal: Journal, sealer: NodeSealer, sessions: SessionTable, clock: Clock) -> None:
        self._journal = journal
        self._sealer = sealer
        self._clock = DistantClock(clock, CLOCK_LEAP_MS)
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
        """By how much the store's clock differs from when this node first read it, in ms: ahead or behind."""
        return max((each.off_ms for each in self._shards.values()), key=abs, default=0)

    def known(self, pool: str) -> Known:
        """Return what this node knows of a pool's shard: every call to the store carries it."""
        shard = self._shard(pool)
        return Known(
            epoch=shard.epoch, fence=shard.fence, expected=self._clock.now(shard.time), clock_generation=shard.line
        )

    def store_now(self, pool: str) -> int:
        """Return the store's time by our count, in ms; 0 if it was never read in this life of the node."""
        return self._clock.now(self._shard(pool).time)

    def is_alive(self, pool: str) -> bool:
        """Whether this node's deadline in a pool is still to come, by the store's time as estimated here."""
        return 0 < self.store_now(pool) < self._shard(pool).deadline

    def heard_of(self, pool: str, incarnation: str) -> int:
        """Return when the store last heard of a life of this node, in its ms; 0 if that is unknown."""
        return self._shard(pool).heard.get(incarnation, 0)

    def roster(self, pool: str) -> tuple[str, ...]:
        """Return every node (node#incarnation) that was alive in a pool when the store was last asked for them."""
        return self._shard(pool).roster

    def note_beat(self, pool: str, beat: Beat) -> bool:
        """Remember the answer to a heartbeat. True if the number of nodes changed: the roster should be read anew."""
        before = self._shard(pool)
        if before.fence > beat.now + FENCE_AHEAD_MS:  # damage, or somebody's: no store gave it
            _log.error("fence.rejected", pool=pool, fence=before.fence)
            before = replace(before, fence=0)
        heard = dict([*before.heard.items(), (self._journal.incarnation, beat.now)][-_LIVES:])
        after = replace(
            before, epoch=beat.epoch, fence=max(before.fence, beat.fence), deadline=beat.deadline, heard=heard
        )
        self._shards[pool] = self._with_server_clock(
            self._with_time(after, beat.now, beat.clock_generation), beat.now + beat.skew
        )
        return beat.nodes != after.nodes

    def uncounted_ms(self, pool: str, now: int) -> int:
        """Return how far the store's time, which is ``now``, is ahead of our count, in ms; 0 if by little."""
        read = self._shard(pool).time
        ahead = 0 if read is None else now - self._clock.now(read)
        return ahead if ahead > CLOCK_LEAP_MS else 0

    def note_recovery(self, pool: str, found: Recovering) -> None:
        """Remember the time of a store whose recovery this node has joined; the epoch only once all is restored."""
        shard = replace(self._shard(pool), window_until=found.until)
        self._shards[pool] = self._with_time(shard, found.now, found.clock_generation)

    def see_fence(self, pool: str, fence: int) -> None:
        """Remember the fence of a grant, which is written down with its session."""
        shard = self._shard(pool)
        if fence > shard.fence:
            self._shards[pool] = replace(shard, fence=fence)

    def keep_fence(self, pool: str) -> None:
        """Write a pool's fence into the journal, if the session that holds it is about to leave the journal.

        A store that lost data is recognised by it. JournalFailed if the disk refuses.
        """
        if self._shard(pool).fence > self._written.get(pool, 0):
            self._write_fences()

    def held_until(self, pool: str, until: int, span_ms: int) -> int:
        """Return when a hold ends that the store has just given for ``span_ms``, until ``until`` by its clock.

        It ends later if the store's clock has stood still since it was last read: once that clock runs on, the time has
        passed for the hold too.
        """
        read = self._shard(pool).time
        counted = self._clock.now(read)
        if read is None or counted - (until - span_ms) <= CLOCK_LEAP_MS:
            return until
        return until + min(counted - (until - span_ms), counted - read.ms)

    def note_nodes(self, pool: str, nodes: list[str], count: int) -> None:
        """Remember which nodes are alive in a pool, and how many the store counted.

        In a recovery window those known before stay: they may only not have come yet, and the store may lose its data
        once more.
        """
        shard = self._shard(pool)
        known = shard.roster if self.store_now(pool) < shard.window_until else ()
        self._shards[pool] = replace(shard, nodes=count, roster=tuple(sorted({*known, *nodes})))

    def recovered(self, pool: str, found: Recovering) -> None:
        """Remember the epoch: all that this node has is restored, so this is the store that it knows from now on."""
        self._shards[pool] = replace(self._shard(pool), epoch=found.epoch)
        self.write()

    def write(self) -> None:
        """Write everything into the journal. If the disk refuses, that is logged and the agent goes on."""
        try:
            body = _FORM.dump_json(_Remembered(incarnation=self._journal.incarnation, shards=self._shards))
            self._write(_DOCUMENT, body)
            self._write_fences()
        except JournalFailed as error:
            _log.error("store_state.not_written", why=str(error))

    def _write_fences(self) -> None:
        fences = {pool: each.fence for pool, each in self._shards.items()}
        self._write(_FENCES, _FENCES_FORM.dump_json(fences))
        self._written = fences

    def _write(self, name: str, body: bytes) -> None:
        self._journal.write_document(name, self._sealer.seal((name,), body))

    def _shard(self, pool: str) -> _Shard:
        return self._shards.get(pool, _UNKNOWN)

    def _with_time(self, shard: _Shard, now: int, line: int) -> _Shard:
        """Correct our estimate of the store's time; begin a new one if the scripts began a new generation of theirs."""
        return replace(shard, time=self._clock.corrected(shard.time if line == shard.line else None, now), line=line)

    def _with_server_clock(self, shard: _Shard, shown: int) -> _Shard:
        """Note by how much the server's own clock differs from our estimate of it."""
        off = self._clock.offset(shard.clock, shown)
        if bool(off) != bool(shard.off_ms):
            _log.error("store.clock", off_ms=off) if off else _log.info("store.clock_right")
        return replace(shard, clock=shard.clock if off else self._clock.corrected(shard.clock, shown), off_ms=off)

    def _read(self, name: str, form: TypeAdapter[T]) -> T | None:
        body = self._journal.document(name)
        if body is None:
            return None
        try:
            return form.validate_json(self._sealer.unseal((name,), body))
        except (RecordRejected, ValidationError):
            _log.error("store_state.rejected")
            return None
