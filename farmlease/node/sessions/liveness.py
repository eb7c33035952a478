"""What ends a session from the host's side: its process is gone, or it had no activity for too long.

Looked at once a second. Idle time is counted by the host's monotonic clock from the last sign of activity, and anew
after a restart of the agent; a session that is held, by the store's time, does not idle.
"""

from typing import NamedTuple

import structlog

from farmlease.clock import Clock
from farmlease.domain.session_states import SessionState
from farmlease.node.host_identity import lives
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State

__all__ = ["Ended", "Liveness"]

_log = structlog.get_logger(__name__)

_MAY_IDLE = frozenset({SessionState.ACTIVE, SessionState.INVALID})


class Ended(NamedTuple):
    """Sessions that are to end: their process is ``gone``, or they are ``idle``."""

    gone: list[NodeSession]
    idle: list[NodeSession]


class Liveness:
    """The watch over one node's sessions."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._sessions = state.sessions
        self._policy = state.policy
        self._store_state = state.store_state
        self._clock = clock
        self._active_at: dict[tuple[str, str, int], float] = {}
        self._reported: set[tuple[str, str, int]] = set()  #: uses of which something reports whether they are active
        #: Uses whose process could not be looked at; each is logged once.
        self._unseen: set[tuple[str, str]] = set()

    def touch(self, session: str, pool: str | None = None) -> bool:
        """Note a sign of activity, in all uses of a session or in one; return whether there is one that is not lost."""
        touched = [
            each for each in self._sessions.shown_uses(session, pool=pool) if each.state is not SessionState.LOST
        ]
        for each in touched:
            self.watched(each, idles=False)
        return bool(touched)

    def watched(self, session: NodeSession, *, idles: bool) -> None:
        """Note what was seen of a use: activity, or none. Either shows that something reports it."""
        self._reported.add(_key(session))
        if not idles:
            self._active_at[_key(session)] = self._clock.monotonic()

    def may_idle(self, session: NodeSession) -> bool:
        """Whether a use ends without activity."""
        return session.state in _MAY_IDLE and self._idle_timeout_ms(session) > 0

    def unreported(self) -> tuple[str, ...]:
        """Return the pools of uses that have idled for half their time, and of which nothing ever reported."""
        now = self._clock.monotonic()
        return tuple(
            sorted(
                each.pool
                for each in self._sessions
                if self.may_idle(each)
                and _key(each) not in self._reported
                and now - self._active_at.get(_key(each), now) >= self._idle_timeout_ms(each) / 2000
            )
        )

    @property
    def unseen(self) -> int:
        """How many uses have processes that the agent may not look at: it does not see them end."""
        return len(self._unseen)

    def look(self) -> Ended:
        """Look at every session once; return those that are to end."""
        sessions = [each for each in self._sessions if each.state.shown]
        now = self._clock.monotonic()
        self._active_at = {_key(each): self._active_at.get(_key(each), now) for each in sessions}
        self._reported &= self._active_at.keys()
        self._unseen &= {each.key for each in sessions}
        gone: list[NodeSession] = []
        idle: list[NodeSession] = []
        for each in sessions:
            if self._is_gone(each):
                gone.append(each)
            elif each.state in _MAY_IDLE and self._is_idle(each):
                idle.append(each)
        return Ended(gone, idle)

    def _is_gone(self, session: NodeSession) -> bool:
        """Whether all processes of a use are gone. One that cannot be looked at is not, and holds up no other use."""
        processes = session.processes
        try:
            gone = bool(processes) and not any(
                each.started is not None and lives(each.pid, each.started) for each in processes
            )
        except Exception:  # noqa: BLE001 - whatever the system says of this process
            if session.key not in self._unseen:
                _log.error("watch.failed", session=session.id, exc_info=True)
            self._unseen.add(session.key)
            return False
        self._unseen.discard(session.key)
        return gone

    def _is_idle(self, session: NodeSession) -> bool:
        timeout_ms = self._idle_timeout_ms(session)
        held = self._store_state.store_now(session.pool) < (session.hold_until or 0)
        if not timeout_ms or held:
            return False
        return self._clock.monotonic() - self._active_at[_key(session)] >= timeout_ms / 1000

    def _idle_timeout_ms(self, session: NodeSession) -> int:
        """Return after how long without activity a session ends; 0: never."""
        pool = self._policy.in_force.pool(session.pool)
        return 0 if pool is None else pool.idle_timeout_ms


def _key(session: NodeSession) -> tuple[str, str, int]:
    """Tell a use from an earlier one: hosts reuse ids."""
    return *session.key, session.grant.fence if session.grant else 0
