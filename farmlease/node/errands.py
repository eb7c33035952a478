"""Work that goes on when nobody waits for it any more, and that must not be forgotten either.

A caller may go away in the middle (its connection is cut, its patience ends); what it began is carried out all the
same, so that no seat and no file is left halfway. Work that fails with nobody waiting is told in the log; it never
takes the agent with it.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import structlog

from farmlease.errors import FarmleaseError

__all__ = ["Errands", "in_thread"]

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class Errands:
    """Tasks under way."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._named: dict[str, asyncio.Task[None]] = {}

    def run(self, name: str, errand: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin an errand, unless one of this name is under way."""
        if name not in self._named:
            task = self._begin(errand())
            self._named[name] = task
            task.add_done_callback(lambda _: self._named.pop(name))
            task.add_done_callback(_tell)

    async def finish(self, work: Coroutine[Any, Any, T], within: float | None = None) -> T:
        """Return what ``work`` returns. It goes on if this is cancelled, or after ``within`` seconds: TimeoutError."""
        task = self._begin(work)
        try:
            await asyncio.wait({task}, timeout=within)
        except asyncio.CancelledError:
            task.add_done_callback(_tell)  # though it may have failed at this very moment: nobody else looks
            raise
        if not task.done():
            task.add_done_callback(_tell)
            raise TimeoutError
        return task.result()

    async def named(self, beginning: str, within: float) -> None:
        """Wait, at most ``within`` seconds, for the errands under way whose names begin so."""
        if tasks := [task for name, task in self._named.items() if name.startswith(beginning)]:
            await asyncio.wait(tasks, timeout=within)

    async def done(self) -> None:
        """Wait for everything under way, and what that began."""
        while others := self._tasks - {asyncio.current_task()}:
            await asyncio.wait(others)

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _tell(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, FarmleaseError):
        _log.error("errand.failed", why=str(error))
    elif error is not None:
        _log.error("errand.failed", exc_info=error)


async def in_thread(work: Callable[[], T]) -> T:
    """Return what ``work`` returns, run in a thread of its own.

    Not in a pool: a disk that hangs would hold up all who use the pool, and the end of the process, which waits for it.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(give: Callable[[Any], None], what: object) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(lambda: None if answer.done() else give(what))

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the one who waits gets it
            tell(answer.set_exception, error)
        else:
            tell(answer.set_result, result)

    threading.Thread(target=run, name="farmlease-files", daemon=True).start()
    return await answer
