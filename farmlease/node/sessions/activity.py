"""Reports activity of the sessions whose process is in a login session of this host, as logind says.

So a seat of a pool with ``idle_timeout`` stays with a user who works, with nothing set up: PAM's script and
``farmlease run`` both give the agent a process. Looked at once a minute, more often where a pool is less patient, and
only where a pool asks for it. A session without a process, or on a host without logind, is reported by whoever calls
``session touch``; health tells of those that nobody reports.
"""

from collections.abc import Sequence

from farmlease.node.concurrency import Runtime
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State
from farmlease.node.logind import Logind, LoginSession, login_session_of
from farmlease.node.sessions.liveness import Liveness

__all__ = ["ActivityWatch"]

_LOOK_EVERY = 60.0  #: seconds between two looks, at most
_LOOKS = 4  #: how often at least in the shortest idle_timeout


class ActivityWatch:
    """The watch over the activity of one node's sessions."""

    def __init__(self, state: State, liveness: Liveness, logind: Logind, runtime: Runtime) -> None:
        self._sessions = state.sessions
        self._policy = state.policy
        self._liveness = liveness
        self._logind = logind
        self._clock = runtime.clock
        self._tasks = runtime.tasks
        self._looked_at: float | None = None

    def look(self) -> None:
        """Begin to look if it is time: who works is touched, and who idles is known to be watched."""
        spans = [pool.idle_timeout_ms / 1000 for pool in self._policy.in_force.pools if pool.idle_timeout_ms]
        now = self._clock.monotonic()
        every = min(_LOOK_EVERY, *(span / _LOOKS for span in spans)) if spans else None
        if every is not None and (self._looked_at is None or now - self._looked_at >= every):
            self._looked_at = now
            places = [(each, found) for each in self._sessions if (found := self._places(each))]
            if places:
                self._tasks.run("activity", lambda: self._ask(places))

    async def _ask(self, places: Sequence[tuple[NodeSession, frozenset[LoginSession]]]) -> None:
        """Ask about all at once. A use with several processes idles when each of them that is known does."""
        idle = await self._logind.idle(frozenset[LoginSession]().union(*(found for _, found in places)))
        for session, found in places:
            if known := [idle[each] for each in found if each in idle]:
                self._liveness.watched(session, idles=all(known))

    def _places(self, session: NodeSession) -> frozenset[LoginSession]:
        """Return where a use's processes are; nowhere, if it has none, or it need not be known."""
        if not self._liveness.may_idle(session):
            return frozenset()
        return frozenset(found for each in session.processes if (found := login_session_of(each.pid)) is not None)
