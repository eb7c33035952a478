"""Reservations, overdraft and the queue, rule by rule."""

import pytest

from farmlease.domain.model import Reason, Withdrawal
from farmlease.errors import PolicyError
from farmlease.store.answers.recovery import Restored, Restoring
from farmlease.store.answers.session import Refusal, Taken
from farmlease.store.lease_store import Acquired
from tests.support.rules import MINUTE, Office, office, pool_of
from tests.support.seats import NODE, OTHER
from tests.support.seats import claim as pool_claim
from tests.support.stores import HOUR, NINE, TimedStore, index

READER = [{"users": ["mailreader"], "seats": 1}]


async def crowd(pool: Office, number: int) -> list[Taken]:
    """Let so many users in."""
    return [await pool.start(f"user{each}", f"of {each}") for each in range(number)]


async def test_the_mail_reader_keeps_its_reserved_seat_when_25_others_want_it(timed: TimedStore) -> None:
    """25 seats, one reserved: 24 of 25 others get one, the last is told `reserved`; the mail reader gets in at noon."""
    pool = await office(timed, "floating", capacity=25, reserve=READER)
    await crowd(pool, 24)
    refusal = await pool.refused("user24")
    assert (Reason.RESERVED, 24, 25) == (refusal.reason, refusal.held, refusal.capacity)
    assert 1 == (await pool.count()).reserved
    await pool.at("12:00", NODE)
    reader = await pool.favoured("mailreader")
    assert isinstance(reader, Taken)
    assert (25, 0, False) == (await pool.held(), (await pool.count()).reserved, reader.overdraft)
    assert Reason.CAPACITY is (await pool.refused("user24")).reason
    await pool.end("mailreader", reader)
    assert 1 == (await pool.count()).reserved
    assert Reason.RESERVED is (await pool.refused("user24")).reason


async def test_beyond_the_reservation_one_competes_like_everybody(timed: TimedStore) -> None:
    """Two seats, one reserved: the mail reader's second seat is one of the others', if there is one left."""
    pool = await office(timed, "floating", capacity=2, share="session", reserve=READER)
    assert isinstance(await pool.favoured("mailreader", "1"), Taken)
    john = await pool.start("john")
    assert isinstance(await pool.favoured("mailreader", "2"), Refusal)
    await pool.end("john", john)
    assert isinstance(await pool.favoured("mailreader", "2"), Taken)
    assert Reason.CAPACITY is (await pool.refused("john")).reason


async def test_a_reserved_seat_in_quarantine_is_not_reserved_a_second_time(timed: TimedStore) -> None:
    """Named, two seats, one reserved: returned at 09:00, the reader's seat is his until tomorrow."""
    pool = await office(timed, "named", capacity=2, reserve=READER)
    await pool.favoured("mailreader")
    await pool.give_back("mailreader")
    assert 0 == (await pool.count()).reserved
    await pool.start("john")
    assert Reason.QUARANTINED is (await pool.refused("mary")).reason
    await pool.at("09:00", NODE, day=1)
    assert 1 == (await pool.count()).reserved
    assert Reason.RESERVED is (await pool.refused("mary")).reason


async def test_a_reserved_seat_that_lingers_falls_back_to_its_reservation(timed: TimedStore) -> None:
    """Ended at 09:00 with 20 minutes' linger: at 09:20 the seat is again the reservation's, and nobody else's."""
    pool = await office(timed, "floating", capacity=2, linger="20m", reserve=READER)
    reader = await pool.favoured("mailreader")
    assert isinstance(reader, Taken)
    await pool.end("mailreader", reader)
    await pool.start("john")
    assert 0 == (await pool.count()).reserved
    await pool.at("09:20", NODE)
    assert (1, 1) == (await pool.held(), (await pool.count()).reserved)
    assert Reason.RESERVED is (await pool.refused("mary")).reason
    plain = await pool.want("mailreader")
    assert isinstance(plain, Refusal)
    assert isinstance(await pool.favoured("mailreader"), Taken)


async def test_a_seat_once_reserved_and_taken_again_by_the_same_user_as_an_ordinary_one(timed: TimedStore) -> None:
    """The charge of a seat that lapsed is gone with it: taken anew without the reservation, it does not use it up."""
    pool = await office(timed, "floating", NODE, OTHER, capacity=3, linger="20m", share="session", reserve=READER)
    first = await pool.favoured("mailreader", "1")
    assert isinstance(first, Taken)
    await pool.start("mailreader", "2")
    await pool.end("mailreader", first, "1")
    await pool.at("09:20")
    await pool.start("mailreader", "1")
    assert (2, 1) == (await pool.held(), (await pool.count()).reserved)
    assert Reason.RESERVED is (await pool.refused("mary")).reason
    assert isinstance(await pool.favoured("boss", "9"), Taken)


async def test_a_reservation_made_for_one_who_has_a_seat_already_takes_that_one(timed: TimedStore) -> None:
    """The reader has one of two seats when one becomes reserved: with his next session it is that one."""
    before = await office(timed, "floating", capacity=2)
    await before.start("mailreader", "1")
    pool = await before.apply("floating", capacity=2, reserve=READER)
    assert Reason.RESERVED is (await pool.refused("mary")).reason
    await pool.favoured("mailreader", "2")
    assert 0 == (await pool.count()).reserved
    await pool.start("mary")
    assert 2 == await pool.held()


async def test_a_reservation_made_while_the_pool_is_full_waits_for_a_seat(timed: TimedStore) -> None:
    """L1: three of three held, one becomes reserved: no fourth gets in; the first to fall free is its owner's."""
    before = await office(timed, "floating", capacity=3)
    taken = await crowd(before, 3)
    pool = await before.apply("floating", capacity=3, reserve=READER)
    assert isinstance(await pool.favoured("mailreader"), Refusal)
    await pool.end("user0", taken[0], "of 0")
    assert Reason.RESERVED is (await pool.refused("mary")).reason
    assert isinstance(await pool.favoured("mailreader"), Taken)
    assert 3 == await pool.held()


async def test_a_reservation_that_is_gone_keeps_no_seat(timed: TimedStore) -> None:
    """Taken as reserved, and the reservation removed: the seat is an ordinary one, and none is shown as reserved."""
    before = await office(timed, "floating", capacity=2, reserve=READER)
    reader = await before.favoured("mailreader")
    assert isinstance(reader, Taken)
    pool = await before.apply("floating", capacity=2)
    await pool.start("john")
    assert (2, 0) == (await pool.held(), (await pool.count()).reserved)
    await pool.end("mailreader", reader)
    assert "reserved" not in pool.contents()


async def test_an_overdraft_is_granted_and_flagged(timed: TimedStore) -> None:
    """Two seats and one more: the third user gets in, flagged in grant, lease and audit; the fourth does not."""
    pool = await office(timed, "floating", capacity=2, overdraft=1)
    assert [False, False, True] == [each.overdraft for each in await crowd(pool, 3)]
    assert [False, False, True] == [each.overdraft for each in [await pool.lease(f"user{n}") for n in range(3)] if each]
    refusal = await pool.refused("mary")
    assert (Reason.CAPACITY, 3, 2) == (refusal.reason, refusal.held, refusal.capacity)


async def test_an_overdraft_takes_no_reserved_seat(timed: TimedStore) -> None:
    """Three seats, one reserved, overdraft of two: four others at most, two of them flagged; the reader is fifth."""
    pool = await office(timed, "floating", capacity=3, overdraft=2, reserve=READER)
    assert [False, False, True, True] == [each.overdraft for each in await crowd(pool, 4)]
    assert Reason.RESERVED is (await pool.refused("mary")).reason
    reader = await pool.favoured("mailreader")
    assert isinstance(reader, Taken)
    assert (False, 5) == (reader.overdraft, await pool.held())


async def test_an_overdraft_seat_that_lapsed_is_no_longer_flagged(timed: TimedStore) -> None:
    """Beyond the capacity at 09:00, over at 09:20, taken again when there is room: nothing is flagged any more."""
    pool = await office(timed, "floating", overdraft=1, linger="20m", share="session")
    john = await pool.start("john", "1")
    extra = await pool.start("mary", "1")
    assert extra.overdraft
    await pool.end("mary", extra, "1")
    await pool.end("john", john, "1")
    await pool.at("09:20", NODE)
    assert not (await pool.start("mary", "1")).overdraft


async def test_first_come_first_served(timed: TimedStore) -> None:
    """One seat: mary and zoe wait in this order; it falls free; zoe, who asks first, still waits; mary gets it."""
    pool = await office(timed, "floating", queue="10m")
    john = await pool.start("john")
    assert (0, 1) == (await pool.wait("mary"), await pool.wait("zoe"))
    assert (0, 1) == (await pool.wait("mary"), await pool.wait("zoe"))
    assert 2 == (await pool.count()).waiting
    await pool.end("john", john)
    assert 1 == await pool.wait("zoe")
    assert isinstance(await pool.wait("mary"), Taken)
    assert 0 == await pool.wait("zoe")
    assert 1 == (await pool.count()).waiting


async def test_nobody_passes_the_queue(timed: TimedStore) -> None:
    """A free seat that mary waits for is refused to a newcomer, waiting or not; a second free seat is his."""
    pool = await office(timed, "floating", capacity=2, queue="10m")
    john, paul = await pool.start("john"), await pool.start("paul")
    assert 0 == await pool.wait("mary")
    await pool.end("john", john)
    assert Reason.CAPACITY is (await pool.refused("zoe")).reason
    assert 1 == await pool.wait("zoe")
    await pool.end("paul", paul)
    await pool.start("zoe")
    assert isinstance(await pool.wait("mary"), Taken)


async def test_a_place_lapses_when_nobody_asks_any_more(timed: TimedStore) -> None:
    """Mary asked at 09:00 for a place of 2 s, zoe goes on asking: at 09:00:02 zoe is first."""
    pool = await office(timed, "floating", queue="10m")
    john = await pool.start("john")
    await pool.wait("mary")
    timed.clock.advance(1000)
    assert 1 == await pool.wait("zoe")
    timed.clock.advance(1000)
    assert 0 == await pool.wait("zoe")
    await pool.end("john", john)
    assert isinstance(await pool.wait("zoe"), Taken)
    assert 0 == await pool.wait("mary")


async def test_who_gives_up_leaves_the_queue(timed: TimedStore) -> None:
    """Mary gives up, by ending the session or by asking without waiting: zoe is next at once."""
    pool = await office(timed, "floating", queue="10m")
    john = await pool.start("john")
    await pool.wait("mary", for_ms=HOUR)
    await pool.wait("paul", for_ms=HOUR)
    assert 2 == await pool.wait("zoe")
    await timed.store.release("clearquest", pool_claim("mary"), 2**53)
    assert 1 == await pool.wait("zoe")
    await pool.refused("paul")
    assert 0 == await pool.wait("zoe")
    await pool.end("john", john)
    assert isinstance(await pool.wait("zoe"), Taken)
    assert {"queue", "waits"}.isdisjoint(pool.contents())


async def test_hearing_of_a_loss_costs_no_place(timed: TimedStore) -> None:
    """A session lost at 11:00 waits for a new seat; that its node acknowledges the loss does not end the waiting."""
    pool = await office(timed, "floating", NODE, OTHER, queue="10m")
    await pool.start("mary")
    await pool.at("11:00", OTHER)
    await pool.start("john", node=OTHER)
    assert 1 == len((await pool.beat(NODE)).lost)
    assert 0 == await pool.wait("mary", for_ms=HOUR)
    await timed.store.release("clearquest", pool_claim("mary"), 0)
    assert 1 == await pool.wait("zoe")


async def test_who_may_not_have_a_seat_has_no_place_either(timed: TimedStore) -> None:
    """mary, first in the queue, is revoked: with her next question her place is gone, and zoe's is the first."""
    pool = await office(timed, "floating", queue="10m")
    await pool.start("john")
    await pool.wait("mary", for_ms=HOUR)
    await pool.give_back("mary", Withdrawal.REVOKED)
    assert isinstance(await pool.want("mary", wait_ms=HOUR), Refusal)
    assert 0 == await pool.wait("zoe")


async def test_a_pool_without_queue_refuses_who_would_wait(timed: TimedStore) -> None:
    """With queue = 0 waiting is not offered."""
    pool = await office(timed, "floating")
    await pool.start("john")
    assert isinstance(await pool.want("mary", wait_ms=2000), Refusal)
    assert 0 == (await pool.count()).waiting


async def test_a_reserved_seat_is_not_for_the_first_in_the_queue(timed: TimedStore) -> None:
    """The reader, who comes last, gets his seat past everybody who waits: it was never theirs."""
    pool = await office(timed, "floating", capacity=2, queue="10m", reserve=READER)
    await pool.start("john")
    assert (0, 1) == (await pool.wait("mary"), await pool.wait("zoe"))
    assert isinstance(await pool.favoured("mailreader"), Taken)


async def test_who_shares_a_seat_that_is_held_needs_no_place(timed: TimedStore) -> None:
    """John's second copy starts at once though mary waits: it takes no seat."""
    pool = await office(timed, "floating", queue="10m")
    await pool.start("john", "1")
    await pool.wait("mary")
    assert isinstance(await pool.wait("john", "2"), Taken)


async def test_a_thousand_lapsed_places_are_in_nobodys_way(timed: TimedStore) -> None:
    """1,500 who stopped asking at 09:00 hold nobody up at 09:01."""
    pool = await office(timed, "floating", queue="10m")
    john = await pool.start("john")
    for number in range(1500):
        await pool.wait(f"crowd {number // 15}", str(number))
    await pool.at("09:01", NODE)
    await pool.end("john", john)
    assert isinstance(await pool.wait("mary"), Taken)
    assert NINE + MINUTE == timed.clock.now_ms


# --- at most so many for some -------------------------------------------------------------------------------------------

STUDENTS = [{"users": ["student-*"], "seats": 2}]


async def asks(pool: Office, user: str, session: str = "1", *, counts: bool = True, wait_ms: int = 0) -> Acquired:
    """Ask for a session of somebody who counts in the pool's limit, or does not."""
    return await pool.want(user, session, limited=counts, wait_ms=wait_ms)


async def test_at_most_two_seats_for_students(timed: TimedStore) -> None:
    """Of five seats: the third student is denied by the limit, which is named; a teacher gets in."""
    pool = await office(timed, "floating", capacity=5, limit=STUDENTS)
    for user in ("student-1", "student-2"):
        assert isinstance(await asks(pool, user), Taken)
    refusal = await asks(pool, "student-3")
    assert isinstance(refusal, Refusal)
    limit = pool.pool.limit[0].id
    assert (Reason.CAPACITY, 2, 2, limit) == (refusal.reason, refusal.held, refusal.capacity, refusal.limit)
    detail = refusal.denial(pool.pool).detail
    assert "All 2 seats that pool clearquest has for users student-* are taken (2 of 2)" in detail
    assert isinstance(await asks(pool, "teacher", counts=False), Taken)
    assert isinstance(await asks(pool, "student-1"), Taken), "asked again, it is the same"
    assert 3 == await pool.held()


async def test_a_limit_counts_a_seat_until_it_is_free(timed: TimedStore) -> None:
    """One that lingers counts, and the denial says when it ends; at that instant the next one gets in."""
    pool = await office(timed, "floating", capacity=5, linger="20m", limit=[{"users": ["student-*"], "seats": 1}])
    taken = await asks(pool, "student-1")
    assert isinstance(taken, Taken)
    await pool.end("student-1", taken)
    refusal = await asks(pool, "student-2")
    assert isinstance(refusal, Refusal)
    assert NINE + 20 * MINUTE == refusal.retry_at
    await pool.at("09:20", NODE)
    assert isinstance(await asks(pool, "student-2"), Taken)


async def test_who_is_denied_by_a_limit_does_not_wait(timed: TimedStore) -> None:
    """Or nobody behind would get a seat that is left."""
    pool = await office(timed, "floating", capacity=5, queue="10m", limit=STUDENTS)
    for user in ("student-1", "student-2"):
        await asks(pool, user)
    assert isinstance(await asks(pool, "student-3", wait_ms=5000), Refusal)
    assert isinstance(await asks(pool, "teacher", counts=False, wait_ms=5000), Taken)


async def test_a_second_session_on_the_same_seat_counts_once(timed: TimedStore) -> None:
    """And one that begins to count finds a seat of the limit, or is denied and changes nothing."""
    pool = await office(timed, "floating", capacity=5, share="user", limit=STUDENTS)
    assert isinstance(await asks(pool, "student-1"), Taken)
    assert isinstance(await asks(pool, "student-1", "2"), Taken)
    assert isinstance(await asks(pool, "student-2"), Taken)
    assert isinstance(await asks(pool, "student-3", counts=False), Taken)
    assert isinstance(await asks(pool, "student-3", "2"), Refusal)
    assert isinstance(await asks(pool, "student-3", "2", counts=False), Taken)


async def test_a_limit_and_a_reservation_are_charged_together(timed: TimedStore) -> None:
    """The reader's seat is his reserved one, and counts in the limit all the same."""
    pool = await office(
        timed, "floating", capacity=2, reserve=READER, limit=[{"users": ["mailreader", "student-*"], "seats": 1}]
    )
    reader = await pool.want("mailreader", reserved=True, limited=True)
    assert isinstance(reader, Taken)
    assert (1, 0) == ((count := await pool.count()).held, count.reserved)
    assert isinstance(await asks(pool, "student-1"), Refusal)
    assert isinstance(await asks(pool, "teacher", counts=False), Taken)
    await pool.end("mailreader", reader)
    assert 1 == (await pool.count()).reserved
    assert "reserved" not in pool.contents()


async def test_a_restore_keeps_a_limit(timed: TimedStore) -> None:
    """L1: the store lost its seats and the limit is lower by now: as many are restored as it allows."""
    pool = await office(timed, "floating", capacity=5, limit=STUDENTS)
    grants = [await asks(pool, user) for user in ("student-1", "student-2")]
    pool.timed.raw.flushall()
    pool = await pool.apply("floating", capacity=5, limit=[{"users": ["student-*"], "seats": 1}])
    beat = await pool.beat()
    outcomes = []
    for number, granted in enumerate(grants, 1):
        assert isinstance(granted, Taken)
        restoring = Restoring(
            user=index(f"student-{number}"), document=granted.document, version=1, record=b"record", name=b"name",
            sessions={"1": {"device": "citrix-a", "fence": granted.fence, "started": granted.now}},
        )  # fmt: skip
        restored = await timed.store.restore(pool.pool, pool.version, NODE, beat.epoch, restoring)
        assert isinstance(restored, Restored)
        outcomes.append(dict(restored.refused))
    assert [{}, {"1": "capacity"}] == outcomes
    assert 1 == await pool.held()


async def test_no_limit_for_hosts_that_are_licensed_each(timed: TimedStore) -> None:
    """Each node of a node_locked pool is one seat: a limit there is refused."""
    del timed
    with pytest.raises(PolicyError, match="limit: is not for a node_locked pool"):
        pool_of("node_locked", nodes=["ctx-07"], limit=STUDENTS)
