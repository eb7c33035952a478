"""Tombstones in the store: what leaves one, for how long, what obeys it, and what does not (L11)."""

import json
from dataclasses import replace
from typing import Any

import pytest

from farmlease.domain.model import LeaseView, Reason, Withdrawal
from farmlease.domain.tombstones import Grave, Graves
from farmlease.store.answers.admin import Import, Importing, ImportOutcome, Replacement
from farmlease.store.answers.recovery import Restored, Restoring
from farmlease.store.answers.session import Taken
from farmlease.store.name_store import Rename
from farmlease.store.tombstone_store import Buried, TombstoneStore
from tests.store.test_rename import rename
from tests.support.rules import Office, office
from tests.support.seats import FARM, NODE
from tests.support.stores import DAY, HOUR, TimedStore, index


async def buried(pool: Office, after: int = 0) -> Buried:
    """Return what was taken back from the users of a pool."""
    return await TombstoneStore(pool.timed.connection, FARM).since(pool.pool.name, after)


async def claims(pool: Office, user: str) -> dict[str, Grave]:
    """Return what was taken back from one user."""
    found = (await buried(pool)).graves.get(index(user))
    return dict(found.claims) if found else {}


async def restore(pool: Office, user: str, granted: Taken, *sessions: str, device: str = FARM) -> Restored:
    """Restore a lease as a grant left it, with living sessions."""
    beat = await pool.beat()
    restoring = Restoring(
        user=index(user),
        document=granted.document,
        sessions={each: {"device": device, "fence": granted.fence, "started": granted.now} for each in sessions},
        version=1,
        record=granted.record,
        name=b"sealed name of " + user.encode(),
    )
    answer = await pool.timed.store.restore(pool.pool, pool.version, NODE, beat.epoch, restoring)
    assert isinstance(answer, Restored)
    return answer


def lose(timed: TimedStore, user: str) -> None:
    """Lose a user's lease, and what is noted of how many keys there are."""
    timed.raw.hdel(f"fl:{{{FARM}/clearquest/0}}:leases", index(user))
    timed.raw.hdel(f"fl:{{{FARM}/clearquest/0}}:meta", "keys")


async def replace_device(pool: Office, user: str, old: str, new: str) -> None:
    """Let an administrator move a device slot, whatever the limit."""
    answer = await pool.timed.store.replace_device(
        pool.pool.name, index(user), old, new, override=True, note=b"sealed note"
    )
    assert Replacement.REPLACED is answer.outcome


async def put_back(pool: Office, user: str, graves: dict[str, Grave]) -> bool:
    """Let a node tell the store what it lost."""
    beat = await pool.beat()
    store = TombstoneStore(pool.timed.connection, FARM)
    return await store.put_back(pool.pool.name, NODE, beat.epoch, index(user), Graves(graves))


async def test_what_ends_by_itself_leaves_none(timed: TimedStore) -> None:
    """Sessions that end or time out, a seat that lapses, a lease whose time is over."""
    pool = await office(timed, "named", capacity=2, lease="2d")
    await pool.end("john", await pool.start("john"))
    await pool.start("mary", "2")
    await pool.at("09:00", NODE, day=4)
    assert Buried(0, 0, {}) == await buried(pool)


async def test_a_return_leaves_the_lease_and_its_quarantine(timed: TimedStore) -> None:
    """The first as long as a receipt may live, the other until the seat is free; repeating it leaves nothing more."""
    pool = await office(timed, "named", capacity=2)
    granted = await pool.start("john")
    await pool.end("john", granted)
    await pool.give_back("john")
    left = await claims(pool, "john")
    assert {granted.lease.id, f"{granted.lease.id}/"} == left.keys()
    assert timed.clock.now_ms + 30 * DAY == left[granted.lease.id].until
    assert timed.clock.now_ms + DAY == left[f"{granted.lease.id}/"].until
    assert granted.fence < left[granted.lease.id].fence
    await pool.give_back("john")
    assert left == await claims(pool, "john")
    await pool.give_back("john", Withdrawal.REVOKED)
    assert left.keys() | {"/"} == (await claims(pool, "john")).keys()


async def test_a_number_says_what_is_new(timed: TimedStore) -> None:
    """A node asks for what changed after the last number that it has; a beat names the newest."""
    pool = await office(timed, "named", capacity=3)
    for user in ("john", "mary"):
        await pool.end(user, await pool.start(user))
        await pool.give_back(user)
    beat = await pool.beat()
    assert (2, 2, {index("mary")}) == (beat.buried, (found := await buried(pool, 1)).number, found.graves.keys())
    assert Buried(2, 2, {}) == await buried(pool, 2)


async def test_a_lease_that_is_revived_is_restored_and_what_was_before_is_not(timed: TimedStore) -> None:
    """By the fence of the last grant: the same id before and after the taking, in the same millisecond."""
    pool = await office(timed, "named", capacity=3)
    first = await pool.start("john")
    await pool.end("john", first)
    await pool.give_back("john")
    second = await pool.start("john")
    assert first.lease.id == second.lease.id
    assert Restored(ended=True, refused={}) == await restore(pool, "john", first)
    assert Restored(refused={}) == await restore(pool, "john", second, "1")
    lose(timed, "john")
    assert Restored(ended=True, refused={}) == await restore(pool, "john", first, "1")
    assert Restored(refused={}) == await restore(pool, "john", second, "1")


async def test_a_released_device_takes_its_slot_for_a_quarantine_and_no_longer(timed: TimedStore) -> None:
    """Whatever deadline a receipt has for it."""
    pool = await office(timed, "named", capacity=3)
    granted = await pool.start("john", device="nb-1")
    await pool.end("john", granted)
    await pool.timed.store.release_device("clearquest", index("john"), "nb-1")
    assert [f"{granted.lease.id}/nb-1/"] == [*await claims(pool, "john")]
    lose(timed, "john")
    await restore(pool, "john", granted)
    lease = await pool.lease("john")
    assert lease is not None
    assert [timed.clock.now_ms + DAY] == [each.until for each in lease.devices]


def turned_back(pool: Office, before: dict[str, Any]) -> None:
    """Put an older copy of a lease, with its session, back into the store: it has lost what came since."""
    keys = f"fl:{{{FARM}/clearquest/0}}:"
    pool.timed.raw.delete(f"{keys}over", f"{keys}over_numbers")
    pool.timed.raw.hset(f"{keys}leases", mapping=before["leases"])
    pool.timed.raw.zadd(f"{keys}sessions", {b"": 0, **dict(before.get("sessions", ()))})
    pool.timed.raw.zrem(f"{keys}sessions", b"")
    pool.timed.raw.zadd(f"{keys}seats", dict(before["seats"]))
    pool.timed.raw.hdel(f"{keys}meta", "keys")


async def told_at_three(
    pool: Office, before: dict[str, Any], graves: dict[str, Grave], ended: Taken | None
) -> LeaseView:
    """Turn the store back, end John's session by its grant if one is given, and put back what was taken of him."""
    await pool.at("15:00", NODE)
    turned_back(pool, before)
    if ended is not None:
        await pool.end("john", ended)
    assert await put_back(pool, "john", graves)
    lease = await pool.lease("john")
    assert lease is not None
    return lease


@pytest.mark.parametrize("ended_first", [True, False])
async def test_a_device_that_was_released_stays_so_though_an_old_session_is_counted_again(
    timed: TimedStore,
    ended_first: bool,  # noqa: FBT001
) -> None:
    """It ends with the release at the latest, given back by its node or not: that contact keeps the slot no longer."""
    pool = await office(timed, "named", capacity=3)
    granted = await pool.start("john", device="nb-1")
    before = pool.contents()
    await pool.at("10:00", NODE)
    await pool.end("john", granted)
    await pool.timed.store.release_device("clearquest", index("john"), "nb-1")
    graves = await claims(pool, "john")
    free_at = timed.clock.now_ms + DAY
    lease = await told_at_three(pool, before, graves, granted if ended_first else None)
    assert not lease.sessions
    assert [free_at] == [each.until for each in lease.devices]


async def test_a_release_that_nobody_heard_of_takes_no_lease_over_its_limit(timed: TimedStore) -> None:
    """L1: the device in use stays; the one that the store has again as the release was lost gives way to it."""
    pool = await office(timed, "named", capacity=3, quarantine="0s", devices_per_user=1)
    await pool.end("john", await pool.start("john", device="nb-1"))
    before = pool.contents()
    await pool.timed.store.release_device("clearquest", index("john"), "nb-1")
    granted = await pool.start("john", device="nb-2")
    turned_back(pool, before)
    assert Restored(refused={}) == await restore(pool, "john", granted, "1", device="nb-2")
    lease = await pool.lease("john")
    assert lease is not None
    assert ["nb-2"] == [each.device for each in lease.devices]


async def test_a_limit_that_was_lowered_takes_no_device_in_a_recovery(timed: TimedStore) -> None:
    """As many as the store has, the one in use among them; one more that is idle does not come back."""
    pool = await office(timed, "named", capacity=3, devices_per_user=3)
    await pool.end("john", await pool.start("john", device="nb-1"))
    await pool.at("10:00", NODE)
    await pool.end("john", await pool.start("john", device="nb-2"))
    before = pool.contents()
    granted = await pool.start("john", device="nb-3")
    turned_back(pool, before)
    pool = await pool.apply("named", capacity=3, devices_per_user=1)
    assert Restored(refused={}) == await restore(pool, "john", granted, "1", device="nb-3")
    lease = await pool.lease("john")
    assert lease is not None
    assert {"nb-2", "nb-3"} == {each.device for each in lease.devices}


async def test_a_slot_that_has_lapsed_makes_no_room_in_a_recovery(timed: TimedStore) -> None:
    """L1: the lease's document still names it when a session that a receipt let in there is counted."""
    pool = await office(timed, "named", capacity=3, devices_per_user=2, lease="2h")
    granted = await pool.start("john", device="nb-1")
    await pool.end("john", granted)
    await pool.at("10:00", NODE)
    await pool.end("john", await pool.start("john", device="nb-2"))
    pool = await pool.apply("named", capacity=3, devices_per_user=1, lease="2h")
    await pool.at("11:30", NODE)
    assert Restored(refused={}) == await restore(pool, "john", granted, "1", device="nb-1")
    lease = await pool.lease("john")
    assert lease is not None
    assert ["nb-1"] == [each.device for each in lease.devices]


@pytest.mark.parametrize("ended_first", [True, False])
async def test_a_quarantine_counts_from_the_taking_though_an_old_session_is_counted_again(
    timed: TimedStore,
    ended_first: bool,  # noqa: FBT001
) -> None:
    """What the store counted meanwhile had ended by then."""
    pool = await office(timed, "named", capacity=3)
    granted = await pool.start("john")
    before = pool.contents()
    await pool.at("10:00", NODE)
    await pool.give_back("john")
    graves = await claims(pool, "john")
    free_at = timed.clock.now_ms + DAY
    lease = await told_at_three(pool, before, graves, granted if ended_first else None)
    assert lease.quarantined
    assert free_at == lease.lease.expires_at


async def test_a_session_that_moved_to_a_device_after_its_release_is_restored(timed: TimedStore) -> None:
    """It has the fence of its grant, which was before; its slot has a later one."""
    pool = await office(timed, "named", capacity=3, devices_per_user=2)
    await pool.end("john", await pool.start("john", "2", device="nb-1"), "2")
    await pool.start("john")
    await pool.timed.store.release_device("clearquest", index("john"), "nb-1")
    graves = await claims(pool, "john")
    moved = await pool.start("john", device="nb-1")
    lose(timed, "john")
    assert Restored(refused={}) == await restore(pool, "john", moved, "1", device="nb-1")
    before = pool.contents()["sessions"]
    assert await put_back(pool, "john", graves)
    assert before == pool.contents()["sessions"]


async def test_a_device_that_comes_back_by_a_replacement_is_restored(timed: TimedStore) -> None:
    """A slot that goes from one device to another and back, by an administrator, is that of the first again."""
    pool = await office(timed, "named", capacity=3)
    granted = await pool.start("john", device="nb-1")
    await pool.end("john", granted)
    for old, new in (("nb-1", "nb-2"), ("nb-2", "nb-1")):
        await replace_device(pool, "john", old, new)
    known = replace(granted, document=pool.contents()["leases"][index("john").encode()])
    lose(timed, "john")
    await restore(pool, "john", known)
    lease = await pool.lease("john")
    assert lease is not None
    assert ["nb-1"] == [each.device for each in lease.devices]


async def test_an_import_after_a_replacement_counts(timed: TimedStore) -> None:
    """The vendor has the device again whose slot had moved to another one."""
    pool = await office(timed, "named", capacity=3, devices_per_user=2)
    await pool.end("john", await pool.start("john", device="nb-1"))
    await replace_device(pool, "john", "nb-1", "nb-2")
    importing = Importing(
        user=index("john"), device="nb-1", borrowed_at=timed.clock.now_ms - HOUR, lease_id="x", record=b"", name=b"",
        reservations=(), by=b"",
    )  # fmt: skip
    assert ImportOutcome(outcome=Import.IMPORTED) == await pool.timed.store.import_lease(
        pool.pool, pool.version, importing
    )
    granted = await pool.start("john", device="nb-2")
    lose(timed, "john")
    await restore(pool, "john", granted, "1", device="nb-2")
    lease = await pool.lease("john")
    assert lease is not None
    assert {"nb-1", "nb-2"} == {each.device for each in lease.devices}


async def test_an_import_after_a_release_counts(timed: TimedStore) -> None:
    """The vendor has the device again: a device that was released before is taken anew."""
    pool = await office(timed, "named", capacity=3)
    await pool.end("john", await pool.start("john"))
    await pool.end("john", await pool.start("john", device="nb-1"))
    await pool.timed.store.release_device("clearquest", index("john"), "nb-1")
    await pool.at("10:00", NODE, day=2)
    importing = Importing(
        user=index("john"), device="nb-1", borrowed_at=timed.clock.now_ms - HOUR, lease_id="x", record=b"", name=b"",
        reservations=(), by=b"",
    )  # fmt: skip
    assert ImportOutcome(outcome=Import.IMPORTED) == await pool.timed.store.import_lease(
        pool.pool, pool.version, importing
    )
    granted = await pool.start("john")
    lose(timed, "john")
    await restore(pool, "john", granted, "1")
    lease = await pool.lease("john")
    assert lease is not None
    assert {"citrix-a", "nb-1"} == {each.device for each in lease.devices}


async def test_a_use_after_an_import_and_a_release_counts(timed: TimedStore) -> None:
    """The device was imported before it was released: its later use is another claim, and is restored whole."""
    pool = await office(timed, "named", capacity=3)
    await pool.end("john", await pool.start("john"))
    await pool.timed.store.release_device("clearquest", index("john"), FARM)
    await pool.at("10:00", NODE)
    importing = Importing(
        user=index("john"), device=FARM, borrowed_at=timed.clock.now_ms, lease_id="x", record=b"", name=b"",
        reservations=(), by=b"",
    )  # fmt: skip
    await pool.timed.store.import_lease(pool.pool, pool.version, importing)
    await pool.at("11:00", NODE)
    await pool.timed.store.release_device("clearquest", index("john"), FARM)
    await pool.at("12:00", NODE)
    granted = await pool.start("john")
    lose(timed, "john")
    await restore(pool, "john", granted)
    lease = await pool.lease("john")
    assert lease is not None
    assert [timed.clock.now_ms + 30 * DAY] == [each.until for each in lease.devices]


async def test_a_lease_that_was_returned_and_renamed_stays_returned(timed: TimedStore) -> None:
    """A receipt that follows to the new name was given before the taking."""
    pool = await office(timed, "named", capacity=3)
    granted = await pool.start("john")
    await pool.end("john", granted)
    await pool.timed.store.release_device("clearquest", index("john"), FARM)
    await pool.give_back("john")
    assert Rename.RENAMED is await rename(pool, "john", "corp-john")
    moved = await claims(pool, "corp-john")
    assert {granted.lease.id, f"{granted.lease.id}/", f"{granted.lease.id}/{FARM}/"} == moved.keys()
    assert Restored(ended=True, refused={}) == await restore(pool, "corp-john", granted)
    stored = await pool.lease("corp-john")
    assert stored is not None
    assert stored.quarantined


@pytest.mark.parametrize("kept_out", ["john", "corp-john"])
async def test_a_revocation_that_was_renamed_is_put_back_under_the_new_name(timed: TimedStore, kept_out: str) -> None:
    """With a fence above the lease that moved, whichever name was kept out: the lease was not granted since."""
    pool = await office(timed, "named", capacity=3)
    await pool.end("john", await pool.start("john"))
    revoked = await pool.give_back(kept_out, Withdrawal.REVOKED)
    assert revoked is not None
    assert Rename.RENAMED is await rename(pool, "john", "corp-john")
    assert "/" not in await claims(pool, "john")
    moved = await claims(pool, "corp-john")
    assert revoked.barred_until == moved["/"].until
    timed.raw.delete(*(f"fl:{{{FARM}/clearquest/0}}:{each}" for each in ("barred", "over", "over_numbers")))
    lose(timed, "mary")
    assert await put_back(pool, "corp-john", moved)
    assert Reason.REVOKED is (await pool.refused("corp-john")).reason


async def test_a_revocation_from_before_a_grant_is_not_put_back(timed: TimedStore) -> None:
    """It moved to another name, and a node knows it under this one still: who came since has not been kept out."""
    pool = await office(timed, "named", capacity=3)
    await pool.give_back("john", Withdrawal.REVOKED)
    before = await claims(pool, "john")
    assert Rename.RENAMED is await rename(pool, "john", "corp-john")
    await pool.start("john")
    assert await put_back(pool, "john", before)
    assert isinstance(await pool.start("john", "2"), Taken)


async def test_what_is_put_back_is_taken_again(timed: TimedStore) -> None:
    """A lease, its sessions with word to their node, a device, a name; repeating it changes nothing."""
    pool = await office(timed, "named", capacity=3)
    granted = await pool.start("john")
    graves = {
        granted.lease.id: Grave(granted.fence + 5, timed.clock.now_ms + 30 * DAY),
        "": Grave(granted.fence + 5, timed.clock.now_ms + 30 * DAY),
    }
    assert await put_back(pool, "john", graves)
    assert ["returned"] == [each.reason for each in (await pool.beat()).lost]
    stored = await pool.lease("john")
    assert stored is not None
    assert (True, b"") == (stored.quarantined, stored.name)
    before = pool.contents()
    assert await put_back(pool, "john", graves)
    assert before["leases"] == pool.contents()["leases"]
    assert before["over_numbers"] == pool.contents()["over_numbers"]
    assert granted.fence + 5 < (await pool.start("mary", "2")).fence, "the next grant is above what was put back"


async def test_what_was_granted_later_is_left_alone(timed: TimedStore) -> None:
    """A tombstone that comes late takes what was before it, and nothing of what was granted since."""
    pool = await office(timed, "named", capacity=3)
    granted = await pool.start("john")
    late = {
        granted.lease.id: Grave(granted.fence - 1, timed.clock.now_ms + 30 * DAY),
        f"{granted.lease.id}/{FARM}": Grave(granted.fence - 1, timed.clock.now_ms + 30 * DAY),
        "": Grave(granted.fence - 1, timed.clock.now_ms + 30 * DAY),
    }
    before = pool.contents()
    assert await put_back(pool, "john", late)
    assert [] == [*(await pool.beat()).lost]
    assert json.loads(before["leases"][index("john").encode()]) == json.loads(
        pool.contents()["leases"][index("john").encode()]
    )
    assert before["names"] == pool.contents()["names"]


@pytest.mark.parametrize("room", [True, False])
async def test_a_quarantine_is_put_back_as_far_as_there_is_room(timed: TimedStore, room: bool) -> None:  # noqa: FBT001
    """L1: who came meanwhile keeps the seat; no set is over its capacity."""
    pool = await office(timed, "named", capacity=2 if room else 1)
    await pool.start("mary", "2")
    assert await put_back(pool, "john", {"lease 9/": Grave(timed.clock.now_ms, timed.clock.now_ms + HOUR)})
    assert (2 if room else 1, 1 if room else 0) == ((count := await pool.count()).held, count.quarantined)
    await pool.at("10:00", NODE)
    assert (1, 0) == ((count := await pool.count()).held, count.quarantined)


async def test_of_two_quarantines_of_a_user_the_longer_counts(timed: TimedStore) -> None:
    """L5: in whichever order they are put back, in one call or in two; the seat is one, and needs room once."""
    pool = await office(timed, "named", capacity=3)
    now = timed.clock.now_ms
    short, long = Grave(now - 5, now + HOUR), Grave(now - 4, now + 20 * HOUR)
    for user, first, then in (("john", short, long), ("mary", long, short)):
        assert await put_back(pool, user, {"lease 8/": first})
        assert await put_back(pool, user, {"lease 9/": then})
    await pool.at("10:00", NODE)
    assert (2, 2) == ((count := await pool.count()).held, count.quarantined)


@pytest.mark.parametrize("number", range(6))
async def test_of_two_quarantines_in_one_call_the_longer_counts(timed: TimedStore, number: int) -> None:
    """L5: a table of Lua has its entries in any order."""
    pool = await office(timed, "named")
    now = timed.clock.now_ms
    graves = {f"{number}a/": Grave(now - 5, now + HOUR), f"{number}b/": Grave(now - 4, now + 20 * HOUR)}
    assert await put_back(pool, "john", graves)
    await pool.at("10:00", NODE)
    assert 1 == (await pool.count()).quarantined


async def test_a_device_that_a_session_moved_to_before_the_clock_stepped_back_stays_released(timed: TimedStore) -> None:
    """The release is later than the move, whatever the clock says: a receipt of the move brings nothing back."""
    pool = await office(timed, "named", capacity=3, devices_per_user=3)
    await pool.start("john")
    timed.clock.advance(10_000)
    await pool.beat()
    moved = await pool.start("john", device="nb-1")
    timed.clock.advance(-3000)
    await pool.beat()
    await pool.end("john", moved)
    timed.clock.advance(1000)
    await timed.store.release_device("clearquest", index("john"), "nb-1")
    await pool.at("10:00", NODE, day=3)
    await restore(pool, "john", moved)
    lease = await pool.lease("john")
    assert lease is not None
    assert [FARM] == [each.device for each in lease.devices]


async def test_graves_go_with_their_time(timed: TimedStore) -> None:
    """Each taking looks at some of those that may be over, whoever's they are; none goes before."""
    pool = await office(timed, "named", capacity=50, lease="30d")
    for number in range(20):
        user = f"user{number}"
        await pool.end(user, await pool.start(user))
        await pool.give_back(user)
    await pool.at("08:59", NODE, day=30)
    assert 20 == (await buried(pool)).users
    await pool.at("10:00", NODE, day=31)
    for number in range(6):
        await pool.end("mary", await pool.start("mary", str(number)), str(number))
        await pool.give_back("mary")
    assert {index("mary")} == (await buried(pool)).graves.keys()
