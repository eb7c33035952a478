"""Leases under another name of their user: moved from index to index, and what says that none is left to move.

Guaranteed: a lease is under exactly one index at any instant, and repeating a call changes nothing. Names and records
are sealed bytes here; whose index is whose is the caller's to know. This module must never join two leases.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum

from farmlease.store.keys import Shard, policy_key
from farmlease.store.lease_store import ScriptRunner, swept
from farmlease.store.script import Script

__all__ = ["NameStore", "Rename", "Renaming"]

BARRED = Script.load("barred")
RENAME = Script.load("rename")
SETTLE_NAMES = Script.load("settle_names")

_PAGE = 500


class Rename(StrEnum):
    """What became of a lease that was to move to another index."""

    RENAMED = "renamed"
    IN_USE = "in_use"  #: it has sessions, or a revocation would meet some, and waits until they have ended
    TAKEN = "taken"  #: the other index has a lease of its own: both stay
    CHANGED = "changed"  #: it is not what was read any more
    NONE = "none"  #: there is nothing under the old index
    RECOVERING = "recovering"  #: which sessions there are is not known yet
    DAMAGED = "damaged"  #: its record does not open, so that the store was not asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Renaming:
    """A lease that is to move to another index; ``lease_id`` is empty if only a revocation is to move."""

    old: str  #: user index
    new: str  #: likewise
    lease_id: str = ""
    version: int = 0  #: of the record
    record: bytes = b""  #: sealed for the new index
    name: bytes  #: of the user, sealed for the new index
    note: bytes = b""  #: the former name, sealed for the new index
    by: bytes = b""  #: the administrator, sealed


class NameStore:
    """The names of one farm's leases, as far as they change."""

    def __init__(self, connection: ScriptRunner, farm: str) -> None:
        self._connection = connection
        self._farm = farm

    async def rename(self, pool: str, renaming: Renaming) -> Rename:
        """Move a lease without sessions, and a revocation, to another index."""
        arguments = RENAME.ordered(
            {
                "old": renaming.old, "new": renaming.new, "lease": renaming.lease_id, "version": renaming.version,
                "record": renaming.record, "name": renaming.name, "note": renaming.note, "by": renaming.by,
            }
        )  # fmt: skip
        answer = await swept(self._connection, RENAME, Shard(self._farm, pool), arguments)
        return Rename(answer[0].decode())

    async def barred(self, pool: str) -> AsyncIterator[tuple[str, bytes]]:
        """Yield the index and the sealed name (or nothing) of every user whom a revocation keeps out."""
        passed = 0
        while True:
            arguments = BARRED.ordered({"after": passed, "count": _PAGE})
            _, *words = await self._connection.call(BARRED, Shard(self._farm, pool).keys(), arguments)
            for user, name in zip(words[::2], words[1::2], strict=True):
                yield user.decode(), name
            if len(words) < 2 * _PAGE:
                return
            passed += _PAGE

    async def settle(self, version: int) -> bool:
        """Note that no lease stands under a former name by policy ``version``; False if another one is in force."""
        arguments = SETTLE_NAMES.ordered({"version": version})
        answer = await self._connection.call(SETTLE_NAMES, (policy_key(self._farm),), arguments)
        return bool(answer[0] == b"settled")
