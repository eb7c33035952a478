"""One at a time, by name: two calls about the same session, or the same user's files, must not interleave."""

import asyncio
from weakref import WeakValueDictionary

from farmlease.domain.identity import User

__all__ = ["Turns"]


class Turns:
    """Locks that exist while somebody holds or awaits them. Take a session's turn before a user's, never after."""

    def __init__(self) -> None:
        self._sessions: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._users: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def session(self, session: str) -> asyncio.Lock:
        """Return the turn with a session, to be waited for (``async with``)."""
        return self._sessions.setdefault(session, asyncio.Lock())

    def user(self, user: User) -> asyncio.Lock:
        """Return the turn with a user's files, to be waited for (``async with``)."""
        return self._users.setdefault(user.canonical, asyncio.Lock())

    def taken(self, session: str) -> bool:
        """Whether somebody has the turn with a session now."""
        lock = self._sessions.get(session)
        return lock is not None and lock.locked()
