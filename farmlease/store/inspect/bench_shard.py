"""A shard for benchmarks: apart from every farm's, with a bounded life, and removed key by key.

Guaranteed: it is never a shard of a farm, as its farm's name holds a slash and no farm's does; removing it names its
few keys and nothing else. A call that is still under way when they are removed writes nothing, for a script does
nothing in a shard without limits.
Not guaranteed: that it is removed if the store is away; its keys expire then, a quarter of an hour after it was begun.

This module must never look for keys (KEYS, SCAN) or empty anything as a whole (FLUSH).
"""

from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from farmlease.store.connection.connection import Connection
from farmlease.store.connection.server_life import parse_info
from farmlease.store.connection.socket import Channel
from farmlease.store.keys import Shard
from farmlease.store.lease_store import LeaseStore

__all__ = ["POOL", "BenchShard", "ServerUsage"]

#: The one pool of a benchmark.
POOL = "trial"
#: Milliseconds after which the keys of a killed benchmark expire; longer than any benchmark takes.
LIFE_MS = 15 * 60_000


@dataclass(frozen=True, slots=True)
class ServerUsage:
    """What the server of the shard has used so far, for all its clients; None where it does not report that."""

    memory: int | None  #: bytes of data, without what clients and the server itself take
    calls: int | None  #: of scripts
    micros: int | None  #: on those calls


class BenchShard:
    """The shard of a benchmark beside the farm ``farm``, within the rights that this farm's users have."""

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
        """Remove all of it, and what an earlier one left; repeating it does no harm. StoreError."""
        await self._connection.query(lambda channel: channel.execute("UNLINK", *self._keys), self._keys)

    async def limit_life(self) -> None:
        """Let the keys that there are by now expire, in case they are never removed. StoreError."""

        async def read(channel: Channel) -> None:
            for key in self._keys:
                await channel.execute("PEXPIRE", key, LIFE_MS)

        await self._connection.query(read, self._keys)

    async def spent(self) -> ServerUsage:
        """Ask the server. StoreError."""

        async def read(channel: Channel) -> ServerUsage:
            memory, stats = await _info(channel, "memory"), await _info(channel, "commandstats")
            words = stats.get("cmdstat_evalsha", "").split(",")  # each is a name, "=" and a number
            scripts = dict(word.split("=", 1) for word in words if "=" in word)
            return ServerUsage(
                _number(memory, "used_memory_dataset"), _number(scripts, "calls"), _number(scripts, "usec")
            )

        answer: Any = await self._connection.query(read, self._keys)
        return ServerUsage(answer.memory, answer.calls, answer.micros)


async def _info(channel: Channel, section: str) -> dict[str, str]:
    """Return a section of INFO; empty where the user has no right to it, or the server has none."""
    try:
        return parse_info(await channel.execute("INFO", section))
    except ResponseError:
        return {}


def _number(info: dict[str, str], name: str) -> int | None:
    value = info.get(name, "")
    return int(value) if value.isdigit() else None
