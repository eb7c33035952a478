"""Everything that would differ from run to run, made to depend on the seed: randomness, names, boot markers, disks.

These are the only places where the simulation reaches into the production code. Each is an edge to the outside world;
no decision is replaced.
"""

import asyncio
import base64
import random
import secrets
import sqlite3
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from inspect import CO_COROUTINE
from types import SimpleNamespace
from typing import Any, NoReturn, TypeVar
from unittest.mock import patch

import structlog
import tenacity
import tenacity._utils

from farmlease import farm
from farmlease.domain.policy import parse_policy
from farmlease.node.accounts import accounts
from farmlease.node.files import record_sync, user_disk, vendor_files
from farmlease.node.journal import journal
from tests.simulation.loop import OWNER, VirtualLoop

__all__ = ["dice", "seeded"]

T = TypeVar("T")


def dice(seed: int, what: str) -> random.Random:
    """Return the dice of one part of a run, which what others throw does not disturb."""
    return random.Random(f"{seed} {what}")  # noqa: S311 - a replay needs dice that can be thrown again


@contextmanager
def seeded(seed: int, loop: VirtualLoop, complaints: list[str]) -> Iterator[None]:
    """Let the production code draw from the seed, and write what it logs as an error to ``complaints``."""
    state = random.getstate()
    random.seed(f"{seed} production")
    with ExitStack() as stack:

        def put(where: Any, name: str, what: Any) -> None:
            stack.enter_context(patch.object(where, name, what))

        put(secrets, "token_bytes", random.randbytes)
        put(secrets, "token_hex", lambda count: random.randbytes(count).hex())  # noqa: S311 - see dice
        put(secrets, "token_urlsafe", lambda count: base64.urlsafe_b64encode(random.randbytes(count)).decode())  # noqa: S311 - see dice
        put(tenacity, "time", SimpleNamespace(monotonic=loop.time))
        put(tenacity._utils, "is_coroutine_callable", _is_coroutine_callable)
        put(farm, "parse_policy", _parse_policy)
        for room in (accounts, record_sync, user_disk):
            put(room, "in_thread", _inline)
        put(vendor_files, "opened", lambda place, *, make: OWNER.get().disk.opened(place, make=make))
        put(sqlite3, "connect", _connect)
        put(journal, "boot_marker", lambda: OWNER.get().marker)
        _tell(complaints)
        try:
            yield
        finally:
            random.setstate(state)
            if "pytest" in sys.modules:
                structlog.reset_defaults()


async def _inline(work: Callable[[], T]) -> T:
    """Do the work of a thread at once, after others had their turn."""
    await asyncio.sleep(0)
    return work()


_open_database = sqlite3.connect


def _connect(*where: Any, **options: Any) -> sqlite3.Connection:
    """Open a file that nobody else has open: SQLite need not ask the system so before each statement."""
    connection: sqlite3.Connection = _open_database(*where, **options)
    if not options.get("uri"):
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    return connection


#: A policy is a frozen value; agents that read it over and over need not parse it over and over.
_parse_policy = lru_cache(maxsize=64)(parse_policy)


def _is_coroutine_callable(call: Any) -> bool:
    """What tenacity asks of every part of a policy at every try, answered faster."""
    while isinstance(call, partial):
        call = call.func
    code = getattr(getattr(call, "__func__", call), "__code__", None)
    return code is not None and bool(code.co_flags & CO_COROUTINE)


#: The run whose complaints are written down now; the logger itself is set once, for it is remembered by its users.
_complaints: list[list[str]] = [[]]


def _tell(complaints: list[str]) -> None:
    _complaints[0] = complaints

    def note(_: Any, __: str, event: MutableMapping[str, Any]) -> NoReturn:
        _complaints[0].append(" ".join(f"{name}={value}" for name, value in event.items()))
        raise structlog.DropEvent

    structlog.configure(
        processors=[structlog.processors.format_exc_info, note],
        wrapper_class=structlog.make_filtering_bound_logger(40),
        cache_logger_on_first_use="pytest" not in sys.modules,
    )
