"""The node's heartbeat: one for all its sessions, so that staying alive costs the same however many there are.

It reports to the store that the node lives, learns which seats the store took meanwhile, and notices when the store
counts other sessions than the node does. Both become events; this module decides nothing about a session. It also has
what was taken back heeded, as soon as there is more of it.
"""

from contextlib import suppress

import structlog

from farmlease.domain.policy import Pool
from farmlease.domain.store_damage import IN_RECEIPTS
from farmlease.errors import FarmleaseError, KeyDamaged, PolicyError, StoreError, StoreRefused
from farmlease.farm import Farm
from farmlease.node.concurrency import Runtime
from farmlease.node.journal.state import State
from farmlease.node.sync.availability import StoreAvailability
from farmlease.node.sync.damage import StoreDamage
from farmlease.node.sync.events import CountsDiffer, SeatLost, SyncEvents
from farmlease.node.sync.recovery import Recovery
from farmlease.node.sync.taken_back import TakenBack
from farmlease.store.answers.session import Beat, Behind
from farmlease.store.keys import node_member

__all__ = ["Heartbeat"]

_log = structlog.get_logger(__name__)

#: How often one beat may find that the policy changed under it; then the next round is soon enough.
_MOST_CHANGES = 3


class Heartbeat:
    """The heartbeat of one node."""

    def __init__(
        self,
        state: State,
        farm: Farm,
        availability: StoreAvailability,
        recovery: Recovery,
        events: SyncEvents,
        damage: StoreDamage,
        runtime: Runtime,
    ) -> None:
        self._member = state.member
        self._previous = state.journal.previous
        self._names = (state.node, *state.journal.former)
        self._sessions = state.sessions
        self._outbox = state.outbox
        self._store_state = state.store_state
        self._policy = state.policy
        self._store = farm.leases
        self._taken_back = TakenBack(state, farm, events)
        self._availability = availability
        self._recovery = recovery
        self._events = events
        self._damage = damage
        self._clock = runtime.clock
        #: Pool to the counts that were looked into: doing so again would bring nothing new.
        self._examined: dict[str, tuple[int, int, int]] = {}
        #: Pool to the epoch in which the sessions of this host's earlier lives were ended.
        self._ended: dict[str, int] = {}
        #: When the last whole round began, by the monotonic and the wall clock, in ms; None before the first.
        self.began: tuple[float, int] | None = None

    async def round(self) -> None:
        """Read the policy, beat once for every pool, and deliver the outbox. A store that is away is no error."""
        began = self._clock.monotonic() * 1000, self._clock.now_ms()
        try:
            await self._read_policy()
            if self._sessions.identity is not self._policy.in_force.identity:  # who is who, before anybody asks
                self._sessions.read_names(self._policy.in_force.identity)
            refusal = await self._beat_all()
            self._store_state.write()
            await self._recovery.deliver()
            if refusal is not None:
                raise refusal
        except StoreError as error:
            self._availability.failed(error)
        except FarmleaseError:  # the journal cannot be written; what the store reported is known
            self.began = began
            raise
        else:
            self._availability.succeeded()
        # A store that is away ends the wait as well: then this is an outage like any other.
        self.began = began

    async def deliver(self) -> None:
        """Deliver the outbox. A store that is away is no error."""
        try:
            await self._recovery.deliver()
        except StoreError as error:
            self._availability.failed(error)

    async def beat(self, version: int, pool: Pool) -> Beat | Behind:
        """Beat once for one pool, by the policy of ``version``."""
        before = self._sessions.changes
        known = self._store_state.known(pool.name)
        if self._ended.get(pool.name) != known.epoch:  # a store that lost data may have lives again that were ended
            await self._recovery.take_over(pool.name, known)
            for life in (node_member(name, life) for name in self._names for life in self._previous):
                await self._store.heartbeat(pool, version, self._member, life, known)
        beat = await self._store.heartbeat(pool, version, self._member, None, known)
        if beat is Behind.STRANGE:
            self._recovery.begin(pool.name)
        if isinstance(beat, Beat):
            self._ended[pool.name] = beat.epoch
            roster_changed = self._store_state.note_beat(pool.name, beat)
            self._damage.note(pool.name, beat.missing)
            self._recovery.mend(pool.name, IN_RECEIPTS & {*beat.missing}, beat.lacking)
            # Before the store is asked again: that may fail. The latest grant of a session first, as each
            # acknowledgement takes the other reports of its session with it.
            for lost in sorted(beat.lost, key=lambda lost: -lost.fence):
                self._events.add(SeatLost(pool.name, lost))
            if roster_changed:
                self._store_state.note_nodes(pool.name, await self._store.nodes(pool.name), beat.nodes)
            taken = await self._taken_back.follow(pool.name, beat.buried)
            if before == self._sessions.changes and not beat.lost and not taken:
                self._compare(pool.name, beat)
        return beat

    def examined(self, event: CountsDiffer) -> None:
        """Note that a difference was looked into and explained: the same counts are no event again."""
        self._examined[event.pool] = event.counts

    async def _read_policy(self) -> None:
        """Read the policy. One that cannot be used is reported by health; sessions go on by the one that is known."""
        try:
            with suppress(PolicyError):
                await self._policy.read_policy()
            self._damage.answered("")
        except KeyDamaged as error:
            self._damage.refused("", error)

    async def _beat_all(self) -> StoreRefused | None:
        """Beat for every pool; one that the store refuses does not hold up the others."""
        refusal: StoreRefused | None = None
        for pool in self._policy.in_force.pools:
            try:
                await self._beat_now(pool.name)
                self._damage.answered(pool.name)
            except KeyDamaged as error:
                self._damage.refused(pool.name, error)
            except StoreRefused as error:
                refusal = error
        return refusal

    async def _beat_now(self, name: str) -> None:
        """Beat by the policy as it is now, even if that changes in between."""
        for _ in range(_MOST_CHANGES):
            in_force = self._policy.in_force
            pool = in_force.pool(name)
            if pool is None or await self.beat(in_force.version, pool) is not Behind.POLICY:
                return
            with suppress(PolicyError):
                await self._policy.read_policy()

    def _compare(self, pool: str, beat: Beat) -> None:
        """Compare the two counts of a pool's sessions; called if nothing changed here while the store counted."""
        counts = (beat.sessions, self._sessions.count(pool), beat.epoch)
        if counts[0] == counts[1]:
            self._examined.pop(pool, None)
        elif self._examined.get(pool) != counts and self._sessions.quiet and not self._outbox.pending():
            _log.warning("node.sessions_differ", pool=pool, store=counts[0], node=counts[1])
            self._events.add(CountsDiffer(pool, counts))
