"""The order in which the pools that could serve a session are tried: one in which its user has a named seat goes first.

A named seat is kept for its user whether a session uses it or not: taking a seat of another pool beside it would cost
the farm a second one. Without such a seat the order is the policy's.

Guaranteed: nothing is asked of the store where the answer could not change the order: one pool, no named one, a receipt
of a named seat on this node, or the only named pool comes first anyway.
"""

import asyncio

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
        self._farm = farm

    async def seated_first(self, user: User, pools: tuple[Pool, ...]) -> tuple[Pool, ...]:
        """Return the pools with those first in which the user has a named seat.

        One pipelined look-up where receipts tell nothing; a store that is away changes no order.
        """
        serving = [pool for pool in pools if pool.serves(self._node)]
        named = [pool for pool in serving if pool.kind is Kind.NAMED]
        if not named or serving == [named[0]]:
            return pools
        index = self._farm.sealer.user_index(user)
        seated = {pool.name for pool in named if self._has_receipt(index, pool)}
        if not seated and (len(named) > 1 or serving[0] is not named[0]):
            seated = await self._looked_up(index, named)
        return tuple(sorted(pools, key=lambda pool: pool.name not in seated))

    def _has_receipt(self, index: str, pool: Pool) -> bool:
        """Whether this node keeps a receipt of a lease in force."""
        receipt = self._receipts.find(index, pool.name)
        if receipt is None or not receipt.document:
            return False
        return not receipt.lease.has_ended(self._store_state.store_now(pool.name))

    async def _looked_up(self, index: str, named: list[Pool]) -> set[str]:
        """Return the names of the pools in which the store has a lease of the user."""
        try:
            found = await asyncio.gather(*(self._farm.leases.look_up(pool, index) for pool in named))
        except StoreUnavailable:  # the question for a seat that follows finds that out too, and receipts decide
            return set()
        return {pool.name for pool, lease in zip(named, found, strict=True) if lease is not None}
