"""An event loop on virtual time: nothing is waited for, the clock jumps to the next timer.

The production code's ``asyncio.timeout``, ``sleep`` and locks all run on it. It has no files, sockets or threads, and
what is ready runs in the order in which it became ready, so that a run depends on nothing but its seed.
"""

import asyncio
from asyncio import base_events
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from typing import Any

from typing_extensions import override

__all__ = ["OWNER", "Stalled", "VirtualLoop"]

#: Whose work this is: set by a host for all tasks of its agent's life.
OWNER: ContextVar[Any] = ContextVar("OWNER", default=None)


class Stalled(AssertionError):
    """Everybody waits for somebody else, and no timer will ever end that."""


class _Handle:
    """A call that is to be made; as ``asyncio.Handle``, without what only debugging needs."""

    __slots__ = ("arguments", "call", "context", "dropped", "due")

    def __init__(self, call: Callable[..., object], arguments: tuple[Any, ...], context: Context, due: float) -> None:
        self.call = call
        self.arguments = arguments
        self.context = context
        self.due = due
        self.dropped = False

    def cancel(self) -> None:
        """Do not make the call."""
        self.dropped = True
        self.call, self.arguments = _nothing, ()

    def cancelled(self) -> bool:
        """Whether the call will not be made."""
        return self.dropped

    def when(self) -> float:
        """The time of the loop at which the call is due."""
        return self.due


def _nothing() -> None:
    """Stand in for a call that is not to be made."""


class VirtualLoop(base_events.BaseEventLoop):
    """The loop. ``passed``: seconds since it began. ``faults``: what nobody else caught."""

    #: Of the base class, which does not say so.
    _ready: deque[_Handle]  # with handles of our own
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0
        self.faults: list[str] = []
        self._timers: list[tuple[float, int, _Handle]] = []  #: when, which of those that are due then, and what
        self._asked = 0
        self.set_task_factory(_owned_task)
        self.set_exception_handler(self._note)

    @override
    def time(self) -> float:
        """Seconds since it began."""
        return self.passed

    @override
    def call_soon(  # type: ignore[override] # a handle of our own
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Handle:
        """Make the call after those that are ready now."""
        handle = _Handle(callback, args, copy_context() if context is None else context, self.passed)
        self._ready.append(handle)
        return handle

    @override
    def call_at(  # type: ignore[override] # a handle of our own
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Handle:
        """Make the call then."""
        handle = _Handle(callback, args, copy_context() if context is None else context, when)
        self._asked += 1
        heappush(self._timers, (when, self._asked, handle))
        return handle

    @override
    def call_later(  # type: ignore[override] # a handle of our own
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Handle:
        """Make the call after so many seconds."""
        return self.call_at(self.passed + delay, callback, *args, context=context)

    @override
    def close(self) -> None:
        """End it; tasks that are left are dropped where they stand."""
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined] # the standard library's own
        self._timers.clear()
        super().close()

    def _run_once(self) -> None:
        """Make the calls, in order, until somebody stops the loop."""
        ready, timers = self._ready, self._timers
        while not self._stopping:
            while timers and (timers[0][2].dropped or timers[0][0] <= self.passed or not ready):
                due, _, handle = heappop(timers)
                if not handle.dropped:
                    self.passed = max(self.passed, due)
                    ready.append(handle)
            if not ready:
                raise Stalled("nothing is ready and nothing is due")
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle.dropped:
                    self._make(handle)

    def _make(self, handle: _Handle) -> None:
        try:
            handle.context.run(handle.call, *handle.arguments)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - what nobody caught is what a run is for
            self.call_exception_handler({"message": f"Exception in callback {handle.call}", "exception": error})

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
