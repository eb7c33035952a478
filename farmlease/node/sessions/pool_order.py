"""The order in which the pools that could serve a session are tried: one in which its user has a named seat goes first.

A named seat is kept for its user whether a session uses it or not: taking a seat of another pool beside it would cost
the farm a second one. Without such a seat the order is the policy's.

Guaranteed: nothing is asked of the store where the answer could not change the order: one pool, no named one, or a
single named pool of which this node has a receipt, or that comes first anyway.
"""

import asyncio
from collections.abc import Sequence

from farmlease.domain.identity import User
from farmlease.domain.model import Kind
from farmlease.domain.policy import Pool
from farmlease.errors import StoreUnavailable
from farmlease.farm import Farm
from farmlease.node.journal.state import State

__all__ = ["PoolOrder"]


class PoolOrder:
    """The order of pools for the starts on one node."""

    def __init__(self, state: State, farm: Farm) -> None:
        self._node = state.node
        self._receipts = state.receipts
        self._store_state = state.store_state
        self._policy = state.policy
        self._names = state.names
        self._farm = farm

    async def seated_first(self, user: User, pools: tuple[Pool, ...]) -> tuple[Pool, ...]:
        """Return the pools with those first in which the user has a named seat.

        One pipelined look-up where receipts tell nothing, or may tell of the wrong one of several named pools: nobody
        tells a node what an administrator took of an idle lease. If the store is away, receipts decide.
        """
        serving = [pool for pool in pools if pool.serves(self._node)]
        named = [pool for pool in serving if pool.kind is Kind.NAMED]
        if not named or serving == [named[0]]:
            return pools
        former_names = self._policy.in_force.former_names
        indexes = self._names.indexes(user) if former_names else (self._farm.sealer.user_index(user),)
        seated = {pool.name for pool in named for index in indexes if self._has_receipt(index, pool)}
        if len(named) > 1 or (not seated and serving[0] is not named[0]):
            seated = await self._looked_up(indexes, named, otherwise=seated)
        return tuple(sorted(pools, key=lambda pool: pool.name not in seated))

    def _has_receipt(self, index: str, pool: Pool) -> bool:
        """Whether this node keeps a receipt of a lease in force."""
        receipt = self._receipts.find(index, pool.name)
        if receipt is None or not receipt.document:
            return False
        return not receipt.lease.has_ended(self._store_state.store_now(pool.name))

    async def _looked_up(self, indexes: Sequence[str], named: list[Pool], *, otherwise: set[str]) -> set[str]:
        """Return the names of the pools in which the store has a lease of the user; ``otherwise`` if it is away."""
        asked = [(pool, index) for pool in named for index in indexes]
        try:
            found = await asyncio.gather(*(self._farm.leases.look_up(pool, index) for pool, index in asked))
        except StoreUnavailable:  # the question for a seat that follows finds that out too, and receipts decide
            return otherwise
        return {pool.name for (pool, _), lease in zip(asked, found, strict=True) if lease is not None}
