"""Acquiring a seat of one pool for one session: ask the store, or go by the node's receipts while it is away.

Guaranteed: the question is in the journal before the store is asked, and the answer before it is returned. A question
that ends without an answer, in whatever way, is undone: the store gets a message to give back what it may have taken.
Callers hold the session's lock.
"""

import asyncio
import secrets
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from farmlease.domain import denial_text
from farmlease.domain.model import Denial, Grant, Reason, SessionRequest
from farmlease.domain.policy import PolicyInForce, Pool
from farmlease.domain.session_states import SessionEvent, SessionState
from farmlease.errors import JournalFailed, StoreError, StoreUnavailable
from farmlease.farm import Farm
from farmlease.node.concurrency import Runtime
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State
from farmlease.node.sessions.end import SessionEnd
from farmlease.node.sessions.grant import Granting
from farmlease.node.sessions.offline import OfflineAdmission
from farmlease.node.sync.build import Sync
from farmlease.store.answers.session import Behind, Claim, Refusal, Taken, Taking, Waiting
from farmlease.store.lease_store import Acquired

__all__ = ["Answer", "SeatAcquisition"]

#: What a session is answered by one pool; POLICY: the policy has changed, and the start is to be planned anew.
Answer = Grant | Denial | Waiting | Literal[Behind.POLICY]

#: Seconds for which a store that was away is asked before a receipt decides.
_BRIEFLY = 0.5
#: How often the node may turn out not to be alive in the store before a question is given up.
_MOST_LAPSES = 5


class SeatAcquisition:
    """The seats of one node's sessions."""

    def __init__(
        self,
        state: State,
        farm: Farm,
        sync: Sync,
        granting: Granting,
        ending: SessionEnd,
        offline: OfflineAdmission,
        runtime: Runtime,
    ) -> None:
        self._node = state.node
        self._sessions = state.sessions
        self._store_state = state.store_state
        self._policy = state.policy
        self._names = state.names
        self._receipts = state.receipts
        self._farm = farm
        self._availability = sync.availability
        self._heartbeat = sync.heartbeat
        self._recovery = sync.recovery
        self._granting = granting
        self._ending = ending
        self._offline = offline
        self._locks = runtime.locks
        self._clock = runtime.clock
        self._counting = asyncio.Lock()

    async def ask(
        self, request: SessionRequest, held: NodeSession | None, in_force: PolicyInForce, pool: Pool, wait_ms: int = 0
    ) -> Answer:
        """Ask for a seat, or for the one of a ``held`` use once more: it moves to another device if that is asked for.

        With ``wait_ms`` a session that gets no seat gets a place in the queue, kept for so long.
        """
        if not pool.serves(self._node):
            return denial_text.denial(Reason.WRONG_NODE, pool.name)
        device = request.device or self._farm.name
        if held is not None and held.device != device:
            if held.state is SessionState.ACTIVE:
                return await self._move(held, in_force.version, pool, device)
            held = self._sessions.amend(held, device=device)
        former = self._names.indexes(request.user)[1:] if held is None and in_force.former_names else ()
        session = held or self._sessions.begin(request, pool, device, former)
        try:
            return await self._by_store(session, in_force.version, pool, wait_ms)
        except StoreError as error:
            self._availability.failed(error)
            if held is not None and held.grant is not None:
                return replace(held.grant, again=True)
            admission = self._offline.admission(session, pool) if held is None else None
            if admission is None:
                self._undo(session)
                raise
        except Exception:
            self._undo(session)
            raise
        session, receipt = admission
        return await self._granting.by_receipt(session, pool, receipt)

    async def _move(self, held: NodeSession, version: int, pool: Pool, device: str) -> Answer:
        """Ask the store to move a use to another device. StoreError, or a denial: it stays where it is."""
        moved = replace(held, device=device)
        answer = await self.ask_store(moved, version, pool)
        match answer:
            case Taken():
                return await self._granting.by_store(self._follow(moved, pool, answer), pool, answer)
            case Refusal():
                return _denial(pool, answer)
            case Behind.STRANGE:
                self._recovery.begin(pool.name)
                return denial_text.denial(Reason.RECOVERING, pool.name, retry_at=await self._recovery.until(pool.name))
            case _:
                return Behind.POLICY

    async def _by_store(self, session: NodeSession, version: int, pool: Pool, wait_ms: int) -> Answer:
        """Ask the store; only briefly if it has been away and a receipt would grant the session."""
        has_receipt = self._availability.is_away and self._offline.admission(session, pool) is not None
        try:
            async with asyncio.timeout(_BRIEFLY if has_receipt else None):
                await self.count(pool)  # for a session that has a seat too: an administrator may have taken it
                answer = await self.ask_store(session, version, pool, wait_ms)
        except TimeoutError:
            raise StoreUnavailable("the store was away, and does not answer at once") from None
        return await self._write(session, pool, answer)

    async def ask_store(self, session: NodeSession, version: int, pool: Pool, wait_ms: int = 0) -> Acquired:
        """Ask the store for a seat: one round trip, unless this node's heartbeat has to come first."""
        sealer = self._farm.sealer
        claim, former = self._asked(session)
        lease_id = secrets.token_urlsafe(12)
        taking = Taking(
            device=session.device,
            lease_id=lease_id,
            record=sealer.seal_first_record(
                pool.name, session.user, device=session.device, lease_id=lease_id, borrowed_at=self._clock.now_ms()
            ),
            name=sealer.seal_name(claim.user, session.user.canonical),
            reservations=session.reservations,
            wait_ms=wait_ms,
            former=former,
        )
        known = self._store_state.known(pool.name)
        seen = known.fence
        for _ in range(_MOST_LAPSES):
            answer = await self._farm.leases.acquire(pool, version, claim, taking, known)
            if isinstance(answer, Taken) and _is_old(
                answer, session, seen
            ):  # a copy of the store from before the end of an earlier session
                await self._farm.leases.release(pool.name, replace(claim, user=answer.user), seen)
            elif answer is not Behind.LAPSED:
                return answer
            elif isinstance(beat := await self._heartbeat.beat(version, pool), Behind):
                return beat
            known = self._store_state.known(pool.name)
        raise StoreError(
            "the node's registration expires before it can be used: session_timeout is shorter than a round trip"
        )

    def _asked(self, session: NodeSession) -> tuple[Claim, tuple[str, ...]]:
        """Return the claim under the user's present index, and the further indexes to look under: usually none.

        A session that the store has under a former name is asked for there too, whatever the policy says.
        """
        if not self._policy.in_force.former_names and not session.index:
            return session.claim, ()
        asked = self._names.indexes(session.user, session.claim.user)
        others = tuple(each for each in asked if each != session.claim.user)
        if set(others) - set(session.former):  # before the store is asked: a crash must not leave a seat taken
            self._sessions.amend(self._sessions.find(*session.key) or session, former=others)
        return replace(session.claim, user=asked[0]), asked[1:]

    def _follow(self, session: NodeSession, pool: Pool, taken: Taken) -> NodeSession:
        """Go on under the index that the store has a session's lease under; the node's receipt goes along."""
        if taken.user == session.claim.user:
            return session
        mine = self._receipts.find(session.claim.user, pool.name)
        if mine is not None and mine.lease.id == taken.lease.id:
            name = self._farm.sealer.seal_name(taken.user, session.user.canonical)
            self._receipts.move(session.claim.user, taken.user, pool.name, name)
        return self._sessions.stands_under(session, taken.user)

    async def accept(self, session: NodeSession, pool: Pool, taken: Taken) -> None:
        """Grant an invalid session the seat that the store gave it anew."""
        await self._granting.by_store(self._follow(session, pool, taken), pool, taken)

    async def count(self, pool: Pool) -> None:
        """Have the store count every session that a receipt granted, before any new one. What gets no seat is lost.

        StoreError if the store cannot be asked: then no new session gets a seat either.
        """
        async with self._counting:
            for each in self._sessions.uncounted(pool.name):
                # Its own start, of a second program, may be waiting for this count: the next one counts it.
                async with self._locks.session_if_free(each.id) as free:
                    session = self._sessions.find(each.id, pool.name) if free else None
                    if session is not None and session.is_uncounted:
                        answer = await self.ask_store(session, self._policy.in_force.version, pool)
                        await self._write(session, pool, answer)

    async def _write(self, session: NodeSession, pool: Pool, answer: Acquired) -> Answer:
        """Write the store's answer into the journal, and return what the session is answered."""
        match answer:
            case Taken():
                return await self._granting.by_store(self._follow(session, pool, answer), pool, answer)
            case Waiting():
                if session.state is not SessionState.WAITING:  # a journal entry for each question would be too much
                    self._sessions.step(session, SessionEvent.QUEUED)
                return answer
            case Refusal():
                await self._turn_away(session, answer)
                return _denial(pool, answer)
            case Behind.STRANGE:
                return await self._while_recovering(session, pool)
        if session.state is SessionState.STARTING:
            self._ending.deny(session)
        return Behind.POLICY

    async def _while_recovering(self, session: NodeSession, pool: Pool) -> Grant | Denial | Waiting:
        """The store is not the one that this node knew: it decides nothing before the pool is recovered."""
        self._recovery.begin(pool.name)
        if session.state is SessionState.STARTING:
            self._ending.deny(session)
        if session.grant is not None:
            return replace(session.grant, again=True)
        if session.state is SessionState.WAITING:
            return Waiting(ahead=0)
        retry_at = await self._recovery.until(pool.name)
        return denial_text.denial(Reason.RECOVERING, pool.name, retry_at=retry_at)

    async def _turn_away(self, session: NodeSession, refusal: Refusal) -> None:
        """The store holds nothing for this session (any more)."""
        if session.state is SessionState.WAITING:
            self._ending.stop_waiting(session)
        elif session.state is SessionState.STARTING:
            self._ending.deny(session)
        else:
            await self._ending.leave(self._ending.lose(session, refusal.reason.value))

    def _undo(self, session: NodeSession) -> None:
        """Undo a start that got no answer. What cannot be written now is undone with a later heartbeat."""
        found = self._sessions.find(*session.key)
        with suppress(JournalFailed):
            if found is not None and found.state is SessionState.STARTING:
                self._ending.abandon(found)
            elif found is not None and found.state is SessionState.WAITING:
                self._ending.stop_waiting(found)


def _denial(pool: Pool, refusal: Refusal) -> Denial:
    """Return the store's refusal as the answer to the caller."""
    return denial_text.denial(
        refusal.reason,
        pool.name,
        retry_at=refusal.retry_at,
        blocking=refusal.blocking,
        held=refusal.held,
        capacity=refusal.capacity,
    )


def _is_old(answer: Taken, session: NodeSession, seen: int) -> bool:
    """Whether a session without a seat is answered that it was granted before, by a fence older than its question."""
    new = session.state in {SessionState.STARTING, SessionState.WAITING}
    return new and answer.again and answer.fence <= seen
