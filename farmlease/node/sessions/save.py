"""Taking the vendor's files back in the middle of a session, when its host asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass

from farmlease.domain.identity import User
from farmlease.errors import FarmleaseError
from farmlease.node.concurrency import Runtime
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State
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
    ) -> Sequence[Saved | tuple[str, FarmleaseError]]:
        """Take the files of each use back now, or of the use of ``pool``, also if the caller goes away.

        Return one entry for each use, the pool and an error where that was not possible; none if there is no such use
        of this caller. FileRefused if a file must not be taken in the only use there is.
        """
        return await self._tasks.finish(self._save_session(session, only, pool))

    async def _save_session(
        self, session: str, only: User | None, pool: str | None
    ) -> Sequence[Saved | tuple[str, FarmleaseError]]:
        found: list[Saved | tuple[str, FarmleaseError]] = []
        async with self._locks.session(session):
            for use in self._sessions.shown_uses(session, only, pool):
                try:
                    found.append(await self._save(use))
                except FarmleaseError as error:
                    found.append((use.pool, error))
        return found

    async def _save(self, use: NodeSession) -> Saved:
        changed, refused = await self._files.take_back(use)
        await self._heartbeat.deliver()
        superseded = await self._files.yield_to_winner(use)
        if refused is not None:
            raise refused
        delivered = self._outbox.pending(*use.key) == 0
        return Saved(pool=use.pool, changed=changed, superseded=superseded, delivered=delivered)
