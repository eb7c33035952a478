"""The end of a session, in all its forms: its files leave this node, and the store gets its seat back.

Guaranteed: an end is in the journal before it is answered; what the store has to learn of it stays in the outbox until
the store has taken it. What the user's files turn out to be is written down when the disk answers.
"""

from dataclasses import replace

import structlog

from farmlease.domain.identity import User
from farmlease.domain.model import Source
from farmlease.domain.session_states import SessionEvent, SessionState
from farmlease.node.concurrency import Runtime
from farmlease.node.journal.outbox import ANY_FENCE, ReleaseMessage
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State
from farmlease.node.sessions.hooks import Hook, Hooks
from farmlease.node.sessions.session_files import SessionFiles
from farmlease.node.sync.heartbeat import Heartbeat
from farmlease.store.answers.session import Claim, Lost

__all__ = ["SessionEnd"]

_log = structlog.get_logger(__name__)


class SessionEnd:
    """The ends of one node's sessions. But for ``end_session``, callers hold the session's lock."""

    def __init__(self, state: State, files: SessionFiles, heartbeat: Heartbeat, hooks: Hooks, runtime: Runtime) -> None:
        self._member = state.member
        self._journal = state.journal
        self._sessions = state.sessions
        self._outbox = state.outbox
        self._files = files
        self._heartbeat = heartbeat
        self._hooks = hooks
        self._locks = runtime.locks
        self._tasks = runtime.tasks

    async def end_session(self, session: str, only: User | None = None, pool: str | None = None) -> bool:
        """End all uses of a session, or that of one pool; what is not (or no longer) there is ended already.

        False if the session is another user's. It is carried out even if the caller goes away.
        """
        return await self._tasks.finish(self._end_session(session, only, pool))

    async def _end_session(self, session: str, only: User | None, pool: str | None) -> bool:
        async with self._locks.session(session):
            if self._sessions.is_anothers(session, only, pool):
                return False
            uses = [each for each in self._sessions.of_session(session) if pool in (None, each.pool)]
            for each in uses:
                await self.end(each)
        if self._outbox.pending(session):
            await self._heartbeat.deliver()
        for each in uses:
            await self._files.clear(each.claim.user, each.pool)
        return True

    async def end(self, session: NodeSession) -> None:
        """End a session on its host's behalf: its files leave, and its seat goes back."""
        if session.state is SessionState.ENDING and self._outbox.pending(*session.key):
            return
        session = self._sessions.step(session, SessionEvent.END_ASKED)
        await self._files.leave(session)
        self._give_back(session)
        if session.grant is not None:
            self._hooks.run(Hook.ENDED, session)
        _log.info("session.ended", session=session.id, pool=session.pool)

    # --- starts that come to nothing ----------------------------------------------------------------------------------

    def abandon(self, session: NodeSession) -> None:
        """End a start that failed; the store may have given it a seat, and takes it back."""
        with self._journal.together():
            self._give_back(self._sessions.step(session, SessionEvent.UNANSWERED))
        self._files.leave_soon(session)

    def deny(self, session: NodeSession) -> None:
        """End a start that was denied: the store holds nothing for it.

        It may have kept the files of another session of the user from leaving: they leave now.
        """
        self._sessions.step(session, SessionEvent.DENIED)
        self._files.leave_soon(session)

    def stop_waiting(self, session: NodeSession) -> None:
        """Give up a session's place in the queue."""
        with self._journal.together():
            self._give_back(self._sessions.step(session, SessionEvent.GAVE_UP))

    # --- seats that are lost ------------------------------------------------------------------------------------------

    def invalidate(self, session: NodeSession, reason: str) -> NodeSession:
        """Mark a session INVALID: its seat is gone, and it may yet get one back."""
        _log.warning("session.invalid", session=session.id, pool=session.pool, reason=reason)
        return self._sessions.step(session, SessionEvent.SEAT_LOST, lost_because=reason)

    def lose(self, session: NodeSession, reason: str) -> NodeSession:
        """Mark a session LOST. It stays listed until its host ends it; its files are to ``leave``."""
        if session.state is SessionState.ACTIVE:
            session = self._sessions.step(session, SessionEvent.SEAT_LOST)
        lost = self._sessions.step(session, SessionEvent.GAVE_UP, lost_because=reason)
        _log.warning("session.lost", session=lost.id, pool=lost.pool, reason=reason)
        self._hooks.run(Hook.LOST, lost, reason)
        return lost

    async def leave(self, session: NodeSession) -> None:
        """Take a lost session's files back, and off this node if no other session of the user needs them."""
        await self._files.leave(session)

    async def clear(self, index: str, pool: str) -> None:
        """Remove a user's files, now that the store has learned of an end, if no session needs them anywhere."""
        await self._files.clear(index, pool)

    async def clear_leftovers(self) -> None:
        """Look at all files here that no session here needs any more."""
        await self._files.clear_leftovers()

    async def surrender(self, session: NodeSession, reason: str) -> None:
        """Mark a session LOST, and give back what the store may still hold for it."""
        lost = self.lose(session, reason)
        self._give_back(lost)
        await self._files.leave(lost)

    def acknowledge(self, pool: str, lost: Lost) -> None:
        """Acknowledge the store's report of a lost seat. Fence 0 ends nothing that is alive."""
        if not self._outbox.pending(lost.session, pool):
            claim = Claim(user=lost.user, node=self._member, session=lost.session)
            self._outbox.add(ReleaseMessage(pool=pool, claim=claim, fence=0))

    def _give_back(self, session: NodeSession) -> None:
        """Add the message that gives a session's seat, or its place in the queue, back to the store."""
        grant = session.grant
        # A session that tried to get a seat back, or that a receipt granted, may have got one without learning of it.
        known = grant is not None and grant.source is Source.STORE and session.lost_because is None
        fence = grant.fence if grant is not None and known else ANY_FENCE
        self._outbox.add(ReleaseMessage(pool=session.pool, claim=session.claim, fence=fence))
        if fence == ANY_FENCE:  # nor under which of its user's names
            for index in session.former:
                claim = replace(session.claim, user=index)
                self._outbox.add(ReleaseMessage(pool=session.pool, claim=claim, fence=fence))
