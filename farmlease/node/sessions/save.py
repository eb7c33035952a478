"""Taking the vendor's files back in the middle of a session, when its host asks for it."""

from farmlease.domain.identity import User
from farmlease.node.concurrency import Runtime
from farmlease.node.journal.state import State
from farmlease.node.sessions.session_files import SessionFiles
from farmlease.node.sync.heartbeat import Heartbeat

__all__ = ["SessionSave"]


class SessionSave:
    """The saves of one node's sessions."""

    def __init__(self, state: State, files: SessionFiles, heartbeat: Heartbeat, runtime: Runtime) -> None:
        self._sessions = state.sessions
        self._outbox = state.outbox
        self._files = files
        self._heartbeat = heartbeat
        self._locks = runtime.locks
        self._tasks = runtime.tasks

    async def save_session(self, session: str, only: User | None = None) -> dict[str, object] | None:
        """Take the files back now, also if the caller goes away; None if there is no such session of this caller.

        FileRefused if a file must not be taken.
        """
        return await self._tasks.finish(self._save_session(session, only))

    async def _save_session(self, session: str, only: User | None) -> dict[str, object] | None:
        async with self._locks.session(session):
            found = self._sessions.find(session)
            if found is None or not found.state.shown or only not in (None, found.user):
                return None
            changed, refused = await self._files.take_back(found)
            await self._heartbeat.deliver()
            superseded = await self._files.yield_to_winner(found)
            if refused is not None:
                raise refused
        return {
            "session": session,
            "changed": changed,
            "superseded": superseded,
            "delivered": self._outbox.pending(session) == 0,
        }
