"""The agent's log: one JSON object to a line, on standard error, without names, records or keys at the default level.

Modules log events (``session.granted``) with facts; users appear as their index. Libraries' own logging goes the same
way, warnings and above. Of an exception its type and place are logged, never its text: a library's may quote anything.
"""

import asyncio
import logging
import sys
import traceback
from types import TracebackType
from typing import Any

import structlog

__all__ = ["log_loop_faults", "write_json_lines"]


def write_json_lines() -> None:
    """Send everything that is logged from now on to standard error as JSON lines."""
    shared: list[structlog.types.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(_without_text),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def log_loop_faults() -> None:
    """Log the running event loop's unhandled exceptions as events; its own texts would quote them."""
    log = structlog.get_logger(__name__)

    def write(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        log.error("loop.fault", exc_info=context.get("exception"))

    asyncio.get_running_loop().set_exception_handler(write)


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
