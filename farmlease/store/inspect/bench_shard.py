"""A shard for trying a store out: apart from every farm's, bounded in its life, and taken away by name.

Guaranteed: it is never a shard of a farm, as its farm's name holds a slash and no farm's does; what removes it names
its few keys and nothing else. A call that is still on its way when they are removed writes nothing, for a script does
nothing in a shard without limits.
Not guaranteed: that it is gone if the store is; it goes by itself then, a quarter of an hour after it was begun.

This module must never look for keys (KEYS, SCAN) or empty anything as a whole (FLUSH).
"""

from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from farmlease.store.connection.connection import Connection
from farmlease.store.connection.socket import Channel, parse_info
from farmlease.store.keys import Shard
from farmlease.store.lease_store import LeaseStore

__all__ = ["POOL", "Spent", "Trial"]

#: The one pool of a trial.
POOL = "trial"
#: Milliseconds after which what a killed trial has left is gone; longer than any trial takes.
LIFE_MS = 15 * 60_000


@dataclass(frozen=True, slots=True)
class Spent:
    """What the server with the trial has spent so far, on everybody; None where it does not tell."""

    memory: int | None  #: bytes of data, without what clients and the server itself take
    calls: int | None  #: of scripts
    micros: int | None  #: on those calls


class Trial:
    """The shard of a trial beside the farm ``farm``, within the rights that this farm's users have."""

    def __init__(self, connection: Connection, farm: str, name: str) -> None:
        self.farm = f"{farm}/{name}"
        self.store = LeaseStore(connection, self.farm)
        self._connection = connection
        self._keys = Shard(self.farm, POOL).keys()

    @property
    def where(self) -> str:
        """What all its keys begin with."""
        return self._keys[0].removesuffix("meta")

    async def remove(self) -> None:
        """Remove all of it, and what an earlier one left; asking again does no harm. StoreError."""
        await self._connection.query(lambda channel: channel.execute("UNLINK", *self._keys), self._keys)

    async def limit_life(self) -> None:
        """Let what there is by now go by itself some time, should nobody come to remove it. StoreError."""

        async def read(channel: Channel) -> None:
            for key in self._keys:
                await channel.execute("PEXPIRE", key, LIFE_MS)

        await self._connection.query(read, self._keys)

    async def spent(self) -> Spent:
        """Ask the server. StoreError."""

        async def read(channel: Channel) -> Spent:
            memory, stats = await _info(channel, "memory"), await _info(channel, "commandstats")
            words = stats.get("cmdstat_evalsha", "").split(",")  # each is a name, "=" and a number
            scripts = dict(word.split("=", 1) for word in words if "=" in word)
            return Spent(_number(memory, "used_memory_dataset"), _number(scripts, "calls"), _number(scripts, "usec"))

        answer: Any = await self._connection.query(read, self._keys)
        return Spent(answer.memory, answer.calls, answer.micros)


async def _info(channel: Channel, section: str) -> dict[str, str]:
    """Return what a server says of itself; nothing where it may not or cannot."""
    try:
        return parse_info(await channel.execute("INFO", section))
    except ResponseError:
        return {}


def _number(told_of: dict[str, str], name: str) -> int | None:
    value = told_of.get(name, "")
    return int(value) if value.isdigit() else None
