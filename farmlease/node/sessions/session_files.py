"""A session's files on this host: put in place when it is granted, taken back when it ends or is saved, then removed.

Guaranteed: one of these runs for a user at a time; a new version of the record and the message that carries it to the
store are written together or not at all. A disk that hangs holds a session up for ten seconds at most: the work goes on
without it.
"""

from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import structlog

from farmlease.domain.policy import Pool
from farmlease.errors import FarmleaseError, FileRefused, JournalFailed
from farmlease.node.concurrency import Runtime
from farmlease.node.files.record_sync import RecordSync
from farmlease.node.journal.outbox import SaveMessage
from farmlease.node.journal.receipts import Receipt
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State

__all__ = ["SessionFiles"]

T = TypeVar("T")

_log = structlog.get_logger(__name__)

#: Seconds to wait for the disk of a user's files before the session goes on, or ends, without them.
_PATIENCE = 10.0


class SessionFiles:
    """The files of one node's sessions. Callers hold the session's lock."""

    def __init__(self, state: State, records: RecordSync, runtime: Runtime) -> None:
        self._journal = state.journal
        self._sessions = state.sessions
        self._outbox = state.outbox
        self._records = records
        self._locks = runtime.locks
        self._tasks = runtime.tasks

    async def place(self, session: NodeSession, pool: Pool, receipt: Receipt) -> None:
        """Open the record of a receipt and put its files in place, unless sessions of the user use them already.

        RecordRejected if the record does not open, FileRefused if a file cannot be put in place, PolicyError if it has
        no place on this system.
        """

        async def place() -> None:
            async with self._locks.user(session.user):
                unused = not self._sessions.uses_files(session.user, pool.name)
                await self._records.receive(session, pool, receipt, place=unused)

        await self._patiently(place())

    async def take_back(self, session: NodeSession) -> tuple[bool, FileRefused | None]:
        """Make a new version of the record if the user's files changed; return whether, and the first refused file.

        FileRefused if the disk hangs or the files do not fit into a record.
        """

        async def save() -> tuple[bool, Mapping[str, FileRefused]]:
            async with self._locks.user(session.user):
                return await self._save(session)

        changed, refused = await self._patiently(save())
        return changed, next(iter(refused.values()), None)

    async def yield_to_winner(self, session: NodeSession) -> bool:
        """Put another node's files in place if they won over ours; return whether. FileRefused if that cannot be."""

        async def give_way() -> bool:
            async with self._locks.user(session.user):
                return await self._records.yield_to_winner(session)

        return await self._patiently(give_way())

    async def leave(self, session: NodeSession) -> None:
        """Take the user's files back and, after the last session here, remove them. JournalFailed: to be repeated."""
        try:
            if self._records.has_files(session):
                await self._patiently(self._leave(session))
        except JournalFailed:
            raise  # what changed in the files is still to be written down: the session leaves when that is possible
        except FarmleaseError as error:
            _log.error("session.files_left", session=session.id, pool=session.pool, why=str(error))

    def leave_soon(self, session: NodeSession) -> None:
        """Do the same in the background."""
        self._tasks.run(f"leave {session.id} {session.pool}", lambda: self.leave(session))

    async def _patiently(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what ``work`` on a user's disk returns; FileRefused, and it goes on, if the disk hangs."""
        try:
            return await self._tasks.finish(work, within=_PATIENCE)
        except TimeoutError:
            raise FileRefused("the disk of the user's files does not answer: look at what is mounted there") from None

    async def _leave(self, session: NodeSession) -> None:
        async with self._locks.user(session.user):
            _, refused = await self._save(session)
            if not self._sessions.needs_files(session.user, session.pool):
                await self._records.remove_files(session, spare=refused)
        for refusal in refused.values():
            _log.error("file.refused", session=session.id, pool=session.pool, why=str(refusal))

    async def _save(self, session: NodeSession) -> tuple[bool, Mapping[str, FileRefused]]:
        """Take the files back; write the new version and its message, all or nothing."""
        changed, refused = await self._records.collect_changes(session)
        if changed is not None:
            message = SaveMessage(
                pool=session.pool,
                claim=session.claim,
                lease_id=changed.lease.id,
                line=changed.line,
                version=changed.version,
                record=changed.record,
            )
            with self._journal.together():
                self._records.keep_changes(session, changed)
                self._outbox.add(message)
        return changed is not None, refused
