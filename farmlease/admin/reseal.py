"""Which key seals how much in a farm's store, and sealing everything anew with the primary key.

Guaranteed: each seal is the old one or the new one, whatever interrupts the work, and the next run continues from
there. A seal that does not open is left as it is and counted. This module must never change anything but seals.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import partial

from farmlease.crypto.seal import Purpose, RecordBinding, key_id_of
from farmlease.domain.key_rotation import KeyUses
from farmlease.errors import RecordRejected
from farmlease.farm import Farm
from farmlease.store.seal_store import Kind

__all__ = ["ResealedBatch", "Resealer"]

#: Seals replaced concurrently; the work can be stopped between two batches.
_BATCH = 64
#: Attempts at a seal that another writer keeps changing.
_TRIES = 3


@dataclass(frozen=True, slots=True)
class ResealedBatch:
    """What became of a batch of seals. ``left``: not resealed, because they do not open or kept changing."""

    resealed: int
    left: int


@dataclass(frozen=True, slots=True)
class _Seal:
    """One seal as it was read. ``reseal`` returns its new form; ``replace`` is False if it was changed meanwhile."""

    sealed: bytes
    reseal: Callable[[bytes], bytes]
    replace: Callable[[bytes], Awaitable[bool]]


_Read = Callable[[], Awaitable[_Seal]]


class _Resealed(Enum):
    """What became of one seal."""

    FRESH = "fresh"  #: the primary had made it already
    DONE = "done"
    LEFT = "left"  #: it does not open, or is replaced all the time


class Resealer:
    """Counts the seals of a farm by key, and seals them anew.

    ``pools``: the names of all pools there ever were: removed ones still have leases and an audit.
    """

    def __init__(self, farm: Farm, pools: Iterable[str]) -> None:
        self._farm = farm
        self._sealer = farm.sealer
        self._pools = tuple(pools)

    async def uses(self) -> dict[str, KeyUses]:
        """Count what each key seals in the store, by key id; keys that seal nothing are left out.

        Not guaranteed: that a seal which is added or removed meanwhile is counted.
        """
        found = defaultdict[str, Counter[str]](Counter)
        async for what, sealed in self._all():
            if key := key_id_of(sealed):
                found[key][what] += 1
        return {key: KeyUses(**counts) for key, counts in found.items()}

    async def _all(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield the field of ``KeyUses`` that counts a seal, and the seal's first bytes, for every seal."""
        yield "policy", (await self._farm.leases.read_policy()).sealed
        for view in await self._farm.nodes.roster():
            yield "names", view.wish.wisher
        for pool, kind in self._sets():
            async for _, head in self._farm.seals.seals(pool, kind):
                yield kind.value, head
        async for _, head in self._farm.seals.seals("", Kind.POLICIES):
            yield "former", head
        for pool in ("", *self._pools):
            async for head in self._farm.seals.notes(pool):
                yield "notes", head

    async def reseal(self) -> AsyncIterator[ResealedBatch]:
        """Seal anew whatever another key than the primary seals; yield the result of each batch.

        The policy comes first: a node that lacks the key then reports so and takes no users.
        """
        yield await self._reseal_batch([self._policy])
        batch: list[_Read] = []
        async for read in self._stale():
            batch.append(read)
            if len(batch) == _BATCH:
                yield await self._reseal_batch(batch)
                batch = []
        if batch:
            yield await self._reseal_batch(batch)

    async def _stale(self) -> AsyncIterator[_Read]:
        """Yield how to read each seal but the policy's that another key than the primary made."""
        for view in await self._farm.nodes.roster():
            if not self._sealer.is_fresh(view.wish.wisher):
                yield partial(self._requester, view.node)
        async for field, head in self._farm.seals.seals("", Kind.POLICIES):
            if not self._sealer.is_fresh(head):
                yield partial(self._former, field)
        for pool, kind in self._sets():
            read = self._record if kind is Kind.RECORDS else self._name
            async for user, head in self._farm.seals.seals(pool, kind):
                if not self._sealer.is_fresh(head):
                    yield partial(read, pool, user)

    def _sets(self) -> list[tuple[str, Kind]]:
        return [("", Kind.NAMES), *((pool, kind) for pool in self._pools for kind in (Kind.RECORDS, Kind.NAMES))]

    async def _reseal_batch(self, reads: Iterable[_Read]) -> ResealedBatch:
        """Replace seals; each replacement is atomic, whatever happens to the others."""
        done = await asyncio.gather(*map(self._reseal_one, reads))
        return ResealedBatch(resealed=done.count(_Resealed.DONE), left=done.count(_Resealed.LEFT))

    async def _reseal_one(self, read: _Read) -> _Resealed:
        """Replace a seal, unless the primary made it."""
        for _ in range(_TRIES):
            found = await read()
            if self._sealer.is_fresh(found.sealed):
                return _Resealed.FRESH
            try:
                new = found.reseal(found.sealed)
            except RecordRejected:
                return _Resealed.LEFT
            if await found.replace(new):
                return _Resealed.DONE
        return _Resealed.LEFT

    async def _policy(self) -> _Seal:
        found = await self._farm.leases.read_policy()
        reseal = partial(self._sealer.reseal, Purpose.POLICY, "", (str(found.version),))
        return _Seal(found.sealed, reseal, partial(self._farm.seals.reseal_policy, found))

    async def _former(self, field: str) -> _Seal:
        """Read one of the last policies, or the name of who applied it."""
        sealed, (version, _, what) = await self._farm.seals.former_policy(field), field.partition(" ")
        if what == "by":
            reseal = self._sealer.reseal_author
        else:
            reseal = partial(self._sealer.reseal, Purpose.POLICY, "", (version,))
        return _Seal(sealed, reseal, partial(self._farm.seals.reseal, "", Kind.POLICIES, field, sealed))

    async def _requester(self, node: str) -> _Seal:
        """Read the seal of who requested that a node drain or undrain."""
        sealed = next((view.wish.wisher for view in await self._farm.nodes.roster() if view.node == node), b"")
        return _Seal(sealed, self._sealer.reseal_author, partial(self._farm.seals.reseal_wish, node, sealed))

    async def _record(self, pool: str, user: str) -> _Seal:
        found = await self._farm.seals.record(pool, user)
        binding = RecordBinding(pool=pool, user_index=user, lease_id=found.lease_id, version=found.version)
        replace = partial(self._farm.seals.reseal, pool, Kind.RECORDS, user, found.record)
        return _Seal(found.record, partial(self._sealer.reseal_record, binding), replace)

    async def _name(self, pool: str, user: str) -> _Seal:
        sealed = await self._farm.seals.name(pool, user)
        replace = partial(self._farm.seals.reseal, pool, Kind.NAMES, user, sealed)
        return _Seal(sealed, partial(self._sealer.reseal_name, user), replace)
