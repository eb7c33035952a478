"""What the agent does about its sessions without being asked: what a heartbeat or a restart brings to light.

Must never wait for the store or a disk itself: everything that may take its time is an errand.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from farmlease.domain.model import Reason
from farmlease.domain.session_states import SessionState
from farmlease.errors import StoreError
from farmlease.node.book import Book, OpenSession
from farmlease.node.debts import Debts
from farmlease.node.departure import Departure
from farmlease.node.errands import Errands
from farmlease.node.pulse import Pulse
from farmlease.node.reacquire import Reacquire
from farmlease.node.recovery import Recovery
from farmlease.node.seats import Seats
from farmlease.node.standing import Standing
from farmlease.node.turns import Turns
from farmlease.node.vigil import Vigil
from farmlease.store.answers.session import Lost

__all__ = ["Upkeep"]


class Upkeep:
    """The upkeep of one node's sessions."""

    def __init__(
        self,
        *,
        pulse: Pulse,
        standing: Standing,
        book: Book,
        debts: Debts,
        departure: Departure,
        seats: Seats,
        turns: Turns,
        errands: Errands,
        reacquire: Reacquire,
        vigil: Vigil,
        recovery: Recovery,
    ) -> None:
        self._standing = standing
        self._book = book
        self._debts = debts
        self._departure = departure
        self._seats = seats
        self._turns = turns
        self._errands = errands
        self._reacquire = reacquire
        self._vigil = vigil
        self._recovery = recovery
        pulse.lost = self._seat_lost
        pulse.differs = self._differs
        recovery.lost = self._seat_lost

    def tidy(self) -> None:
        """End what nobody works on any more: starts without an answer, ends cut short, sessions of a removed pool."""
        policy = self._standing.in_force.policy
        for session in self._book:
            if self._turns.taken(session.id):
                continue
            if session.state is SessionState.STARTING:
                self._departure.abandon(session)
            elif session.state is SessionState.INVALID:
                self._try_again(session)
            elif session.state is SessionState.ENDING and not self._debts.pending(session.id):
                self._finish(session, self._departure.end)
            elif session.state is SessionState.ACTIVE and policy is not None and policy.pool(session.pool) is None:
                # An administrator removed the session's pool: nobody holds a seat of it any more.
                self._finish(session, partial(self._departure.surrender, reason=Reason.UNKNOWN_POOL.value))

    async def count_uncounted(self) -> None:
        """The store is back: have every session counted that a receipt let in."""
        try:
            for pool in self._standing.in_force.pools:
                await self._seats.count(pool)
            if self._debts.pending():  # ends that had to wait for that
                await self._debts.deliver()
        except StoreError as error:
            self._standing.store_failed(error)

    def abandon_waits(self) -> None:
        """After a restart nobody waits for an answer any more: places in the queue are given up."""
        for session in self._book:
            if session.state is SessionState.WAITING:
                self._departure.stop_waiting(session)

    def watch(self) -> None:
        """End the sessions whose process is gone or that idle."""
        self._vigil.look(self._process_gone, self._idle)

    def _process_gone(self, session: OpenSession) -> None:
        self._finish(session, self._departure.end)

    def _idle(self, session: OpenSession) -> None:
        self._finish(session, partial(self._departure.surrender, reason="idle"))

    def _finish(self, session: OpenSession, act: Callable[[OpenSession], Awaitable[None]]) -> None:
        """Begin to finish a session by ``act``, unless it has changed by the time that its turn comes."""

        async def finish() -> None:
            async with self._turns.session(session.id):
                if self._book.find(session.id) is session:
                    await act(session)
            await self._debts.deliver()

        self._errands.run(f"finish {session.id}", finish)

    async def _seat_lost(self, pool: str, lost: Lost) -> None:
        async with self._turns.session(lost.session):
            await self._seats.lost(pool, lost)
            found = self._book.find(lost.session)
        if found is not None and found.state is SessionState.INVALID:
            self._try_again(found)
        await self._debts.deliver()

    def _try_again(self, session: OpenSession) -> None:
        """Begin the attempts to get an invalid session its seat back, unless they are under way."""
        pool = self._standing.in_force.pool(session.pool)
        if pool is not None:
            attempt, give_up = partial(self._attempt, session.id), partial(self._give_up, session.id)
            self._reacquire.begin(session.id, pool.reacquire, attempt, give_up)

    async def _attempt(self, session: str) -> bool:
        async with self._turns.session(session):
            found = self._book.find(session)
            settled = found is None or found.state is not SessionState.INVALID
            return settled or (found is not None and await self._seats.reacquire(found))

    async def _give_up(self, session: str) -> None:
        async with self._turns.session(session):
            found = self._book.find(session)
            if found is not None and found.state is SessionState.INVALID:
                await self._departure.surrender(found, found.lost_because or "timeout")
        await self._debts.deliver()

    async def _differs(self, pool: str) -> bool:
        whole = await self._seats.confirm(pool)
        whole = await self._recovery.reconcile(pool) and whole
        await self._debts.deliver()
        return whole
