"""A farm's seals, key by key: how many there are of each, and each sealed anew with the primary.

Whatever cuts a resealing short, each seal is the old one or the new one, and the next run goes on from there. A seal
that does not open is left as it is and counted. Nothing but seals is ever changed.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from farmlease.domain.rotation import Uses
from farmlease.errors import RecordRejected
from farmlease.seal import Purpose, RecordBinding, Sealer, key_id_of
from farmlease.store.redis import Store
from farmlease.store.vault import Kind, Vault

__all__ = ["Progress", "Resealing"]

#: Users whose seals are replaced at once; between two such batches one may stop.
_BATCH = 64
#: How often a seal that was changed under our hands is tried again.
_TRIES = 3


@dataclass(slots=True)
class Progress:
    """How far a resealing has come, in seals. ``left``: could not be, because they do not open, or kept changing."""

    resealed: int = 0
    left: int = 0


class Resealing:
    """The seals of a farm in the hands of somebody who holds its keys. ``pools``: names of its pools."""

    def __init__(self, store: Store, vault: Vault, sealer: Sealer, pools: Iterable[str]) -> None:
        self._store = store
        self._vault = vault
        self._sealer = sealer
        self._pools = tuple(pools)

    async def uses(self) -> dict[str, Uses]:
        """Count what each key holds in the store, by the id that each seal names; keys that hold nothing are not in it.

        What comes or goes meanwhile may be counted or not; what is there all the time is.
        """
        found: dict[str, Uses] = {}
        policy = await self._store.read_policy()
        if key := key_id_of(policy.sealed):
            found.setdefault(key, Uses()).policy += 1
        for pool in self._pools:
            async for _, head in self._vault.seals(pool, Kind.RECORDS):
                if key := key_id_of(head):
                    found.setdefault(key, Uses()).records += 1
            async for _, head in self._vault.seals(pool, Kind.NAMES):
                if key := key_id_of(head):
                    found.setdefault(key, Uses()).names += 1
            async for head in self._vault.notes(pool):
                if key := key_id_of(head):
                    found.setdefault(key, Uses()).notes += 1
        return found

    async def reseal(self) -> AsyncIterator[Progress]:
        """Seal everything anew that the primary does not seal yet; yields after each batch what became of it.

        The policy comes first: a node that lacks the key says so then, and takes nobody.
        """
        yield await self._reseal_policy()
        for pool in self._pools:
            for kind in Kind:
                batch: list[str] = []
                async for user, head in self._vault.seals(pool, kind):
                    if not self._sealer.is_fresh(head):
                        batch.append(user)
                    if len(batch) == _BATCH:
                        yield await self._batch(pool, kind, batch)
                        batch = []
                if batch:
                    yield await self._batch(pool, kind, batch)

    async def _reseal_policy(self) -> Progress:
        for _ in range(_TRIES):
            found = await self._store.read_policy()
            if self._sealer.is_fresh(found.sealed):
                return Progress()
            try:
                new = self._sealer.reseal(Purpose.POLICY, "", (str(found.version),), found.sealed)
            except RecordRejected:
                break
            if await self._vault.reseal_policy(found, new):
                return Progress(resealed=1)
        return Progress(left=1)

    async def _batch(self, pool: str, kind: Kind, users: Iterable[str]) -> Progress:
        """Replace one seal of each user; every replacement is a whole one, whatever happens to the others."""
        done = await asyncio.gather(*(self._one(pool, kind, user) for user in users))
        return Progress(resealed=done.count(True), left=done.count(False))

    async def _one(self, pool: str, kind: Kind, user: str) -> bool | None:
        """Replace a seal. None if there is nothing to replace, False if it is left as it is."""
        for _ in range(_TRIES):
            found = await self._vault.sealed(pool, user)
            old = found.record if kind is Kind.RECORDS else found.name
            if self._sealer.is_fresh(old):
                return None
            try:
                if kind is Kind.RECORDS:
                    binding = RecordBinding(pool=pool, user_index=user, lease_id=found.lease_id, version=found.version)
                    new = self._sealer.reseal_record(binding, old)
                else:
                    new = self._sealer.reseal_name(user, old)
            except RecordRejected:
                return False
            if await self._vault.reseal(pool, kind, user, old, new):
                return True
        return False
