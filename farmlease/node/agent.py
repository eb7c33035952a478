"""One session host: the story of a session, in order.

Guaranteed: an answer is in the journal before it is given; what a caller began is carried out even if the caller goes
away; a session whose start ended without an answer holds no seat for longer than it takes to tell the store; a session
that lost its seat is shown as lost from the next heartbeat on.
Not guaranteed: that the host's wall clock means anything; every deadline is the store's.

Calls go down from here (policy, store, seal, journal, files), never up.
"""

import asyncio
from dataclasses import replace
from functools import partial

import structlog

from farmlease.clock import Clock
from farmlease.domain import denial_text
from farmlease.domain.health import Facts
from farmlease.domain.identity import User
from farmlease.domain.model import Decision, Denial, Reason, SessionRequest
from farmlease.domain.session_states import SessionState
from farmlease.errors import StoreError, StoreUnavailable
from farmlease.node.concurrency import BackgroundTasks, KeyedLocks
from farmlease.node.health.metrics import Metrics
from farmlease.node.health.monitor import HealthMonitor
from farmlease.node.journal.policy_cache import PolicyCache
from farmlease.node.journal.sessions import NodeSession, SessionTable
from farmlease.node.journal.store_state import StoreState
from farmlease.node.sessions.end import SessionEnd
from farmlease.node.sessions.housekeeping import Housekeeping
from farmlease.node.sessions.liveness import Liveness
from farmlease.node.sessions.reacquire import Reacquisition
from farmlease.node.sessions.start import SessionStart
from farmlease.node.sync.heartbeat import Heartbeat
from farmlease.node.sync.node_report import NodeReport
from farmlease.node.sync.outbox_delivery import Outbox
from farmlease.node.sync.recovery import Recovery
from farmlease.store.answers.session import Behind, Waiting
from farmlease.store.lease_store import LeaseStore

__all__ = ["Agent"]

_log = structlog.get_logger(__name__)

#: Seconds between two questions of a session that waits for a seat.
_ASK_AGAIN = 1.0
#: Milliseconds that the end of a lease may have moved without being told: what was just granted is shown as granted.
_NO_DIFFERENCE = 60_000
_WAITED_FOR = frozenset({SessionState.WAITING, SessionState.ACTIVE})


class Agent:
    """The agent of one node, without its network: ``api.py`` speaks for it; ``loops.py`` is what it does by the clock.

    Where a verb takes ``only``, the caller may act for this user alone; None: for anybody.
    """

    def __init__(
        self,
        *,
        store: LeaseStore,
        policy: PolicyCache,
        sessions: SessionTable,
        outbox: Outbox,
        store_state: StoreState,
        recovery: Recovery,
        locks: KeyedLocks,
        tasks: BackgroundTasks,
        reacquire: Reacquisition,
        liveness: Liveness,
        ending: SessionEnd,
        heartbeat: Heartbeat,
        report: NodeReport,
        starting: SessionStart,
        housekeeping: Housekeeping,
        monitor: HealthMonitor,
        clock: Clock,
        metrics: Metrics,
        heartbeat_ms: int,
    ) -> None:
        self._store = store
        self._policy = policy
        self._sessions = sessions
        self._outbox = outbox
        self._store_state = store_state
        self._recovery = recovery
        self._locks = locks
        self._tasks = tasks
        self._reacquire = reacquire
        self._liveness = liveness
        self._ending = ending
        self._heartbeat = heartbeat
        self._report = report
        self._starting = starting
        self._housekeeping = housekeeping
        self._monitor = monitor
        self._clock = clock
        self._metrics = metrics
        self._heartbeat_ms = heartbeat_ms

    # --- the verbs of the API -----------------------------------------------------------------------------------------

    async def start_session(self, request: SessionRequest, only: User | None = None) -> Decision:
        """Decide whether a session may start; asking again for the same one gives the same answer.

        With ``wait_ms`` this returns when there is a seat or the wait is over; ``end_session`` ends it before, and so
        does a caller who hangs up: then nobody waits for the seat any more.
        """
        before = self._sessions.find(request.session)
        try:
            decision = await self._start_and_wait(request, only)
        except asyncio.CancelledError:
            if request.wait_ms:
                self._tasks.run(f"hang up {request.session}", partial(self._hang_up, request, before))
            raise
        self._metrics.decided(decision, {pool.name for pool in self._policy.in_force.pools})
        return decision

    async def end_session(self, session: str, only: User | None = None) -> bool:
        """End a session; one that is not (or no longer) there is ended already. False if it is another user's."""
        return await self._tasks.finish(self._end_session(session, only))

    async def save_session(self, session: str, only: User | None = None) -> dict[str, object] | None:
        """Take the vendor's files back now; None if there is no such session, FileRefused if one must not be taken."""
        return await self._tasks.finish(self._save_session(session, only))

    async def hold_session(self, session: str, span_ms: int | None, only: User | None = None) -> int | None:
        """Keep a session's seat whatever its node does, at most as long as the pool allows; return until when (ms).

        None if there is no such session, or its pool allows no holds. StoreError if the store cannot be told.
        """
        return await self._tasks.finish(self._hold_session(session, span_ms, only))

    def touch(self, session: str) -> None:
        """Note a sign of activity: the idle timeout starts anew."""
        self._liveness.touch(session)

    def session(self, session: str) -> NodeSession | None:
        """Return a session that the API shows, as it stands now."""
        found = self._sessions.find(session)
        return self._as_it_stands(found) if found is not None and found.state.shown else None

    def sessions(self) -> list[NodeSession]:
        """Every session that the API shows, as it stands now, by id."""
        shown = (each for each in self._sessions if each.state.shown)
        return sorted(map(self._as_it_stands, shown), key=lambda each: each.id)

    @property
    def draining(self) -> bool:
        """Whether the node takes no new users."""
        return self._report.draining

    def drain(self, *, on: bool) -> None:
        """Take no new users, or take them again; remembered over restarts, and told to the store."""
        self._report.drain(on=on)

    def facts(self) -> Facts:
        """What this node's health is judged by."""
        return self._monitor.facts()

    # --- the node's own life ------------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take up where the agent before a restart left off: what never got its answer, or was ending, is ended."""
        self._housekeeping.abandon_waits()
        self._housekeeping.tidy()
        _log.info("agent.adopted", sessions=len(self.sessions()), owed=self._outbox.pending())

    async def settled(self) -> None:
        """Wait for everything that is under way without anybody waiting for it."""
        await self._tasks.done()

    @property
    def leaving(self) -> bool:
        """Whether it was told to end."""
        return self._monitor.leaving

    def leave(self) -> None:
        """Say that this node is about to end, to balancers at once and to the farm; everything goes on until then."""
        self._monitor.leaving = True

    async def stop(self) -> None:
        """Take no more sessions and deliver what is owed. Sessions go on; the next agent of this boot adopts them."""
        self._monitor.leaving = self._monitor.stopped = True
        await self._reacquire.stop()
        await self._heartbeat.deliver()
        await self._tasks.done()
        await self._heartbeat.deliver()
        await self._report.tell()

    # --- a start ------------------------------------------------------------------------------------------------------

    async def _start_and_wait(self, request: SessionRequest, only: User | None) -> Decision:
        since, asked = self._clock.monotonic(), request
        while True:
            decision = await self._tasks.finish(self._start_session(asked, only))
            if not isinstance(decision, Waiting):
                return decision
            await self._clock.sleep(_ASK_AGAIN)
            found = self._sessions.find(request.session)
            # Who asked twice may have got the seat by the other question: then this one is told the same.
            if found is None or found.user != request.user or found.state not in _WAITED_FOR:
                return denial_text.denial(Reason.CAPACITY, found.pool if found else request.pool)
            pool = self._policy.in_force.pool(found.pool)
            over = self._clock.monotonic() - since >= min(request.wait_ms, pool.queue_ms if pool else 0) / 1000
            asked = replace(request, wait_ms=0) if over else request

    async def _start_session(self, request: SessionRequest, only: User | None) -> Decision | Waiting:
        async with self._locks.session(request.session):
            held = self._sessions.find(request.session)
            if held is not None and held.state is not SessionState.ENDING and only not in {None, held.user}:
                return denial_text.denial(Reason.NOT_ENTITLED, request.pool)
            if self._monitor.stopped or (self.draining and not self._is_here(request.user)):
                return denial_text.denial(Reason.DRAINING, request.pool)
            try:
                decision = await self._starting.start(request)
            except StoreError as error:
                self._policy.store_failed(error)
                retry_at = self._clock.now_ms() + self._heartbeat_ms
                return denial_text.denial(Reason.OFFLINE, request.pool, retry_at=retry_at)
        if isinstance(decision, Denial) and self._outbox.pending(request.session):
            await self._heartbeat.deliver()
        return decision

    async def _hang_up(self, request: SessionRequest, before: NodeSession | None) -> None:
        """Nobody waits for this session any more: it ends, unless it had its seat ``before`` it was asked for again."""
        async with self._locks.session(request.session):
            found = self._sessions.find(request.session)
        had = before.grant.fence if before is not None and before.grant is not None else None
        if found is not None and (found.grant is None or found.grant.fence != had):
            await self._end_session(request.session, request.user)

    # --- an end, and a save -------------------------------------------------------------------------------------------

    async def _end_session(self, session: str, only: User | None) -> bool:
        async with self._locks.session(session):
            found = self._sessions.find(session)
            if found is not None:
                if only is not None and found.user != only:
                    return False
                await self._ending.end(found)
        if self._outbox.pending(session):
            await self._heartbeat.deliver()
        return True

    async def _save_session(self, session: str, only: User | None) -> dict[str, object] | None:
        async with self._locks.session(session):
            found = self._sessions.find(session)
            if found is None or not found.state.shown or only not in (None, found.user):
                return None
            changed, refused = await self._ending.take_back(found)
            await self._heartbeat.deliver()
            superseded = await self._ending.yield_to_winner(found)
            if refused is not None:
                raise refused
        return {
            "session": session,
            "changed": changed,
            "superseded": superseded,
            "delivered": self._outbox.pending(session) == 0,
        }

    async def _hold_session(self, session: str, span_ms: int | None, only: User | None) -> int | None:
        async with self._locks.session(session):
            found = self._sessions.find(session)
            if found is None or found.grant is None or only not in (None, found.user):
                return None
            pool = self._policy.in_force.pool(found.pool)
            if pool is None:
                return None
            span = min(pool.max_hold_ms if span_ms is None else span_ms, pool.max_hold_ms)
            if not span or found.state is not SessionState.ACTIVE:
                return None
            claim = self._ending.claim(found)
            known = self._store_state.known(pool.name)
            until = await self._store.hold(pool.name, claim, found.grant.fence, span, known)
            if isinstance(until, Behind):
                self._recovery.begin(pool.name)
                raise StoreUnavailable("the store lost data and is recovering: ask again in a moment")
            if until is not None:
                hold_until = self._store_state.held_until(pool.name, until, span)
                self._sessions.amend(found, hold_until=hold_until)
            return until

    def _as_it_stands(self, session: NodeSession) -> NodeSession:
        """Return a session with the present end of its lease, which moves on while the store counts the session."""
        pool, grant = self._policy.in_force.pool(session.pool), session.grant
        counted = session.state is SessionState.ACTIVE and not session.is_uncounted
        if pool is None or grant is None or not counted or not self._store_state.is_alive(pool.name):
            return session
        until = self._store_state.store_now(pool.name) + pool.kept_ms
        if until - grant.lease.expires_at < _NO_DIFFERENCE:
            return session
        return replace(session, grant=replace(grant, lease=replace(grant.lease, expires_at=until)))

    def _is_here(self, user: User) -> bool:
        return any(each.state.shown for each in self._sessions.of_user(user))
