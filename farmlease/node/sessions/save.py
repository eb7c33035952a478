"""Taking the vendor's files back in the middle of a session, when its host asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass

from farmlease.domain.identity import User
from farmlease.node.concurrency import Runtime
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State
from farmlease.node.sessions.per_use import NotDone, each_use
from farmlease.node.sessions.session_files import SessionFiles
from farmlease.node.sync.heartbeat import Heartbeat

__all__ = ["Saved", "SessionSave"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What became of the files of one use. ``superseded``: another node saved first, and its files are in place."""

    pool: str
    changed: bool
    superseded: bool
    delivered: bool


class SessionSave:
    """The saves of one node's sessions."""

    def __init__(self, state: State, files: SessionFiles, heartbeat: Heartbeat, runtime: Runtime) -> None:
        self._sessions = state.sessions
        self._outbox = state.outbox
        self._files = files
        self._heartbeat = heartbeat
        self._locks = runtime.locks
        self._tasks = runtime.tasks

    async def save_session(
        self, session: str, only: User | None = None, pool: str | None = None
    ) -> Sequence[Saved | NotDone]:
        """Take the files of each use back now, or of the use of ``pool``, also if the caller goes away.

        Return one entry for each use; none if there is no such use of this caller.
        """

        async def save() -> list[Saved | NotDone]:
            async with self._locks.session(session):
                return await each_use(self._sessions.shown_uses(session, only, pool), self._save)

        return await self._tasks.finish(save())

    async def _save(self, use: NodeSession) -> Saved:
        """Take the files of one use back; FileRefused if one must not be taken."""
        changed, refused = await self._files.take_back(use)
        await self._heartbeat.deliver()
        superseded = await self._files.yield_to_winner(use)
        if refused is not None:
            raise refused
        delivered = self._outbox.pending(*use.key) == 0
        return Saved(pool=use.pool, changed=changed, superseded=superseded, delivered=delivered)
