"""A look, now and then, at whether the store's servers may drop keys: they would drop leases."""

from contextlib import suppress

from farmlease.domain.store_damage import eviction_text
from farmlease.errors import StoreError
from farmlease.node.journal.policy_cache import PolicyCache
from farmlease.node.sync.damage import StoreDamage
from farmlease.store.connection.connection import Connection
from farmlease.store.inspect.eviction import eviction_of
from farmlease.store.keys import Shard

__all__ = ["LOOK_EVERY", "EvictionWatch"]

#: Seconds between two looks.
LOOK_EVERY = 30.0


class EvictionWatch:
    """Looks at the server of each pool."""

    def __init__(self, connection: Connection, farm: str, policy: PolicyCache, damage: StoreDamage) -> None:
        self._connection = connection
        self._farm = farm
        self._policy = policy
        self._damage = damage

    async def look(self) -> None:
        """Look once, and note what may be lost. A store that is away is no error."""
        with suppress(StoreError):
            texts = [
                eviction_text(*await eviction_of(self._connection, Shard(self._farm, pool.name).key("meta")))
                for pool in self._policy.in_force.pools
            ]
            self._damage.evicting(next(filter(None, texts), ""))
