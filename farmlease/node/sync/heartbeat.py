"""The node's heartbeat: one for all its sessions, so that staying alive costs the same however many there are.

It tells the store that the node lives, hears which sessions were taken away meanwhile, and notices when the store
counts other sessions than the node does. What to do about either is the business of who gave the callbacks.
"""

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog

from farmlease.clock import Clock
from farmlease.domain.policy import Pool
from farmlease.errors import FarmleaseError, PolicyError, StoreError, StoreRefused
from farmlease.node.concurrency import BackgroundTasks
from farmlease.node.journal.journal import Journal
from farmlease.node.journal.policy_cache import PolicyCache
from farmlease.node.journal.sessions import SessionTable
from farmlease.node.journal.store_state import StoreState
from farmlease.node.sync.outbox_delivery import Outbox
from farmlease.node.sync.recovery import Recovery
from farmlease.store.answers.session import Beat, Behind, Lost
from farmlease.store.keys import node_member
from farmlease.store.lease_store import LeaseStore

__all__ = ["Heartbeat"]

_log = structlog.get_logger(__name__)

#: How often one beat may find that the policy changed under it; then the next round is soon enough.
_MOST_CHANGES = 3
#: Seconds to wait for a session's turn when its seat is lost.
_PATIENCE = 2.0


class Heartbeat:
    """The heartbeat of one node. ``lost`` and ``differs`` are set by who can do something about them."""

    #: Told each word of a session whose seat the store took, as often as the store repeats it. Runs as an errand.
    lost: Callable[[str, Lost], Coroutine[Any, Any, None]]
    #: Looks into the sessions of a pool; returns whether it came to the end and changed nothing. Runs as an errand.
    differs: Callable[[str], Coroutine[Any, Any, bool]]

    def __init__(
        self,
        *,
        store: LeaseStore,
        node: str,
        journal: Journal,
        policy: PolicyCache,
        sessions: SessionTable,
        outbox: Outbox,
        tasks: BackgroundTasks,
        store_state: StoreState,
        recovery: Recovery,
        clock: Clock,
    ) -> None:
        self._store = store
        self._clock = clock
        self._node = node
        self._member = node_member(node, journal.incarnation)
        self._journal = journal
        self._policy = policy
        self._sessions = sessions
        self._outbox = outbox
        self._tasks = tasks
        self._store_state = store_state
        self._recovery = recovery
        #: Pool to the store's count, ours and the epoch that were looked into: doing so again would bring nothing new.
        self._examined: dict[str, tuple[int, int, int]] = {}
        #: Pool to the epoch in which the sessions of this host's earlier lives were ended.
        self._ended: dict[str, int] = {}
        #: When the last whole round began, by the monotonic and the wall clock, in ms.
        self._began: tuple[float, int] | None = None

    @property
    def overdue(self) -> bool:
        """Whether the store may have ended this node's sessions since the last round: this agent has slept, or is new.

        The wall clock may be wrong, but a paused virtual machine has no other sign; it costs no more than a round.
        """
        if self._began is None:
            return True
        monotonic, wall = self._began
        asleep = max(self._clock.monotonic() * 1000 - monotonic, self._clock.now_ms() - wall)
        return any(asleep >= pool.session_timeout_ms for pool in self._policy.in_force.pools)

    async def told(self) -> None:
        """Wait until what the store said of lost sessions is known here; a disk that hangs holds it up a little."""
        await self._tasks.named("lost ", _PATIENCE)

    async def round(self) -> None:
        """Read the policy, beat once for every pool, and deliver what is owed. A store that is away is no error."""
        began = self._clock.monotonic() * 1000, self._clock.now_ms()
        try:
            with suppress(PolicyError):  # told by health and in the log; sessions go on by the policy that is known
                await self._policy.read_policy()
            refusal = await self._beat_all()
            self._store_state.write()
            await self._outbox.deliver()
            if refusal is not None:
                raise refusal
        except StoreError as error:
            self._policy.store_failed(error)
        except FarmleaseError:  # the journal cannot be written; what the store had to say is known
            self._began = began
            raise
        else:
            self._policy.store_answered()
        # A store that is away ends the wait as well: then this is an outage like any other.
        self._began = began

    async def deliver(self) -> None:
        """Deliver what is owed. A store that is away is no error."""
        try:
            await self._outbox.deliver()
        except StoreError as error:
            self._policy.store_failed(error)

    async def beat(self, version: int, pool: Pool) -> Beat | Behind:
        """Beat once for one pool, by the policy of ``version``."""
        before = self._sessions.changes
        known = self._store_state.known(pool.name)
        if self._ended.get(pool.name) != known.epoch:  # a store that lost data may remember what it was told to forget
            for life in self._journal.previous:
                await self._store.heartbeat(pool, version, self._member, node_member(self._node, life), known)
        beat = await self._store.heartbeat(pool, version, self._member, None, known)
        if beat is Behind.STRANGE:
            self._recovery.begin(pool.name)
        if isinstance(beat, Beat):
            self._ended[pool.name] = beat.epoch
            others = self._store_state.beaten(pool.name, beat)
            # Before the store is asked again: that may fail. The latest grant of a session first, as each word that
            # is acknowledged takes the others of its session with it.
            for lost in sorted(beat.lost, key=lambda lost: -lost.fence):
                self._hear(pool.name, lost)
            if others:
                self._store_state.met(pool.name, await self._store.nodes(pool.name), beat.nodes)
            if before == self._sessions.changes and not beat.lost:
                self._compare(pool.name, beat)
        return beat

    async def _beat_all(self) -> StoreRefused | None:
        """Beat for every pool; one that the store refuses does not hold up the others."""
        refusal: StoreRefused | None = None
        for pool in self._policy.in_force.pools:
            try:
                await self._beat_now(pool.name)
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

    def _hear(self, pool: str, lost: Lost) -> None:
        self._tasks.run(f"lost {pool} {lost.session} {lost.fence}", lambda: self.lost(pool, lost))

    def _compare(self, pool: str, beat: Beat) -> None:
        """Look into a pool whose sessions the store counts differently; called if nothing changed while it counted."""
        counts = (beat.sessions, self._sessions.count(pool), beat.epoch)
        if counts[0] == counts[1]:
            self._examined.pop(pool, None)
        elif self._examined.get(pool) != counts and self._sessions.quiet and not self._outbox.pending():
            _log.warning("node.sessions_differ", pool=pool, store=counts[0], node=counts[1])
            self._tasks.run(f"differs {pool}", lambda: self._examine(pool, counts))

    async def _examine(self, pool: str, counts: tuple[int, int, int]) -> None:
        if await self.differs(pool):
            self._examined[pool] = counts
