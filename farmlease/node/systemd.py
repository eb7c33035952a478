"""What a service manager is told of the agent's life, by systemd's protocol: ready, stopping, and that it goes on.

Without ``NOTIFY_SOCKET`` in the environment, and on Windows, nobody is told and nothing happens. Telling never waits
and never fails: an agent must not depend on whoever watches it.
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
    """Who started this process and wants to hear of it.

    ``watchdog`` is how many seconds may pass between two signs of life before the manager takes the process for hung;
    None: it does not wait for any.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self.watchdog = _watchdog(environ) if self._address else None

    def ready(self) -> None:
        """Say that whoever asks now is served."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """Give a sign of life."""
        self._tell("WATCHDOG=1")

    async def accompany(self, told: asyncio.Event, clock: Clock) -> None:
        """Give signs of life, twice as often as need be, and say when the process is ``told`` to stop. Never returns.

        The signs come from the loop that serves sessions: when that hangs, there are none.
        """
        async with asyncio.TaskGroup() as signs:
            if self.watchdog is not None:
                signs.create_task(self._live(clock, self.watchdog / 2))
            await told.wait()
            self.stopping()
            await asyncio.Event().wait()

    async def _live(self, clock: Clock, every: float) -> None:
        while True:
            self.alive()
            await clock.sleep(every)

    def _tell(self, word: str) -> None:
        if sys.platform == "win32" or not self._address:
            return
        else:  # noqa: RET505 - mypy judges each platform by its branch
            # "@" is how the name of a socket that has no file is written.
            address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.settimeout(0)
                manager.sendto(word.encode(), address)


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Return the manager's patience in seconds. The process it is meant for is named, as a child inherits the rest."""
    span, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if pid not in {"", str(os.getpid())} or not (span.isascii() and span.isdigit() and int(span)):
        return None
    return int(span) / 1_000_000
