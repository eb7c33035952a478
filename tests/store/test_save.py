"""The record's new versions, by compare-and-set."""

import pytest

from farmlease.store.answers.session import Conflict, Saved
from tests.support.seats import OTHER, claim, desk
from tests.support.stores import DAY, HOUR, NINE, TimedStore


async def test_the_next_session_anywhere_gets_what_was_saved(timed: TimedStore) -> None:
    """John's file saved on ctx-01 is what ctx-02 is given, with its version."""
    pool = desk(timed)
    await pool.beat()
    john = await pool.start("john")
    assert Saved(version=2) == await timed.store.save("qlikview", claim("john"), john.lease.id, 2, b"new\0\xff")
    await pool.beat(OTHER)
    there = await pool.start("john", node=OTHER)
    assert (2, b"new\0\xff", john.lease.id) == (there.record_version, there.record, there.lease.id)


async def test_of_two_who_change_it_at_once_one_succeeds(timed: TimedStore) -> None:
    """L6: both made version 2 from version 1; the second is shown the first's and nothing of it is overwritten."""
    pool = desk(timed)
    await pool.beat()
    john = await pool.start("john")
    await timed.store.save("qlikview", claim("john"), john.lease.id, 2, b"one")
    second = await timed.store.save("qlikview", claim("john", node=OTHER), john.lease.id, 2, b"other")
    assert Conflict(version=2, record=b"one", saved_at=NINE, nodes=frozenset({"ctx-01"})) == second
    assert Saved(version=3) == await timed.store.save("qlikview", claim("john"), john.lease.id, 3, b"both")


@pytest.mark.parametrize("version", [0, 1, 3, 2**40])
async def test_only_the_next_version_is_taken(timed: TimedStore, version: int) -> None:
    """L6: a record from an older version, or from one that never was, is a conflict."""
    pool = desk(timed)
    await pool.beat()
    john = await pool.start("john", record=b"first")
    before = pool.contents()
    saved = await timed.store.save("qlikview", claim("john"), john.lease.id, version, b"x")
    assert Conflict(version=1, record=b"first", saved_at=0, nodes=frozenset({"ctx-01"})) == saved
    assert before == pool.contents()


async def test_a_save_may_come_after_the_session(timed: TimedStore) -> None:
    """A node whose store was away saves after its session ended; the lease's deadline does not move."""
    pool = desk(timed)
    await pool.beat()
    john = await pool.start("john")
    await pool.end("john", john)
    timed.clock.advance(DAY)
    assert Saved(version=2) == await timed.store.save("qlikview", claim("john"), john.lease.id, 2, b"late")
    lease = await pool.lease("john")
    assert lease is not None
    assert (NINE + 30 * DAY, 2, b"late") == (lease.lease.expires_at, lease.record_version, lease.record)


async def test_a_save_to_a_lease_that_ended_is_refused(timed: TimedStore) -> None:
    """L4: what an old lease's holder saves never reaches the user's next lease, nor brings the old one back."""
    pool = desk(timed)
    await pool.beat()
    old = await pool.start("john")
    await pool.end("john", old)
    timed.clock.advance(30 * DAY)
    assert None is await timed.store.save("qlikview", claim("john"), old.lease.id, 2, b"late")
    assert 0 == await pool.held()
    await pool.beat()
    new = await pool.start("john")
    assert None is await timed.store.save("qlikview", claim("john"), old.lease.id, 2, b"late")
    lease = await pool.lease("john")
    assert lease is not None
    assert (new.lease.id, 1, new.record) == (lease.lease.id, lease.record_version, lease.record)


async def test_nobody_saves_what_nobody_holds(timed: TimedStore) -> None:
    """A user without a lease, and a store without the pool, have nothing to save to."""
    pool = desk(timed)
    assert None is await timed.store.save("qlikview", claim("john"), "x", 2, b"x")
    await pool.beat()
    assert None is await timed.store.save("qlikview", claim("john"), "x", 2, b"x")
    assert {"meta", "nodes", "audit"} == pool.contents().keys()


async def test_a_mebibyte_is_saved(timed: TimedStore) -> None:
    """The largest record is saved and read back byte for byte."""
    pool = desk(timed)
    await pool.beat()
    john = await pool.start("john")
    record = bytes(range(256)) * 4096
    await timed.store.save("qlikview", claim("john"), john.lease.id, 2, record)
    timed.clock.advance(HOUR)
    again = await pool.start("john")
    assert (2, record) == (again.record_version, again.record)
