"""Named licences, rule by rule, as a day at the office tells them."""

from dataclasses import replace

import pytest

from farmlease.domain.model import Reason, Withdrawal
from farmlease.store.answers.admin import Import, Importing, Release, Replacement
from farmlease.store.answers.session import Taken
from tests.support.rules import Office, office
from tests.support.seats import NODE, OTHER, audit
from tests.support.stores import DAY, HOUR, NINE, TimedStore, index

MINUTE = 60_000


async def assign(pool: Office, user: str, device: str, borrowed_at: int | None) -> Import:
    """Import one line of the vendor's books."""
    outcome = await pool.timed.store.import_lease(
        pool.pool,
        pool.version,
        Importing(
            user=index(user), device=device, borrowed_at=borrowed_at, lease_id=f"of {user}", record=b"r", name=b"n"
        ),
    )
    return outcome.outcome  # type: ignore[union-attr] # the policy is the one in force


async def test_a_third_device_waits_until_a_released_one_was_not_used_for_24_hours(timed: TimedStore) -> None:
    """Farm 09:00, notebook 09:00-10:00, released 18:00: a third device is refused until 10:00 the next day."""
    pool = await office(timed, "named", devices_per_user=2)
    farm = await pool.start("john")
    notebook = await pool.start("john", "2", device="nb-1")
    await pool.at("10:00", NODE)
    await pool.end("john", farm)
    await pool.end("john", notebook, "2")
    assert Reason.DEVICE_LIMIT is (await pool.refused("john", device="nb-2")).reason
    await pool.at("18:00", NODE)
    released = await timed.store.release_device("clearquest", index("john"), "nb-1")
    assert (Release.RELEASED, NINE + 25 * HOUR) == (released.outcome, released.taken_until)
    await pool.at("09:59:59.999", NODE, day=1)
    assert NINE + 25 * HOUR == (await pool.refused("john", device="nb-2")).retry_at
    await pool.at("10:00", NODE, day=1)
    await pool.start("john", device="nb-2")


async def test_a_released_device_that_comes_back_has_its_slot_again(timed: TimedStore) -> None:
    """Released at 09:00 and used again at 20:00, the notebook's slot is kept as if nothing had been."""
    pool = await office(timed, "named", devices_per_user=1)
    await pool.end("john", await pool.start("john", device="nb-1"))
    await timed.store.release_device("clearquest", index("john"), "nb-1")
    await pool.at("20:00", NODE)
    await pool.end("john", await pool.start("john", device="nb-1"))
    await pool.at("20:00", NODE, day=2)
    assert NINE + 11 * HOUR + 30 * DAY == (await pool.refused("john", device="nb-2")).retry_at


async def test_a_device_released_while_its_node_was_silent_stays_released(timed: TimedStore) -> None:
    """09:00 on ctx-01, which falls silent; released at 11:00: its dead session does not take the slot anew."""
    pool = await office(timed, "named", NODE, OTHER, devices_per_user=1)
    await pool.start("john", device="nb-1")
    assert Release.IN_USE is (await timed.store.release_device("clearquest", index("john"), "nb-1")).outcome
    await pool.at("11:00", OTHER)
    released = await timed.store.release_device("clearquest", index("john"), "nb-1")
    assert NINE + DAY == released.taken_until
    assert ["timeout"] == [each.reason for each in (await pool.beat(NODE)).lost]
    await pool.at("09:00", OTHER, day=1)
    await pool.start("john", node=OTHER, device="nb-2")


async def test_thirty_days_offline(timed: TimedStore) -> None:
    """A notebook last seen at 09:00 keeps its user's seat for 30 days without a word, and not a millisecond more."""
    pool = await office(timed, "named")
    await pool.end("john", await pool.start("john", device="nb-1"))
    await pool.at("08:59:59.999", day=30)
    await pool.beat()
    assert NINE + 30 * DAY == (await pool.refused("mary")).retry_at
    await pool.at("09:00", day=30)
    await pool.start("mary")


async def test_a_quarantined_seat_is_its_users_again_and_nobody_elses(timed: TimedStore) -> None:
    """Used 09:00, returned 10:00: until 09:00 tomorrow others are refused; its user is reinstated at once."""
    pool = await office(timed, "named")
    first = await pool.start("john")
    await pool.end("john", first)
    await pool.at("10:00", NODE)
    withdrawn = await pool.give_back("john")
    assert withdrawn is not None
    assert (NINE + DAY, None) == (withdrawn.quarantined_until, withdrawn.barred_until)
    mary = await pool.refused("mary")
    assert (Reason.QUARANTINED, NINE + DAY) == (mary.reason, mary.retry_at)
    assert (1, 1) == ((await pool.count()).held, (await pool.count()).quarantined)
    await pool.at("20:00", NODE)
    again = await pool.start("john")
    assert first.lease.id == again.lease.id
    assert (1, 0) == ((await pool.count()).held, (await pool.count()).quarantined)
    lease = await pool.lease("john")
    assert lease is not None
    assert not lease.quarantined
    assert Reason.CAPACITY is (await pool.refused("mary")).reason


async def test_a_quarantined_seat_is_free_for_all_at_the_minute_it_ends(timed: TimedStore) -> None:
    """Last used at 09:00 and returned at 20:00, the seat is free at 09:00 the next day: not 24 h after the return."""
    pool = await office(timed, "named")
    await pool.end("john", await pool.start("john"))
    await pool.at("20:00", NODE)
    await pool.give_back("john")
    await pool.at("08:59:59.999", NODE, day=1)
    assert Reason.QUARANTINED is (await pool.refused("mary")).reason
    await pool.at("09:00", NODE, day=1)
    await pool.start("mary")


async def test_a_seat_not_used_for_longer_than_the_quarantine_is_free_when_it_is_returned(timed: TimedStore) -> None:
    """Last used on Monday at 09:00, returned on Wednesday: there is nothing left to wait for."""
    pool = await office(timed, "named")
    await pool.end("john", await pool.start("john"))
    await pool.at("09:00", NODE, day=2)
    withdrawn = await pool.give_back("john")
    assert withdrawn is not None
    assert None is withdrawn.quarantined_until
    await pool.start("mary")


async def test_an_unused_seat_is_free_at_once(timed: TimedStore) -> None:
    """Assigned in the vendor's books, never used, returned: nobody waits. Used once, it is quarantined."""
    pool = await office(timed, "named")
    assert Import.IMPORTED is await assign(pool, "john", "nb-1", None)
    assert Reason.CAPACITY is (await pool.refused("mary")).reason
    await pool.give_back("john")
    await pool.end("mary", await pool.start("mary"))
    await pool.give_back("mary")
    assert Reason.QUARANTINED is (await pool.refused("john")).reason


async def test_an_unused_device_slot_is_free_at_once(timed: TimedStore) -> None:
    """Of two imported notebooks the one never used is released without quarantine."""
    pool = await office(timed, "named", devices_per_user=2)
    await assign(pool, "john", "nb-1", NINE - HOUR)
    await assign(pool, "john", "nb-2", None)
    assert None is (await timed.store.release_device("clearquest", index("john"), "nb-2")).taken_until
    released = await timed.store.release_device("clearquest", index("john"), "nb-1")
    assert NINE + 23 * HOUR == released.taken_until


async def test_a_visit_does_not_restart_the_quarantine(timed: TimedStore) -> None:
    """Look-ups and refused starts of anybody at 15:00 leave the end of the quarantine where it was."""
    pool = await office(timed, "named", devices_per_user=1)
    await pool.end("john", await pool.start("john"))
    await pool.give_back("john")
    await pool.at("15:00", NODE)
    before = pool.contents()
    await pool.lease("john")
    await pool.refused("mary")
    await pool.refused("john", device="nb-1")
    after = pool.contents()
    assert {"audit", "meta", "names", "usage"} == {name for name in after if before.get(name) != after[name]}
    await pool.at("09:00", NODE, day=1)
    await pool.start("mary")


async def test_returning_again_changes_nothing(timed: TimedStore) -> None:
    """L3: the answer to a return was lost; the second one says the same, and that it was so, and is not audited twice."""
    pool = await office(timed, "named")
    await pool.start("john")
    first = await pool.give_back("john")
    before = pool.contents()
    assert first is not None
    assert replace(first, changed=False) == await pool.give_back("john")
    assert before == pool.contents()


async def test_the_broken_notebook(timed: TimedStore) -> None:
    """09:00 the slot moves at once; again within 30 days is refused with the date, or overridden; both audited."""
    pool = await office(timed, "named", devices_per_user=1)
    await pool.end("john", await pool.start("john", device="nb-1"))

    async def move(old: str, new: str, *, override: bool = False) -> tuple[Replacement, int | None]:
        outcome = await timed.store.replace_device(
            "clearquest", index("john"), old, new, override=override, note=b"dropped"
        )
        return outcome.outcome, outcome.next_at

    assert (Replacement.REPLACED, None) == await move("nb-1", "nb-2")
    assert (Replacement.REPLACED, None) == await move("nb-1", "nb-2")
    assert Reason.DEVICE_LIMIT is (await pool.refused("john", device="nb-1")).reason
    await pool.at("09:00", NODE, day=1)
    await pool.end("john", await pool.start("john", device="nb-2"))
    assert (Replacement.LIMIT, NINE + 30 * DAY) == await move("nb-2", "nb-3")
    assert (Replacement.REPLACED, None) == await move("nb-2", "nb-3", override=True)
    await pool.start("john", device="nb-3")
    moves = [entry for entry in audit(timed.raw, "clearquest") if entry["event"] == "device_replaced"]
    assert [("nb-2", "instead of nb-1", "dropped"), ("nb-3", "instead of nb-2, override", "dropped")] == [
        (each["device"], each["detail"], each["note"]) for each in moves
    ]


async def test_thirty_days_later_another_notebook_may_break(timed: TimedStore) -> None:
    """Replaced at 09:00 today, again at 09:00 in 30 days."""
    pool = await office(timed, "named", devices_per_user=1, lease="60d")
    await pool.end("john", await pool.start("john", device="nb-1"))
    replace = timed.store.replace_device
    await replace("clearquest", index("john"), "nb-1", "nb-2", override=False, note=b"")
    await pool.at("08:59:59.999", day=30)
    refused = await replace("clearquest", index("john"), "nb-2", "nb-3", override=False, note=b"")
    assert Replacement.LIMIT is refused.outcome
    await pool.at("09:00", day=30)
    moved = await replace("clearquest", index("john"), "nb-2", "nb-3", override=False, note=b"")
    assert Replacement.REPLACED is moved.outcome


async def test_sessions_on_the_broken_notebook_end_and_a_moved_slot_lasts_no_longer(timed: TimedStore) -> None:
    """The old device's session is told `replaced`; seat and slot end when they would have."""
    pool = await office(timed, "named", devices_per_user=1)
    await pool.start("john", device="nb-1")
    await pool.at("10:00", NODE)
    await timed.store.replace_device("clearquest", index("john"), "nb-1", "nb-2", override=False, note=b"")
    assert [("1", "replaced")] == [(each.session, each.reason) for each in (await pool.beat()).lost]
    lease = await pool.lease("john")
    assert lease is not None
    assert NINE + HOUR + 30 * DAY == lease.lease.expires_at
    assert [("nb-2", NINE + HOUR + 30 * DAY)] == [(each.device, each.until) for each in lease.devices]
    await pool.at("09:59:59.999", day=30)
    assert 1 == await pool.held()
    await pool.at("10:00", day=30)
    assert (None, 0) == (await pool.lease("john"), await pool.held())


async def test_who_was_revoked_stays_out_and_others_get_the_seat(timed: TimedStore) -> None:
    """Revoked at 10:00 in a session: told at the next heartbeat, out until 10:00 tomorrow, as the seat is."""
    pool = await office(timed, "named", capacity=2)
    john = await pool.start("john")
    await pool.at("10:00", NODE)
    withdrawn = await pool.give_back("john", Withdrawal.REVOKED)
    assert withdrawn is not None
    assert (NINE + 25 * HOUR, NINE + 25 * HOUR) == (withdrawn.quarantined_until, withdrawn.barred_until)
    assert [("1", john.fence, "revoked")] == [
        (each.session, each.fence, each.reason) for each in (await pool.beat()).lost
    ]
    refusal = await pool.refused("john")
    assert (Reason.REVOKED, NINE + 25 * HOUR) == (refusal.reason, refusal.retry_at)
    await pool.start("mary")
    assert Reason.QUARANTINED is (await pool.refused("zoe")).reason
    await pool.at("09:59:59.999", NODE, day=1)
    assert Reason.REVOKED is (await pool.refused("john")).reason
    await pool.at("10:00", NODE, day=1)
    await pool.start("zoe")
    assert Reason.CAPACITY is (await pool.refused("john")).reason


async def test_a_session_that_is_taken_away_was_used_until_then(timed: TimedStore) -> None:
    """Last heartbeat at 10:00, returned at 10:30 in a session: the quarantine ends at 10:30 the next day."""
    pool = await office(timed, "named")
    await pool.start("john")
    await pool.at("10:00", NODE)
    await pool.at("10:30")
    withdrawn = await pool.give_back("john")
    assert withdrawn is not None
    assert NINE + DAY + 90 * MINUTE == withdrawn.quarantined_until


async def test_a_held_session_was_used_until_its_hold_ended(timed: TimedStore) -> None:
    """Its node silent from 09:00, held until 13:00: the named lease counts from 13:00, whoever looks and whenever."""
    pool = await office(timed, "named", NODE, OTHER, max_hold="4h")
    await pool.hold("john", await pool.start("john"), 4 * HOUR)
    await pool.at("12:00", OTHER)
    assert 1 == await pool.held()
    await pool.at("14:00")
    for _ in range(2):
        lease = await pool.lease("john")
        assert lease is not None
        assert ((), NINE + 4 * HOUR + 30 * DAY) == (lease.sessions, lease.lease.expires_at)
        await pool.held()


async def test_a_revocation_reaches_more_sessions_than_one_call_ends(timed: TimedStore) -> None:
    """200 sessions of one user are all gone, and all told, when the revocation has answered."""
    pool = await office(timed, "named")
    for number in range(200):
        await pool.start("john", str(number))
    await pool.give_back("john", Withdrawal.REVOKED)
    lease = await pool.lease("john")
    assert lease is not None
    assert ((), True) == (lease.sessions, lease.quarantined)
    assert (0, 100) == ((await pool.beat()).sessions, len((await pool.beat()).lost))
    assert ["revoked"] == [event for event in pool.events() if event == "revoked"]


async def test_who_has_no_lease_can_be_kept_out_too(timed: TimedStore) -> None:
    """A revocation before the first session keeps its user out all the same."""
    pool = await office(timed, "named")
    assert None is await pool.give_back("john")
    await pool.give_back("john", Withdrawal.REVOKED)
    assert Reason.REVOKED is (await pool.refused("john")).reason


@pytest.mark.parametrize("reserve", [True, False])
async def test_an_import_takes_no_seat_that_is_reserved(timed: TimedStore, reserve: bool) -> None:  # noqa: FBT001 - a case
    """Of one seat, reserved, the vendor's books give nothing to somebody it is not reserved for."""
    kept = [{"users": ["mailreader"], "seats": 1}] if reserve else []
    pool = await office(timed, "named", reserve=kept)
    assert (Import.DENIED if reserve else Import.IMPORTED) is await assign(pool, "john", "nb-1", NINE)
    assert (0 if reserve else 1) == await pool.held()
    if reserve:
        assert isinstance(await pool.favoured("mailreader"), Taken)
