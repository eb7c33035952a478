"""Which of the farm's own keys were lost, as far as another one shows that there was more in them."""

from redis.exceptions import ResponseError

from farmlease.store.connection.connection import Connection
from farmlease.store.connection.socket import Channel
from farmlease.store.keys import farm_keys, kind_of

__all__ = ["lost_farm_keys"]

_SIZE_OF = {"hash": "HLEN", "zset": "ZCARD"}


async def lost_farm_keys(connection: Connection, farm: str) -> list[str]:
    """Return the names of keys that are gone, or have fewer members than were noted (``lua/lib/farm.lua``).

    StoreError if the store does not answer.
    """
    policy, audit, counts, noted, names, pools, policies, nodes, rings = farm_keys(farm)

    async def read(channel: Channel) -> list[str]:
        there = {key: bool(await channel.execute("EXISTS", key)) for key in (policy, audit, counts, pools)}
        shown_by = ((pools, policy), (audit, counts), (counts, audit), (policy, pools))
        lost = [key for key, other in shown_by if there[other] and not there[key]]
        sized = (names, noted, policies, nodes, rings)
        return lost + [key for key in sized if await _size(channel, key) < await _noted(channel, counts, key)]

    found: list[str] = await connection.query(read, (policy,))
    return found


async def _noted(channel: Channel, counts: str, key: str) -> int:
    """Return how many members a key had when it was last written; 0 where that is not known."""
    try:
        value: bytes | None = await channel.execute("HGET", counts, f"#{key.rpartition(':')[2]}")
    except ResponseError:  # counts is of another type, which is told
        return 0
    number = (value or b"#0")[1:]
    return int(number) if number.isdigit() else 0


async def _size(channel: Channel, key: str) -> float:
    """Return how many members a key has; more than any number of a key of another type, which is told."""
    try:
        return int(await channel.execute(_SIZE_OF[kind_of(key)], key))
    except ResponseError:
        return float("inf")
