"""Whether a server may drop keys when its memory is full, and whether it has."""

from redis.exceptions import ResponseError

from farmlease.store.connection.connection import Connection
from farmlease.store.connection.server_life import parse_info
from farmlease.store.connection.socket import Channel

__all__ = ["eviction_of"]


async def eviction_of(connection: Connection, key: str) -> tuple[str, int]:
    """Return the eviction policy of the server that has ``key``, and how many keys it has evicted.

    An empty policy where the server does not report it. StoreError if it does not answer.
    """

    async def read(channel: Channel) -> tuple[str, int]:
        try:
            memory = parse_info(await channel.execute("INFO", "memory"))
            stats = parse_info(await channel.execute("INFO", "stats"))
        except ResponseError:
            return "", 0
        evicted = stats.get("evicted_keys", "0")
        return memory.get("maxmemory_policy", ""), int(evicted) if evicted.isdecimal() else 0

    found: tuple[str, int] = await connection.query(read, (key,))
    return found
