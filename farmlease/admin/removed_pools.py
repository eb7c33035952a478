"""Pools that no policy has any more, and whose leases go on until they end: they are listed and can be given back.

A policy that gives a pool another name, be it in another case, removes the one and adds the other. This module changes
nothing.
"""

from collections.abc import AsyncIterator

from farmlease.domain.policy import Policy, Pool
from farmlease.farm import Farm

__all__ = ["removed_pool", "removed_pools"]


async def removed_pools(farm: Farm, policy: Policy) -> AsyncIterator[Pool]:
    """Yield each pool that was removed while leases were held in it that still are, by name."""
    for name in await farm.audit.pools():
        if policy.pool(name) is None and (pool := await removed_pool(farm, name)) is not None:
            yield pool


async def removed_pool(farm: Farm, name: str) -> Pool | None:
    """Return a removed pool as far as the store knows it; None if nobody holds a lease in it."""
    count = await farm.leases.count(name)
    if count is None or not count.held:
        return None
    limits = await farm.policies.limits(name)
    return None if limits is None else Pool.from_limits(name, limits)
