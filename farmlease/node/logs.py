"""The agent's log: one JSON object to a line, on standard error, without names, records or keys at the default level.

Modules log events (``session.granted``) with facts; users appear as their index. Libraries' own logging goes the same
way, warnings and above. Of an exception its type and place are logged, never its text: a library's may quote anything.

To log decides nothing. A line that cannot be written (a full disk or one that hangs, a reader that is gone or does not
read) raises nothing and is not waited for: it is counted as lost, and health says so until lines can be written again.
Faults that callers can repeat at will are logged at once and then once a minute with their number, so that nobody fills
the disk.
"""

import asyncio
import atexit
import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, TextIO, cast

import structlog
from typing_extensions import override

from farmlease.threads import Outlet

__all__ = ["Log", "log_loop_faults", "write_json_lines"]

#: Seconds for which equal faults are counted before they are logged again.
MINUTE = 60.0
#: Kinds of faults that are counted one by one within a minute.
_MOST_KINDS = 256
_STDERR = 2

_log = structlog.get_logger(__name__)


class Log:
    """The agent's log: where its lines go, and the faults of which there are too many for a line each.

    Nothing here raises.
    """

    def __init__(self, outlet: Outlet | None = None) -> None:
        self.outlet = outlet or Outlet(_STDERR, _missing)
        self._faults = _Faults()

    @property
    def trouble(self) -> str | None:
        """Why lines are being lost; None as long as they can be written."""
        return self.outlet.trouble

    def fault(self, event: str, **facts: object) -> None:
        """Log a fault at once, and those like it once a minute with the number of ``times``."""
        self.count_fault(event, lambda times: _log.warning(event, times=times, **facts))

    def count_fault(self, kind: Hashable, say: Callable[[int], None]) -> None:
        """Call ``say`` with the number of faults of this kind: at once, or when its minute is over."""
        self._faults.note(kind, say)

    def tend(self) -> None:
        """Log the faults whose minute is over, and how many lines were lost if lines can be written again.

        To be called each second.
        """
        self._faults.say_due()
        self.outlet.retry()


@dataclass(slots=True)
class _Kind:
    """Faults of one kind since one of them was logged last."""

    since: float
    say: Callable[[int], None]
    times: int = 0


class _Faults:
    """Faults by kind. Threads may note them at once."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Kind] = {}
        self._lock = threading.RLock()

    def note(self, kind: Hashable, say: Callable[[int], None]) -> None:
        """Count a fault; say it if none of its kind was said within the last minute."""
        with self._lock:
            known = self._kinds.get(kind)
            if known is None and len(self._kinds) >= _MOST_KINDS:
                kind, known = None, self._kinds.get(None)
            if known is None:
                self._kinds[kind] = _Kind(time.monotonic(), say)
                say(1)
                return
            known.times += 1
            known.say = say
            self._say_if_due(kind, known)

    def say_due(self) -> None:
        """Say the faults whose minute is over, and forget the kinds of which there were no more."""
        with self._lock:
            for kind, known in [*self._kinds.items()]:
                self._say_if_due(kind, known)

    def _say_if_due(self, kind: Hashable, known: _Kind) -> None:
        if time.monotonic() - known.since < MINUTE:
            return
        if known.times:
            self._kinds[kind] = _Kind(time.monotonic(), known.say)
            known.say(known.times)
        else:
            del self._kinds[kind]


class _Handler(logging.StreamHandler[Outlet]):
    """Libraries' records: of those that are alike one a minute, with their number."""

    def __init__(self, log: Log) -> None:
        super().__init__(log.outlet)
        self._log = log

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it."""
        raised = record.exc_info[0] if record.exc_info else None
        self._log.count_fault((record.name, str(record.msg), raised), partial(self._write, record))

    def _write(self, record: logging.LogRecord, times: int) -> None:
        super().emit(logging.makeLogRecord({**record.__dict__, "times": times}))


def write_json_lines(log: Log | None = None) -> Log:
    """Send everything that is logged from now on to ``log`` as JSON lines; default: standard error. Returns it."""
    log = log or Log(Outlet(None if sys.__stderr__ is None else _STDERR, _missing))
    shared: list[structlog.types.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(_without_text),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", log.outlet)),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(log)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=[_with_times, *shared],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    atexit.register(log.outlet.finish)
    return log


def _missing(lines: int, why: str) -> str:
    """Return the line that takes the place of lines that were lost."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    told = {"lines": lines, "why": why, "event": "log.lost", "level": "warning", "timestamp": now}
    return f"{json.dumps(told)}\n"


def log_loop_faults(log: Log) -> None:
    """Log the running event loop's unhandled exceptions as events; its own texts would quote them."""

    def write(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        raised = context.get("exception")
        log.count_fault(
            ("loop.fault", type(raised), context.get("message")),
            lambda times: _log.error("loop.fault", times=times, exc_info=raised),
        )

    asyncio.get_running_loop().set_exception_handler(write)


def _with_times(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Add the number of a library's records that were alike, where there is more than one."""
    times = getattr(event.get("_record"), "times", 1)
    return {**event, "times": times} if times > 1 else event


def _without_text(exc_info: structlog.typing.ExcInfo) -> dict[str, object]:
    """Return the types of an exception and its causes, and the places it passed."""
    _, raised, trace = exc_info
    return {"type": " from ".join(type(each).__name__ for each in _chain(raised)), "at": _places(trace)}


def _chain(raised: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    cause: BaseException | None = raised
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return chain


def _places(trace: TracebackType | None) -> list[str]:
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]
