"""What the store still has of policies that are in force no more: the limits of removed pools.

Guaranteed: nothing here changes anything.
"""

from collections.abc import Mapping

from farmlease.store.keys import Shard
from farmlease.store.lease_store import ScriptRunner
from farmlease.store.script import Script

__all__ = ["PolicyStore"]

LIMITS = Script.load("limits")


class PolicyStore:
    """The former policies of one farm."""

    def __init__(self, connection: ScriptRunner, farm: str) -> None:
        self._connection = connection
        self._farm = farm

    async def limits(self, pool: str) -> Mapping[str, str] | None:
        """Return the limits that a pool has or had, by name; None if no policy ever gave it any."""
        word, *words = await self._connection.call(LIMITS, Shard(self._farm, pool).keys(), [])
        if word == b"none":
            return None
        texts = [each.decode() for each in words]
        return dict(zip(texts[::2], texts[1::2], strict=True))
