"""Floating and node-locked licences, rule by rule, as a day at the office tells them."""

import pytest

from farmlease.domain.model import Reason, Withdrawal
from tests.support.rules import MINUTE, office
from tests.support.seats import NODE, OTHER
from tests.support.stores import HOUR, NINE, TimedStore


async def test_three_copies_on_one_workstation_use_one_seat_and_a_fourth_elsewhere_a_second(timed: TimedStore) -> None:
    """ClearQuest's rule (user_device): john, three copies on ws-1, one seat; one on ws-2, two; mary has the third."""
    pool = await office(timed, "floating", capacity=3)
    for number in range(3):
        await pool.start("john", str(number), device="ws-1")
    assert 1 == await pool.held()
    await pool.start("john", "3", device="ws-2")
    assert 2 == await pool.held()
    await pool.start("mary", "4", device="ws-1")
    assert 3 == await pool.held()
    assert Reason.CAPACITY is (await pool.refused("zoe")).reason


@pytest.mark.parametrize(("share", "seats"), [("session", 4), ("user_device", 2), ("user", 1)])
async def test_what_one_seat_covers(timed: TimedStore, share: str, seats: int) -> None:
    """Three sessions on one device and one on another are four seats, two, or one, as the pool says."""
    pool = await office(timed, "floating", NODE, OTHER, capacity=4, share=share)
    taken = [
        await pool.start("john", "0", device="ws-1"),
        await pool.start("john", "1", device="ws-1"),
        await pool.start("john", "2", OTHER, device="ws-1"),
        await pool.start("john", "3", device="ws-2"),
    ]
    assert seats == await pool.held()
    assert 1 == len({each.lease.id for each in taken})
    for number, each in enumerate(taken):
        await pool.end("john", each, str(number), OTHER if number == 2 else NODE)
    assert (0, None) == (await pool.held(), await pool.lease("john"))


async def test_a_shared_seat_is_free_when_its_last_session_ends(timed: TimedStore) -> None:
    """Two copies on one workstation: one closed, the seat stays; both closed, it is free."""
    pool = await office(timed, "floating")
    first, second = await pool.start("john", "1"), await pool.start("john", "2")
    await pool.end("john", first, "1")
    await pool.refused("mary")
    await pool.end("john", second, "2")
    await pool.start("mary")


async def test_a_lost_heartbeat_frees_the_seat_after_exactly_120_minutes(timed: TimedStore) -> None:
    """Last heard of at 10:00: at 11:59:59.999 the seat is taken, at 12:00 it is somebody else's. No sweeper ran."""
    pool = await office(timed, "floating", NODE, OTHER)
    john = await pool.start("john")
    await pool.at("10:00", NODE, OTHER)
    await pool.at("11:59:59.999", OTHER)
    await pool.refused("mary", node=OTHER)
    await pool.at("12:00")
    mary = await pool.start("mary", node=OTHER)
    assert john.fence < mary.fence
    assert [("1", john.fence, "timeout")] == [
        (each.session, each.fence, each.reason) for each in (await pool.beat(NODE)).lost
    ]


async def test_a_returned_floating_licence_is_anybodys_at_once(timed: TimedStore) -> None:
    """Ended at 09:00, or given back by an administrator at 09:00: taken by the next at 09:00."""
    pool = await office(timed, "floating")
    await pool.end("john", await pool.start("john"))
    await pool.start("mary")
    withdrawn = await pool.give_back("mary")
    assert withdrawn is not None
    assert (None, None) == (withdrawn.quarantined_until, withdrawn.barred_until)
    assert ["returned"] == [each.reason for each in (await pool.beat()).lost]
    await pool.start("zoe")


async def test_a_revoked_user_stays_out_and_the_floating_seat_is_free_at_once(timed: TimedStore) -> None:
    """09:00 revoked: told at the next heartbeat and out until 09:00 tomorrow; the seat is zoe's at 09:00."""
    pool = await office(timed, "floating")
    await pool.start("john")
    withdrawn = await pool.give_back("john", Withdrawal.REVOKED)
    assert withdrawn is not None
    assert (None, NINE + 24 * HOUR) == (withdrawn.quarantined_until, withdrawn.barred_until)
    assert ["revoked"] == [each.reason for each in (await pool.beat()).lost]
    assert NINE + 24 * HOUR == (await pool.refused("john")).retry_at
    await pool.end("zoe", await pool.start("zoe"))
    await pool.at("09:00", NODE, day=1)
    await pool.start("john")


async def test_an_open_form_keeps_its_seat_for_four_hours_though_its_node_is_silent(timed: TimedStore) -> None:
    """A form opened at 09:00 on a node never heard of again: at 12:59 its seat is kept."""
    pool = await office(timed, "floating", NODE, OTHER, max_hold="4h")
    john = await pool.start("john")
    assert NINE + 4 * HOUR == await pool.hold("john", john, 9 * HOUR)
    await pool.at("12:59", OTHER)
    await pool.refused("mary", node=OTHER)
    beat = await pool.beat(NODE)
    assert (1, ()) == (beat.sessions, beat.lost)


async def test_after_four_hours_the_form_of_a_silent_node_is_lost(timed: TimedStore) -> None:
    """The same at 12:59:59.999, 13:00 and 13:01: the hold ends to the millisecond, and the node is told."""
    pool = await office(timed, "floating", NODE, OTHER, max_hold="4h")
    await pool.hold("john", await pool.start("john"), 4 * HOUR)
    await pool.at("12:59:59.999", OTHER)
    await pool.refused("mary", node=OTHER)
    await pool.at("13:00", OTHER)
    assert (None, 0) == (await pool.lease("john"), await pool.held())
    await pool.at("13:01", OTHER)
    await pool.start("mary", node=OTHER)
    beat = await pool.beat(NODE)
    assert (0, [("1", "timeout")]) == (beat.sessions, [(each.session, each.reason) for each in beat.lost])


async def test_a_node_that_comes_back_after_the_hold_does_not_bring_it_back(timed: TimedStore) -> None:
    """L4: silent from 09:00, forgotten at noon but for a form held until 13:00; back at 13:30 it has lost that too."""
    pool = await office(timed, "floating", max_hold="4h")
    await pool.hold("john", await pool.start("john"), 4 * HOUR)
    await pool.at("12:00")
    assert 1 == await pool.held()
    await pool.at("13:30")
    beat = await pool.beat(NODE)
    assert (0, ["timeout"]) == (beat.sessions, [each.reason for each in beat.lost])
    assert 0 == await pool.held()


async def test_a_node_alive_when_the_hold_ends_keeps_the_session(timed: TimedStore) -> None:
    """Held until 13:00, its node beating: nothing happens at 13:00; silent from 13:30, the seat is free at 15:30."""
    pool = await office(timed, "floating", NODE, OTHER, max_hold="4h")
    await pool.hold("john", await pool.start("john"), 4 * HOUR)
    await pool.at("13:30", NODE, OTHER)
    await pool.refused("mary", node=OTHER)
    await pool.at("15:29:59.999", OTHER)
    await pool.refused("mary", node=OTHER)
    await pool.at("15:30", OTHER)
    await pool.start("mary", node=OTHER)


async def test_only_held_sessions_outlive_their_node(timed: TimedStore) -> None:
    """Of 200 sessions of a silent node, 70 of them held, the 130 others end at 11:00 and the 70 at 13:00."""
    pool = await office(timed, "floating", NODE, OTHER, capacity=200, max_hold="4h", share="session")
    for number in range(200):
        taken = await pool.start("john", str(number))
        if number % 3 == 0 or number > 190:
            await pool.hold("john", taken, 4 * HOUR, str(number))
    held = len({*range(0, 200, 3), *range(191, 200)})
    await pool.at("11:00", OTHER)
    assert held == await pool.held()
    assert held == (await pool.beat(NODE)).sessions
    await pool.at("13:00", OTHER)
    assert 0 == await pool.held()


async def test_a_hold_that_was_given_up_or_replaced_holds_nothing(timed: TimedStore) -> None:
    """L4: who lost the session cannot hold it; an ended session's hold is over; a hold of an older fence is refused."""
    pool = await office(timed, "floating", NODE, OTHER, max_hold="4h")
    first = await pool.start("john")
    await pool.hold("john", first, 4 * HOUR)
    await pool.end("john", first)
    assert None is await pool.hold("john", first, 4 * HOUR)
    second = await pool.start("john")
    assert None is await pool.hold("john", first, 4 * HOUR)
    await pool.at("11:00", OTHER)
    assert None is await pool.hold("john", second, 4 * HOUR)
    await pool.start("mary", node=OTHER)


async def test_a_hold_does_not_survive_a_reboot(timed: TimedStore) -> None:
    """The host boots at 10:00: what was held on it is gone with its life before."""
    pool = await office(timed, "floating", max_hold="4h")
    await pool.hold("john", await pool.start("john"), 4 * HOUR)
    await pool.at("10:00", NODE)
    await pool.beat("ctx-01#z", previous=NODE)
    assert (None, 0) == (await pool.lease("john"), await pool.held())


async def test_an_integration_helper_finds_its_seat_again_within_20_minutes(timed: TimedStore) -> None:
    """With linger = 20m, ended at 09:00: refused to others until 09:20; back at 09:19, its user has the same seat."""
    pool = await office(timed, "floating", linger="20m")
    first = await pool.start("helper")
    await pool.end("helper", first)
    await pool.at("09:19", NODE)
    assert NINE + 20 * MINUTE == (await pool.refused("mary")).retry_at
    again = await pool.start("helper", "2")
    assert first.lease.id == again.lease.id
    assert 1 == await pool.held()
    await pool.at("09:30", NODE)
    await pool.refused("mary")


async def test_after_20_minutes_the_helpers_seat_is_free(timed: TimedStore) -> None:
    """Ended at 09:00: at 09:19:59.999 refused to others, at 09:20 theirs."""
    pool = await office(timed, "floating", linger="20m")
    await pool.end("helper", await pool.start("helper"))
    await pool.at("09:19:59.999", NODE)
    await pool.refused("mary")
    await pool.at("09:20", NODE)
    assert (None, 0) == (await pool.lease("helper"), await pool.held())
    await pool.start("mary")


async def test_a_helper_whose_node_died_lingers_from_the_end_of_its_node(timed: TimedStore) -> None:
    """Last heartbeat 09:00: the session ends at 11:00 and its seat at 11:20, whoever looked meanwhile."""
    pool = await office(timed, "floating", NODE, OTHER, linger="20m")
    await pool.start("helper")
    await pool.at("11:19:59.999", OTHER)
    assert NINE + 140 * MINUTE == (await pool.refused("mary", node=OTHER)).retry_at
    await pool.at("11:20")
    await pool.start("mary", node=OTHER)


async def test_two_lingering_seats_end_each_at_its_own_time(timed: TimedStore) -> None:
    """ws-1 ended 09:00, ws-2 at 09:10: seats free at 09:20 and 09:30."""
    pool = await office(timed, "floating", capacity=2, linger="20m")
    one, two = await pool.start("helper", "1", device="ws-1"), await pool.start("helper", "2", device="ws-2")
    await pool.end("helper", one, "1")
    await pool.at("09:10", NODE)
    await pool.end("helper", two, "2")
    assert 2 == await pool.held()
    await pool.at("09:20", NODE)
    assert 1 == await pool.held()
    await pool.at("09:30", NODE)
    assert (0, None) == (await pool.held(), await pool.lease("helper"))


async def test_a_node_locked_licence_counts_nodes_and_never_refuses(timed: TimedStore) -> None:
    """Five users, two sessions each, on one node are one seat in use; the second node is another; nobody is refused."""
    pool = await office(timed, "node_locked", NODE, OTHER, nodes=["ctx-01", "ctx-02"])
    taken = {(user, session): await pool.start(user, session) for user in "abcde" for session in "12"}
    assert 1 == await pool.held()
    other = await pool.start("zoe", node=OTHER)
    assert 2 == await pool.held()
    await pool.end("zoe", other, node=OTHER)
    assert 1 == await pool.held()
    for (user, session), each in taken.items():
        assert 1 == await pool.held()
        await pool.end(user, each, session)
    assert 0 == await pool.held()


async def test_a_node_locked_seat_is_free_when_its_node_dies_or_boots(timed: TimedStore) -> None:
    """Two users on ctx-01: silent from 09:00, its seat is not in use at 11:00. After a boot it is not either."""
    pool = await office(timed, "node_locked", NODE, OTHER, nodes=["ctx-01", "ctx-02"])
    for node in (NODE, OTHER):
        await pool.start("john", node=node)
        await pool.start("mary", node=node)
    await pool.beat("ctx-01#z", previous=NODE)
    assert 1 == await pool.held()
    await pool.at("11:00", "ctx-01#z")
    assert 0 == await pool.held()
