"""One session host: the story of a session, in order.

Guaranteed: an answer is in the journal before it is given; what a caller began is carried out even if the caller goes
away; a session whose start ended without an answer holds no seat for longer than it takes to tell the store; a session
that lost its seat is shown as lost from the next heartbeat on.
Not guaranteed: that the host's wall clock means anything; every deadline is the store's.

Calls go down from here (policy, store, seal, journal, files), never up.
"""

import asyncio
from dataclasses import dataclass, replace
from functools import partial

import structlog

from farmlease.clock import Clock
from farmlease.domain import explain
from farmlease.domain.health import Facts
from farmlease.domain.identity import User
from farmlease.domain.model import Decision, Denial, Reason, SessionRequest
from farmlease.domain.session import SessionState
from farmlease.errors import FarmleaseError, JournalFailed, StoreError, StoreUnavailable
from farmlease.farm import Farm
from farmlease.node.admission import Admission
from farmlease.node.book import Book, OpenSession
from farmlease.node.debts import Debts
from farmlease.node.departure import Departure
from farmlease.node.errands import Errands
from farmlease.node.journal import Journal
from farmlease.node.memory import Memory
from farmlease.node.metrics import Metrics
from farmlease.node.presence import Presence
from farmlease.node.pulse import Pulse
from farmlease.node.reacquire import Reacquire
from farmlease.node.receipts import Receipts
from farmlease.node.recovery import Recovery
from farmlease.node.ring import RingCare
from farmlease.node.standing import Standing
from farmlease.node.turns import Turns
from farmlease.node.upkeep import Upkeep
from farmlease.node.vigil import Vigil
from farmlease.store.answers import Behind, Waiting

__all__ = ["Agent", "Parts"]

_log = structlog.get_logger(__name__)

#: Seconds between two questions of a session that waits for a seat.
_ASK_AGAIN = 1.0
_WAITED_FOR = frozenset({SessionState.WAITING, SessionState.ACTIVE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an agent is made of. ``composition.compose`` makes it."""

    farm: Farm
    journal: Journal
    standing: Standing
    book: Book
    debts: Debts
    receipts: Receipts
    memory: Memory
    recovery: Recovery
    turns: Turns
    errands: Errands
    reacquire: Reacquire
    vigil: Vigil
    departure: Departure
    pulse: Pulse
    presence: Presence
    admission: Admission
    upkeep: Upkeep
    ring: RingCare
    clock: Clock
    heartbeat_ms: int
    offline_denies: bool
    metrics: Metrics


class Agent:
    """The agent of one node, without its network: ``api.py`` speaks for it, ``daemon.py`` keeps it going.

    Where a verb takes ``only``, the caller may act for this user alone; None: for anybody.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._farm = parts.farm
        self._journal = parts.journal
        self._standing = parts.standing
        self._book = parts.book
        self._debts = parts.debts
        self._clock = parts.clock
        self._turns = parts.turns
        self._errands = parts.errands
        self._departure = parts.departure
        self._pulse = parts.pulse
        self._presence = parts.presence
        self._presence.facts = self.facts
        self._admission = parts.admission
        self._upkeep = parts.upkeep
        self._leaving = self._stopped = False
        self._looks = 0
        self._waking = asyncio.Lock()

    # --- the verbs of the API -----------------------------------------------------------------------------------------

    async def start_session(self, request: SessionRequest, only: User | None = None) -> Decision:
        """Decide whether a session may start; asking again for the same one gives the same answer.

        With ``wait_ms`` this returns when there is a seat or the wait is over; ``end_session`` ends it before, and so
        does a caller who hangs up: then nobody waits for the seat any more.
        """
        before = self._book.find(request.session)
        try:
            decision = await self._start_and_wait(request, only)
        except asyncio.CancelledError:
            if request.wait_ms:
                self._errands.run(f"hang up {request.session}", partial(self._hang_up, request, before))
            raise
        self._parts.metrics.decided(decision, {pool.name for pool in self._standing.in_force.pools})
        return decision

    async def end_session(self, session: str, only: User | None = None) -> bool:
        """End a session; one that is not (or no longer) there is ended already. False if it is another user's."""
        return await self._errands.finish(self._end_session(session, only))

    async def save_session(self, session: str, only: User | None = None) -> dict[str, object] | None:
        """Take the vendor's files back now; None if there is no such session, FileRefused if one must not be taken."""
        return await self._errands.finish(self._save_session(session, only))

    async def hold_session(self, session: str, span_ms: int | None, only: User | None = None) -> int | None:
        """Keep a session's seat whatever its node does, at most as long as the pool allows; return until when (ms).

        None if there is no such session, or its pool allows no holds. StoreError if the store cannot be told.
        """
        return await self._errands.finish(self._hold_session(session, span_ms, only))

    def touch(self, session: str) -> None:
        """Note a sign of activity: the idle timeout starts anew."""
        self._parts.vigil.touch(session)

    def session(self, session: str) -> OpenSession | None:
        """Return a session that the API shows."""
        found = self._book.find(session)
        return found if found is not None and found.state.shown else None

    def sessions(self) -> list[OpenSession]:
        """Every session that the API shows, by id."""
        return sorted((each for each in self._book if each.state.shown), key=lambda each: each.id)

    @property
    def draining(self) -> bool:
        """Whether the node takes no new users."""
        return self._presence.draining

    def drain(self, *, on: bool) -> None:
        """Take no new users, or take them again; remembered over restarts, and told to the store."""
        self._presence.drain(on=on)

    def facts(self) -> Facts:
        """What this node's health is judged by."""
        journal_writes, owed = self._journal.works, 0
        try:
            owed = self._debts.pending()
        except JournalFailed:
            journal_writes = False
        return Facts(
            draining=self.draining,
            stopping=self._leaving,
            stopped=self._stopped,
            namesakes=self._presence.namesakes,
            store_answers=self._standing.store_answers,
            offline_denies=self._parts.offline_denies,
            policy_known=self._standing.in_force.policy is not None,
            policy_trouble=self._standing.trouble,
            journal_writes=journal_writes,
            journal_refused=self._journal.refused,
            damaged=self._book.damaged,
            owed=owed,
            refused=self._debts.refused,
            rejected=self._parts.receipts.rejected,
            recovering=self._parts.recovery.under_way,
            clock_off_ms=self._parts.memory.clock_off_ms,
            ring_trouble=self._parts.ring.trouble,
            sessions=len(self.sessions()),
        )

    # --- the node's own life ------------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take up where the agent before a restart left off: what never got its answer, or was ending, is ended."""
        self._upkeep.abandon_waits()
        self._upkeep.tidy()
        _log.info("agent.adopted", sessions=len(self.sessions()), owed=self._debts.pending())

    async def beat(self) -> None:
        """One heartbeat, with all that it brings to light. Nothing that goes wrong in it ends the agent."""
        self._journal.writes()
        try:
            await self._pulse.round()
            self._parts.metrics.beaten(answered=self._standing.store_answers)
            await self._upkeep.count_uncounted()
            self._upkeep.tidy()
        except FarmleaseError as error:
            _log.error("beat.failed", why=str(error))
        except Exception:  # noqa: BLE001 - the sessions of this node live as long as it beats
            _log.error("beat.failed", exc_info=True)
        await self._presence.tell()

    async def awake(self) -> None:
        """Return when it is known what became of the sessions while this agent slept, or was not there, if it did.

        Whoever is answered from memory waits for this first: a stopped process or a suspended host can be away for
        longer than the store keeps its sessions. One round for all who wait.
        """
        if self._pulse.overdue or self._waking.locked():
            async with self._waking:
                if self._pulse.overdue:
                    await self.beat()
                    await self._pulse.told()

    async def look(self) -> None:
        """Ask whether the store answers and is the one that this node knew; beat at once if not, or if it is back.

        Say what the node is, and hear whether it is to drain. One pool is asked about at a time, so that this costs
        the same however many there are.
        """
        if not self._journal.works:
            self._journal.writes()  # there may be room again
        pools = self._standing.in_force.pools
        self._looks += 1
        pool = pools[self._looks % len(pools)] if pools else None
        if pool is None or self._standing.store_is_away or not await self._is_known(pool.name):
            await self.beat()
        else:
            await self._presence.tell()

    async def _is_known(self, pool: str) -> bool:
        try:
            return await self._farm.store.peek(pool, self._parts.memory.known(pool))
        except StoreError as error:
            self._standing.store_failed(error)
            return True

    async def watch(self) -> None:
        """Look once for sessions that end by themselves: their process is gone, or they idle."""
        try:
            self._upkeep.watch()
        except Exception:  # noqa: BLE001 - one process that cannot be looked at must not end the agent
            _log.error("watch.failed", exc_info=True)

    async def look_at_keys(self) -> None:
        """Look once whether the key ring's file changed, and do what that asks for."""
        try:
            await self._parts.ring.look()
        except Exception:  # noqa: BLE001 - the keys it has are good for going on
            _log.error("ring.failed", exc_info=True)

    async def settled(self) -> None:
        """Wait for everything that is under way without anybody waiting for it."""
        await self._errands.done()

    @property
    def leaving(self) -> bool:
        """Whether it was told to end."""
        return self._leaving

    def leave(self) -> None:
        """Say that this node is about to end, to balancers at once and to the farm; everything goes on until then."""
        self._leaving = True

    async def stop(self) -> None:
        """Take no more sessions and deliver what is owed. Sessions go on; the next agent of this boot adopts them."""
        self._leaving = self._stopped = True
        await self._parts.reacquire.stop()
        await self._pulse.deliver()
        await self._errands.done()
        await self._pulse.deliver()
        await self._presence.tell()

    # --- a start ------------------------------------------------------------------------------------------------------

    async def _start_and_wait(self, request: SessionRequest, only: User | None) -> Decision:
        since, asked = self._clock.monotonic(), request
        while True:
            decision = await self._errands.finish(self._start_session(asked, only))
            if not isinstance(decision, Waiting):
                return decision
            await self._clock.sleep(_ASK_AGAIN)
            found = self._book.find(request.session)
            # Who asked twice may have got the seat by the other question: then this one is told the same.
            if found is None or found.user != request.user or found.state not in _WAITED_FOR:
                return explain.denial(Reason.CAPACITY, found.pool if found else request.pool)
            pool = self._standing.in_force.pool(found.pool)
            over = self._clock.monotonic() - since >= min(request.wait_ms, pool.queue_ms if pool else 0) / 1000
            asked = replace(request, wait_ms=0) if over else request

    async def _start_session(self, request: SessionRequest, only: User | None) -> Decision | Waiting:
        async with self._turns.session(request.session):
            held = self._book.find(request.session)
            if held is not None and held.state is not SessionState.ENDING and only not in {None, held.user}:
                return explain.denial(Reason.NOT_ENTITLED, request.pool)
            if self._stopped or (self.draining and not self._is_here(request.user)):
                return explain.denial(Reason.DRAINING, request.pool)
            try:
                decision = await self._admission.start(request)
            except StoreError as error:
                self._standing.store_failed(error)
                retry_at = self._clock.now_ms() + self._parts.heartbeat_ms
                return explain.denial(Reason.OFFLINE, request.pool, retry_at=retry_at)
        if isinstance(decision, Denial) and self._debts.pending(request.session):
            await self._pulse.deliver()
        return decision

    async def _hang_up(self, request: SessionRequest, before: OpenSession | None) -> None:
        """Nobody waits for this session any more: it ends, unless it had its seat ``before`` it was asked for again."""
        async with self._turns.session(request.session):
            found = self._book.find(request.session)
        had = before.grant.fence if before is not None and before.grant is not None else None
        if found is not None and (found.grant is None or found.grant.fence != had):
            await self._end_session(request.session, request.user)

    # --- an end, and a save -------------------------------------------------------------------------------------------

    async def _end_session(self, session: str, only: User | None) -> bool:
        async with self._turns.session(session):
            found = self._book.find(session)
            if found is not None:
                if only is not None and found.user != only:
                    return False
                await self._departure.end(found)
        if self._debts.pending(session):
            await self._pulse.deliver()
        return True

    async def _save_session(self, session: str, only: User | None) -> dict[str, object] | None:
        async with self._turns.session(session):
            found = self._book.find(session)
            if found is None or not found.state.shown or only not in (None, found.user):
                return None
            changed, refused = await self._departure.take_back(found)
            await self._pulse.deliver()
            superseded = await self._departure.yield_to_winner(found)
            if refused is not None:
                raise refused
        return {
            "session": session,
            "changed": changed,
            "superseded": superseded,
            "delivered": self._debts.pending(session) == 0,
        }

    async def _hold_session(self, session: str, span_ms: int | None, only: User | None) -> int | None:
        async with self._turns.session(session):
            found = self._book.find(session)
            if found is None or found.grant is None or only not in (None, found.user):
                return None
            pool = self._standing.in_force.pool(found.pool)
            if pool is None:
                return None
            span = min(pool.max_hold_ms if span_ms is None else span_ms, pool.max_hold_ms)
            if not span or found.state is not SessionState.ACTIVE:
                return None
            claim = self._departure.claim(found)
            known = self._parts.memory.known(pool.name)
            until = await self._farm.store.hold(pool.name, claim, found.grant.fence, span, known)
            if isinstance(until, Behind):
                self._parts.recovery.begin(pool.name)
                raise StoreUnavailable("the store lost data and is recovering: ask again in a moment")
            if until is not None:
                hold_until = self._parts.memory.held_until(pool.name, until, span)
                self._book.amend(found, hold_until=hold_until)
            return until

    def _is_here(self, user: User) -> bool:
        return any(each.state.shown for each in self._book.of_user(user))
