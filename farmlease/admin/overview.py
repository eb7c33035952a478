"""A farm at a glance, for an administrator: how full its pools are, who was denied of late, and its nodes.

It writes nothing of its own and reads a bounded part of the audit: a store with a long one must answer as fast. What
cannot be read is named, and hides nothing else.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from farmlease.domain.diagnosis.farm import DENIED_WITHIN_MS, Denials, PoolState
from farmlease.domain.diagnosis.finding import Finding, failed
from farmlease.domain.node_view import NodeView
from farmlease.domain.policy import Pool
from farmlease.domain.usage import HOUR_MS, hours
from farmlease.errors import StoreError, StoreUnavailable
from farmlease.farm import Farm
from farmlease.store.audit_store import AuditCursor

__all__ = ["Overview", "overview"]

#: Hours of a pool that are looked at, the present one included.
HOURS = 24
#: Decisions of one audit that are looked at for people who were denied: hardly more are kept. They take a second of
#: work, half of it the store's.
MOST_READ = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A farm at one instant. ``unread``: what could not be read, and why."""

    at: int  #: ms by the store's clock
    pools: tuple[PoolState, ...]
    nodes: tuple[NodeView, ...]
    denials: Denials = field(default_factory=lambda: Denials({}))
    unread: tuple[Finding, ...] = ()


async def overview(farm: Farm, pools: Iterable[Pool]) -> Overview:
    """Read a farm's pools, nodes and denials. StoreUnavailable if the store is away."""
    now = (await farm.leases.read_policy()).now
    states, unread, people, whole = list[PoolState](), list[Finding](), dict[str, frozenset[str]](), True
    for pool in (*pools, None):
        name = pool.name if pool is not None else ""
        try:
            if pool is not None:
                states.append(state := await _pool(farm, pool, now))
                if not any(hour.denials for hour in state.hours[-2:]):
                    continue  # nobody to look for
            people[name], all_read = await _denied(farm, name, now)
            whole = whole and all_read
        except StoreUnavailable:
            raise
        except StoreError as error:
            unread.append(failed("pools", f"{name or 'the farm itself'}: {' '.join(str(error).split())}", name))
    views = list[NodeView]()
    try:
        views = await farm.nodes.roster()
    except StoreUnavailable:
        raise
    except StoreError as error:
        unread.append(failed("nodes", " ".join(str(error).split())))
    return Overview(
        at=now, pools=tuple(states), nodes=tuple(views), denials=Denials(people, whole), unread=tuple(unread)
    )


async def _pool(farm: Farm, pool: Pool, now: int) -> PoolState:
    """Return how full a pool is, and its last hours."""
    count = await farm.leases.count(pool.name)
    since = now - (HOURS - 1) * HOUR_MS
    at, tallies = await farm.audit.usage(pool.name, since)
    return PoolState(
        name=pool.name,
        kind=pool.kind,
        held=count.held if count else 0,
        capacity=count.capacity if count else pool.capacity,
        overdraft=pool.overdraft,
        quarantined=count.quarantined if count else 0,
        waiting=count.waiting if count else 0,
        now=at,
        hours=tuple(hours(tallies, since=since, now=at)),
    )


async def _denied(farm: Farm, pool: str, now: int) -> tuple[frozenset[str], bool]:
    """Return who was denied of late, by the audit of a pool ("": the farm's own), and whether all of it was read."""
    found, read = set[str](), 0
    async for entry in farm.audit.entries(AuditCursor.at(pool, now - DENIED_WITHIN_MS)):
        if entry.event == "denied" and entry.user:
            found.add(entry.user)
        read += 1
        if read == MOST_READ:
            return frozenset(found), False
    return frozenset(found), True
