"""Leases whose user is called otherwise by now: which they are, and moving them to the name that counts.

A lease moves as it stands: its record is unsealed and sealed anew for the other name, and the store puts all of it in
place in one step, by compare-and-set. Nothing is joined and nothing ends: a lease in use waits, and where the other
name has a lease of its own both stay. Interrupted, the next run goes on where this one ended.
This module must never write a lease under two names.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace

from farmlease.crypto.seal import Purpose, RecordBinding
from farmlease.domain.identity import Identities, User
from farmlease.domain.pool import Pool
from farmlease.domain.record import decode, encode
from farmlease.errors import FileRefused, InvalidName, RecordRejected
from farmlease.farm import Farm
from farmlease.store.answers.stored_lease import StoredLease
from farmlease.store.name_store import Rename, Renaming

__all__ = ["DueRename", "LeaseRenamer"]

#: How often a lease may change between reading and moving it.
_MOST_CHANGES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DueRename:
    """A lease that stands under another name than the one that counts. ``sessions``: as many keep it from moving."""

    pool: str
    index: str  #: that it stands under
    name: str  #: likewise, as lists print it
    user: User  #: who that is
    sessions: int = 0
    taken: bool = False  #: the user has another lease in this pool under the name that counts
    barred_only: bool = False  #: there is no lease: a revocation keeps the user out

    @property
    def movable(self) -> bool:
        """Whether it could move now."""
        return not self.sessions and not self.taken


class LeaseRenamer:
    """The leases of one farm under other names than those that count."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._sealer = farm.sealer

    async def due(self, pools: Iterable[str], identity: Identities) -> AsyncIterator[DueRename]:
        """Yield each lease and each revocation of these pools whose user is called otherwise by ``identity``."""
        for pool in pools:
            standing, found = set[str](), list[DueRename]()
            async for stored in self._farm.leases.list_of(pool):
                standing.add(stored.user)
                due = self._due(pool, stored.user, stored.name, identity)
                if due is not None:
                    found.append(replace(due, sessions=len(stored.sessions)))
            async for index, name in self._farm.names.barred(pool):
                due = None if index in standing else self._due(pool, index, name, identity)
                if due is not None:
                    found.append(replace(due, barred_only=True))
            for due in found:
                taken = not due.barred_only and self._sealer.user_index(due.user) in standing
                yield replace(due, taken=taken)

    async def standing(self, pool: Pool, indexes: Iterable[str]) -> list[StoredLease]:
        """Return the lease of each of these indexes that has one."""
        found = [await self._farm.leases.look_up(pool, index) for index in indexes]
        return [stored for stored in found if stored is not None]

    async def move(self, due: DueRename) -> Rename:
        """Move a lease, or a revocation, to the name that counts."""
        new = self._sealer.user_index(due.user)
        for _ in range(_MOST_CHANGES):
            found = await self._farm.seals.record(due.pool, due.index)
            renaming = Renaming(
                old=due.index,
                new=new,
                name=self._sealer.seal_name(new, due.user.canonical),
                note=self._sealer.seal(Purpose.NOTE, new, (), f"was {due.name}".encode("utf-8", "surrogatepass")),
                by=self._farm.signature(),
            )
            if found.lease_id:
                old = RecordBinding(pool=due.pool, user_index=due.index, lease_id=found.lease_id, version=found.version)
                try:
                    record = self._record(old, due.user, found.record)
                except RecordRejected:
                    return Rename.DAMAGED
                renaming = replace(renaming, lease_id=found.lease_id, version=found.version, record=record)
            outcome = await self._farm.names.rename(due.pool, renaming)
            if outcome is not Rename.CHANGED:
                return outcome
        return Rename.CHANGED

    def _due(self, pool: str, index: str, sealed: bytes, identity: Identities) -> DueRename | None:
        """Return what is to be renamed, if anything is; a name that does not open or was erased stays."""
        try:
            name = self._sealer.unseal_name(index, sealed) if sealed else ""
            user = identity.user(name)
        except (RecordRejected, InvalidName):
            return None
        if user.canonical == name:
            return None
        return DueRename(pool=pool, index=index, name=name, user=user)

    def _record(self, old: RecordBinding, user: User, sealed: bytes) -> bytes:
        """Return the same record of the same version, sealed for the index of ``user``, whom it names."""
        index = self._sealer.user_index(user)
        record = decode(self._sealer.unseal_record(old, sealed))
        seat = index if record.seat == old.user_index else record.seat
        try:
            content = encode(replace(record, user=user.canonical, seat=seat))
        except FileRefused:  # a longer name makes it larger than a record may be: whom it names is only told
            content = encode(record)
        return self._sealer.seal_record(replace(old, user_index=index), content)
