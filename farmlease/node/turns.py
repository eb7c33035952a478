"""One at a time, by name: two calls about the same session, or the same user's files, must not interleave."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from farmlease.domain.identity import User

__all__ = ["Turns"]


class Turns:
    """Locks that exist while somebody holds or awaits them. Take a session's turn before a user's, never after."""

    def __init__(self) -> None:
        self._sessions: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._users: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def session(self, session: str) -> AsyncIterator[None]:
        """Wait for the turn with a session."""
        lock = self._sessions.setdefault(session, asyncio.Lock())
        async with lock:
            yield

    @asynccontextmanager
    async def user(self, user: User) -> AsyncIterator[None]:
        """Wait for the turn with a user's files."""
        lock = self._users.setdefault(user.canonical, asyncio.Lock())
        async with lock:
            yield

    def taken(self, session: str) -> bool:
        """Whether somebody has the turn with a session now."""
        lock = self._sessions.get(session)
        return lock is not None and lock.locked()
