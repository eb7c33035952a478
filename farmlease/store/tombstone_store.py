"""What was taken back, as the store has it: read by each node, put back into a store that lost it, or ended.

Guaranteed: repeating a call changes nothing. Users are pseudonyms here.
"""

from contextlib import suppress
from dataclasses import dataclass

from farmlease.domain.tombstones import Graves
from farmlease.store.keys import Shard
from farmlease.store.lease_store import ScriptRunner, swept
from farmlease.store.script import Script

__all__ = ["Buried", "Readmission", "TombstoneStore"]

PUT_BACK = Script.load("put_back")
READMIT = Script.load("readmit")
TOMBSTONES = Script.load("tombstones")

_PAGE = 200


@dataclass(frozen=True, slots=True)
class Buried:
    """What was taken back from the users of a pool, by user index.

    ``number``: how far this goes; ``users``: from how many users something was taken in all.
    """

    number: int
    users: int
    graves: dict[str, Graves]


@dataclass(frozen=True, slots=True)
class Readmission:
    """A revocation was ended."""

    kept_out_until: int | None  #: until when it would have lasted, ms; None where the store has lost that


class TombstoneStore:
    """The tombstones of one farm."""

    def __init__(self, connection: ScriptRunner, farm: str) -> None:
        self._connection = connection
        self._farm = farm

    async def since(self, pool: str, number: int) -> Buried:
        """Return everything that changed after ``number``."""
        found = dict[str, Graves]()
        while True:
            arguments = TOMBSTONES.ordered({"after": number, "count": _PAGE})
            _, last, users, *words = await self._connection.call(TOMBSTONES, Shard(self._farm, pool).keys(), arguments)
            for user, graves in zip(words[::2], words[1::2], strict=True):
                with suppress(ValueError, TypeError, IndexError, AttributeError):  # damaged: set aside by who writes
                    found[user.decode()] = Graves.parse(graves)
            number = int(last)
            if len(words) < 2 * _PAGE:
                return Buried(number, int(users), found)

    async def users(self, pool: str) -> int:
        """Return from how many users of a pool something was taken that a receipt may still know of."""
        arguments = TOMBSTONES.ordered({"after": 0, "count": 0})
        answer = await self._connection.call(TOMBSTONES, Shard(self._farm, pool).keys(), arguments)
        return int(answer[2])

    async def readmit(self, pool: str, user: str, note: bytes = b"", by: bytes = b"") -> Readmission | None:
        """End a revocation; None if none keeps the user out. ``by``: the administrator, sealed."""
        arguments = READMIT.ordered({"user": user, "note": note, "by": by})
        answer = await self._connection.call(READMIT, Shard(self._farm, pool).keys(), arguments)
        return Readmission(int(answer[1]) if answer[1] else None) if answer[0] == b"readmitted" else None

    async def put_back(self, pool: str, node: str, epoch: int, user: str, graves: Graves) -> bool:
        """Take again what a store has lost that it was taken; False if the epoch is over."""
        arguments = PUT_BACK.ordered({"user": user, "node": node, "epoch": epoch, "graves": graves.dump()})
        answer = await swept(self._connection, PUT_BACK, Shard(self._farm, pool), arguments)
        return bool(answer[0] == b"put")
