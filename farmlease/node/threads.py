"""Work that may block or fail for reasons that are not ours, so that the event loop does not wait for it."""

import asyncio
import io
import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from typing_extensions import override

__all__ = ["Outlet", "in_thread"]

T = TypeVar("T")

#: Milliseconds that one line may wait for a reader who is slow; none where the line before it was lost.
_PATIENCE_MS = 20
#: Bytes that a pipe takes without a wait if it takes any.
_PIECE = 4096


async def in_thread(work: Callable[[], T]) -> T:
    """Return what ``work`` returns, run in a thread of its own.

    Not in a pool: a disk that hangs would hold up all who use the pool, and the end of the process, which waits for it.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(give: Callable[[Any], None], what: object) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(lambda: None if answer.done() else give(what))

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the one who waits gets it
            settle(answer.set_exception, error)
        else:
            settle(answer.set_result, result)

    threading.Thread(target=run, name="farmlease-files", daemon=True).start()
    return await answer


class Outlet(io.TextIOBase):
    """A file descriptor for lines of which some may be lost. Writing raises nothing, and does not wait for a reader.

    It is the file that the log's libraries write to. ``descriptor`` None: it was closed before this process began.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._lock = threading.RLock()  # a finalizer that runs in a write may log too
        self._is_writing = False
        self._is_cut = False  # the last line that was begun is not all there
        self._lost = 0
        self._why = ""

    @property
    def trouble(self) -> str | None:
        """Why lines are being lost; None as long as they can be written."""
        return self._why if self._lost else None

    @override
    def write(self, lines: str) -> int:
        """Write lines, after one that says how many were lost before them; or count them as lost."""
        with self._lock:
            if self._is_writing:
                self._lost += lines.count("\n")
                self._why = self._why or "it came in the middle of another line"
                return len(lines)
            self._is_writing = True
            try:
                if not (self._caught_up() and self._put(lines)):
                    self._lost += lines.count("\n")
            finally:
                self._is_writing = False
        return len(lines)

    def retry(self) -> None:
        """Look whether lines can be written again, if some were lost."""
        with self._lock:
            self._caught_up()

    def _caught_up(self) -> bool:
        if self._lost:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            told = {"lines": self._lost, "why": self._why, "event": "log.lost", "level": "warning", "timestamp": now}
            if self._put(f"{json.dumps(told)}\n"):
                self._lost = 0
        return not self._lost

    def _put(self, lines: str) -> bool:
        """Whether all of it was written. A line that was begun before and is not all there is ended first."""
        if self._descriptor is None:
            self._why = "it is closed"
            return False
        left = b"\n" * self._is_cut + lines.encode(errors="backslashreplace")
        try:
            while left:
                if not _takes(self._descriptor, 0 if self._lost else _PATIENCE_MS):
                    self._why = "nobody reads it"
                    return False
                left = left[os.write(self._descriptor, left[:_PIECE]) :]
                self._is_cut = bool(left)
        except OSError as error:
            self._why = error.strerror or type(error).__name__
            return False
        return True


if sys.platform == "win32":

    def _takes(descriptor: int, patience_ms: int) -> bool:  # noqa: ARG001 - as elsewhere
        """Whether a write is not going to wait. Windows does not say."""
        return True

else:

    def _takes(descriptor: int, patience_ms: int) -> bool:
        """Whether a short write is not going to wait: it is taken, or fails at once."""
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(patience_ms))
