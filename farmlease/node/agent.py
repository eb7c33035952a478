"""The agent of one node, without its network: the verbs of the API, and the node's own life.

Guaranteed: an answer is in the journal before it is given; what a caller began is carried out even if the caller goes
away; a session whose start ended without an answer holds no seat for longer than it takes to reach the store; a session
that lost its seat is shown as lost from the next heartbeat on.
Not guaranteed: that the host's wall clock means anything; every deadline is the store's.

``sessions/start.py`` tells the story of a start; ``http/api.py`` turns requests into these calls.
"""

from dataclasses import replace

import structlog

from farmlease.domain.explanation import Explanation, GroupSource
from farmlease.domain.health import Facts
from farmlease.domain.identity import User
from farmlease.domain.model import SessionRequest
from farmlease.domain.session_states import SessionState
from farmlease.node.accounts.accounts import NoAnswer
from farmlease.node.concurrency import Runtime
from farmlease.node.health.monitor import HealthMonitor
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State
from farmlease.node.sessions.build import Sessions
from farmlease.node.sync.build import Sync

__all__ = ["Agent"]

_log = structlog.get_logger(__name__)

#: Milliseconds by which the end of a lease may move before it is shown: a fresh grant is shown as it was granted.
_NO_DIFFERENCE = 60_000


class Agent:
    """The agent of one node. What acts on one session is done by ``sessions/``, under the same names."""

    def __init__(self, state: State, sync: Sync, sessions: Sessions, monitor: HealthMonitor, runtime: Runtime) -> None:
        self._state = state
        self._sync = sync
        self._sessions = sessions
        self._monitor = monitor
        self._runtime = runtime
        self.node = state.node
        self.policy = state.policy
        self.start_session = sessions.start.start_session
        self.end_session = sessions.end.end_session
        self.save_session = sessions.save.save_session
        self.hold_session = sessions.hold.hold_session
        self.touch = sessions.liveness.touch
        self.known_policy = sessions.start.known_policy
        self.deny_without_policy = sessions.start.deny_without_policy

    # --- what is asked about sessions and about the node --------------------------------------------------------------

    def uses(self, session: str, pool: str | None = None) -> list[NodeSession]:
        """Return the uses of a session that the API shows, or that of one pool, as they stand now, by pool."""
        return sorted(map(self._as_it_stands, self._state.sessions.shown_uses(session, pool=pool)), key=_key)

    def all_uses(self) -> list[NodeSession]:
        """Return every use that the API shows, as it stands now, by session and pool."""
        shown = (each for each in self._state.sessions if each.state.shown)
        return sorted(map(self._as_it_stands, shown), key=_key)

    def person(self, text: str) -> User:
        """Return the person of this spelling, by the farm's table of who is who; raises InvalidName."""
        return self.policy.in_force.identity.user(text)

    async def with_groups(self, request: SessionRequest, name: str) -> SessionRequest:
        """Return a request with the groups that the host knows of, too. ``name``: the user as the caller spells him.

        A user whom the host does not know has those that were given. The groups are None, whatever was given, if the
        host cannot be asked and nothing is known from before: so no rule that denies by a group is passed by. The host
        is not asked where the policy in force asks for no groups.
        """
        in_force = self._state.policy.in_force
        if not in_force.reads_groups:
            return replace(request, groups=None)
        found = await self._runtime.accounts.account(request.user, name, in_force.identity)
        if found is NoAnswer.NONE:
            return request
        if found is NoAnswer.UNKNOWN:
            return replace(request, groups=None)
        return replace(request, groups=tuple(dict.fromkeys((*found.groups, *(request.groups or ())))))

    async def explain_session(self, request: SessionRequest, name: str, only: User | None) -> Explanation:
        """Tell what ``start_session`` would answer, by the groups that are seen here. ``name``: as in with_groups."""
        seen = await self.with_groups(request, name)
        if not self.reads_groups:
            source = GroupSource.NOT_ASKED
        elif seen.groups is None:
            source = GroupSource.UNKNOWN
        else:
            source = GroupSource.GIVEN if seen is request else GroupSource.HOST
        return await self._sessions.explanation.explain(seen, only, source)

    @property
    def reads_groups(self) -> bool:
        """Whether the policy in force asks for users' groups."""
        return self._state.policy.in_force.reads_groups

    @property
    def draining(self) -> bool:
        """Whether the node takes no new users."""
        return self._sync.report.draining

    def drain(self, *, on: bool) -> None:
        """Take no new users, or take them again; remembered over restarts, and reported to the store."""
        self._sync.report.drain(on=on)

    def facts(self) -> Facts:
        """Return the facts by which this node's health is judged."""
        return self._monitor.collect()

    # --- the node's own life ------------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take up where the agent before a restart left off: what never got its answer, or was ending, is ended."""
        self._sessions.housekeeping.abandon_waits()
        self._sessions.housekeeping.tidy()
        _log.info("agent.adopted", sessions=self._state.sessions.shown_sessions, owed=self._state.outbox.pending())

    async def settled(self) -> None:
        """Wait for all background tasks, and for what they bring to light."""
        while True:
            await self._runtime.tasks.done()
            if not self._sessions.housekeeping.take_events():
                return

    def leave(self) -> None:
        """Announce that this node is about to end, to balancers at once and to the farm; everything goes on."""
        self._runtime.lifecycle.leave()

    async def stop(self) -> None:
        """Take no more sessions and deliver the outbox. Sessions go on; the next agent of this boot adopts them."""
        self._runtime.lifecycle.stop()
        await self._sessions.reacquisition.stop()
        await self._sync.heartbeat.deliver()
        await self._runtime.tasks.done()
        await self._sync.heartbeat.deliver()
        await self._sync.report.send(self._monitor.look)

    def _as_it_stands(self, session: NodeSession) -> NodeSession:
        """Return a session with the present end of its lease, which moves on while the store counts the session."""
        pool, grant = self._state.policy.in_force.pool(session.pool), session.grant
        counted = session.state is SessionState.ACTIVE and not session.is_uncounted
        if pool is None or grant is None or not counted or not self._state.store_state.is_alive(pool.name):
            return session
        until = self._state.store_state.store_now(pool.name) + pool.kept_ms
        if until - grant.lease.expires_at < _NO_DIFFERENCE:
            return session
        return replace(session, grant=replace(grant, lease=replace(grant.lease, expires_at=until)))


def _key(use: NodeSession) -> tuple[str, str]:
    return use.key
