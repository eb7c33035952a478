"""Repairing a pool whose data in the store were damaged: what its leases' documents claim is what counts.

Nothing that was set aside is deleted. A lease whose record is lost gets back the one that was set aside, if one opens
for it, and else an empty one, so that its user can work again; never while a session of the user lives, whose node has
the files.
"""

from dataclasses import dataclass, replace

from farmlease.crypto.seal import RecordBinding
from farmlease.domain.policy import Pool
from farmlease.domain.record import BorrowedRecord, encode
from farmlease.errors import RecordRejected, StoreRefused
from farmlease.farm import Farm
from farmlease.store.answers.session import NOTHING, Claim
from farmlease.store.answers.stored_lease import StoredLease
from farmlease.store.damage_store import Rebuilt, SetAside

__all__ = ["PoolRepair", "Repaired"]

#: Versions of a record, from the lease's own back, as which one that was set aside is tried.
_TRIED = 20


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was done, and what was lost before."""

    missing: tuple[str, ...]  #: what the pool lacked
    rebuilt: Rebuilt
    returned: int  #: leases that got back a record which had been set aside
    emptied: int  #: leases that got an empty record
    unrecorded: int  #: leases without a record whose users have sessions
    set_aside: tuple[SetAside, ...]


class PoolRepair:
    """The repair of one farm's pools."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    async def missing(self, pool: Pool) -> tuple[str, ...]:
        """Return what a pool lacks."""
        return await self._farm.damage.missing(pool.name)

    async def repair(self, pool: Pool) -> Repaired:
        """Repair a pool. StoreRefused while it is being recovered: its nodes have not put back what they have."""
        if await self._farm.damage.is_recovering(pool.name):
            raise StoreRefused(
                f"pool {pool.name} is recovering; repair it in a minute, when the nodes have restored it"
            )
        missing = await self.missing(pool)
        rebuilt = await self._farm.damage.rebuild(pool.name, self._farm.signature())
        returned = emptied = unrecorded = 0
        async for listed in self._farm.leases.list(pool):
            stored = await self._farm.leases.look_up(pool, listed.user)
            if stored is None or stored.record:
                continue
            if stored.sessions:
                unrecorded += 1
            elif await self._return(pool, stored):
                returned += 1
            elif await self._begin_anew(pool, stored):
                emptied += 1
            else:
                unrecorded += 1
        aside = tuple(await self._farm.damage.set_aside(pool.name))
        return Repaired(missing, rebuilt, returned, emptied, unrecorded, aside)

    async def _return(self, pool: Pool, stored: StoredLease) -> bool:
        """Give a lease the latest of its records that were set aside; return whether one of them was its own."""
        newest = stored.binding(pool.name)
        bindings = [replace(newest, version=newest.version - back) for back in range(min(_TRIED, newest.version))]
        for record in await self._farm.damage.records_set_aside(pool.name, stored.user):
            for binding in bindings:
                if (plain := self._opened(binding, record)) is None:
                    continue
                same = record if binding == newest else self._farm.sealer.seal_record(newest, plain)
                return await self._put_back(pool, stored, same)
        return False

    def _opened(self, binding: RecordBinding, record: bytes) -> bytes | None:
        try:
            return self._farm.sealer.unseal_record(binding, record)
        except RecordRejected:
            return None

    def _name(self, stored: StoredLease) -> str:
        """Return the user's name; empty if it was lost, or does not open."""
        try:
            return self._farm.sealer.unseal_name(stored.user, stored.name) if stored.name else ""
        except RecordRejected:
            return ""

    async def _begin_anew(self, pool: Pool, stored: StoredLease) -> bool:
        """Give a lease an empty record in place of one that is lost; return whether that was done."""
        device = next((each.device for each in stored.devices), self._farm.name)
        record = BorrowedRecord(
            user=self._name(stored),
            pool=pool.name,
            seat=stored.user,
            device=device,
            borrowed_at=stored.lease.issued_at,
            files=(),
        )
        sealed = self._farm.sealer.seal_record(stored.binding(pool.name), encode(record))
        return await self._put_back(pool, stored, sealed)

    async def _put_back(self, pool: Pool, stored: StoredLease, sealed: bytes) -> bool:
        claim = Claim(user=stored.user, node="", session="")
        return await self._farm.damage.put_back_record(
            pool.name, claim, stored.lease.id, stored.record_version, sealed, NOTHING
        )
