"""Ctrl-C and other signals to end, for a command that must clean up first. Must never interrupt the clean-up."""

import asyncio
import signal
import sys

__all__ = ["Interrupts"]


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
