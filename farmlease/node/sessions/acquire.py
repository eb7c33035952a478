"""One session's seat: asked of the store, confirmed, lost, asked for again, and given up where that fails.

Guaranteed: a question is in the journal before the store is asked, and its answer before anybody hears it. A question
that ends without an answer, in whatever way, is undone: the store is told to give back what it may have taken.
Callers hold the session's turn.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from farmlease.clock import Clock
from farmlease.domain import denial_text
from farmlease.domain.model import Denial, Grant, Reason, SessionRequest
from farmlease.domain.policy import Pool
from farmlease.domain.session_states import SessionEvent, SessionState
from farmlease.errors import JournalFailed, StoreError, StoreUnavailable
from farmlease.farm import Farm, PolicyInForce
from farmlease.node.concurrency import KeyedLocks
from farmlease.node.journal.policy_cache import PolicyCache
from farmlease.node.journal.receipts import Receipts
from farmlease.node.journal.sessions import NodeSession, SessionTable
from farmlease.node.journal.store_state import StoreState
from farmlease.node.sessions.end import SessionEnd
from farmlease.node.sessions.grant import Granting
from farmlease.node.sessions.offline import OfflineAdmission
from farmlease.node.sessions.reacquire import BY_HAND
from farmlease.node.sync.recovery import Recovery
from farmlease.store.answers.session import Beat, Behind, Lost, Refusal, Taken, Taking, Waiting
from farmlease.store.lease_store import Acquired

__all__ = ["SeatAcquisition"]

_log = structlog.get_logger(__name__)

#: Seconds for which a store that was away is asked before a receipt decides.
_BRIEFLY = 0.5
#: How often the node may turn out not to be alive in the store before a question is given up.
_MOST_LAPSES = 5


class SeatAcquisition:
    """The seats of one node's sessions."""

    def __init__(
        self,
        *,
        farm: Farm,
        node: str,
        policy: PolicyCache,
        sessions: SessionTable,
        receipts: Receipts,
        store_state: StoreState,
        granting: Granting,
        ending: SessionEnd,
        locks: KeyedLocks,
        clock: Clock,
        beat: Callable[[int, Pool], Awaitable[Beat | Behind]],
        recovery: Recovery,
        offline: OfflineAdmission,
    ) -> None:
        self._farm = farm
        self._node = node
        self._policy = policy
        self._sessions = sessions
        self._receipts = receipts
        self._store_state = store_state
        self._granting = granting
        self._ending = ending
        self._locks = locks
        self._clock = clock
        self._beat = beat
        self._recovery = recovery
        self._offline = offline
        self._counting = asyncio.Lock()

    async def ask(
        self, request: SessionRequest, held: NodeSession | None, in_force: PolicyInForce, pool: Pool, wait_ms: int = 0
    ) -> Grant | Denial | Waiting | None:
        """Ask for a seat, or for the one of a ``held`` session once more. None: the policy changed, plan anew.

        With ``wait_ms`` a session that gets no seat gets a place in the queue, kept for so long.
        """
        if not pool.serves(self._node):
            return denial_text.denial(Reason.WRONG_NODE, pool.name)
        session = held or self._sessions.begin(request, pool, request.device or self._farm.name)
        try:
            answer = await self._asked(session, in_force.version, pool, wait_ms)
            if isinstance(answer, Behind):
                return await self._behind(session, pool, answer)
            return await self._told(session, pool, answer)
        except StoreError as error:
            self._policy.store_failed(error)
            if held is not None and held.grant is not None:
                return replace(held.grant, again=True)
            if held is None and (receipt := self._offline.receipt(session, pool)):
                return await self._granting.let_in(session, pool, receipt)
            self._undo(session)
            raise
        except Exception:
            self._undo(session)
            raise

    async def _asked(self, session: NodeSession, version: int, pool: Pool, wait_ms: int) -> Acquired:
        """Ask the store; only briefly if it has been away and there is a receipt to go by."""
        go_by_receipt = self._policy.store_is_away and self._offline.receipt(session, pool) is not None
        try:
            async with asyncio.timeout(_BRIEFLY if go_by_receipt else None):
                if session.state is SessionState.STARTING:
                    await self.count(pool)
                return await self._acquire(session, version, pool, wait_ms)
        except TimeoutError:
            raise StoreUnavailable("the store was away, and does not answer at once") from None

    async def count(self, pool: Pool) -> None:
        """Have every session counted that a receipt let in, before anybody new. What has no seat is lost.

        StoreError if the store cannot be asked: then nobody new is let in either.
        """
        async with self._counting:
            for each in self._sessions.uncounted(pool.name):
                async with self._locks.session(each.id):
                    session = self._sessions.find(each.id)
                    if session is not None and session.pool == pool.name and session.is_uncounted:
                        await self._count(session, pool)

    async def _count(self, session: NodeSession, pool: Pool) -> None:
        answer = await self._acquire(session, self._policy.in_force.version, pool, 0)
        if isinstance(answer, Behind):
            await self._behind(session, pool, answer)
        else:
            await self._told(session, pool, answer)

    async def _behind(self, session: NodeSession, pool: Pool, answer: Behind) -> Grant | Denial | Waiting | None:
        """The store does not decide yet: the policy has changed, or it is not the store that this node knew."""
        if answer is Behind.STRANGE:
            self._recovery.begin(pool.name)
        if session.state is SessionState.STARTING:
            self._ending.deny(session)
        if answer is not Behind.STRANGE:
            return None
        if session.grant is not None:
            return replace(session.grant, again=True)
        if session.state is SessionState.WAITING:
            return Waiting(ahead=0)
        return denial_text.denial(Reason.RECOVERING, pool.name, retry_at=await self._recovery.until(pool.name))

    async def _told(
        self, session: NodeSession, pool: Pool, answer: Taken | Waiting | Refusal
    ) -> Grant | Denial | Waiting:
        """Write the store's answer down."""
        match answer:
            case Taken():
                return await self._granting.receive(session, pool, answer)
            case Waiting():
                if session.state is not SessionState.WAITING:  # a journal entry for each question would be too much
                    self._sessions.step(session, SessionEvent.QUEUED)
                return answer
            case Refusal():
                await self._turn_away(session, answer)
                return denial_text.denial(
                    answer.reason, pool.name, retry_at=answer.retry_at, blocking=answer.blocking,
                    held=answer.held, capacity=answer.capacity,
                )  # fmt: skip

    async def confirm(self, name: str) -> bool:
        """Ask about every session of a pool; those the store knows are not touched.

        False if that was cut short, or a session was counted anew: a late end may take its seat once more.
        """
        nothing_new = True
        for each in self._sessions:
            async with self._locks.session(each.id):
                session = self._sessions.find(each.id)
                in_force = self._policy.in_force
                pool = in_force.pool(name)
                if pool is None or session is None or session.pool != name or session.state is not SessionState.ACTIVE:
                    continue
                request = SessionRequest(user=session.user, session=session.id, pool=name, pid=session.pid)
                decision = await self.ask(request, session, in_force, pool)
                if decision is None or not self._policy.store_answers:
                    return False
                if isinstance(decision, Grant) and not decision.again:
                    nothing_new = False
        return nothing_new

    async def lost(self, pool: str, lost: Lost) -> None:
        """The store took a seat: its session is invalid or, if nobody is to try again, lost. The store hears of it."""
        found = self._sessions.find(lost.session)
        gone: NodeSession | None = None
        if (
            found is not None
            and (found.state, found.pool) == (SessionState.ACTIVE, pool)
            and self._ending.claim(found).user == lost.user
            and found.grant is not None
            and found.grant.fence <= lost.fence
        ):
            rule = self._policy.in_force.pool(pool)
            if lost.reason in BY_HAND:
                self._receipts.give_up(lost.user, pool)
            if lost.reason in BY_HAND or found.is_uncounted or rule is None or not rule.reacquire.attempts:
                gone = self._ending.lose(found, lost.reason)
            else:
                self._ending.invalidate(found, lost.reason)
        self._ending.hear(pool, lost)
        if gone is not None:
            await self._ending.leave(gone)

    async def reacquire(self, session: NodeSession) -> bool:
        """Ask once for another seat for an invalid session. True if that settled it, one way or the other."""
        in_force = self._policy.in_force
        pool = in_force.pool(session.pool)
        if pool is None:
            return False
        try:
            answer = await self._acquire(session, in_force.version, pool, 0)
        except StoreError as error:
            self._policy.store_failed(error)
            return False
        if answer is Behind.STRANGE:
            self._recovery.begin(pool.name)
        elif isinstance(answer, Behind):
            await self._policy.read_policy()
        if isinstance(answer, Taken):
            await self._granting.receive(session, pool, answer)
            return True
        if isinstance(answer, Refusal) and answer.reason is Reason.REVOKED:
            await self._ending.surrender(session, answer.reason.value)
            return True
        return False

    async def _acquire(self, session: NodeSession, version: int, pool: Pool, wait_ms: int) -> Acquired:
        """Ask the store: one round trip, unless this node has to show first that it lives."""
        index = self._farm.sealer.user_index(session.user)
        lease_id = secrets.token_urlsafe(12)
        taking = Taking(
            device=session.device,
            lease_id=lease_id,
            record=self._farm.first_record(pool, session.user, session.device, lease_id, self._clock.now_ms()),
            name=self._farm.sealer.seal_name(index, session.user.canonical),
            reservations=session.reservations,
            wait_ms=wait_ms,
        )
        claim, seen = self._ending.claim(session), self._store_state.known(pool.name).fence
        for _ in range(_MOST_LAPSES):
            known = self._store_state.known(pool.name)
            answer = await self._farm.store.acquire(pool, version, claim, taking, known)
            if _is_old(answer, session, seen):  # a copy of the store from before the end of an earlier session
                await self._farm.store.release(pool.name, claim, seen)
                continue
            if answer is not Behind.LAPSED:
                return answer
            beaten = await self._beat(version, pool)
            if isinstance(beaten, Behind):
                return beaten
        raise StoreError("the node lapses as fast as it beats; is session_timeout shorter than a round trip?")

    async def _turn_away(self, session: NodeSession, refusal: Refusal) -> None:
        """The store holds nothing for this session (any more)."""
        if session.state is SessionState.WAITING:
            self._ending.stop_waiting(session)
        elif session.state is SessionState.STARTING:
            self._ending.deny(session)
        else:
            await self._ending.leave(self._ending.lose(session, refusal.reason.value))

    def _undo(self, session: NodeSession) -> None:
        """Undo a start that has no answer. What cannot be written down now is undone with a later heartbeat."""
        found = self._sessions.find(session.id)
        with suppress(JournalFailed):
            if found is not None and found.state is SessionState.STARTING:
                self._ending.abandon(found)
            elif found is not None and found.state is SessionState.WAITING:
                self._ending.stop_waiting(found)


def _is_old(answer: Acquired, session: NodeSession, seen: int) -> bool:
    """Whether a session without a seat is told that it was granted before, by a fence older than its question."""
    new = session.state in {SessionState.STARTING, SessionState.WAITING}
    return new and isinstance(answer, Taken) and answer.again and answer.fence <= seen
