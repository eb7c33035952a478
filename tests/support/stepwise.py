"""Coroutines step by step: something happens at their n-th wait, whichever that is.

A wait is where a task gives up control to the event loop. Counting them, and not time, makes a test meet each one.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from typing_extensions import override

__all__ = ["Waits", "watching"]


class Waits:
    """Counts the waits of all that it watches; ``at`` the n-th, ``then`` is called once, within that task."""

    def __init__(self, at: int, then: Callable[[], object] = lambda: None) -> None:
        self._at = at
        self.then = then
        self.seen = 0

    @property
    def met(self) -> bool:
        """Whether there was an n-th wait."""
        return self.seen >= self._at

    def count(self) -> None:
        """Count one."""
        self.seen += 1
        if self.seen == self._at:
            self.then()


class _Watched(Coroutine[Any, Any, Any]):
    """A coroutine whose waits are counted."""

    def __init__(self, work: Coroutine[Any, Any, Any], waits: Waits) -> None:
        self._work = work
        self._waits = waits

    @override
    def send(self, value: Any, /) -> Any:
        waited = self._work.send(value)
        self._waits.count()
        return waited

    @override
    def throw(self, *error: Any) -> Any:
        waited = self._work.throw(*error)
        self._waits.count()
        return waited

    @override
    def close(self) -> None:
        self._work.close()

    @override
    def __await__(self) -> Any:
        return self._work.__await__()


@contextmanager
def watching(waits: Waits) -> Iterator[None]:
    """Watch every task that begins meanwhile."""
    loop = asyncio.get_running_loop()

    def begin(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
        return asyncio.Task(_Watched(work, waits), loop=loop, **more)

    loop.set_task_factory(begin)
    try:
        yield
    finally:
        loop.set_task_factory(None)
