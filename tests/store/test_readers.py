"""Those who only look: look_up, list and count."""

from tests.support.seats import NODE, OTHER, desk
from tests.support.stores import DAY, HOUR, NINE, TimedStore, index


async def test_a_lease_is_shown_as_it_stands(timed: TimedStore) -> None:
    """Seat, devices, sessions, fence, contact, record and sealed name of John at 10:00."""
    pool = desk(timed)
    await pool.beat()
    taken = await pool.start("john", "7", record=b"sealed")
    notebook = await pool.start("john", "8", device="nb-1")
    timed.clock.advance(HOUR)
    await pool.end("john", notebook, "8")
    lease = await pool.lease("john")
    assert lease is not None
    assert (index("john"), taken.lease.id, NINE, NINE + HOUR + 30 * DAY) == (
        lease.user,
        lease.lease.id,
        lease.lease.issued_at,
        lease.lease.expires_at,
    )
    assert [("citrix-a", None), ("nb-1", NINE + HOUR + 30 * DAY)] == [
        (each.device, each.until) for each in lease.devices
    ]
    assert [("ctx-01", "7", NINE, "citrix-a", taken.fence)] == [
        (each.node, each.session, each.started_at, each.device, each.fence) for each in lease.sessions
    ]
    assert (taken.fence, NINE + HOUR, 1, b"sealed", b"sealed name of john") == (
        lease.fence,
        lease.last_contact_at,
        lease.record_version,
        lease.record,
        lease.name,
    )


async def test_nobody_without_a_lease_is_shown(timed: TimedStore) -> None:
    """An unknown user, a lapsed one and a pool nobody heard of have no lease."""
    pool = desk(timed)
    assert None is await pool.lease("john")
    await pool.beat()
    assert None is await pool.lease("john")
    await pool.end("john", await pool.start("john"))
    timed.clock.advance(30 * DAY - 1)
    assert None is not await pool.lease("john")
    timed.clock.advance(1)
    assert None is await pool.lease("john")
    assert [] == [lease async for lease in timed.store.list(pool.pool)]


async def test_sessions_of_a_dead_node_are_over_before_anybody_swept_them(timed: TimedStore) -> None:
    """At 11:00 a node silent since 09:00 has no sessions for whoever looks; looking writes nothing."""
    pool = desk(timed)
    await pool.beat(NODE, OTHER)
    await pool.start("john")
    await pool.start("mary", "2", OTHER)
    timed.clock.advance(HOUR)
    await pool.beat(OTHER)
    timed.clock.advance(HOUR)
    before = pool.contents()
    john, mary = await pool.lease("john"), await pool.lease("mary")
    assert john is not None
    assert mary is not None
    assert ((), 1) == (john.sessions, len(mary.sessions))
    assert (NINE + 30 * DAY, timed.clock.now_ms + 30 * DAY) == (john.lease.expires_at, mary.lease.expires_at)
    listed = {lease.user: lease async for lease in timed.store.list(pool.pool)}
    assert (john.sessions, john.lease) == (listed[index("john")].sessions, listed[index("john")].lease)
    assert (mary.sessions, mary.lease) == (listed[index("mary")].sessions, listed[index("mary")].lease)
    assert before == pool.contents()


async def test_a_list_shows_every_lease_once_page_by_page(timed: TimedStore) -> None:
    """700 leases in pages of about 50, while others come and sessions end: each of the 700 once."""
    pool = desk(timed, capacity=2000)
    await pool.beat()
    users = {f"user{number}" for number in range(700)}
    for number, user in enumerate(sorted(users)):
        await pool.start(user, str(number))
    seen = list[str]()
    async for lease in timed.store.list(pool.pool, page=50):
        seen.append(lease.user)
        if not len(seen) % 7:
            await pool.start(f"late{len(seen)}", f"late{len(seen)}")
    assert len(seen) == len(set(seen))
    assert {index(user) for user in users} <= set(seen)


async def test_a_list_has_no_records(timed: TimedStore) -> None:
    """A list carries names, not files."""
    pool = desk(timed)
    await pool.beat()
    await pool.start("john")
    (lease,) = [lease async for lease in timed.store.list(pool.pool)]
    assert (b"", b"sealed name of john") == (lease.record, lease.name)


async def test_a_count_says_how_full_the_pool_is(timed: TimedStore) -> None:
    """Seats held now, the capacity, the policy they go by, and when that was."""
    pool = desk(timed, capacity=5)
    assert None is await timed.store.count("qlikview")
    await pool.beat()
    await pool.start("john")
    await pool.end("mary", await pool.start("mary", "2"), "2")
    count = await timed.store.count("qlikview")
    assert count is not None
    assert (2, 5, 1, NINE) == (count.held, count.capacity, count.policy_version, count.now)
