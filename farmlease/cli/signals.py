"""Ctrl-C and its like, for a command that has something to clear away before it ends. Must never cut that short."""

import asyncio
import signal
import sys

__all__ = ["Interrupts"]


class Interrupts:
    """The first signal to end cancels the task that made this; while it is clearing away none counts any more."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._clearing = False
        self._task = asyncio.current_task()

    def listen(self) -> None:
        """Take over the signals that end a command; on Windows there is Ctrl-C, as asyncio takes it."""
        if sys.platform != "win32":
            loop = asyncio.get_running_loop()
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(each, self._told, each)

    def ignore(self) -> None:
        """Let nothing interrupt what follows."""
        self._clearing = True

    def check(self) -> None:
        """Raise CancelledError if told to end: a cancellation can get lost on its way through other people's code."""
        if self.signal is not None:
            raise asyncio.CancelledError

    def _told(self, number: int) -> None:
        if not self._clearing and self._task is not None:
            self._clearing = True
            self.signal = number
            self._task.cancel()
