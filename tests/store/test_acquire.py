"""A session start, as the store decides it."""

import pytest

from farmlease.domain.identity import device_name
from farmlease.domain.model import Reason
from farmlease.store.answers.session import Behind
from tests.support.seats import FARM, NODE, OTHER, Desk, claim, desk
from tests.support.stores import DAY, HOUR, NINE, TimedStore, named_pool


async def test_a_node_that_never_beat_gets_no_seat(timed: TimedStore) -> None:
    """A claim must belong to a living node, so the node is told to show first that it lives."""
    assert Behind.LAPSED is await desk(timed).ask("john")


async def test_a_node_is_alive_until_its_deadline(timed: TimedStore) -> None:
    """L5: heard at 09:00, a node may start sessions until 10:59:59.999; at 11:00 it must show first that it lives."""
    pool = desk(timed)
    await pool.beat()
    timed.clock.advance(2 * HOUR - 1)
    await pool.start("john")
    timed.clock.advance(1)
    assert Behind.LAPSED is await pool.ask("mary", "2")
    assert Behind.LAPSED is await pool.ask("john")


async def test_asking_again_changes_nothing(timed: TimedStore) -> None:
    """L3: the same session gets the same answer, and takes nothing, even when the pool has filled meanwhile."""
    pool = desk(timed, capacity=2)
    await pool.beat()
    first = await pool.start("john")
    await pool.start("mary", "2")
    timed.clock.advance(HOUR)
    again = await pool.start("john")
    assert (first.lease, first.fence, first.record, first.record_version) == (
        again.lease,
        again.fence,
        again.record,
        again.record_version,
    )
    assert (False, True) == (first.again, again.again)
    assert (2, ["acquired", "acquired"]) == (await pool.held(), pool.events())


async def test_a_lease_follows_its_user(timed: TimedStore) -> None:
    """L2: john on ctx-01 in the morning and on ctx-02 after lunch has one lease and one seat."""
    pool = desk(timed, capacity=1)
    await pool.beat(NODE, OTHER)
    morning = await pool.start("john")
    await pool.end("john", morning)
    timed.clock.advance(4 * HOUR)
    await pool.beat(OTHER)
    noon = await pool.start("john", node=OTHER)
    assert (morning.lease.id, morning.lease.issued_at, morning.record) == (
        noon.lease.id,
        noon.lease.issued_at,
        noon.record,
    )
    assert morning.lease.expires_at + 4 * HOUR == noon.lease.expires_at
    assert 1 == await pool.held()


async def test_two_hosts_at_once_are_one_device(timed: TimedStore) -> None:
    """L2: john on ctx-01 and ctx-02 at the same time has one lease, one seat and one device, in a pool of one each."""
    pool = desk(timed, capacity=1, devices_per_user=1)
    await pool.beat(NODE, OTHER)
    first = await pool.start("john")
    second = await pool.start("john", node=OTHER)
    assert first.lease.id == second.lease.id
    assert 1 == await pool.held()
    lease = await pool.lease("john")
    assert lease is not None
    assert [FARM] == [each.device for each in lease.devices]
    assert ["ctx-01", "ctx-02"] == [each.node for each in lease.sessions]


async def test_a_third_device_is_refused_and_told_why(timed: TimedStore) -> None:
    """L8: the farm and a notebook are two devices; the third is told which block it, where, and until when."""
    pool = desk(timed)
    await pool.beat()
    await pool.start("john")
    notebook = await pool.start("john", "2", device="nb-1")
    await pool.end("john", notebook, "2")
    third = await pool.refused("john", "3", device="nb-2")
    assert (Reason.DEVICE_LIMIT, 2, 2) == (third.reason, third.held, third.capacity)
    assert {(FARM, "ctx-01", None), ("nb-1", None, NINE + 30 * DAY)} == {
        (each.device, each.node, each.until) for each in third.blocking
    }
    assert NINE + 30 * DAY == third.retry_at


async def test_a_device_is_free_the_instant_its_deadline_passes(timed: TimedStore) -> None:
    """L5: a notebook last used at 09:00 blocks another until 30 days later at 09:00, and not a millisecond longer."""
    pool = desk(timed)
    await pool.beat()
    await pool.end("john", await pool.start("john", device="nb-1"))
    timed.clock.advance(10 * DAY)
    await pool.beat()
    farm = await pool.start("john")
    await pool.end("john", farm)
    timed.clock.set(NINE + 30 * DAY - 1)
    await pool.beat()
    assert NINE + 30 * DAY == (await pool.refused("john", device="nb-2")).retry_at
    timed.clock.advance(1)
    replaced = await pool.start("john", device="nb-2")
    assert farm.lease.id == replaced.lease.id
    lease = await pool.lease("john")
    assert lease is not None
    assert [FARM, "nb-2"] == [each.device for each in lease.devices]
    (document,) = pool.contents()["leases"].values()
    assert b"nb-1" not in document


async def test_while_sessions_use_all_devices_nobody_knows_until_when(timed: TimedStore) -> None:
    """L8: a device in use has no deadline, so there is no time to try again at."""
    pool = desk(timed, devices_per_user=1)
    await pool.beat()
    await pool.start("john")
    refusal = await pool.refused("john", "2", device="nb-1")
    assert (None, [None]) == (refusal.retry_at, [each.until for each in refusal.blocking])


async def test_no_limit_is_no_limit(timed: TimedStore) -> None:
    """0 devices and 0 sessions per user in the policy mean as many as one likes."""
    pool = desk(timed, capacity=1, devices_per_user=0, sessions_per_user=0)
    await pool.beat()
    for number in range(12):
        await pool.start("john", str(number), device=f"nb-{number}")
    assert 1 == await pool.held()


async def test_a_session_too_many_is_refused_and_told_which_block_it(timed: TimedStore) -> None:
    """L8: with two sessions allowed the third is told the two and their hosts; ending one lets it in."""
    pool = desk(timed, sessions_per_user=2)
    await pool.beat(NODE, OTHER)
    first = await pool.start("john", "7")
    await pool.start("john", "8", OTHER)
    third = await pool.refused("john", "9")
    assert (Reason.SESSION_LIMIT, None, 2, 2) == (third.reason, third.retry_at, third.held, third.capacity)
    assert {("7", "ctx-01"), ("8", "ctx-02")} == {(each.session, each.node) for each in third.blocking}
    await pool.end("john", first, "7")
    await pool.start("john", "9")


async def test_the_seat_after_the_last_is_refused(timed: TimedStore) -> None:
    """L1, L8: with three seats a fourth user is told how many are held and when the first falls free, and no names."""
    pool = desk(timed)
    await pool.beat()
    for user in ("john", "mary", "zoe"):
        await pool.start(user)
    fourth = await pool.refused("paul")
    assert (Reason.CAPACITY, 3, 3, None, ()) == (
        fourth.reason,
        fourth.held,
        fourth.capacity,
        fourth.retry_at,
        fourth.blocking,
    )
    timed.clock.advance(HOUR)
    await pool.end("mary", await pool.start("mary"))
    assert NINE + HOUR + 30 * DAY == (await pool.refused("paul")).retry_at
    assert 3 == await pool.held()


async def test_overdraft_is_counted_on_top_of_capacity(timed: TimedStore) -> None:
    """L1: two seats and an overdraft of one let three users in, and no fourth."""
    pool = desk(timed, capacity=2, overdraft=1)
    await pool.beat()
    for user in ("john", "mary", "zoe"):
        await pool.start(user)
    refusal = await pool.refused("paul")
    assert (3, 2) == (refusal.held, refusal.capacity)


async def test_a_seat_is_free_the_instant_its_deadline_passes(timed: TimedStore) -> None:
    """L5: one millisecond before 30 days are over the seat is taken, at 30 days it is free."""
    pool = desk(timed, capacity=1)
    await pool.beat()
    await pool.end("john", await pool.start("john"))
    timed.clock.advance(30 * DAY - 1)
    await pool.beat()
    assert timed.clock.now_ms + 1 == (await pool.refused("mary")).retry_at
    assert 1 == await pool.held()
    timed.clock.advance(1)
    assert 0 == await pool.held()
    await pool.start("mary")


async def test_a_lapsed_lease_comes_back_as_a_new_one(timed: TimedStore) -> None:
    """A user who stays away for 30 days gets a new lease with a new record; nothing of the old one is taken over."""
    pool = desk(timed)
    await pool.beat()
    old = await pool.start("john")
    await timed.store.save("qlikview", claim("john"), old.lease.id, 2, b"changed")
    await pool.end("john", old)
    timed.clock.advance(30 * DAY)
    await pool.beat()
    new = await pool.start("john", record=b"fresh")
    assert (timed.clock.now_ms, 1, b"fresh") == (new.lease.issued_at, new.record_version, new.record)
    assert old.lease.id != new.lease.id
    assert old.fence < new.fence


async def test_a_lapsed_lease_leaves_only_a_name(timed: TimedStore) -> None:
    """Lease and record are gone once somebody counts; the sealed name stays for the audit until it is forgotten."""
    pool = desk(timed)
    await pool.beat()
    await pool.end("john", await pool.start("john"))
    timed.clock.advance(30 * DAY)
    await pool.held()
    assert {"meta", "names", "audit", "usage"} == pool.contents().keys()
    assert ["acquired", "released", "lapsed"] == pool.events()


async def test_many_leases_that_lapse_at_once_never_let_one_too_many_in(timed: TimedStore) -> None:
    """L1, L5: 30 leases lapse together, more than one call forgets; users old and new share 30 seats."""
    pool = desk(timed, capacity=30)
    await pool.beat()
    for number in range(30):
        await pool.end(f"old{number}", await pool.start(f"old{number}"))
    timed.clock.advance(30 * DAY)
    await pool.beat()
    for number in range(15):
        returned = await pool.start(f"old{number}")
        assert timed.clock.now_ms == returned.lease.issued_at
        await pool.start(f"new{number}", "2")
    assert 30 == await pool.held()
    assert 30 == (await pool.refused("old29")).held


async def test_fences_only_grow(timed: TimedStore) -> None:
    """L4: each grant has a greater fence than any before, in the same millisecond and when the clock is put back."""
    pool = desk(timed)
    await pool.beat()
    fences = [(await pool.start("john", str(number))).fence for number in range(3)]
    timed.clock.advance(-HOUR)
    fences.append((await pool.start("john", "4")).fence)
    assert [NINE, NINE + 1, NINE + 2, NINE + 3] == fences


async def test_a_clock_put_back_shortens_no_lease(timed: TimedStore) -> None:
    """L5: the store's clock goes back an hour; what was promised until 30 days from 09:00 still is."""
    pool = desk(timed)
    await pool.beat()
    first = await pool.start("john")
    timed.clock.advance(-HOUR)
    second = await pool.start("john", "2")
    assert first.lease.expires_at == second.lease.expires_at


ODD = [
    "x" * 256,
    "Ω" * 256,
    "RDP Tcp 7",
    "RDP-Tcp#12",
    "ICA-TCP#3",
    "pts/3",
    " / # ",
    "#",
    "/",
    "//#a/#",
    "-x",
    "Büro 12/Süd",
    "\u202e\u200b\u2028",
    "日本 セッション",
    "%s%n %1",
    "[a-z]*.^$",
    "'\"\\ {}",
    "!1",
    "7.0",
    "-inf",
    "until",
]


@pytest.mark.parametrize("name", ODD)
async def test_any_name_of_a_session_or_device_will_do(timed: TimedStore, name: str) -> None:
    """Ids of sessions and devices are opaque: up to 256 characters, spaces, any script, what joins names in a key."""
    device = device_name(name, FARM)
    pool = desk(timed, capacity=1, devices_per_user=1, sessions_per_user=1)
    await pool.beat()
    taken = await pool.start("john", name, device=device)
    lease = await pool.lease("john")
    assert lease is not None
    assert [(name, device)] == [(each.session, each.device) for each in lease.sessions]
    assert [name] == [each.session for each in (await pool.refused("john", "other", device=device)).blocking]
    assert [device] == [each.device for each in (await pool.refused("john", "other", device="other")).blocking]
    assert [name] == [each.session for each in await timed.store.sessions(pool.pool.name, NODE)]
    timed.clock.advance(2 * HOUR)
    assert [name] == [lost.session for lost in (await pool.beat()).lost]
    await pool.end("john", taken, name)
    assert () == (await pool.beat()).lost
    await pool.end("john", await pool.start("john", name, device=device), name)
    assert 0 == (await pool.beat()).sessions


@pytest.mark.parametrize("node", ["!ctx-01#a", "-#a", "ctx 01.example.com#a", "nœud#a", "n" * 128 + "#a"])
async def test_any_name_of_a_node_will_do(timed: TimedStore, node: str) -> None:
    """Whatever a host is called, its sessions end when it falls silent, and it is told."""
    pool = desk(timed, capacity=1)
    await pool.beat(node)
    await pool.start("john", node=node)
    timed.clock.advance(2 * HOUR)
    lease = await pool.lease("john")
    assert lease is not None
    assert NINE + 30 * DAY == lease.lease.expires_at
    assert 1 == await pool.held()
    assert [("1", "timeout")] == [(lost.session, lost.reason) for lost in (await pool.beat(node)).lost]
    timed.clock.set(NINE + 30 * DAY)
    assert 0 == await pool.held()


@pytest.mark.parametrize("record", [b"", bytes(range(256)) * 4, b"\r\n\0\xff", bytes(1 << 20)])
async def test_a_record_is_any_bytes(timed: TimedStore, record: bytes) -> None:
    """A record comes back byte for byte, whatever it holds, up to 1 MiB."""
    pool = desk(timed)
    await pool.beat()
    assert record == (await pool.start("john", record=record)).record
    assert record == (await pool.start("john", "2", record=b"not this one")).record
    lease = await pool.lease("john")
    assert lease is not None
    assert record == lease.record


async def test_pools_share_nothing(timed: TimedStore) -> None:
    """Seats, nodes and sessions of one pool are none of another's."""
    one, other = Desk(timed, named_pool(capacity=1)), Desk(timed, named_pool(name="clearquest", capacity=1))
    await one.beat()
    await one.start("john")
    assert Behind.LAPSED is await other.ask("john")
    await other.beat()
    await other.start("mary")
    assert (1, 1) == (await one.held(), await other.held())
