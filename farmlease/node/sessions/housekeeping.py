"""What the agent does about its sessions without being asked: what a heartbeat or a restart brings to light.

Must never wait for the store or a disk itself: everything that may take its time is an errand.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from farmlease.domain.model import Reason
from farmlease.domain.session_states import SessionState
from farmlease.errors import StoreError
from farmlease.node.concurrency import BackgroundTasks, KeyedLocks
from farmlease.node.journal.policy_cache import PolicyCache
from farmlease.node.journal.sessions import NodeSession, SessionTable
from farmlease.node.sessions.acquire import SeatAcquisition
from farmlease.node.sessions.end import SessionEnd
from farmlease.node.sessions.liveness import Liveness
from farmlease.node.sessions.reacquire import Reacquisition
from farmlease.node.sync.heartbeat import Heartbeat
from farmlease.node.sync.outbox_delivery import Outbox
from farmlease.node.sync.recovery import Recovery
from farmlease.store.answers.session import Lost

__all__ = ["Housekeeping"]


class Housekeeping:
    """The upkeep of one node's sessions."""

    def __init__(
        self,
        *,
        heartbeat: Heartbeat,
        policy: PolicyCache,
        sessions: SessionTable,
        outbox: Outbox,
        ending: SessionEnd,
        acquisition: SeatAcquisition,
        locks: KeyedLocks,
        tasks: BackgroundTasks,
        reacquire: Reacquisition,
        liveness: Liveness,
        recovery: Recovery,
    ) -> None:
        self._policy = policy
        self._sessions = sessions
        self._outbox = outbox
        self._ending = ending
        self._acquisition = acquisition
        self._locks = locks
        self._tasks = tasks
        self._reacquire = reacquire
        self._liveness = liveness
        self._recovery = recovery
        heartbeat.lost = self._seat_lost
        heartbeat.differs = self._differs
        recovery.lost = self._seat_lost

    def tidy(self) -> None:
        """End what nobody works on any more: starts without an answer, ends cut short, sessions of a removed pool."""
        policy = self._policy.in_force.policy
        for session in self._sessions:
            if self._locks.is_locked(session.id):
                continue
            if session.state is SessionState.STARTING:
                self._ending.abandon(session)
            elif session.state is SessionState.INVALID:
                self._try_again(session)
            elif session.state is SessionState.ENDING and not self._outbox.pending(session.id):
                self._finish(session, self._ending.end)
            elif session.state is SessionState.ACTIVE and policy is not None and policy.pool(session.pool) is None:
                # An administrator removed the session's pool: nobody holds a seat of it any more.
                self._finish(session, partial(self._ending.surrender, reason=Reason.UNKNOWN_POOL.value))

    async def count_uncounted(self) -> None:
        """The store is back: have every session counted that a receipt let in."""
        try:
            for pool in self._policy.in_force.pools:
                await self._acquisition.count(pool)
            if self._outbox.pending():  # ends that had to wait for that
                await self._outbox.deliver()
        except StoreError as error:
            self._policy.store_failed(error)

    def abandon_waits(self) -> None:
        """After a restart nobody waits for an answer any more: places in the queue are given up."""
        for session in self._sessions:
            if session.state is SessionState.WAITING:
                self._ending.stop_waiting(session)

    def watch(self) -> None:
        """End the sessions whose process is gone or that idle."""
        self._liveness.look(self._process_gone, self._idle)

    def _process_gone(self, session: NodeSession) -> None:
        self._finish(session, self._ending.end)

    def _idle(self, session: NodeSession) -> None:
        self._finish(session, partial(self._ending.surrender, reason="idle"))

    def _finish(self, session: NodeSession, act: Callable[[NodeSession], Awaitable[None]]) -> None:
        """Begin to finish a session by ``act``, unless it has changed by the time that its turn comes."""

        async def finish() -> None:
            async with self._locks.session(session.id):
                if self._sessions.find(session.id) is session:
                    await act(session)
            await self._outbox.deliver()

        self._tasks.run(f"finish {session.id}", finish)

    async def _seat_lost(self, pool: str, lost: Lost) -> None:
        async with self._locks.session(lost.session):
            await self._acquisition.lost(pool, lost)
            found = self._sessions.find(lost.session)
        if found is not None and found.state is SessionState.INVALID:
            self._try_again(found)
        await self._outbox.deliver()

    def _try_again(self, session: NodeSession) -> None:
        """Begin the attempts to get an invalid session its seat back, unless they are under way."""
        pool = self._policy.in_force.pool(session.pool)
        if pool is not None:
            attempt, give_up = partial(self._attempt, session.id), partial(self._give_up, session.id)
            self._reacquire.begin(session.id, pool.reacquire, attempt, give_up)

    async def _attempt(self, session: str) -> bool:
        async with self._locks.session(session):
            found = self._sessions.find(session)
            settled = found is None or found.state is not SessionState.INVALID
            return settled or (found is not None and await self._acquisition.reacquire(found))

    async def _give_up(self, session: str) -> None:
        async with self._locks.session(session):
            found = self._sessions.find(session)
            if found is not None and found.state is SessionState.INVALID:
                await self._ending.surrender(found, found.lost_because or "timeout")
        await self._outbox.deliver()

    async def _differs(self, pool: str) -> bool:
        whole = await self._acquisition.confirm(pool)
        whole = await self._recovery.reconcile(pool) and whole
        await self._outbox.deliver()
        return whole
