"""An event loop on virtual time: nothing is waited for, the clock jumps to the next timer.

The production code's ``asyncio.timeout``, ``sleep`` and locks all run on it. It has no files, sockets or threads, and
what is ready runs in the order in which it became ready, so that a run depends on nothing but its seed.
"""

import asyncio
from asyncio import base_events
from contextvars import ContextVar
from typing import Any

__all__ = ["OWNER", "Stalled", "VirtualLoop"]

#: Whose work this is: set by a host for all tasks of its agent's life.
OWNER: ContextVar[Any] = ContextVar("OWNER", default=None)


class Stalled(AssertionError):
    """Everybody waits for somebody else, and no timer will ever end that."""


class _Selector:
    """Stands where the loop would wait for the network: lets the time pass instead."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stalled("nothing is ready and nothing is due")
        self._loop.passed += timeout
        return []

    def close(self) -> None:
        pass


class VirtualLoop(base_events.BaseEventLoop):
    """The loop. ``passed``: seconds since it began. ``faults``: what nobody else caught."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0
        self.faults: list[str] = []
        self._selector = _Selector(self)
        self._clock_resolution = 1e-9
        self.set_task_factory(_owned_task)
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Seconds since it began."""
        return self.passed

    def close(self) -> None:
        """End it; tasks that are left are dropped where they stand."""
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False
        super().close()

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.faults.append(f"{context['message']}: {error!r}")


def _owned_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    """Make a task and tell its owner, who can then drop it."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    owner = OWNER.get()
    if owner is not None:
        owner.tasks.append(task)
    return task
