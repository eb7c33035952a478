"""A hold: a session keeps its seat for a span, even if its node sends no heartbeat."""

from collections.abc import Sequence
from dataclasses import dataclass

from farmlease.domain.identity import User
from farmlease.domain.session_states import SessionState
from farmlease.errors import CannotHold, StoreUnavailable
from farmlease.node.concurrency import Runtime
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State
from farmlease.node.sessions.per_use import NotDone, each_use
from farmlease.node.sync.recovery import Recovery
from farmlease.store.answers.session import Behind
from farmlease.store.lease_store import LeaseStore

__all__ = ["Held", "SessionHold"]


@dataclass(frozen=True, slots=True)
class Held:
    """The seat of one use is held. ``until``: ms by the store's clock."""

    pool: str
    until: int


class SessionHold:
    """The holds of one node's sessions."""

    def __init__(self, state: State, store: LeaseStore, recovery: Recovery, runtime: Runtime) -> None:
        self._sessions = state.sessions
        self._store_state = state.store_state
        self._policy = state.policy
        self._store = store
        self._recovery = recovery
        self._locks = runtime.locks
        self._tasks = runtime.tasks

    async def hold_session(
        self, session: str, span_ms: int | None, only: User | None = None, pool: str | None = None
    ) -> Sequence[Held | NotDone]:
        """Hold the seat of each use, or of that of ``pool``, at most as long as its pool allows.

        Return one entry for each use; none if there is no such use of this caller. It is carried out even if the caller
        goes away.
        """

        async def hold() -> list[Held | NotDone]:
            async with self._locks.session(session):
                uses = self._sessions.shown_uses(session, only, pool)
                return await each_use(uses, lambda use: self._hold(use, span_ms))

        return await self._tasks.finish(hold())

    async def _hold(self, use: NodeSession, span_ms: int | None) -> Held:
        """Hold one seat; CannotHold if there is none to hold, StoreError if the store cannot be asked."""
        pool = self._policy.in_force.pool(use.pool)
        longest = pool.max_hold_ms if pool is not None else 0
        span = longest if span_ms is None else min(span_ms, longest)
        if not span:
            raise CannotHold(f"the policy allows no holds in pool {use.pool} (max_hold)")
        if use.grant is None or use.state is not SessionState.ACTIVE:
            raise CannotHold(f"the session has no seat of pool {use.pool} now")
        known = self._store_state.known(use.pool)
        await self._recovery.take_over(use.pool, known)
        until = await self._store.hold(use.pool, use.claim, use.grant.fence, span, known)
        if isinstance(until, Behind):
            self._recovery.begin(use.pool)
            raise StoreUnavailable("the store lost data and is recovering: ask again in a moment")
        if until is None:
            raise CannotHold(f"the session has no seat of pool {use.pool} now")
        self._sessions.amend(use, hold_until=self._store_state.held_until(use.pool, until, span))
        return Held(use.pool, until)
