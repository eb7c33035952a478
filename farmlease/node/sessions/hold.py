"""A hold: a session keeps its seat for a span, even if its node sends no heartbeat."""

from farmlease.domain.identity import User
from farmlease.domain.session_states import SessionState
from farmlease.errors import StoreUnavailable
from farmlease.node.concurrency import Runtime
from farmlease.node.journal.state import State
from farmlease.node.sync.recovery import Recovery
from farmlease.store.answers.session import Behind
from farmlease.store.lease_store import LeaseStore

__all__ = ["SessionHold"]


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

    async def hold_session(self, session: str, span_ms: int | None, only: User | None = None) -> int | None:
        """Hold a session's seat, at most as long as the pool allows; return until when, in ms of the store.

        None if there is no such session of this caller, or its pool allows no holds. StoreError if the store cannot be
        asked. It is carried out even if the caller goes away.
        """
        return await self._tasks.finish(self._hold_session(session, span_ms, only))

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
            claim, known = found.claim, self._store_state.known(pool.name)
            until = await self._store.hold(pool.name, claim, found.grant.fence, span, known)
            if isinstance(until, Behind):
                self._recovery.begin(pool.name)
                raise StoreUnavailable("the store lost data and is recovering: ask again in a moment")
            if until is not None:
                hold_until = self._store_state.held_until(pool.name, until, span)
                self._sessions.amend(found, hold_until=hold_until)
            return until
