"""Device slots in an administrator's hand, and holds while there is much to tidy up: answers that say what is so."""

import pytest

from farmlease.store.answers.admin import DeviceRelease, DeviceReplacement, Release, Replacement
from tests.support.seats import NODE, OTHER, Desk, claim, desk
from tests.support.stores import DAY, HOUR, NINE, TimedStore, index


async def release(pool: Desk, user: str, device: str) -> DeviceRelease:
    """Release a device."""
    return await pool.timed.store.release_device(pool.pool.name, index(user), device)


async def replace(pool: Desk, user: str, old: str, new: str, *, override: bool = False) -> DeviceReplacement:
    """Move a slot."""
    return await pool.timed.store.replace_device(
        pool.pool.name, index(user), old, new, override=override, note=b"sealed"
    )


async def used(pool: Desk, user: str, device: str) -> None:
    """Let a user have worked on a device."""
    await pool.end(user, await pool.start(user, f"on {device}", device=device), f"on {device}")


async def slots(pool: Desk, user: str) -> dict[str, int | None]:
    """Return the user's devices and until when each is taken."""
    lease = await pool.lease(user)
    return {each.device: each.until for each in lease.devices} if lease else {}


async def test_a_slot_that_has_lapsed_is_no_device(timed: TimedStore) -> None:
    """Last used 31 days ago, while the lease goes on elsewhere: there is nothing to release or to replace."""
    pool = desk(timed)
    await pool.beat()
    await used(pool, "john", "nb-1")
    timed.clock.advance(DAY)
    await pool.beat()
    await used(pool, "john", "nb-2")
    timed.clock.set(NINE + 30 * DAY)
    assert Release.NONE is (await release(pool, "john", "nb-1")).outcome
    assert Replacement.NONE is (await replace(pool, "john", "nb-1", "nb-3")).outcome
    assert ["nb-2"] == list(await slots(pool, "john"))


async def test_a_slot_does_not_move_onto_another(timed: TimedStore) -> None:
    """A device of the user's own would give a slot back without its quarantine: that is a release."""
    pool = desk(timed)
    await pool.beat()
    await used(pool, "john", "nb-1")
    await used(pool, "john", "nb-2")
    assert Replacement.KNOWN is (await replace(pool, "john", "nb-1", "nb-2")).outcome
    assert ["nb-1", "nb-2"] == list(await slots(pool, "john"))


async def test_the_next_replacement_is_when_enough_are_30_days_old(timed: TimedStore) -> None:
    """One in 30 days; done at 09:00 and, overridden, at 10:00: the next is allowed 30 days after 10:00."""
    pool = desk(timed)
    await pool.beat()
    await used(pool, "john", "nb-1")
    await replace(pool, "john", "nb-1", "nb-2")
    timed.clock.advance(HOUR)
    limit = await replace(pool, "john", "nb-2", "nb-3")
    assert DeviceReplacement(outcome=Replacement.LIMIT, next_at=NINE + 30 * DAY) == limit
    assert Replacement.REPLACED is (await replace(pool, "john", "nb-2", "nb-3", override=True)).outcome
    limit = await replace(pool, "john", "nb-3", "nb-4")
    assert DeviceReplacement(outcome=Replacement.LIMIT, next_at=NINE + HOUR + 30 * DAY) == limit


async def test_a_pool_without_replacements_promises_none(timed: TimedStore) -> None:
    """Where none is allowed there is no time when one will be."""
    pool = desk(timed, replacements=0)
    await pool.beat()
    await used(pool, "john", "nb-1")
    assert DeviceReplacement(outcome=Replacement.LIMIT) == await replace(pool, "john", "nb-1", "nb-2")


@pytest.mark.parametrize("dead", [63, 64, 200])
async def test_a_hold_is_given_however_much_there_is_to_tidy_up(timed: TimedStore, dead: int) -> None:
    """A host with many sessions has died: who holds a form open elsewhere is not told that the session is gone."""
    pool = desk(timed, capacity=300, max_hold="4h")
    await pool.beat(NODE)
    for number in range(dead):
        await pool.start(f"user-{number}", str(number))
    timed.clock.advance(HOUR)
    await pool.beat(OTHER)
    taken = await pool.start("john", node=OTHER)
    timed.clock.advance(HOUR)
    held = await timed.store.hold(pool.pool.name, claim("john", node=OTHER), taken.fence, HOUR)
    assert timed.clock.now_ms + HOUR == held
