"""How full the farm's pools are, as far as this node needs to know: for its metrics and for an early warning.

The store is asked once a minute, pool by pool, and the counts are kept in between. A store that is away is not asked;
counts that are too old are dropped.
"""

from farmlease.clock import Clock
from farmlease.domain.model import Kind, PoolUse
from farmlease.errors import StoreError
from farmlease.farm import Farm
from farmlease.node.journal.policy_cache import PolicyCache
from farmlease.node.sync.availability import StoreAvailability

__all__ = ["PoolUsage"]

#: Seconds between two counts of the pools.
EVERY = 60.0
#: Seconds after which a count is too old.
STALE_AFTER = 300.0


class PoolUsage:
    """The pools' seats as counted last. ``alert_percent``: from which share on a pool is crowded; 0: never."""

    def __init__(
        self, farm: Farm, policy: PolicyCache, availability: StoreAvailability, clock: Clock, alert_percent: int
    ) -> None:
        self._farm = farm
        self._policy = policy
        self._availability = availability
        self._clock = clock
        self._alert = alert_percent
        self._asked_at: float | None = None
        self._version = 0
        self._counted_at: float | None = None
        self._uses: tuple[PoolUse, ...] = ()

    @property
    def counted_at(self) -> float | None:
        """When the pools were counted, in seconds of the monotonic clock; None: never, or too long ago to matter."""
        at = self._counted_at
        return at if at is not None and self._clock.monotonic() - at < STALE_AFTER else None

    @property
    def uses(self) -> tuple[PoolUse, ...]:
        """The pools that are in the policy, as counted last."""
        return () if self.counted_at is None else self._uses

    @property
    def crowded(self) -> dict[str, str]:
        """Each pool that is as full as the alert says, with a sentence. A node_locked one is full by nature."""
        found = {}
        for use in self.uses:
            taken = use.capacity - use.free
            if self._alert and use.kind is not Kind.NODE_LOCKED and 100 * taken >= self._alert * use.capacity:
                found[use.name] = f"pool {use.name}: {taken} of {use.capacity} seats are taken"
        return found

    async def take(self) -> None:
        """Count the pools, if it is time to. A store that is away is no error."""
        now, in_force = self._clock.monotonic(), self._policy.in_force
        due = self._asked_at is None or now - self._asked_at >= EVERY or self._version != in_force.version
        if not due or not in_force.pools or not self._availability.answers:
            return
        self._asked_at, self._version = now, in_force.version
        try:
            self._uses = tuple([await self._farm.use(pool) for pool in in_force.pools])
        except StoreError as error:
            self._availability.failed(error)
        else:
            self._counted_at = now
