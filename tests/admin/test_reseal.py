"""Seals are counted by key and replaced, without a command around it."""

import asyncio

from farmlease.admin.reseal import ResealedBatch, Resealer
from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.domain.key_rotation import KeyUses
from farmlease.farm import Farm, open_farm
from tests.support.commands import Host

POOLS = ("qlikview", "clearquest")


def rotated(host: Host) -> tuple[str, str]:
    """Seal with a new key from now on; return the old one and the new one."""
    ring = keyring_file.load(host.ring_file)
    grown = keyring_file.change(host.ring_file, ring, lambda found: found.grown(1))
    active = keyring_file.change(host.ring_file, grown, KeyRing.activated)
    return ring.primary, active.primary


async def run(farm: Farm) -> tuple[ResealedBatch, dict[str, KeyUses]]:
    """Seal everything anew; return what became of it in all, and what each key seals afterwards."""
    resealer = Resealer(farm, POOLS)
    batches = [batch async for batch in resealer.reseal()]
    total = ResealedBatch(sum(each.resealed for each in batches), sum(each.left for each in batches))
    return total, await resealer.uses()


def test_resealing_moves_every_seal_to_the_primary(lent: Host) -> None:
    """Two records, two names and the policy, as it is and in the history; the second time there is nothing left to do."""
    old, new = rotated(lent)

    async def twice() -> None:
        async with open_farm(lent.config) as (farm, _):
            assert {old: KeyUses(records=2, names=2, policy=1, former=1)} == await Resealer(farm, POOLS).uses()
            done, uses = await run(farm)
            assert (ResealedBatch(6, 0), {new: KeyUses(records=2, names=2, policy=1, former=1)}) == (done, uses)
            again, _ = await run(farm)
            assert ResealedBatch(0, 0) == again

    asyncio.run(twice())


def test_a_seal_that_does_not_open_is_left_and_counted(lent: Host) -> None:
    """A record in another user's place is not sealed anew as if it were theirs."""
    rotated(lent)

    async def swapped() -> None:
        async with open_farm(lent.config) as (farm, _):
            with lent.store.client() as client:
                (key,) = client.keys("*qlikview*:records")
                (john, record), (mary, _) = client.hgetall(key).items()
                client.hset(key, mary, record)
            done, uses = await run(farm)
            assert (5, 1) == (done.resealed, done.left)
            assert [1, 1] == sorted(each.records for each in uses.values())
            assert john != mary

    asyncio.run(swapped())
