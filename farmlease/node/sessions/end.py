"""How a session leaves this node: its files come back, and the store is to be told. Nothing here waits for the store.

Guaranteed: once a session is shown as ended, its end and its changed files are in the journal and reach the store.
A file that must not be touched stays where it is, and a disk that hangs is left behind; the session is over all the
same, and what its files turn out to be is noted when the disk answers.
"""

from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import structlog

from farmlease.crypto.seal import Sealer
from farmlease.domain.identity import User
from farmlease.domain.model import Source
from farmlease.domain.session_states import SessionEvent, SessionState
from farmlease.errors import FarmleaseError, FileRefused, JournalFailed
from farmlease.node.concurrency import BackgroundTasks, KeyedLocks
from farmlease.node.files.record_sync import RecordSync
from farmlease.node.journal.journal import Journal
from farmlease.node.journal.sessions import NodeSession, SessionTable
from farmlease.node.sessions.hooks import Hook, Hooks
from farmlease.node.sync.outbox_delivery import ANY_FENCE, Outbox, ReleaseMessage, SaveMessage
from farmlease.store.answers.session import Claim, Lost

__all__ = ["PATIENCE", "SessionEnd"]

T = TypeVar("T")

_log = structlog.get_logger(__name__)

#: Seconds to wait for the disk of a user's files before the session goes on, or ends, without them.
PATIENCE = 10.0


class SessionEnd:
    """The ends of one node's sessions. Callers hold the session's turn."""

    def __init__(
        self,
        *,
        member: str,
        sealer: Sealer,
        journal: Journal,
        sessions: SessionTable,
        records: RecordSync,
        outbox: Outbox,
        locks: KeyedLocks,
        hooks: Hooks,
        tasks: BackgroundTasks,
    ) -> None:
        self._member = member
        self._sealer = sealer
        self._journal = journal
        self._sessions = sessions
        self._records = records
        self._outbox = outbox
        self._locks = locks
        self._hooks = hooks
        self._tasks = tasks

    async def end(self, session: NodeSession) -> None:
        """The session is over, whoever wanted that."""
        if session.state is SessionState.ENDING and self._outbox.pending(session.id):
            return
        session = self._sessions.step(session, SessionEvent.END_ASKED)
        await self.leave(session)
        self.give_back(session)
        if session.grant is not None:
            self._hooks.tell(Hook.ENDED, session)
        _log.info("session.ended", session=session.id, pool=session.pool)

    def abandon(self, session: NodeSession) -> None:
        """A start failed, and the store may have taken a seat for it: it is told to give that back."""
        with self._journal.together():
            self.give_back(self._sessions.step(session, SessionEvent.UNANSWERED))
        self.leave_soon(session)

    def deny(self, session: NodeSession) -> None:
        """A start was denied: the store holds nothing for it. It may have kept another session's files from leaving."""
        self._sessions.step(session, SessionEvent.DENIED)
        self.leave_soon(session)

    def invalidate(self, session: NodeSession, reason: str) -> NodeSession:
        """The session's seat is gone, and it may yet get one back."""
        _log.warning("session.invalid", session=session.id, pool=session.pool, reason=reason)
        return self._sessions.step(session, SessionEvent.SEAT_LOST, lost_because=reason)

    def lose(self, session: NodeSession, reason: str) -> NodeSession:
        """The session's seat is gone for good; it stays in sight until its host ends it. Its files are to leave."""
        if session.state is SessionState.ACTIVE:
            session = self._sessions.step(session, SessionEvent.SEAT_LOST)
        lost = self._sessions.step(session, SessionEvent.GAVE_UP, lost_because=reason)
        _log.warning("session.lost", session=lost.id, pool=lost.pool, reason=reason)
        self._hooks.tell(Hook.LOST, lost, reason)
        return lost

    async def surrender(self, session: NodeSession, reason: str) -> None:
        """The session's seat is given up for good; what the store may still keep for it goes back."""
        lost = self.lose(session, reason)
        self.give_back(lost)
        await self.leave(lost)

    def stop_waiting(self, session: NodeSession) -> None:
        """The session waits no longer: its place in the queue is given up."""
        with self._journal.together():
            self.give_back(self._sessions.step(session, SessionEvent.GAVE_UP))

    def hear(self, pool: str, lost: Lost) -> None:
        """Tell the store that its word of a lost session was heard. Fence 0 ends nothing that is alive."""
        if not self._outbox.pending(lost.session):
            claim = Claim(user=lost.user, node=self._member, session=lost.session)
            self._outbox.owe(ReleaseMessage(pool=pool, claim=claim, fence=0))

    async def take_back(self, session: NodeSession) -> tuple[bool, FileRefused | None]:
        """Note a new version of the record if the user's files were changed, and say so; and the first one refused.

        FileRefused if the disk hangs or the files do not fit into a record.
        """

        async def save() -> tuple[bool, Mapping[str, FileRefused]]:
            async with self._locks.user(session.user):
                return await self._save(session)

        changed, refused = await self.patiently(save())
        return changed, next(iter(refused.values()), None)

    async def yield_to_winner(self, session: NodeSession) -> bool:
        """Put another node's files in place if they won over ours, and say so. FileRefused if that cannot be."""

        async def give_way() -> bool:
            async with self._locks.user(session.user):
                return await self._records.yield_to_winner(session.user, session.pool)

        return await self.patiently(give_way())

    async def leave(self, session: NodeSession) -> None:
        """Take the user's files back and, after the last session here, off this node. JournalFailed to be repeated."""
        try:
            if self._records.cares(session.user, session.pool):
                await self.patiently(self._leave(session))
        except JournalFailed:
            raise  # what changed in the files is still to be noted: the session leaves when that can be written
        except FarmleaseError as error:
            _log.error("session.files_left", session=session.id, pool=session.pool, why=str(error))

    def leave_soon(self, session: NodeSession) -> None:
        """Do the same without being waited for."""
        self._tasks.run(f"leave {session.id}", lambda: self.leave(session))

    def give_back(self, session: NodeSession) -> None:
        """Note that the store is to be told that the session is over."""
        grant = session.grant
        # Who tried to get a lost seat back, or one that a receipt stood in for, may have got it without hearing of it.
        known = grant is not None and grant.source is Source.STORE and session.lost_because is None
        fence = grant.fence if grant is not None and known else ANY_FENCE
        self._outbox.owe(ReleaseMessage(pool=session.pool, claim=self.claim(session), fence=fence))

    def claim(self, session: NodeSession) -> Claim:
        """Return the session as the store knows it."""
        return self.claim_of(session.user, session.id)

    def claim_of(self, user: User, session: str) -> Claim:
        """Return a session of this node as the store knows it."""
        return Claim(user=self._sealer.user_index(user), node=self._member, session=session)

    async def patiently(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what ``work`` on a user's disk returns; FileRefused, and it goes on, if the disk hangs."""
        try:
            return await self._tasks.finish(work, within=PATIENCE)
        except TimeoutError:
            raise FileRefused("the disk of the user's files does not answer: look at what is mounted there") from None

    async def _leave(self, session: NodeSession) -> None:
        async with self._locks.user(session.user):
            _, refused = await self._save(session)
            if not self._sessions.needs_files(session.user, session.pool):
                await self._records.clear(session.user, session.pool, spare=refused)
        for refusal in refused.values():
            _log.error("file.refused", session=session.id, pool=session.pool, why=str(refusal))

    async def _save(self, session: NodeSession) -> tuple[bool, Mapping[str, FileRefused]]:
        """Take the files back and note what the store is to be told, all or nothing of it."""
        changed, refused = await self._records.take_back(session.user, session.pool)
        if changed is not None:
            debt = SaveMessage(
                pool=session.pool,
                claim=self.claim(session),
                lease_id=changed.lease.id,
                line=changed.line,
                version=changed.version,
                record=changed.record,
            )
            with self._journal.together():
                self._records.took_back(session.user, session.pool, changed)
                self._outbox.owe(debt)
        return changed is not None, refused
