"""Work that may block or fail for reasons that are not ours, in threads, so that nothing else waits for it.

Such work is also to write lines that may be lost: those of the log, and of a command's standard error. A write to a
network disk that hangs, or into a pipe whose reader stands still, takes as long as that lasts, and for a disk nothing
says so beforehand. So lines are handed over, a bounded number of them. What comes when that is used up, or cannot be
written, is lost, and counted.

This module must never raise because of what it writes to, and import nothing heavy.
"""

import io
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["Outlet", "in_thread"]

T = TypeVar("T")

#: Bytes of lines that may wait to be written.
_MOST_WAITING = 256 << 10
#: Seconds that one write may take before it counts as trouble.
HANGS_AFTER = 1.0
#: Bytes that are written at once.
_PIECE = 4096
#: Seconds between two tries where a descriptor that does not wait takes nothing, and between two looks at a thread.
_TRY_EVERY, _LOOK_EVERY = 0.05, 0.0005
_HANGS = "nobody reads it, or its disk hangs"


async def in_thread(work: Callable[[], T]) -> T:
    """Return what ``work`` returns, run in a thread of its own.

    Not in a pool: a disk that hangs would hold up all who use the pool, and the end of the process, which waits for it.
    """
    import asyncio  # noqa: PLC0415 - a command that complains would pay for it

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
    """A file descriptor for lines of which some may be lost. Writing raises nothing, and waits for nobody.

    It is the file that the log's libraries write to. ``descriptor`` None: it was closed before this process began.
    ``missing`` words the line that takes the place of those that were lost, from their number and why.
    """

    def __init__(self, descriptor: int | None, missing: Callable[[int, str], str]) -> None:
        self._descriptor = descriptor
        self._missing = missing
        self._lock = threading.RLock()  # a finalizer that runs in here may log too
        self._queue = SimpleQueue[tuple[bytes, bool]]()  # with whether lines before it were lost
        self._thread: threading.Thread | None = None
        self._pending = 0  # what was handed over and is not written yet, and how many bytes that is
        self._waiting = 0
        self._began: float | None = None  # the write under way
        self._is_failing = False
        self._is_cut = False  # the last line that was begun is not all there
        self._lost = 0
        self._why = ""

    @property
    def trouble(self) -> str | None:
        """Why lines are being lost or held up; None as long as they can be written."""
        if self._lost:
            return self._why
        return _HANGS if self._hangs() else None

    def write(self, lines: str) -> int:  # type: ignore[explicit-override]  # a denied logon would pay for the word
        """Have lines written, after one that says how many were lost before them; or count them as lost."""
        self.send(lines.encode(errors="backslashreplace"))
        return len(lines)

    def send(self, lines: bytes) -> None:
        """Have bytes written that are whole lines, likewise."""
        with self._lock:
            if not self._is_running():
                self._lose(lines)
            elif self._pending and (self._lost or self._waiting + len(lines) > _MOST_WAITING):
                self._why = self._why if self._lost else _HANGS
                self._lose(lines)
            else:
                self._hand_over(lines)

    def retry(self) -> None:
        """Look whether lines can be written again, if some were lost."""
        with self._lock:
            if self._lost and not self._pending and self._is_running():
                self._hand_over(b"")

    def finish(self, seconds: float = 2.0) -> None:
        """Wait until all is written, or shows that it is not going to be; so long at most."""
        end = time.monotonic() + seconds
        while self._pending and not self._hangs() and time.monotonic() < end:
            time.sleep(_LOOK_EVERY)

    def _hangs(self) -> bool:
        began = self._began
        return began is not None and time.monotonic() - began > HANGS_AFTER

    def _is_running(self) -> bool:
        if self._descriptor is None:
            self._why = "it is closed"
        elif self._thread is None:
            self._thread = threading.Thread(target=self._run, name="farmlease-lines", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # too many threads, or the process is at its end
                self._thread, self._why = None, "no thread can be started for it"
        return self._thread is not None

    def _hand_over(self, lines: bytes) -> None:
        self._pending += 1
        self._waiting += len(lines)
        self._queue.put((lines, bool(self._lost)))

    def _lose(self, lines: bytes) -> None:
        self._lost += lines.count(b"\n")

    def _run(self) -> None:
        while True:
            lines, follows_loss = self._queue.get()
            self._began = time.monotonic()
            done = self._caught_up(follows_loss or self._is_failing) and self._put(lines)
            with self._lock:
                self._is_failing = not done
                self._pending -= 1
                self._waiting -= len(lines)
                if not done:
                    self._lose(lines)
                self._began = None

    def _caught_up(self, lost_before: bool) -> bool:  # noqa: FBT001 - its only argument
        """Whether it is said how many lines were lost, if any."""
        lost = self._lost if lost_before else 0
        if lost and not self._put(self._missing(lost, self._why).encode()):
            return False
        with self._lock:
            self._lost -= lost
        return True

    def _put(self, lines: bytes) -> bool:
        """Whether all of it was written. A line that was begun before and is not all there is ended first."""
        left = b"\n" * self._is_cut + lines
        while left:
            try:
                written = os.write(self._descriptor or 0, left[:_PIECE])
            except BlockingIOError:  # another process has made it one that does not wait
                time.sleep(_TRY_EVERY)
                continue
            except OSError as error:
                self._why = error.strerror or type(error).__name__
                return False
            left = left[written:]
            self._is_cut = bool(left)
        return True
