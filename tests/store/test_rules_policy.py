"""What becomes of seats that are held when the pool's kind or share changes: none is lost, none is left behind."""

import pytest

from farmlease.domain.model import Reason
from farmlease.store.answers.admin import Import, Importing, ImportOutcome
from tests.support.rules import office
from tests.support.seats import FARM, NODE, OTHER
from tests.support.stores import DAY, HOUR, NINE, TimedStore, index


async def test_a_named_lease_keeps_its_seat_until_its_deadline_when_the_pool_becomes_floating(
    timed: TimedStore,
) -> None:
    """L5: promised for 30 days from 09:00, the seat is counted, listed and refused to others until then."""
    named = await office(timed, "named")
    await named.end("john", await named.start("john"))
    pool = await named.apply("floating")
    assert NINE + 30 * DAY == (await pool.refused("mary")).retry_at
    lease = await pool.lease("john")
    assert lease is not None
    assert NINE + 30 * DAY == lease.lease.expires_at
    await pool.at("09:00", day=30)
    await pool.beat()
    assert (None, 0) == (await pool.lease("john"), await pool.held())
    await pool.start("mary")


async def test_such_a_lease_can_be_returned(timed: TimedStore) -> None:
    """The administrator's return works by what the seat is, not by what the pool has become: quarantined for 24 h."""
    named = await office(timed, "named")
    await named.end("john", await named.start("john"))
    pool = await named.apply("floating")
    withdrawn = await pool.give_back("john")
    assert withdrawn is not None
    assert NINE + DAY == withdrawn.quarantined_until
    await pool.at("09:00", NODE, day=1)
    assert (None, 0) == (await pool.lease("john"), await pool.held())


@pytest.mark.parametrize("share", ["session", "user_device"])
async def test_a_floating_seat_ends_with_its_session_when_the_pool_becomes_named(timed: TimedStore, share: str) -> None:
    """The session goes on; at its end its seat is free, and nothing is kept for 30 days that nobody counts."""
    floating = await office(timed, "floating", share=share)
    john = await floating.start("john")
    pool = await floating.apply("named")
    assert (await pool.start("john")).again
    assert Reason.CAPACITY is (await pool.refused("john", "2")).reason
    await pool.end("john", john)
    assert (None, 0) == (await pool.lease("john"), await pool.held())
    await pool.start("mary")


async def test_a_users_floating_seat_becomes_a_named_one(timed: TimedStore) -> None:
    """Named and share = user are the same seat: it is never counted twice, and kept as a named one from its end."""
    floating = await office(timed, "floating", share="user")
    john = await floating.start("john")
    pool = await floating.apply("named")
    assert john.lease.id == (await pool.start("john", "2")).lease.id
    assert 1 == await pool.held()
    await pool.end("john", john)
    await pool.at("12:00")
    await pool.beat()
    lease = await pool.lease("john")
    assert lease is not None
    assert ((), NINE + 30 * DAY) == (lease.sessions, lease.lease.expires_at)
    assert NINE + 30 * DAY == (await pool.refused("mary")).retry_at


async def test_two_seats_of_one_user_while_the_share_changes_are_two_seats(timed: TimedStore) -> None:
    """L1: sessions begun under another share sit where they sat; each seat counts until its own last session ends."""
    before = await office(timed, "floating", capacity=2, share="user_device")
    first = await before.start("john", "1", device="ws-1")
    pool = await before.apply("floating", capacity=2, share="user")
    second = await pool.start("john", "2", device="ws-1")
    assert 2 == await pool.held()
    await pool.refused("mary")
    await pool.end("john", first, "1")
    assert 1 == await pool.held()
    await pool.end("john", second, "2")
    assert (0, None) == (await pool.held(), await pool.lease("john"))


async def test_a_nodes_seat_is_counted_until_its_last_user_leaves_though_the_pool_becomes_floating(
    timed: TimedStore,
) -> None:
    """L1: john and mary on ctx-01 are one seat of the floating pool of one; john leaves, it is held; mary leaves."""
    locked = await office(timed, "node_locked", nodes=["ctx-01"])
    john, mary = await locked.start("john"), await locked.start("mary")
    pool = await locked.apply("floating", linger="20m")
    await pool.end("john", john)
    assert Reason.CAPACITY is (await pool.refused("zoe")).reason
    await pool.end("mary", mary)
    assert 0 == await pool.held()
    await pool.start("zoe")


async def test_a_lingering_seat_ends_when_it_was_to_though_the_pool_lingers_no_more(timed: TimedStore) -> None:
    """Ended at 09:00 with 20 minutes; the policy of 09:01 says none: until 09:20 it is held, and then free."""
    before = await office(timed, "floating", linger="20m")
    await before.end("john", await before.start("john"))
    pool = await before.apply("floating")
    await pool.at("09:19:59.999", NODE)
    await pool.refused("mary")
    await pool.at("09:20", NODE)
    await pool.start("mary")


async def test_dead_sessions_ended_by_the_limits_they_began_under(timed: TimedStore) -> None:
    """L5: dead since 11:00 and its seat over at 11:20, it stays over when noon's policy lingers 4 hours."""
    before = await office(timed, "floating", NODE, OTHER, linger="20m")
    await before.start("john")
    await before.at("12:00", OTHER)
    pool = await before.apply("floating", linger="4h")
    assert None is await pool.lease("john")
    await pool.beat(OTHER)
    await pool.start("mary", node=OTHER)


async def test_an_import_into_a_pool_that_became_named_takes_a_seat_of_its_own(timed: TimedStore) -> None:
    """L1: john's floating session holds the only seat; his imported lease does not become a second one."""
    floating = await office(timed, "floating")
    await floating.start("john")
    pool = await floating.apply("named")
    outcome = await timed.store.import_lease(
        pool.pool,
        pool.version,
        Importing(user=index("john"), device="nb-1", borrowed_at=NINE, lease_id="i", record=b"r", name=b"n"),
    )
    assert isinstance(outcome, ImportOutcome)
    assert (Import.DENIED, Reason.CAPACITY) == (outcome.outcome, outcome.reason)
    assert 1 == await pool.held()


async def test_a_floating_pool_has_no_device_slots(timed: TimedStore) -> None:
    """Moving or freeing a device of a floating lease is answered, changes nothing and ends no session."""
    pool = await office(timed, "floating")
    await pool.start("john")
    moved = await timed.store.replace_device("clearquest", index("john"), FARM, "nb-1", override=True, note=b"")
    freed = await timed.store.release_device("clearquest", index("john"), FARM)
    assert ("none", "none", 1) == (moved.outcome, freed.outcome, await pool.held())
    assert () == (await pool.beat()).lost
    assert timed.clock.now_ms + 2 * HOUR == (await pool.start("john")).lease.expires_at
