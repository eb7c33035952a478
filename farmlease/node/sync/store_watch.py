"""A look, now and then, at what no heartbeat touches: whether servers may drop keys, and what is in the farm's keys.

A look is short whatever the farm's size: it goes on where the one before stopped, and the more nodes there are, the
less each of them looks at. Of more than ten about ten look each time. So the store has the same work from ten nodes as
from a thousand.
"""

import random
from collections.abc import Iterator
from contextlib import suppress

from farmlease.domain.store_damage import Foreign, eviction_text, farm_loss_text, foreign_text, wrong_type_text
from farmlease.errors import KeyDamaged, StoreError
from farmlease.node.journal.state import State
from farmlease.node.sync.damage import StoreDamage
from farmlease.store.connection.connection import Connection
from farmlease.store.connection.socket import Channel
from farmlease.store.connection.wrong_type import WrongType, wrong_types
from farmlease.store.inspect.eviction import eviction_of
from farmlease.store.inspect.farm_keys import lost_farm_keys
from farmlease.store.inspect.foreign import FIRST, foreign_page
from farmlease.store.keys import Shard, farm_keys

__all__ = ["LOOK_EVERY", "StoreWatch"]

#: Seconds between two looks.
LOOK_EVERY = 30.0
#: Pages of keys that all nodes together look at in one look, and that each looks at in any case.
_PAGES = 60
_LEAST = 10
#: Nodes that look each time, about, where there are more.
_LOOKERS = 10


class StoreWatch:
    """Looks at the server and at the keys of each pool, and at the farm's own."""

    def __init__(self, connection: Connection, farm: str, state: State, damage: StoreDamage) -> None:
        self._connection = connection
        self._farm = farm
        self._policy = state.policy
        self._store_state = state.store_state
        self._damage = damage
        #: Where the next page begins: a key, its cursor, and what is foreign in the pages of that key before.
        self._at: tuple[str, str, Foreign] | None = None
        self._foreign: dict[str, Foreign] = {}
        self._left_out = 0  # turns until it looks again

    async def look(self) -> None:
        """Look, if it is this node's turn, and note what may be lost or is wrong. A store that is away is no error."""
        if self._left_out:
            self._left_out -= 1
            return
        self._left_out = random.randint(0, 2 * (self._nodes // _LOOKERS))  # noqa: S311 - spreads load
        with suppress(StoreError):
            self._damage.evicting(next(filter(None, [await self._eviction(pool) for pool in self._pools]), ""))
        with suppress(StoreError):
            wrong = [each for pool in ("", *self._pools) for each in await self._wrong_types(pool)]
            self._damage.of_other_types({each[0]: wrong_type_text(*each) for each in wrong})
        with suppress(StoreError):
            lost = await lost_farm_keys(self._connection, self._farm)
            self._damage.lost({key: farm_loss_text(key) for key in lost})
        with suppress(StoreError):
            await self._look_on()
        pools = dict(self._keys())
        foreign = [each for key, each in sorted(self._foreign.items()) if each.number and key in pools]
        self._damage.foreign({each.key: foreign_text(each, pools[each.key]) for each in foreign})

    @property
    def _pools(self) -> list[str]:
        return [pool.name for pool in self._policy.in_force.pools]

    @property
    def _nodes(self) -> int:
        return max((len(self._store_state.roster(pool)) for pool in self._pools), default=1)

    def _keys(self) -> Iterator[tuple[str, str]]:
        """Yield each key that is looked at, and its pool ("": the farm's own)."""
        yield from ((key, "") for key in farm_keys(self._farm))
        for pool in self._pools:
            shard = Shard(self._farm, pool)
            yield from ((key, pool) for key in shard.keys() if key != shard.key("damaged"))  # noqa: SIM118 - no dict

    async def _eviction(self, pool: str) -> str:
        return eviction_text(*await eviction_of(self._connection, Shard(self._farm, pool).key("meta")))

    async def _wrong_types(self, pool: str) -> list[WrongType]:
        keys = Shard(self._farm, pool).keys() if pool else farm_keys(self._farm)

        async def read(channel: Channel) -> list[WrongType]:
            return await wrong_types(channel, keys)

        found: list[WrongType] = await self._connection.query(read, keys)
        return found

    async def _look_on(self) -> None:
        """Look at some pages of the keys, each key once at most, from where the look before stopped."""
        keys = [key for key, _ in self._keys()]
        begun = 0
        for _ in range(max(_LEAST, _PAGES // max(1, self._nodes))):
            key, cursor, before = self._at or (keys[0], FIRST, Foreign(keys[0]))
            begun += cursor == FIRST
            if key not in keys or begun > len(keys):  # a pool that is gone, or all were looked at
                self._at = None
                return
            following = keys[(keys.index(key) + 1) % len(keys)]
            self._at = following, FIRST, Foreign(following)  # if the store refuses this one, others get their turn
            with suppress(KeyDamaged):
                cursor, page = await foreign_page(self._connection, key, cursor)
                found = before.plus(page)
                if cursor != FIRST:
                    self._at = key, cursor, found
                if cursor == FIRST or found.number > self._foreign.get(key, Foreign(key)).number:
                    self._foreign[key] = found
