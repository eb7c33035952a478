"""A store that lost its data knows that it did: epochs, the recovery window, and what its nodes restore."""

import json
from dataclasses import replace
from typing import Any

import pytest

from farmlease.domain.model import Reason, Withdrawal
from farmlease.domain.tombstones import Grave, Graves
from farmlease.store.answers.admin import Importing, Release
from farmlease.store.answers.recovery import Recovering, Restored, Restoring
from farmlease.store.answers.session import NOTHING, Beat, Behind, Claim, Known, Refusal, Taken, Taking
from farmlease.store.keys import Shard
from farmlease.store.lease_store import LeaseStore
from farmlease.store.tombstone_store import TombstoneStore
from tests.support.seats import FARM, NODE, OTHER, VERSION, Desk, claim, desk
from tests.support.stores import HOUR, Served, TimedStore, index

WINDOW = 15_000
MINUTE = 60_000


def lives_on(pool: Desk, life: str) -> Desk:
    """Return the same pool on a server of another life."""
    timed = pool.timed
    store = LeaseStore(Served(timed.connection, life), "citrix-a")
    return Desk(TimedStore(timed.kind, store, timed.clock, timed.raw, timed.connection), pool.pool)


def emptied(pool: Desk) -> None:
    """Lose everything; some time passes until somebody notices."""
    pool.timed.raw.flushall()
    pool.timed.clock.advance(1000)


async def knowledge(pool: Desk, node: str = NODE) -> Known:
    """Beat, and return what the node knows from then on."""
    beat = await pool.timed.store.heartbeat(pool.pool, VERSION, node, None)
    assert isinstance(beat, Beat)
    return Known(epoch=beat.epoch, fence=beat.fence, expected=beat.now, clock_generation=beat.clock_generation)


def joined(pool: Desk, found: Recovering) -> Known:
    """Return what a node knows that has restored all it has, and counts the time."""
    return Known(epoch=found.epoch, fence=0, expected=pool.timed.clock.now_ms, clock_generation=found.clock_generation)


async def recover(pool: Desk, known: Known, node: str = NODE, roster: tuple[str, ...] = (NODE,)) -> Recovering:
    """Let a node meet the store that it does not know."""
    found = await pool.timed.store.recover(pool.pool, VERSION, node, known, window_ms=WINDOW, roster=roster)
    assert isinstance(found, Recovering)
    return found


async def restore(
    pool: Desk,
    epoch: int,
    user: str,
    taken: Taken,
    sessions: tuple[str, ...] = (),
    node: str = NODE,
    hold: int = 0,
    over: int = 0,
    **more: Any,
) -> Restored | Behind:
    """Restore a lease as its grant left it, with sessions that live on the node, or are over; held until ``hold``."""
    held = ({"hold": hold} if hold else {}) | ({"over": over} if over else {})
    restoring = Restoring(
        user=index(user),
        document=taken.document,
        sessions={each: {"device": FARM, "fence": taken.fence, "started": taken.now, **held} for each in sessions},
        version=taken.record_version,
        record=taken.record,
        name=b"sealed name of " + user.encode(),
    )
    return await pool.timed.store.restore(pool.pool, VERSION, node, epoch, replace(restoring, **more))


async def ask(pool: Desk, user: str, known: Known, session: str = "1", node: str = NODE) -> object:
    """Ask for a session by a node that knows the store."""
    taking = Taking(device=FARM, lease_id=f"{user} {session}", record=b"record", name=b"name")
    return await pool.timed.store.acquire(pool.pool, VERSION, claim(user, session, node), taking, known)


async def test_a_new_pool_begins_an_epoch_without_a_window(timed: TimedStore) -> None:
    """Nobody can have had a seat of a pool that never was: whoever comes first is let in at once."""
    pool = desk(timed)
    known = await knowledge(pool)
    assert known.epoch > 0
    assert isinstance(await ask(pool, "john", known), Taken)


async def test_an_emptied_store_lets_nobody_new_in_until_its_nodes_have_restored(timed: TimedStore) -> None:
    """L7: what was granted is counted again first; the window ends as soon as every node known before has come."""
    pool = desk(timed, capacity=1)
    known = await knowledge(pool)
    taken = await ask(pool, "john", known)
    assert isinstance(taken, Taken)
    emptied(pool)
    assert Behind.STRANGE is await ask(pool, "mary", known, "2")
    assert Behind.STRANGE is await pool.timed.store.heartbeat(pool.pool, VERSION, NODE, None, known)
    assert not await pool.timed.store.peek(pool.pool.name, known)
    found = await recover(pool, known, roster=(NODE, OTHER))
    assert (True, timed.clock.now_ms + WINDOW) == (found.epoch > known.epoch, found.until)
    denied = await pool.refused("mary", "2")
    assert (Reason.RECOVERING, found.until) == (denied.reason, denied.retry_at)
    assert Restored(refused={}) == await restore(pool, found.epoch, "john", taken, ("1",))
    assert await pool.timed.store.restored(pool.pool.name, NODE, found.epoch, knew=True)
    assert Reason.RECOVERING is (await pool.refused("mary", "2")).reason  # the other node has not come yet
    await recover(pool, known, OTHER)
    await pool.timed.store.restored(pool.pool.name, OTHER, found.epoch, knew=True)
    assert Reason.CAPACITY is (await pool.refused("mary", "2")).reason
    again = await pool.start("john")
    assert (True, taken.fence, taken.lease.id) == (again.again, again.fence, again.lease.id)


async def test_who_shows_up_is_waited_for_though_nobody_knew_of_it(timed: TimedStore) -> None:
    """L7: a node that came since the others last asked who is there asks for a session: all wait until it restored."""
    pool = desk(timed)
    known, new = await knowledge(pool), await knowledge(pool, OTHER)
    emptied(pool)
    found = await recover(pool, known)
    assert Behind.STRANGE is await ask(pool, "john", new, "2", OTHER)
    await pool.timed.store.restored(pool.pool.name, NODE, found.epoch, knew=True)
    assert Reason.RECOVERING is (await pool.refused("mary")).reason
    await recover(pool, new, OTHER)
    await pool.timed.store.restored(pool.pool.name, OTHER, found.epoch, knew=True)
    await pool.start("mary")


async def test_the_window_ends_by_itself(timed: TimedStore) -> None:
    """A node that never comes back keeps nobody out for longer than the window."""
    pool = desk(timed, capacity=1)
    known = await knowledge(pool)
    emptied(pool)
    await recover(pool, known, roster=(NODE, OTHER))
    timed.clock.advance(WINDOW - 1)
    assert Reason.RECOVERING is (await pool.refused("mary")).reason
    timed.clock.advance(1)
    await pool.start("mary")


async def test_a_node_that_knew_nothing_ends_no_window(timed: TimedStore) -> None:
    """Who was not there before cannot tell who was."""
    pool = desk(timed)
    known = await knowledge(pool)
    emptied(pool)
    found = await recover(pool, known, roster=())
    await recover(pool, NOTHING, OTHER)
    await pool.timed.store.restored(pool.pool.name, OTHER, found.epoch, knew=False)
    assert Reason.RECOVERING is (await pool.refused("mary", node=OTHER)).reason


async def test_a_store_that_was_rolled_back_is_not_the_one_that_was_known(timed: TimedStore) -> None:
    """An older fence than the node has seen: what was granted since is restored; what is older is still there."""
    pool = desk(timed, capacity=2)
    known = await knowledge(pool)
    await ask(pool, "john", known)
    snapshot = {key: timed.raw.dump(key) for key in timed.raw.keys()}  # noqa: SIM118 - not a dict
    timed.clock.advance(MINUTE)
    taken = await ask(pool, "mary", known, "2")
    assert isinstance(taken, Taken)
    timed.raw.flushall()
    for key, body in snapshot.items():
        timed.raw.restore(key, 0, body)
    after = replace(known, fence=taken.fence, expected=0)
    assert Behind.STRANGE is await ask(pool, "zoe", after, "3")
    found = await recover(pool, after)
    assert Restored(refused={}) == await restore(pool, found.epoch, "mary", taken, ("2",))
    assert 2 == await pool.held()
    await pool.timed.store.restored(pool.pool.name, NODE, found.epoch, knew=True)
    assert Reason.CAPACITY is (await pool.refused("zoe", "3")).reason


async def test_the_next_fence_is_above_everything_that_was_restored(timed: TimedStore) -> None:
    """L4: an older holder never beats a new one, though the store forgot the older one's fence."""
    pool = desk(timed)
    known = await knowledge(pool)
    taken = await pool.start("john")
    emptied(pool)
    timed.clock.advance(-HOUR)  # another machine, whose clock is behind
    ahead = replace(known, fence=taken.fence + 5, expected=0)
    found = await recover(pool, ahead)
    await restore(pool, found.epoch, "john", taken, ("1",))
    await pool.timed.store.restored(pool.pool.name, NODE, found.epoch, knew=True)
    assert (await pool.start("mary", "2")).fence > ahead.fence


async def test_another_master_is_another_store(timed: TimedStore) -> None:
    """A fail-over may have forgotten the last writes: the first who meets the new master opens the window, once."""
    pool = desk(timed)
    known = await knowledge(pool)
    promoted = lives_on(pool, "another life")
    assert Behind.STRANGE is await ask(promoted, "john", known)
    found = await recover(promoted, known)
    assert found.until > timed.clock.now_ms
    assert found.epoch == (await recover(promoted, known, OTHER)).epoch
    importing = Importing(
        user=index("zoe"), device="NB-1", borrowed_at=None, lease_id="x", record=b"r", name=b"n"
    )  # fmt: skip
    imported = await promoted.timed.store.import_lease(pool.pool, VERSION, importing)
    assert not isinstance(imported, Behind)
    assert Reason.RECOVERING is imported.reason


async def test_a_lease_without_a_session_is_restored(timed: TimedStore) -> None:
    """A named lease belongs to its user for thirty days, whether he works now or not, with all of its devices."""
    pool = desk(timed, capacity=1)
    known = await knowledge(pool)
    first = await pool.start("john", device="NB-1")
    await pool.end("john", first)
    taken = await pool.start("john", "2")
    before = await pool.lease("john")
    assert before is not None
    emptied(pool)
    found = await recover(pool, known)
    assert Restored(refused={}) == await restore(pool, found.epoch, "john", taken)
    after = await pool.lease("john")
    assert after is not None
    assert (before.lease.id, {"nb-1", FARM}) == (after.lease.id, {each.device for each in after.devices})
    timed.clock.advance(WINDOW)
    assert Reason.CAPACITY is (await pool.refused("mary", "3")).reason


async def test_a_session_that_ended_with_its_host_leaves_a_contact(timed: TimedStore) -> None:
    """L7: in use for three days, a lease of one day lasts another one; but over no limit, and nobody sits on it."""
    pool = desk(timed, capacity=1, lease="1d")
    await pool.beat()
    johns = await pool.start("john")
    timed.clock.advance(72 * HOUR)
    known, heard = await knowledge(pool), timed.clock.now_ms
    for _ in range(2):
        emptied(pool)
        found = await recover(pool, known)
        assert Restored(refused={}) == await restore(pool, found.epoch, "john", johns, ("1",), over=heard)
        lease = await pool.lease("john")
        assert lease is not None
        assert ((), heard + 24 * HOUR) == (lease.sessions, lease.lease.expires_at)
        assert "sessions" not in pool.contents()
    emptied(pool)
    await pool.beat()
    marys = await pool.start("mary", "2")
    emptied(pool)
    found = await recover(pool, known)
    await restore(pool, found.epoch, "mary", marys, ("2",))
    assert Restored(again=True, refused={}) == await restore(pool, found.epoch, "john", johns, ("1",), over=heard)
    timed.clock.advance(24 * HOUR)
    emptied(pool)
    found = await recover(pool, replace(known, expected=0))
    assert Restored(ended=True, refused={}) == await restore(pool, found.epoch, "john", johns, ("1",), over=heard)


async def test_the_highest_version_of_a_record_wins(timed: TimedStore) -> None:
    """Two nodes restore the same lease: whoever comes first, the later record is kept."""
    for order in ((1, 2), (2, 1)):
        timed.raw.flushall()
        pool = desk(timed)
        known = await knowledge(pool)
        taken = await pool.start("john")
        emptied(pool)
        found = await recover(pool, known)
        for version in order:
            record = f"record of version {version}".encode()
            await restore(pool, found.epoch, "john", taken, version=version, record=record)
        lease = await pool.lease("john")
        assert lease is not None
        assert (2, b"record of version 2") == (lease.record_version, lease.record)


async def test_of_two_leases_the_later_one_is_the_users(timed: TimedStore) -> None:
    """L2: a node that slept has the receipt of a lease that ended; it never replaces the one that came after."""
    pool = desk(timed, lease="1d", sessions_per_user=5)
    known = await knowledge(pool)
    old = await pool.start("john")
    await pool.end("john", old)
    timed.clock.advance(25 * HOUR)
    await pool.beat(NODE, OTHER)
    new = await pool.start("john", "2", OTHER)
    assert old.lease.id != new.lease.id
    for first in (old, new):
        emptied(pool)
        found = await recover(pool, known)
        await recover(pool, known, OTHER)
        nodes = {old.lease.id: NODE, new.lease.id: OTHER}
        for taken in (first, new if first is old else old):
            await restore(pool, found.epoch, "john", taken, ("1",), nodes[taken.lease.id])
        lease = await pool.lease("john")
        assert lease is not None
        assert (new.lease.id, ["ctx-02"]) == (lease.lease.id, [each.node for each in lease.sessions])


async def test_nothing_is_restored_over_a_limit(timed: TimedStore) -> None:
    """L1: a session without room is told so; a lease without one waits for room while the window lasts."""
    pool = desk(timed, capacity=1)
    known = await knowledge(pool)
    johns = await pool.start("john")
    await pool.timed.store.withdraw(pool.pool.name, index("john"), Withdrawal.RETURNED, b"")
    emptied(pool)
    await pool.beat()
    marys = await pool.start("mary", "2")
    emptied(pool)
    found = await recover(pool, known)
    assert Restored(refused={}) == await restore(pool, found.epoch, "mary", marys, ("2",))
    assert Restored(refused={"1": "capacity"}) == await restore(pool, found.epoch, "john", johns, ("1",))
    assert Restored(again=True, refused={}) == await restore(pool, found.epoch, "john", johns)
    assert 1 == await pool.held()


async def test_no_hold_is_restored_for_longer_than_the_pool_allows(timed: TimedStore) -> None:
    """A shorter one as it was; one that is too long, whatever the node says, until max_hold from now."""
    pool = desk(timed, max_hold="4h")
    known = await knowledge(pool)
    taken = {user: await pool.start(user) for user in ("john", "mary")}
    emptied(pool)
    found, now = await recover(pool, known), timed.clock.now_ms
    for user, told, kept in (("john", HOUR, HOUR), ("mary", 400 * HOUR, 4 * HOUR)):
        await restore(pool, found.epoch, user, taken[user], ("1",), hold=now + told)
        lease = await pool.lease(user)
        assert lease is not None
        assert [now + kept] == [session.hold_until for session in lease.sessions]


async def test_restoring_again_changes_nothing(timed: TimedStore) -> None:
    """L3: a lost reply is answered by asking again."""
    pool = desk(timed)
    known = await knowledge(pool)
    taken = await pool.start("john")
    emptied(pool)
    found = await recover(pool, known)
    await restore(pool, found.epoch, "john", taken, ("1",))
    before = await pool.lease("john"), await pool.held(), pool.contents()["sessions"], facts(pool)
    await restore(pool, found.epoch, "john", taken, ("1",))
    assert before == (await pool.lease("john"), await pool.held(), pool.contents()["sessions"], facts(pool))


def facts(pool: Desk) -> dict[bytes, bytes]:
    """What the store knows of the pool, but for the number of decisions that it wrote down."""
    return {name: value for name, value in pool.contents()["meta"].items() if name != b"audited"}


async def test_a_node_hears_of_a_later_fence(timed: TimedStore) -> None:
    """L3: a grant whose answer was lost has a fence that its node does not know; with the seat it gets that fence."""
    pool = desk(timed)
    known = await knowledge(pool)
    taken = await pool.start("john")
    promoted = lives_on(pool, "another life")
    found = await recover(promoted, known)
    outcome = await restore(promoted, found.epoch, "john", replace(taken, fence=taken.fence - 1), ("1",))
    assert Restored(refused={}, fences={"1": taken.fence}) == outcome
    assert Restored(refused={}) == await restore(promoted, found.epoch, "john", taken, ("1",))


async def test_a_session_that_was_taken_is_not_restored(timed: TimedStore) -> None:
    """L4: word was left that its seat is gone; only in the window does silence not count against its node."""
    pool = desk(timed, kind="floating", capacity=1)
    known = await knowledge(pool)
    known = replace(known, expected=0)
    taken = await pool.start("john")
    timed.clock.advance(2 * HOUR)
    await pool.beat(OTHER)
    await pool.end("mary", await pool.start("mary", "2", OTHER), "2", OTHER)
    promoted = lives_on(pool, "another life")
    await recover(promoted, known, OTHER)
    timed.clock.advance(WINDOW)
    late = await recover(promoted, known)
    assert late.until <= timed.clock.now_ms
    assert Restored(refused={"1": "timeout"}) == await restore(promoted, late.epoch, "john", taken, ("1",))
    third = lives_on(pool, "a third life")
    found = await recover(third, replace(known, epoch=late.epoch))
    assert Restored(refused={}) == await restore(third, found.epoch, "john", taken, ("1",))


async def test_a_node_that_restores_for_longer_than_it_may_be_silent_loses_nothing(timed: TimedStore) -> None:
    """L5, L7: who restores is not silent. What it restored first is still counted when it is through with the rest."""
    pool = desk(timed, kind="floating", capacity=3, session_timeout="10s", linger="0s")
    known, others = await knowledge(pool), await knowledge(pool, OTHER)
    users = ("john", "mary", "paul")
    taken = [await pool.start(user, user) for user in users]
    emptied(pool)
    await recover(pool, others, OTHER)
    timed.clock.advance(WINDOW)  # it comes late
    found = await recover(pool, known)
    for user, each in zip(users, taken, strict=True):
        assert Restored(refused={}) == await restore(pool, found.epoch, user, each, (user,))
        timed.clock.advance(9_000)  # there are so many
        assert isinstance(await ask(pool, "anna", joined(pool, found), "8", OTHER), Refusal | Behind)
    assert await pool.timed.store.restored(pool.pool.name, NODE, found.epoch, knew=True)
    beat = await pool.timed.store.heartbeat(pool.pool, VERSION, NODE, None, joined(pool, found))
    assert isinstance(beat, Beat)
    assert (3, ()) == (beat.sessions, tuple(beat.lost))


async def test_nobody_dies_in_the_window_that_waits_for_him(timed: TimedStore) -> None:
    """L7: a node that may be silent for less than the window lasts waits in it for a seat, and for the others."""
    pool = desk(timed, kind="floating", capacity=1, session_timeout="10s", linger="0s")
    known = await knowledge(pool)
    taken = await pool.start("john")
    emptied(pool)
    found = await recover(pool, known, roster=(NODE, OTHER))
    await restore(pool, found.epoch, "john", taken, ("1",))
    timed.clock.advance(WINDOW - 1)
    beat = await pool.timed.store.heartbeat(pool.pool, VERSION, NODE, None, joined(pool, found))
    assert isinstance(beat, Beat)
    assert (1, ()) == (beat.sessions, tuple(beat.lost))


async def test_a_node_that_puts_back_for_longer_than_it_may_be_silent_goes_on(timed: TimedStore) -> None:
    """L5, L11: what was taken back comes first, and may be much: the node can restore after it."""
    pool = desk(timed, kind="floating", capacity=9, session_timeout="10s", linger="0s")
    known = await knowledge(pool)
    taken = await pool.start("john")
    emptied(pool)
    found = await recover(pool, known)
    taking = Graves({f"{taken.lease.id} of another/": Grave(taken.fence, timed.clock.now_ms + HOUR)})
    for user in ("mary", "paul", "anna"):
        timed.clock.advance(9_000)
        graves = TombstoneStore(timed.connection, FARM)
        assert await graves.put_back(pool.pool.name, NODE, found.epoch, index(user), taking)
    timed.clock.advance(9_000)
    assert Restored(refused={}) == await restore(pool, found.epoch, "john", taken, ("1",))


async def test_a_revoked_user_is_not_restored(timed: TimedStore) -> None:
    """Who is kept out stays out, if the store still knows."""
    pool = desk(timed)
    known = await knowledge(pool)
    taken = await pool.start("john")
    await pool.timed.store.withdraw(pool.pool.name, index("john"), Withdrawal.REVOKED, b"")
    found = await recover(lives_on(pool, "another life"), known)
    outcome = await restore(lives_on(pool, "another life"), found.epoch, "john", taken, ("1",))
    assert Restored(ended=True, refused={}) == outcome


async def test_an_epoch_that_is_over_takes_nothing(timed: TimedStore) -> None:
    """A node that recovers while the store is lost once more begins anew."""
    pool = desk(timed)
    known = await knowledge(pool)
    taken = await pool.start("john")
    found = await recover(lives_on(pool, "another life"), known)
    await recover(lives_on(pool, "a third life"), replace(known, epoch=found.epoch))
    assert Behind.STRANGE is await restore(pool, found.epoch, "john", taken, ("1",))
    assert not await pool.timed.store.restored(pool.pool.name, NODE, found.epoch, knew=True)


async def test_ends_and_files_wait_until_the_store_knows_their_lease_again(timed: TimedStore) -> None:
    """L7: a file saved for a lease that the store forgot is not taken for one of a lease that ended."""
    pool = desk(timed)
    known = await knowledge(pool)
    taken = await pool.start("john")
    emptied(pool)
    store, name, asked = pool.timed.store, pool.pool.name, claim("john")
    assert Behind.STRANGE is await store.save(name, asked, taken.lease.id, 2, b"new", known=known)
    assert Behind.STRANGE is await store.release(name, asked, taken.fence, known)
    await recover(pool, known)
    assert Behind.STRANGE is await store.save(name, asked, taken.lease.id, 2, b"new", known=known)
    assert Behind.STRANGE is await store.release(name, asked, taken.fence, known)


async def test_a_node_can_ask_what_the_store_counts_for_it(timed: TimedStore) -> None:
    """Its sessions with their fences, page by page, and which other nodes are alive."""
    pool = desk(timed, capacity=600)
    await pool.beat(NODE, OTHER)
    fences = {f"s{number}": (await pool.start(f"u{number}", f"s{number}")).fence for number in range(501)}
    counted = await pool.timed.store.sessions(pool.pool.name, NODE)
    assert fences == {each.session: each.fence for each in counted}
    assert index("u7") == next(each.user for each in counted if each.session == "s7")
    assert [] == await pool.timed.store.sessions(pool.pool.name, OTHER)
    assert {NODE, OTHER} == set(await pool.timed.store.nodes(pool.pool.name))


@pytest.mark.parametrize("leap", [HOUR, 40 * 24 * HOUR], ids=["an hour", "forty days"])
async def test_a_clock_that_leaps_ahead_ends_nothing(timed: TimedStore, leap: int) -> None:
    """No lease and no session ends by a leap: the store goes on from the time that its nodes counted."""
    pool = desk(timed, capacity=1, session_timeout="30m")
    known = await knowledge(pool)
    await pool.start("john")
    before = timed.clock.now_ms
    timed.clock.advance(leap + MINUTE)
    known = replace(known, fence=0, expected=before + MINUTE)
    assert Behind.STRANGE is await ask(pool, "mary", known, "2")
    found = await recover(pool, known)
    assert before + MINUTE == found.now
    await pool.timed.store.restored(pool.pool.name, NODE, found.epoch, knew=True)
    known = Known(epoch=found.epoch, expected=found.now, clock_generation=found.clock_generation)
    assert Reason.CAPACITY is (await refused(pool, "mary", known)).reason
    beat = await pool.timed.store.heartbeat(pool.pool, VERSION, NODE, None, known)
    assert isinstance(beat, Beat)
    assert (before + MINUTE, leap, 1) == (beat.now, beat.skew, beat.sessions)


async def beaten(pool: Desk, known: Known, node: str = NODE) -> Beat:
    """Beat with what the node knows."""
    beat = await pool.timed.store.heartbeat(pool.pool, VERSION, node, None, known)
    assert isinstance(beat, Beat)
    return beat


async def refused(pool: Desk, user: str, known: Known, node: str = NODE) -> Refusal:
    """Ask for what must be denied."""
    answer = await ask(pool, user, known, "2", node)
    assert isinstance(answer, Refusal)
    return answer


async def test_a_clock_that_comes_back_is_right_again(timed: TimedStore) -> None:
    """What was held back is let go when the clock is corrected."""
    pool = desk(timed)
    known = await knowledge(pool)
    before = timed.clock.now_ms
    timed.clock.advance(HOUR)
    found = await recover(pool, replace(known, expected=before))
    timed.clock.set(before + MINUTE)
    back = Known(epoch=found.epoch, expected=before + MINUTE, clock_generation=found.clock_generation)
    beat = await beaten(pool, back)
    assert (0, before + MINUTE, found.epoch) == (beat.skew, beat.now, beat.epoch)


async def test_nobody_ends_when_the_time_is_right_again(timed: TimedStore) -> None:
    """L5: a node that beat while the corrected clock was still held back lives on, though its deadline was too early."""
    pool = desk(timed, session_timeout="30m")
    known = await knowledge(pool)
    before = timed.clock.now_ms
    timed.clock.advance(24 * HOUR)
    found = await recover(pool, replace(known, expected=before))
    timed.clock.set(before + MINUTE)
    await beaten(pool, Known(epoch=found.epoch), OTHER)  # booted meanwhile: it counts on from what it is told
    assert 24 * HOUR == (await beaten(pool, Known(epoch=found.epoch), OTHER)).skew
    back = await beaten(
        pool, Known(epoch=found.epoch, expected=before + MINUTE, clock_generation=found.clock_generation)
    )
    assert (0, {NODE, OTHER}) == (back.skew, set(await pool.timed.store.nodes(pool.pool.name)))


async def test_a_clock_that_stood_still_has_leapt_when_it_runs_again(timed: TimedStore) -> None:
    """L5: no claim ends by that, whoever is asked first: a count from before the clock stood still refutes nobody."""
    pool = desk(timed, session_timeout="30m")
    cut_off = await knowledge(pool, OTHER)
    known, before = await knowledge(pool), timed.clock.now_ms
    beat = await beaten(pool, replace(known, expected=before + 5 * MINUTE))  # by its count, and none by the clock
    assert known.clock_generation < beat.clock_generation
    timed.clock.advance(10 * MINUTE)
    await beaten(pool, replace(cut_off, expected=timed.clock.now_ms), OTHER)
    here = Known(epoch=beat.epoch, expected=beat.now + 5 * MINUTE, clock_generation=beat.clock_generation)
    assert Behind.STRANGE is await pool.timed.store.heartbeat(pool.pool, VERSION, NODE, None, here)
    assert before + 5 * MINUTE == (await recover(pool, here)).now


@pytest.mark.parametrize("leapt", [False, True], ids=["silence", "a leap"])
async def test_a_time_nobody_vouches_for_ends_nothing(timed: TimedStore, *, leapt: bool) -> None:
    """L5: a day has passed since anybody counted: who boots first waits for one who knows better; else it was a day."""
    pool = desk(timed, kind="floating", capacity=1, session_timeout="30m")
    known = await knowledge(pool)
    await beaten(pool, known)
    taken = await pool.start("john")
    timed.clock.advance(24 * HOUR)
    assert Behind.STRANGE is await pool.timed.store.heartbeat(pool.pool, VERSION, OTHER, None, NOTHING)
    await pool.timed.store.withdraw(pool.pool.name, index("nobody"), Withdrawal.RETURNED, b"")  # which counts
    found = await recover(pool, NOTHING, OTHER, ())
    booted = Known(epoch=found.epoch, expected=found.now, clock_generation=found.clock_generation)
    assert Reason.RECOVERING is (await refused(pool, "mary", booted, OTHER)).reason
    if leapt:
        found = await recover(pool, replace(known, fence=taken.fence))
        await pool.timed.store.restored(pool.pool.name, NODE, found.epoch, knew=True)
    timed.clock.advance(WINDOW)
    here = Known(epoch=found.epoch, expected=found.now + WINDOW, clock_generation=found.clock_generation)
    assert (24 * HOUR if leapt else 0) == (await beaten(pool, here, OTHER)).skew
    if leapt:
        assert Reason.CAPACITY is (await refused(pool, "mary", here, OTHER)).reason
    else:
        assert isinstance(await ask(pool, "mary", here, "2", OTHER), Taken)


async def test_what_is_taken_back_while_no_node_lives_is_free(timed: TimedStore) -> None:
    """A lease given back at a weekend, all hosts off: the seat was used last when its node was heard of last."""
    pool = desk(timed, capacity=1)
    await beaten(pool, await knowledge(pool))
    await pool.start("john")
    timed.clock.advance(2 * 24 * HOUR)
    withdrawn = await timed.store.withdraw(pool.pool.name, index("john"), Withdrawal.RETURNED, b"")
    assert withdrawn is not None
    assert (None, None, 0) == (withdrawn.quarantined_until, await pool.lease("john"), await pool.held())
    found = await recover(pool, NOTHING)
    timed.clock.advance(WINDOW)
    booted = Known(epoch=found.epoch, expected=found.now + WINDOW, clock_generation=found.clock_generation)
    await beaten(pool, booted)
    assert isinstance(await ask(pool, "mary", booted, "2"), Taken)


async def test_a_session_that_may_live_keeps_what_it_has(timed: TimedStore) -> None:
    """L5: where nobody vouches for the time, an administrator sees a session and its device as they were."""
    pool = desk(timed, capacity=1)
    await beaten(pool, await knowledge(pool))
    await pool.start("john")
    timed.clock.advance(24 * HOUR)
    before = pool.contents()
    released = await timed.store.release_device(pool.pool.name, index("john"), FARM)
    lease = await pool.lease("john")
    assert lease is not None
    assert (Release.IN_USE, 1, before) == (released.outcome, len(lease.sessions), pool.contents())


async def test_a_count_that_began_on_a_wrong_clock_moves_nothing(timed: TimedStore) -> None:
    """L5: who first heard the time when the clock had leapt already says nothing once others have set it right."""
    pool = desk(timed, session_timeout="30m")
    known, before = await knowledge(pool), timed.clock.now_ms
    timed.clock.advance(12 * HOUR)
    booted = await knowledge(pool, OTHER)
    found = await recover(pool, replace(known, expected=before))
    late = replace(booted, epoch=found.epoch, expected=booted.expected + MINUTE)
    timed.clock.advance(MINUTE)
    assert (12 * HOUR, before + MINUTE) == ((beat := await beaten(pool, late, OTHER)).skew, beat.now)


async def test_a_recovery_window_that_is_over_stays_over(timed: TimedStore) -> None:
    """Nobody is kept out anew because the clock goes back to when the window was open."""
    pool = desk(timed)
    known = await knowledge(pool)
    emptied(pool)
    found = await recover(pool, known)
    for span in (2 * WINDOW, -10 * MINUTE):
        timed.clock.advance(span)
    counted = Known(epoch=found.epoch, expected=found.now + 2 * WINDOW, clock_generation=found.clock_generation)
    beat = await beaten(pool, counted)
    assert isinstance(
        await ask(pool, "john", replace(counted, expected=beat.now, clock_generation=beat.clock_generation), "7"), Taken
    )


async def test_a_count_from_before_a_recovery_window_does_not_close_it(timed: TimedStore) -> None:
    """L7: a window that somebody opened who was booted after the clock went back is not over by an older count."""
    known = await knowledge(desk(timed))
    timed.clock.advance(-10 * MINUTE)
    pool = lives_on(desk(timed), "another life")
    found = await recover(pool, replace(known, expected=0), OTHER, (NODE, OTHER))
    late = replace(known, expected=known.expected + MINUTE)
    back = await recover(pool, late)
    assert (found.epoch, timed.clock.now_ms + WINDOW) == (back.epoch, back.until)


async def test_no_line_of_counts_comes_again(timed: TimedStore) -> None:
    """L7: data lost while the clock stands still must not bring back a line: an old count would close the window."""
    pool = desk(timed)
    known, other = await knowledge(pool), await knowledge(pool, OTHER)
    timed.clock.advance(1000)
    beat = await beaten(pool, replace(known, expected=known.expected + 5 * MINUTE))
    pool.timed.raw.flushall()
    here = Known(epoch=beat.epoch, expected=beat.now, clock_generation=beat.clock_generation)
    found = await recover(pool, here, NODE, (NODE, OTHER))
    late = replace(other, clock_generation=beat.clock_generation, expected=beat.now + 2 * MINUTE)
    assert beat.clock_generation < found.clock_generation
    assert found.until == (await recover(pool, late, OTHER)).until


async def test_who_is_not_alive_has_to_recover_before_it_restores(timed: TimedStore) -> None:
    """L3: what a node restores when the store forgot that it lives would be counted for nobody."""
    pool = desk(timed)
    known = await knowledge(pool)
    taken = await pool.start("john")
    pool.timed.raw.zrem(f"fl:{{{FARM}/{pool.pool.name}/0}}:nodes", NODE)
    assert Behind.STRANGE is await restore(pool, known.epoch, "john", taken, ("7",))


async def test_a_host_that_slept_is_refuted(timed: TimedStore) -> None:
    """L5: one host's own count moves nothing where another node has found the clock right in the meantime."""
    pool = desk(timed)
    known = await knowledge(pool)
    slept = timed.clock.now_ms
    timed.clock.advance(HOUR)
    seen = replace(known, expected=timed.clock.now_ms)
    assert isinstance(await pool.timed.store.heartbeat(pool.pool, VERSION, OTHER, None, seen), Beat)
    assert isinstance(
        await pool.timed.store.heartbeat(pool.pool, VERSION, NODE, None, replace(known, expected=slept)), Beat
    )


async def test_a_clock_that_goes_back_ends_nothing(timed: TimedStore) -> None:
    """A host's count never moves the store's time on: a clock an hour back only makes claims last longer."""
    pool = desk(timed, capacity=1)
    known = await knowledge(pool)
    taken = await pool.start("john")
    timed.clock.advance(-HOUR)
    late = replace(known, fence=taken.fence, expected=timed.clock.now_ms + HOUR)
    assert Reason.CAPACITY is (await refused(pool, "mary", late)).reason
    assert 1 == await pool.held()


async def test_everything_of_a_shard_is_gone_with_its_keys(timed: TimedStore) -> None:
    """What the store knows of its past lies in the shard, and nowhere else."""
    pool = desk(timed)
    known = await knowledge(pool)
    await recover(lives_on(pool, "another life"), known)
    timed.raw.delete(*Shard(FARM, pool.pool.name).keys())
    assert [] == timed.raw.keys()


async def test_a_document_is_json_that_says_what_the_lease_is(timed: TimedStore) -> None:
    """What a node keeps to restore from is the lease as the store had it, without names."""
    pool = desk(timed)
    await pool.beat()
    taken = await pool.start("john")
    document = json.loads(taken.document)
    assert (taken.lease.id, [FARM], [f"{NODE}/1"]) == (
        document["id"], list(document["devices"]), list(document["sessions"]),
    )  # fmt: skip
    remains = await pool.timed.store.release(
        pool.pool.name, Claim(user=index("john"), node=NODE, session="1"), taken.fence
    )
    assert remains is not None
    assert not isinstance(remains, Behind)
    assert document["until"] == remains.expires_at == json.loads(remains.document)["until"]
