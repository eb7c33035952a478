"""What the agent does about its sessions by itself: what a heartbeat, a restart or the host brings to light.

Must never wait for the store or a disk itself: what may take its time is a background task.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from farmlease.domain.model import Grant, LossReason, SessionRequest
from farmlease.domain.session_states import SessionState
from farmlease.errors import JournalFailed, StoreError
from farmlease.node.concurrency import Runtime
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State
from farmlease.node.sessions.acquire import SeatAcquisition
from farmlease.node.sessions.end import SessionEnd
from farmlease.node.sessions.liveness import Liveness
from farmlease.node.sessions.reacquire import Reacquisition
from farmlease.node.sync.build import Sync
from farmlease.node.sync.events import CountsDiffer, FilesLeft, SeatLost
from farmlease.store.answers.session import Behind

__all__ = ["Housekeeping"]

#: Seconds to wait for sessions whose seat was lost: their lock may be held by a disk that hangs.
_PATIENCE = 2.0
#: States of a session that has a seat, or tries to get one back.
_HAS_SEAT = frozenset({SessionState.ACTIVE, SessionState.INVALID})


class Housekeeping:
    """The housekeeping of one node's sessions."""

    def __init__(
        self,
        state: State,
        sync: Sync,
        acquisition: SeatAcquisition,
        ending: SessionEnd,
        reacquisition: Reacquisition,
        liveness: Liveness,
        runtime: Runtime,
    ) -> None:
        self._node = state.node
        self._sessions = state.sessions
        self._outbox = state.outbox
        self._policy = state.policy
        self._sync = sync
        self._acquisition = acquisition
        self._ending = ending
        self._reacquisition = reacquisition
        self._liveness = liveness
        self._locks = runtime.locks
        self._tasks = runtime.tasks
        self._unwritten: list[SeatLost] = []

    def tidy(self) -> None:
        """End what is left over: starts without an answer, ends cut short, lost seats, sessions of a removed pool."""
        policy = self._policy.in_force.policy
        self._sessions.read_names(self._policy.in_force.identity)
        unwritten, self._unwritten = self._unwritten, []
        for event in unwritten:
            self._sync.events.add(event)
        for session in self._sessions:
            if self._locks.is_locked(session.id):
                continue
            if self._is_of_former_name(session) and self._follows(session):
                continue
            if session.state is SessionState.STARTING:
                self._ending.abandon(session)
            elif session.state is SessionState.INVALID:
                self._reacquisition.begin(session)
            elif session.state is SessionState.ENDING and not self._outbox.pending(*session.key):
                self._finish(session, self._ending.end)
            elif session.state is SessionState.ACTIVE and policy is not None and policy.pool(session.pool) is None:
                # An administrator removed the session's pool: no session holds a seat of it any more.
                self._finish(session, partial(self._ending.surrender, reason=LossReason.UNKNOWN_POOL))

    def _is_of_former_name(self, session: NodeSession) -> bool:
        """Whether a session was granted before this node's host was renamed."""
        return session.grant is not None and session.grant.node != self._node

    def _follows(self, session: NodeSession) -> bool:
        """Have a session follow the node to its present name; return whether it ends, as its pool is not for that."""
        pool = self._policy.in_force.pool(session.pool)
        if pool is not None and not pool.serves(self._node) and session.state in _HAS_SEAT:
            self._finish(session, partial(self._ending.surrender, reason=LossReason.WRONG_NODE))
            return True
        if session.grant is not None:
            self._sessions.amend(session, grant=replace(session.grant, node=self._node))
        return False

    async def count_uncounted(self) -> None:
        """Have the store count every session that a receipt granted, now that it is back."""
        try:
            for pool in self._policy.in_force.pools:
                await self._acquisition.count(pool)
            if self._outbox.pending():  # ends that had to wait for that
                await self._sync.recovery.deliver()
        except StoreError as error:
            self._sync.availability.failed(error)

    def abandon_waits(self) -> None:
        """After a restart no caller waits for an answer any more: give up the places in the queue."""
        for session in self._sessions:
            if session.state is SessionState.WAITING:
                self._ending.stop_waiting(session)

    def watch(self) -> None:
        """End the sessions whose process is gone or that idle."""
        found = self._liveness.look()
        for session in found.gone:
            self._finish(session, self._ending.end)
        for session in found.idle:
            self._finish(session, partial(self._ending.surrender, reason=LossReason.IDLE))

    async def clear_leftovers(self) -> None:
        """Remove files that stayed here because their user had a session elsewhere, or because the store was away."""
        await self._ending.clear_leftovers()

    # --- what the heartbeat and a recovery brought to light -----------------------------------------------------------

    def take_events(self) -> bool:
        """Begin to act on the events that the sync room has added; return whether there were any."""
        events = self._sync.events.take()
        for event in events:
            match event:
                case SeatLost(pool, lost):
                    self._tasks.run(f"lost {pool} {lost.session} {lost.fence}", partial(self._lose, event))
                case CountsDiffer(pool):
                    self._tasks.run(f"differs {pool}", partial(self._examine, event))
                case FilesLeft(pool, user):
                    self._tasks.run(f"clear {pool} {user}", partial(self._ending.clear, user, pool))
        return bool(events)

    async def _lose(self, event: SeatLost) -> None:
        """Act on a lost seat; again with the next heartbeat if the journal cannot be written now."""
        try:
            await self._reacquisition.seat_lost(event.pool, event.lost)
        except JournalFailed:
            self._unwritten.append(event)
            raise

    async def losses_known(self) -> None:
        """Wait until the reported losses are in the session table; a disk that hangs holds this up a little."""
        self.take_events()
        await self._tasks.named("lost ", _PATIENCE)

    async def _examine(self, event: CountsDiffer) -> None:
        """Ask the store about each session of a pool, and give back what only the store counts."""
        whole = await self._confirm(event.pool)
        whole = await self._sync.recovery.reconcile(event.pool) and whole
        await self._sync.recovery.deliver()
        if whole:
            self._sync.heartbeat.examined(event)

    async def _confirm(self, name: str) -> bool:
        """Ask for every session of a pool once more; those that the store knows are not touched.

        False if that was cut short, or a session was counted anew: a late end may take its seat once more.
        """
        nothing_new = True
        for each in self._sessions:
            async with self._locks.session(each.id):
                session = self._sessions.find(each.id, name)
                in_force = self._policy.in_force
                pool = in_force.pool(name)
                if pool is None or session is None or session.state is not SessionState.ACTIVE:
                    continue
                request = SessionRequest(user=session.user, session=session.id, pool=name, device=session.device)
                answer = await self._acquisition.ask(request, session, in_force, pool)
                if answer is Behind.POLICY or not self._sync.availability.answers:
                    return False
                if isinstance(answer, Grant) and not answer.again:
                    nothing_new = False
        return nothing_new

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _finish(self, session: NodeSession, act: Callable[[NodeSession], Awaitable[None]]) -> None:
        """Begin to finish a session by ``act``, unless it has changed by the time that its lock is free."""

        async def finish() -> None:
            async with self._locks.session(session.id):
                if self._sessions.find(*session.key) is session:
                    await act(session)
            await self._sync.recovery.deliver()

        self._tasks.run(f"finish {session.id} {session.pool}", finish)
