"""ClearQuest's rule for a session that lost its seat: it is invalid, and its agent tries to get a seat back.

At 10:00 the store took the seat; with three attempts ten minutes apart the agent asks at 10:10, 10:20 and 10:30, and
then the session is lost. Until a seat is back the session is shown as invalid; it never goes on in silence. A session
whose seat an administrator took does not try: that was a decision.
"""

import asyncio

import structlog
import tenacity

from farmlease.domain.model import BY_HAND, LossReason, Reason
from farmlease.domain.pool import Reacquire as Rule
from farmlease.domain.session_states import SessionState
from farmlease.errors import FarmleaseError, StoreError
from farmlease.node.concurrency import Runtime
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State
from farmlease.node.sessions.acquire import SeatAcquisition
from farmlease.node.sessions.end import SessionEnd
from farmlease.node.sync.build import Sync
from farmlease.store.answers.session import Behind, Lost, Refusal, Taken

__all__ = ["Reacquisition"]

_log = structlog.get_logger(__name__)


class Reacquisition:
    """The lost seats of one node's sessions. Attempts end with the agent; the next one begins them anew."""

    def __init__(
        self, state: State, sync: Sync, acquisition: SeatAcquisition, ending: SessionEnd, runtime: Runtime
    ) -> None:
        self._sessions = state.sessions
        self._receipts = state.receipts
        self._policy = state.policy
        self._sync = sync
        self._acquisition = acquisition
        self._ending = ending
        self._locks = runtime.locks
        self._clock = runtime.clock
        self._attempts: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def seat_lost(self, pool: str, lost: Lost) -> None:
        """Act on the store's report of a lost seat: the session is invalid or lost, and the store is acknowledged."""
        async with self._locks.session(lost.session):
            found = self._sessions.find(lost.session, pool)
            gone = self._lose(found, lost) if found is not None and self._is_about(found, lost) else None
            self._ending.acknowledge(pool, lost)  # before the files leave: their message would stand in its place
            if gone is not None:
                await self._ending.leave(gone)
            found = self._sessions.find(lost.session, pool)
        if found is not None and found.state is SessionState.INVALID:
            self.begin(found)
        await self._sync.recovery.deliver()

    def begin(self, session: NodeSession) -> None:
        """Begin the attempts to get an invalid session its seat back, unless they are under way."""
        pool = self._policy.in_force.pool(session.pool)
        if pool is not None and session.key not in self._attempts:
            task = asyncio.create_task(self._try(session.key, pool.reacquire))
            self._attempts[session.key] = task
            task.add_done_callback(lambda _: self._attempts.pop(session.key))

    async def stop(self) -> None:
        """End all attempts; their sessions stay invalid in the journal."""
        tasks = tuple(self._attempts.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_about(self, session: NodeSession, lost: Lost) -> bool:
        """Whether a report is about the seat that a session has now: hosts reuse ids, and reports are repeated."""
        return (
            session.state is SessionState.ACTIVE
            and session.claim.user == lost.user
            and session.grant is not None
            and session.grant.fence <= lost.fence
        )

    def _lose(self, session: NodeSession, lost: Lost) -> NodeSession | None:
        """Mark a session invalid or lost; return one that is lost: its files are to leave."""
        rule = self._policy.in_force.pool(session.pool)
        by_hand = lost.reason in BY_HAND
        if by_hand and (lost.reason != LossReason.REPLACED or not self._goes_on_without(session)):
            self._receipts.take_back(lost.user, session.pool, lost.fence)
        if by_hand or session.is_uncounted or rule is None or not rule.reacquire.attempts:
            return self._ending.lose(session, lost.reason)
        self._ending.invalidate(session, lost.reason)
        return None

    def _goes_on_without(self, session: NodeSession) -> bool:
        """Whether another session of its user here goes on: its lease does, on another device than was replaced."""
        others = (each for each in self._sessions if each.pool == session.pool and each.key != session.key)
        return any(each.state is SessionState.ACTIVE and each.claim.user == session.claim.user for each in others)

    async def _try(self, use: tuple[str, str], rule: Rule) -> None:
        """Try by the rule until an attempt settles the session, one way or the other; then give up."""
        every = rule.every_ms / 1000
        attempts = tenacity.AsyncRetrying(
            sleep=self._clock.sleep,
            wait=tenacity.wait_fixed(every),
            stop=tenacity.stop_after_attempt(rule.attempts),
            retry=tenacity.retry_if_result(lambda settled: not settled),
            retry_error_callback=lambda _: False,
        )
        try:
            await self._clock.sleep(every)
            settled: bool = await attempts(self._attempt, use)
            if not settled:
                await self._give_up(use)
        except FarmleaseError as error:  # the session is settled; the message to the store waits for it
            _log.warning("reacquire.undelivered", session=use[0], pool=use[1], why=str(error))
        except Exception:  # noqa: BLE001 - nothing awaits this task; the failure is logged, and the next heartbeat goes on
            _log.error("reacquire.failed", session=use[0], pool=use[1], exc_info=True)

    async def _attempt(self, use: tuple[str, str]) -> bool:
        """Ask once for another seat. True if that settled the session."""
        async with self._locks.session(use[0]):
            found = self._sessions.find(*use)
            return found is None or found.state is not SessionState.INVALID or await self._reacquire(found)

    async def _reacquire(self, session: NodeSession) -> bool:
        in_force = self._policy.in_force
        pool = in_force.pool(session.pool)
        if pool is None:
            return False
        try:
            answer = await self._acquisition.ask_store(session, in_force.version, pool)
        except StoreError as error:
            self._sync.availability.failed(error)
            return False
        if answer is Behind.STRANGE:
            self._sync.recovery.begin(pool.name)
        elif isinstance(answer, Behind):
            await self._policy.read_policy()
        if isinstance(answer, Taken):
            await self._acquisition.accept(session, pool, answer)
            return True
        if isinstance(answer, Refusal) and answer.reason is Reason.REVOKED:
            await self._ending.surrender(session, answer.reason.value)
            return True
        return False

    async def _give_up(self, use: tuple[str, str]) -> None:
        async with self._locks.session(use[0]):
            found = self._sessions.find(*use)
            if found is not None and found.state is SessionState.INVALID:
                await self._ending.surrender(found, found.lost_because or LossReason.TIMEOUT)
        await self._sync.recovery.deliver()
