"""What the agent does about its sessions without being asked: what a heartbeat or a restart brings to light.

Must never wait for the store or a disk itself: everything that may take its time is an errand.
"""

from functools import partial

from farmlease.domain.model import Reason
from farmlease.domain.session import SessionState
from farmlease.node.book import Book, OpenSession
from farmlease.node.debts import Debts
from farmlease.node.departure import Departure
from farmlease.node.errands import Errands
from farmlease.node.pulse import Pulse
from farmlease.node.seats import Seats
from farmlease.node.standing import Standing
from farmlease.node.turns import Turns
from farmlease.store.answers import Lost

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
    ) -> None:
        self._standing = standing
        self._book = book
        self._debts = debts
        self._departure = departure
        self._seats = seats
        self._turns = turns
        self._errands = errands
        pulse.lost = self._seat_lost
        pulse.differs = self._differs

    def tidy(self) -> None:
        """End what nobody works on any more: starts without an answer, ends cut short, sessions of a removed pool."""
        policy = self._standing.in_force.policy
        for session in self._book:
            if self._turns.taken(session.id):
                continue
            if session.state is SessionState.STARTING:
                self._departure.abandon(session)
            elif session.state is SessionState.ENDING and not self._debts.pending(session.id):
                self._errands.run(f"end {session.id}", partial(self._end, session))
            elif session.state is SessionState.ACTIVE and policy is not None and policy.pool(session.pool) is None:
                self._errands.run(f"end {session.id}", partial(self._pool_gone, session))

    async def _seat_lost(self, pool: str, lost: Lost) -> None:
        async with self._turns.session(lost.session):
            await self._seats.lost(pool, lost)
        await self._debts.deliver()

    async def _differs(self, pool: str) -> bool:
        whole = await self._seats.confirm(pool)
        await self._debts.deliver()
        return whole

    async def _end(self, session: OpenSession) -> None:
        async with self._turns.session(session.id):
            if self._book.find(session.id) is session:
                await self._departure.end(session)
        await self._debts.deliver()

    async def _pool_gone(self, session: OpenSession) -> None:
        """An administrator removed the session's pool: nobody holds a seat of it any more."""
        async with self._turns.session(session.id):
            if self._book.find(session.id) is session:
                lost = self._departure.lose(session, Reason.UNKNOWN_POOL.value)
                self._departure.give_back(lost)
                await self._departure.leave(lost)
        await self._debts.deliver()
