"""A node's heartbeat: what keeps its sessions, what ends them, and how it hears of it."""

import pytest

from farmlease.store.answers.session import Claim
from tests.support.seats import NODE, OTHER, claim, desk
from tests.support.stores import DAY, HOUR, NINE, TimedStore, index

MINUTE = 60_000


async def test_one_heartbeat_keeps_every_session_of_the_node(timed: TimedStore) -> None:
    """A heartbeat each hour keeps 20 sessions over a day without touching one lease."""
    pool = desk(timed, capacity=20)
    await pool.beat()
    for number in range(20):
        await pool.start(f"user{number}", str(number))
    before = pool.contents()
    for _ in range(24):
        timed.clock.advance(HOUR)
        assert 20 == (await pool.beat()).sessions
    after = pool.contents()
    assert [(NODE.encode(), NINE + 26 * HOUR)] == after.pop("nodes")
    before.pop("nodes")
    assert before == after


async def test_a_session_lives_exactly_as_long_as_its_node(timed: TimedStore) -> None:
    """L5: a node last heard at 09:00 has its sessions until 10:59:59.999, and at 11:00 they are ended for everybody."""
    pool = desk(timed)
    await pool.beat(NODE, OTHER)
    await pool.start("john")
    timed.clock.advance(2 * HOUR - 1)
    lease = await pool.lease("john")
    assert lease is not None
    assert ["1"] == [each.session for each in lease.sessions]
    timed.clock.advance(1)
    lease = await pool.lease("john")
    assert lease is not None
    assert () == lease.sessions
    assert NINE == lease.last_contact_at
    assert NINE + 30 * DAY == lease.lease.expires_at


async def test_a_silent_node_comes_back_without_its_sessions(timed: TimedStore) -> None:
    """L4: a node silent from 09:00 to 11:00 is told at each heartbeat what it lost, until it says that it heard."""
    pool = desk(timed)
    await pool.beat()
    john = await pool.start("john")
    timed.clock.advance(2 * HOUR)
    for _ in range(2):
        beat = await pool.beat()
        assert [("1", index("john"), john.fence, "timeout")] == [
            (lost.session, lost.user, lost.fence, lost.reason) for lost in beat.lost
        ]
        assert 0 == beat.sessions
    await timed.store.release("qlikview", claim("john"), 0)
    assert () == (await pool.beat()).lost


async def test_one_millisecond_before_its_deadline_a_node_loses_nothing(timed: TimedStore) -> None:
    """L5: a heartbeat at 10:59:59.999 after one at 09:00 is in time."""
    pool = desk(timed)
    await pool.beat()
    await pool.start("john")
    timed.clock.advance(2 * HOUR - 1)
    beat = await pool.beat()
    assert (1, ()) == (beat.sessions, beat.lost)


async def test_word_of_a_lost_session_does_not_mean_its_successor(timed: TimedStore) -> None:
    """L4: lost at 11:00 and granted anew at 11:00, the session is not the one the node still hears of."""
    pool = desk(timed)
    await pool.beat()
    await pool.start("john")
    timed.clock.advance(2 * HOUR)
    await pool.beat()
    anew = await pool.start("john")
    (lost,) = (await pool.beat()).lost
    assert lost.fence < anew.fence
    await timed.store.release("qlikview", claim("john"), lost.fence)
    beat = await pool.beat()
    assert (1, ()) == (beat.sessions, beat.lost)


async def test_more_losses_than_fit_one_answer_are_told_in_turns(timed: TimedStore) -> None:
    """L4: of 150 lost sessions the node hears 100 at a time, and of the rest when it has acknowledged those."""
    pool = desk(timed, sessions_per_user=0)
    await pool.beat()
    for number in range(150):
        await pool.start("john", str(number))
    timed.clock.advance(2 * HOUR)
    heard = set[str]()
    for expected in (100, 50, 0):
        beat = await pool.beat()
        assert expected == len(beat.lost)
        for lost in beat.lost:
            heard.add(lost.session)
            await timed.store.release("qlikview", Claim(user=lost.user, node=NODE, session=lost.session), lost.fence)
    assert {str(number) for number in range(150)} == heard


async def test_word_for_a_node_is_forgotten_after_seven_days(timed: TimedStore) -> None:
    """A node that never comes back leaves nothing behind: lost at 11:00, its word is gone seven days later."""
    pool = desk(timed)
    await pool.beat(NODE, OTHER)
    await pool.start("john")
    timed.clock.advance(2 * HOUR)
    await pool.held()
    timed.clock.advance(7 * DAY - 1)
    await pool.held()
    assert 1 == len(pool.contents()["sessions"])
    timed.clock.advance(1)
    await pool.held()
    assert {"meta", "leases", "records", "names", "seats", "audit", "usage"} == pool.contents().keys()


async def test_a_reboot_ends_the_old_life_at_once(timed: TimedStore) -> None:
    """At 09:30 ctx-01 is back from a boot: the sessions of its life before are over, not two hours later."""
    pool = desk(timed, sessions_per_user=1)
    await pool.beat()
    await pool.start("john")
    timed.clock.advance(30 * MINUTE)
    beat = await pool.beat("ctx-01#z", previous=NODE)
    assert (0, ()) == (beat.sessions, beat.lost)
    lease = await pool.lease("john")
    assert lease is not None
    assert () == lease.sessions
    await pool.start("john", node="ctx-01#z")
    assert 1 == (await pool.beat("ctx-01#z", previous=NODE)).sessions


@pytest.mark.parametrize("swept", [False, True])
async def test_the_last_contact_of_an_old_life_is_its_last_heartbeat(timed: TimedStore, *, swept: bool) -> None:
    """Last heard on Monday and booted on Friday: the seat is held 30 days from Monday, counted meanwhile or not."""
    pool = desk(timed)
    await pool.beat()
    await pool.start("john")
    timed.clock.advance(4 * DAY)
    if swept:
        assert 1 == await pool.held()
    await pool.beat("ctx-01#z", previous=NODE)
    lease = await pool.lease("john")
    assert lease is not None
    assert (NINE, NINE + 30 * DAY) == (lease.last_contact_at, lease.lease.expires_at)


async def test_a_reboot_after_30_days_brings_no_lease_back(timed: TimedStore) -> None:
    """L5: a lease that lapsed while its host was off stays lapsed when the host comes back."""
    pool = desk(timed, capacity=1)
    await pool.beat()
    await pool.start("john")
    timed.clock.advance(30 * DAY)
    assert None is await pool.lease("john")
    await pool.beat("ctx-01#z", previous=NODE)
    assert (None, 0) == (await pool.lease("john"), await pool.held())


async def test_a_reboot_with_hundreds_of_sessions_ends_them_all(timed: TimedStore) -> None:
    """More sessions than one call ends are ended in several, and only then is the new life alive."""
    pool = desk(timed, capacity=200)
    await pool.beat()
    for number in range(200):
        await pool.start(f"user{number}", str(number))
    beat = await pool.beat("ctx-01#z", previous=NODE)
    assert (0, ()) == (beat.sessions, beat.lost)
    found = [lease async for lease in timed.store.list(pool.pool)]
    assert [()] * 200 == [lease.sessions for lease in found]
    assert ["ctx-01#z"] == [member.decode() for member, _ in pool.contents()["nodes"]]
    assert "sessions" not in pool.contents()
    assert {NINE + 30 * DAY} == {deadline for _, deadline in pool.contents()["seats"]}


@pytest.mark.parametrize("verb", ["acquire", "count", "heartbeat", "release", "save", "sweep by another's acquire"])
async def test_hundreds_of_dead_sessions_are_ended_before_anything_is_decided(timed: TimedStore, verb: str) -> None:
    """200 sessions of a silent node, more than one call may end, are all ended and told when any verb has answered."""
    pool = desk(timed, capacity=201, sessions_per_user=1)
    await pool.beat()
    taken = [await pool.start(f"user{number}", str(number)) for number in range(200)]
    timed.clock.advance(HOUR)
    await pool.beat(OTHER)
    timed.clock.advance(HOUR)
    match verb:
        case "acquire":
            await pool.start("user199", "another", OTHER)
        case "sweep by another's acquire":
            await pool.start("mary", "another", OTHER)
        case "count":
            assert 200 == await pool.held()
        case "heartbeat":
            await pool.beat(NODE)
        case "release":
            await timed.store.release("qlikview", claim("user0", "0"), taken[0].fence)
        case "save":
            await timed.store.save("qlikview", claim("user0", "0"), taken[0].lease.id, 2, b"new")
    assert 200 == pool.events().count("ended")
    told = {lost.session for lost in (await pool.beat(NODE)).lost}
    assert 100 == len(told)
    leases = [lease async for lease in timed.store.list(pool.pool)]
    assert (1 if "acquire" in verb else 0) == sum(len(lease.sessions) for lease in leases)


async def test_hundreds_of_dead_nodes_are_no_trouble(timed: TimedStore) -> None:
    """150 nodes with a session each fall silent together, more than one call looks at; one question ends them all."""
    pool = desk(timed, capacity=150)
    nodes = [f"ctx-{number:03}#a" for number in range(150)]
    await pool.beat(*nodes)
    for number, node in enumerate(nodes):
        await pool.start(f"user{number}", node=node)
    timed.clock.advance(2 * HOUR)
    assert 150 == await pool.held()
    timed.clock.set(NINE + 30 * DAY)
    assert 0 == await pool.held()
    await pool.beat(OTHER)
    for number in range(150):
        await pool.start(f"new{number}", node=OTHER, session=str(number))


async def test_dead_nodes_without_sessions_hide_no_dead_session(timed: TimedStore) -> None:
    """L5: behind 100 dead nodes that had no session one had; its seat is free at its deadline for whoever counts."""
    pool = desk(timed, capacity=1)
    await pool.beat(*(f"ctx-{number:03}#a" for number in range(100)), "ctx-last#a")
    await pool.start("john", node="ctx-last#a")
    timed.clock.set(NINE + 30 * DAY)
    assert 0 == await pool.held()
    assert {"meta", "names", "nodes", "sessions", "audit", "usage"} == pool.contents().keys()


async def test_nodes_whose_names_begin_alike_are_two(timed: TimedStore) -> None:
    """The end of ctx-1 is not the end of ctx-1a, nor is one incarnation's another's."""
    pool = desk(timed)
    nodes = ["ctx-1#a", "ctx-1#ab", "ctx-1a#a", "ctx-#a"]
    await pool.beat(*nodes)
    for number, node in enumerate(nodes):
        await pool.start("john", str(number), node)
    await pool.beat("ctx-1#z", previous="ctx-1#a")
    lease = await pool.lease("john")
    assert lease is not None
    assert {"1", "2", "3"} == {each.session for each in lease.sessions}
    assert [1, 1, 1] == [(await pool.beat(node)).sessions for node in nodes[1:]]


async def test_a_session_without_its_claim_stops_nobody(timed: TimedStore) -> None:
    """A lease removed by hand from under its session is no reason to fail: the pool goes on for everybody else."""
    pool = desk(timed)
    await pool.beat(NODE, OTHER)
    await pool.start("john")
    await pool.start("mary", "2")
    timed.raw.hdel(f"fl:{{citrix-a/{pool.pool.name}/0}}:leases", index("john"))
    timed.clock.advance(2 * HOUR)
    assert [index("mary")] == [lost.user for lost in (await pool.beat()).lost]
