"""Notifications to a service manager by systemd's protocol: ready, stopping, and the watchdog's signs of life.

Without ``NOTIFY_SOCKET`` in the environment, and on Windows, nothing is sent. Sending never waits and never fails: an
agent must not depend on its watcher.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress

from farmlease.clock import Clock

__all__ = ["ServiceManager"]


class ServiceManager:
    """The service manager that started this process, if there is one.

    ``watchdog``: seconds between two signs of life after which the manager takes the process for hung; None: it expects
    none.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self.watchdog = _watchdog(environ) if self._address else None

    def ready(self) -> None:
        """Report that requests are served from now on."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Report that the process is ending."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Send a sign of life."""
        self._send("WATCHDOG=1")

    async def keep_informed(self, ending: asyncio.Event, clock: Clock) -> None:
        """Send signs of life, twice as often as required, and report the end when ``ending`` is set. Never returns.

        The signs come from the event loop that serves sessions: if that hangs, there are none.
        """
        async with asyncio.TaskGroup() as signs:
            if self.watchdog is not None:
                signs.create_task(self._live(clock, self.watchdog / 2))
            await ending.wait()
            self.stopping()
            await asyncio.Event().wait()

    async def _live(self, clock: Clock, every: float) -> None:
        while True:
            self.alive()
            await clock.sleep(every)

    def _send(self, word: str) -> None:
        if sys.platform == "win32" or not self._address:
            return
        else:  # noqa: RET505 - mypy judges each platform by its branch
            # "@" is how the name of a socket that has no file is written.
            address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.settimeout(0)
                manager.sendto(word.encode(), address)


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Return the watchdog's span in seconds; None if it is another process's, whose environment this one inherited."""
    span, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if pid not in {"", str(os.getpid())} or not (span.isascii() and span.isdigit() and int(span)):
        return None
    return int(span) / 1_000_000
