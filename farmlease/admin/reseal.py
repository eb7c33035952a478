"""A farm's seals, key by key: how many there are of each, and each sealed anew with the primary.

Whatever cuts a resealing short, each seal is the old one or the new one, and the next run goes on from there. A seal
that does not open is left as it is and counted. Nothing but seals is ever changed.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial

from farmlease.crypto.seal import Purpose, RecordBinding, key_id_of
from farmlease.domain.key_rotation import KeyUses
from farmlease.errors import RecordRejected
from farmlease.farm import Farm
from farmlease.store.seal_store import Kind

__all__ = ["Progress", "Resealing"]

#: Seals that are replaced at once; between two such batches one may stop.
_BATCH = 64
#: How often a seal that was changed under our hands is tried again.
_TRIES = 3


@dataclass(slots=True)
class Progress:
    """How far a resealing has come, in seals. ``left``: could not be, because they do not open, or kept changing."""

    resealed: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class _Seal:
    """One seal as it was read, and what makes another of it. ``replace``: False if it is another one by now."""

    sealed: bytes
    anew: Callable[[bytes], bytes]
    replace: Callable[[bytes], Awaitable[bool]]


_Look = Callable[[], Awaitable[_Seal]]


class Resealing:
    """The seals of a farm in the hands of somebody who holds its keys.

    ``pools``: names of all it ever had, for those that are gone still have leases and an audit.
    """

    def __init__(self, farm: Farm, pools: Iterable[str]) -> None:
        self._farm = farm
        self._sealer = farm.sealer
        self._pools = tuple(pools)

    async def uses(self) -> dict[str, KeyUses]:
        """Count what each key holds in the store, by the id that each seal names; keys that hold nothing are not in it.

        What comes or goes meanwhile may be counted or not; what is there all the time is.
        """
        found = defaultdict[str, Counter[str]](Counter)
        async for what, sealed in self._all():
            if key := key_id_of(sealed):
                found[key][what] += 1
        return {key: KeyUses(**counts) for key, counts in found.items()}

    async def _all(self) -> AsyncIterator[tuple[str, bytes]]:
        """Every seal by its first bytes, and the field of ``KeyUses`` that counts it."""
        yield "policy", (await self._farm.leases.read_policy()).sealed
        for view in await self._farm.nodes.roster():
            yield "names", view.wish.wisher
        for pool, kind in self._sets():
            async for _, head in self._farm.seals.seals(pool, kind):
                yield kind.value, head
        for pool in ("", *self._pools):
            async for head in self._farm.seals.notes(pool):
                yield "notes", head

    async def reseal(self) -> AsyncIterator[Progress]:
        """Seal everything anew that the primary does not seal yet; yields after each batch what became of it.

        The policy comes first: a node that lacks the key says so then, and takes nobody.
        """
        yield await self._replaced([self._policy])
        batch: list[_Look] = []
        async for look in self._stale():
            batch.append(look)
            if len(batch) == _BATCH:
                yield await self._replaced(batch)
                batch = []
        if batch:
            yield await self._replaced(batch)

    async def _stale(self) -> AsyncIterator[_Look]:
        """Whatever else another key than the primary seals."""
        for view in await self._farm.nodes.roster():
            if not self._sealer.is_fresh(view.wish.wisher):
                yield partial(self._wish, view.node)
        for pool, kind in self._sets():
            look = self._record if kind is Kind.RECORDS else self._name
            async for user, head in self._farm.seals.seals(pool, kind):
                if not self._sealer.is_fresh(head):
                    yield partial(look, pool, user)

    def _sets(self) -> list[tuple[str, Kind]]:
        return [("", Kind.NAMES), *((pool, kind) for pool in self._pools for kind in Kind)]

    async def _replaced(self, looks: Iterable[_Look]) -> Progress:
        """Replace seals; every replacement is a whole one, whatever happens to the others."""
        done = await asyncio.gather(*map(self._one, looks))
        return Progress(resealed=done.count(True), left=done.count(False))

    async def _one(self, look: _Look) -> bool | None:
        """Replace a seal. None if there is nothing to replace, False if it is left as it is."""
        for _ in range(_TRIES):
            found = await look()
            if self._sealer.is_fresh(found.sealed):
                return None
            try:
                new = found.anew(found.sealed)
            except RecordRejected:
                return False
            if await found.replace(new):
                return True
        return False

    async def _policy(self) -> _Seal:
        found = await self._farm.leases.read_policy()
        anew = partial(self._sealer.reseal, Purpose.POLICY, "", (str(found.version),))
        return _Seal(found.sealed, anew, partial(self._farm.seals.reseal_policy, found))

    async def _wish(self, node: str) -> _Seal:
        """Who wished that a node drain, or take users again."""
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
