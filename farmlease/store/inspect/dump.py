"""Everything a store holds, as bytes, read past farmlease: to show it and to search it.

It reads whole keys, so it is for the store of a demonstration or a test. Nothing may be decided by what it returns.
"""

import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farmlease.store.connection.driver_errors import DRIVER_ERRORS, store_error
from farmlease.store.connection.socket import unix_client

__all__ = ["DumpedKey", "read_dump"]

ENOUGH = 30.0  #: seconds to read all of it


@dataclass(frozen=True, slots=True)
class DumpedKey:
    """One key and what it holds: field and value of a hash, member and score of a set, and so on, one after another."""

    key: bytes
    kind: str
    parts: tuple[bytes, ...]


async def read_dump(socket: Path) -> tuple[DumpedKey, ...]:
    """Return every key of the store on a Unix socket, in order of their names. Raises StoreError."""
    outside = sys.exception()
    try:
        async with unix_client(socket, ENOUGH) as client:
            keys = sorted([key async for key in client.scan_iter(count=1000)])
            return tuple([await _entry(client.execute_command, key) for key in keys])
    except DRIVER_ERRORS as error:
        raise store_error(f"unix://{socket}", error, outside) from error


async def _entry(command: Callable[..., Awaitable[Any]], key: bytes) -> DumpedKey:
    kind = (await command("TYPE", key)).decode()
    read: dict[str, tuple[Any, ...]] = {
        "string": ("GET", key),
        "hash": ("HGETALL", key),
        "zset": ("ZRANGE", key, 0, -1, "WITHSCORES"),
        "stream": ("XRANGE", key, "-", "+"),
    }
    return DumpedKey(key, kind, tuple(_flat(await command(*read[kind]))))


def _flat(value: Any) -> Iterable[bytes]:  # noqa: ANN401 - a reply of the driver
    """Yield the bytes in a reply, however nested, in order."""
    match value:
        case bytes():
            yield value
        case dict():
            for pair in value.items():
                yield from _flat(pair)
        case list() | tuple():
            for part in value:
                yield from _flat(part)
        case _:
            yield str(value).encode()
