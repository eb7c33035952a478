"""A session's end, and who may bring it about."""

import pytest

from tests.support.seats import NODE, OTHER, claim, desk
from tests.support.stores import DAY, HOUR, NINE, TimedStore, index


async def test_the_seat_stays_with_the_user_after_the_session(timed: TimedStore) -> None:
    """A session from 09:00 to 11:00: the seat is John's until 11:00 thirty days later."""
    pool = desk(timed)
    await pool.beat()
    john = await pool.start("john")
    timed.clock.advance(HOUR)
    await pool.beat()
    timed.clock.advance(HOUR)
    await pool.end("john", john)
    lease = await pool.lease("john")
    assert lease is not None
    assert () == lease.sessions
    assert (NINE + 2 * HOUR, NINE + 2 * HOUR + 30 * DAY) == (lease.last_contact_at, lease.lease.expires_at)
    assert 1 == await pool.held()


async def test_ending_one_of_two_sessions_ends_one(timed: TimedStore) -> None:
    """The other session goes on and keeps the seat beyond any deadline."""
    pool = desk(timed)
    await pool.beat()
    first = await pool.start("john", "1")
    await pool.start("john", "2")
    await pool.end("john", first, "1")
    for _ in range(31 * 24):
        timed.clock.advance(HOUR)
        await pool.beat()
    lease = await pool.lease("john")
    assert lease is not None
    assert ["2"] == [each.session for each in lease.sessions]
    assert 1 == await pool.held()


async def test_an_older_fence_ends_nothing(timed: TimedStore) -> None:
    """L4: the end of a session that was granted anew meanwhile comes too late, and the new one goes on."""
    pool = desk(timed)
    await pool.beat()
    old = await pool.start("john")
    await pool.end("john", old)
    new = await pool.start("john")
    before = pool.contents()
    await pool.end("john", old)
    assert before == pool.contents()
    await pool.end("john", new)
    assert 0 == (await pool.beat()).sessions


async def test_a_later_fence_ends_it(timed: TimedStore) -> None:
    """An agent that never heard the answer gives back whatever was taken for its question, with the last fence."""
    pool = desk(timed)
    await pool.beat()
    await pool.start("john")
    await timed.store.release("qlikview", claim("john"), 2**53 - 1)
    assert 0 == (await pool.beat()).sessions


@pytest.mark.parametrize("who", [("mary", "1", NODE), ("john", "2", NODE), ("john", "1", OTHER)])
async def test_only_the_very_session_is_ended(timed: TimedStore, who: tuple[str, str, str]) -> None:
    """Another user, session or node by the same fence is another claim."""
    pool = desk(timed)
    await pool.beat(NODE, OTHER)
    john = await pool.start("john")
    before = pool.contents()
    await pool.end(who[0], john, *who[1:])
    assert before == pool.contents()


async def test_an_end_after_the_node_was_given_up_is_heard(timed: TimedStore) -> None:
    """L4: silent since 09:00, the node ends its session with its first word at 11:00, and hears of no loss as well."""
    pool = desk(timed)
    await pool.beat()
    john = await pool.start("john")
    timed.clock.advance(2 * HOUR)
    await pool.end("john", john)
    beat = await pool.beat()
    assert (0, ()) == (beat.sessions, beat.lost)
    lease = await pool.lease("john")
    assert lease is not None
    assert NINE == lease.last_contact_at


@pytest.mark.parametrize("verb", ["release", "save"])
async def test_a_write_beside_a_dead_session_leaves_the_pool_in_order(timed: TimedStore, verb: str) -> None:
    """John has sessions on a dead and a living node; ending or saving the living one is no trouble."""
    pool = desk(timed)
    await pool.beat()
    await pool.start("john", "dead")
    timed.clock.advance(HOUR)
    await pool.beat(OTHER)
    alive = await pool.start("john", "alive", OTHER)
    timed.clock.advance(HOUR)
    if verb == "release":
        await pool.end("john", alive, "alive", OTHER)
    else:
        await timed.store.save("qlikview", claim("john", "alive", OTHER), alive.lease.id, 2, b"new")
    assert 1 == await pool.held()
    await pool.start("mary", "2", OTHER)
    assert [("dead", index("john"))] == [(lost.session, lost.user) for lost in (await pool.beat(NODE)).lost]
    assert 2 == await pool.held()


async def test_a_pool_without_limits_has_nothing_to_end(timed: TimedStore) -> None:
    """An end that reaches an emptied store is no error."""
    await timed.store.release("qlikview", claim("john"), 1)
    assert {} == desk(timed).contents()
