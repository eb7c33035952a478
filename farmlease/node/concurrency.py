"""How the agent does several things at once: tasks that outlive their caller, locks by name, and a group of actors.

A caller may go away in the middle: its connection is cut, or its patience ends. What it began is finished all the same,
so that no seat and no file is left halfway. A background task that fails is logged; it never ends the agent.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import structlog

from farmlease.clock import Clock
from farmlease.domain.identity import User
from farmlease.errors import FarmleaseError
from farmlease.node.accounts.accounts import Accounts
from farmlease.node.logs import Log
from farmlease.threads import in_thread

__all__ = ["Actor", "BackgroundTasks", "KeyedLocks", "Lifecycle", "Phase", "Runtime", "in_thread", "run_group"]

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class BackgroundTasks:
    """Tasks under way."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._named: dict[str, asyncio.Task[None]] = {}

    def run(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a task, unless one of this name is running."""
        if name not in self._named:
            task = self._begin(work())
            self._named[name] = task
            task.add_done_callback(lambda _: self._named.pop(name))
            task.add_done_callback(_log_failure)

    async def finish(self, work: Coroutine[Any, Any, T], within: float | None = None) -> T:
        """Return what ``work`` returns. It goes on if this is cancelled, or after ``within`` seconds: TimeoutError."""
        task = self._begin(work)
        try:
            await asyncio.wait({task}, timeout=within)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)  # it may have failed at this very moment, and nothing else looks
            raise
        if not task.done():
            task.add_done_callback(_log_failure)
            raise TimeoutError
        return task.result()

    async def named(self, beginning: str, within: float) -> None:
        """Wait, at most ``within`` seconds, for the running tasks whose names begin so."""
        if tasks := [task for name, task in self._named.items() if name.startswith(beginning)]:
            await asyncio.wait(tasks, timeout=within)

    async def done(self) -> None:
        """Wait for all running tasks, and for those that they start."""
        while others := self._tasks - {asyncio.current_task()}:
            await asyncio.wait(others)

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _log_failure(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, FarmleaseError):
        _log.error("task.failed", why=str(error))
    elif error is not None:
        _log.error("task.failed", exc_info=error)


class KeyedLocks:
    """Locks by session and by user, which exist while they are held or awaited. Lock a session before a user."""

    def __init__(self) -> None:
        self._sessions: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._users: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def session(self, session: str) -> asyncio.Lock:
        """Return the lock of a session: two calls about the same session must not interleave."""
        return self._sessions.setdefault(session, asyncio.Lock())

    @asynccontextmanager
    async def session_if_free(self, session: str) -> AsyncIterator[bool]:
        """Hold the lock of a session if no call has it or waits for it; yields whether it is held."""
        lock = self.session(session)
        try:
            async with asyncio.timeout(0):  # a free lock is taken without a wait
                await lock.acquire()
        except TimeoutError:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def user(self, user: User) -> asyncio.Lock:
        """Return the lock of a user's files on this host."""
        return self._users.setdefault(user.canonical, asyncio.Lock())

    def is_locked(self, session: str) -> bool:
        """Whether a session's lock is held now."""
        lock = self._sessions.get(session)
        return lock is not None and lock.locked()


class Phase(Enum):
    """How far the agent's life has got."""

    RUNNING = "running"
    LEAVING = "leaving"  #: it is about to end: balancers send no new users, and everything goes on
    STOPPED = "stopped"  #: it starts no more sessions


class Lifecycle:
    """The agent's phase, which only moves on."""

    def __init__(self) -> None:
        self.phase = Phase.RUNNING

    def leave(self) -> None:
        """Note that the agent is about to end."""
        if self.phase is Phase.RUNNING:
            self.phase = Phase.LEAVING

    def stop(self) -> None:
        """Note that the agent starts no more sessions."""
        self.phase = Phase.STOPPED


@dataclass(frozen=True, slots=True)
class Runtime:
    """What each room of a running node needs: time, the host's accounts, locks, tasks, its phase, its log."""

    clock: Clock
    accounts: Accounts
    locks: KeyedLocks = field(default_factory=KeyedLocks)
    tasks: BackgroundTasks = field(default_factory=BackgroundTasks)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    log: Log = field(default_factory=Log)


@dataclass(frozen=True, slots=True)
class Actor:
    """Something that runs until it is done or interrupted. ``interrupt`` makes ``run`` return soon; may come twice."""

    run: Callable[[], Awaitable[None]]
    interrupt: Callable[[], None]


async def run_group(actors: Sequence[Actor]) -> None:
    """Run actors until one stops, interrupt the others, and return when all have stopped.

    Raises what the first actor to fail raised.
    """
    tasks = [asyncio.ensure_future(actor.run()) for actor in actors]
    first: set[asyncio.Future[None]] = set()
    try:
        first, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for actor in actors:
            actor.interrupt()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in (*first, *tasks):
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
