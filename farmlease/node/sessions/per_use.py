"""One verb on each use of a session: what it did to each, where it may fail for one and succeed for another."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from farmlease.errors import FarmleaseError
from farmlease.node.journal.sessions import NodeSession

__all__ = ["NotDone", "each_use"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NotDone:
    """A verb that failed for one use."""

    pool: str
    error: FarmleaseError


async def each_use(uses: Iterable[NodeSession], act: Callable[[NodeSession], Awaitable[T]]) -> list[T | NotDone]:
    """Return what ``act`` returned for each use, one after the other, or its FarmleaseError."""
    found: list[T | NotDone] = []
    for use in uses:
        try:
            found.append(await act(use))
        except FarmleaseError as error:
            found.append(NotDone(use.pool, error))
    return found
