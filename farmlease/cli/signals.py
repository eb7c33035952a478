"""Ctrl-C and other signals to end: for commands that wait for a farm, and for those that must clean up first.

Must never lose an interruption, nor interrupt a clean-up.
"""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from types import FrameType, TracebackType
from typing import Self, TypeVar

__all__ = ["InterruptibleRunner", "Interrupts"]

T = TypeVar("T")


class InterruptibleRunner:
    """Runs coroutines one after the other, until Ctrl-C raises KeyboardInterrupt: at once, or at the next of them.

    Python raises it wherever the program is. In a finalizer, or where the runner of asyncio has its task done already,
    it is printed or dropped, and the command would go on for good. One that a user has had ignored stays ignored.
    """

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._task: asyncio.Task[object] | None = None
        self._runs = self._interrupted = self._listens = False

    def __enter__(self) -> Self:
        """Listen to Ctrl-C, from a program's main thread."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)
            self._listens = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave Ctrl-C to Python again."""
        if self._listens:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run a coroutine and return its result, also of one interrupted too late; raises KeyboardInterrupt."""
        self._runs = True
        try:
            return self._runner.run(self._run(coroutine))
        except asyncio.CancelledError:
            if self._interrupted:
                raise KeyboardInterrupt from None
            raise
        finally:
            self._runs = False
            self._task = None

    async def _run(self, coroutine: Coroutine[object, object, T]) -> T:
        self._task = asyncio.current_task()
        if self._interrupted:
            coroutine.close()
            raise asyncio.CancelledError
        return await coroutine

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        is_first, self._interrupted = not self._interrupted, True
        if not self._runs or not is_first:
            signal.default_int_handler(number, frame)
        elif self._task is not None:
            self._runner.get_loop().call_soon_threadsafe(self._task.cancel)  # also wakes a loop that waits


class Interrupts:
    """The first signal to end cancels the task that created this; later signals are ignored."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._cleaning_up = False
        self._task = asyncio.current_task()

    def listen(self) -> None:
        """Handle the signals that end a command; on Windows asyncio itself handles Ctrl-C."""
        if sys.platform != "win32":
            loop = asyncio.get_running_loop()
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(each, self._on_signal, each)

    def ignore(self) -> None:
        """Ignore signals from now on."""
        self._cleaning_up = True

    def check(self) -> None:
        """Raise CancelledError if a signal came: other code on the way may have swallowed the cancellation."""
        if self.signal is not None:
            raise asyncio.CancelledError

    def _on_signal(self, number: int) -> None:
        if not self._cleaning_up and self._task is not None:
            self._cleaning_up = True
            self.signal = number
            self._task.cancel()
