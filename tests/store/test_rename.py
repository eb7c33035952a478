"""A lease moves to another index of its user, and is found under former ones meanwhile."""

import json
from dataclasses import replace

import pytest

from farmlease.domain.model import Reason, Withdrawal
from farmlease.errors import PolicyChanged
from farmlease.store.answers.recovery import Restored, Restoring
from farmlease.store.answers.session import Refusal, SealedPolicy, Taken, Taking, Waiting
from farmlease.store.keys import Shard
from farmlease.store.lease_store import Acquired
from farmlease.store.name_store import NameStore, Rename, Renaming
from tests.support.rules import Office, office
from tests.support.seats import FARM, NODE, OTHER, audit, claim
from tests.support.stores import DAY, HOUR, TimedStore, index

MINUTE = 60_000


async def rename(pool: Office, old: str, new: str, **changes: object) -> Rename:
    """Move a lease as it is, or what is left of it."""
    stored = await pool.lease(old)
    renaming = Renaming(
        old=index(old),
        new=index(new),
        lease_id=stored.lease.id if stored else "",
        version=stored.record_version if stored else 0,
        record=b"sealed anew",
        name=b"sealed name of " + new.encode(),
        note=b"sealed note",
        by=b"sealed anna",
    )
    return await NameStore(pool.timed.connection, FARM).rename(pool.pool.name, replace(renaming, **changes))  # type: ignore[arg-type] # fields


async def start(
    pool: Office, user: str, *former: str, session: str = "1", node: str = NODE, wait_ms: int = 0
) -> Acquired:
    """Ask for a session of a user who had other names."""
    pool.asked += 1
    taking = Taking(
        device=FARM,
        lease_id=f"lease {pool.asked}",
        record=b"record",
        name=b"sealed name of " + user.encode(),
        wait_ms=wait_ms,
        former=tuple(map(index, former)),
    )
    return await pool.timed.store.acquire(pool.pool, pool.version, claim(user, session, node), taking)


async def taken(pool: Office, user: str, *former: str, session: str = "1") -> Taken:
    """Ask for a session that must be granted."""
    answer = await start(pool, user, *former, session=session)
    assert isinstance(answer, Taken), answer
    return answer


def restoring(user: str, granted: Taken) -> Restoring:
    """Return what a node has of an idle lease."""
    return Restoring(
        user=index(user),
        document=granted.document,
        sessions={},
        version=1,
        record=granted.record,
        name=b"sealed name of " + user.encode(),
    )


async def test_a_lease_moves_as_it_stands(timed: TimedStore) -> None:
    """Seat, devices, times and lease id are the same under the other index; nothing is left under the old one."""
    pool = await office(timed, "named", capacity=3)
    await pool.end("john", await pool.start("john", device="nb-1"))
    before = await pool.lease("john")
    assert Rename.RENAMED is await rename(pool, "john", "corp-john")
    after = await pool.lease("corp-john")
    assert before is not None
    assert after == replace(
        before, user=index("corp-john"), name=b"sealed name of corp-john", record=b"sealed anew", now=after.now
    )
    assert (None, 1) == (await pool.lease("john"), await pool.held())
    contents = pool.contents()
    assert [index("corp-john").encode()] == [seat for seat, _ in contents["seats"]]
    assert [index("corp-john").encode()] == [*contents["leases"]] == [*contents["records"]]


async def test_a_move_is_audited_with_both_indexes(timed: TimedStore) -> None:
    """The new index, the old one, who did it, and the former name in a note that only the farm's keys open."""
    pool = await office(timed, "named")
    await pool.end("john", await pool.start("john"))
    await rename(pool, "john", "corp-john")
    last = audit(timed.raw, "clearquest")[-1]
    assert ("renamed", index("corp-john"), index("john")) == (last["event"], last["user"], last["detail"])
    assert ("sealed anna", "sealed note") == (last["by"], last["note"])


async def test_moving_again_changes_nothing(timed: TimedStore) -> None:
    """After a lost reply the first answer comes again."""
    pool = await office(timed, "named")
    await pool.end("john", await pool.start("john"))
    stored = await pool.lease("john")
    assert stored is not None
    await rename(pool, "john", "corp-john")
    before = pool.contents()
    assert Rename.RENAMED is await rename(pool, "john", "corp-john", lease_id=stored.lease.id, version=1)
    assert before == pool.contents()


async def test_a_lease_in_use_waits(timed: TimedStore) -> None:
    """With a session it stays; when that has ended, it moves."""
    pool = await office(timed, "named")
    granted = await pool.start("john")
    assert Rename.IN_USE is await rename(pool, "john", "corp-john")
    await pool.end("john", granted)
    assert Rename.RENAMED is await rename(pool, "john", "corp-john")


async def test_a_session_of_a_dead_node_holds_up_nothing(timed: TimedStore) -> None:
    """Its end is due: it ends first, then the lease moves."""
    pool = await office(timed, "named", NODE, OTHER)
    await pool.start("john")
    await pool.at("12:00", OTHER)
    assert Rename.RENAMED is await rename(pool, "john", "corp-john")
    assert ["timeout"] == [each.reason for each in (await pool.beat(NODE)).lost]


async def test_two_leases_are_never_joined(timed: TimedStore) -> None:
    """Where the other index has a lease of its own, both stay as they are."""
    pool = await office(timed, "named", capacity=2)
    await pool.end("john", await pool.start("john"))
    await pool.end("corp-john", await pool.start("corp-john"))
    before = pool.contents()
    assert Rename.TAKEN is await rename(pool, "john", "corp-john")
    assert before == pool.contents()


async def test_a_record_that_was_saved_meanwhile_is_read_again(timed: TimedStore) -> None:
    """Compare-and-set on its version: the record sealed anew of an older version never replaces it."""
    pool = await office(timed, "named")
    granted = await pool.start("john")
    await timed.store.save("clearquest", claim("john"), granted.lease.id, 2, b"newer")
    await pool.end("john", granted)
    assert Rename.CHANGED is await rename(pool, "john", "corp-john", version=1)
    assert Rename.CHANGED is await rename(pool, "john", "corp-john", lease_id="another")
    stored = await pool.lease("john")
    assert stored is not None
    assert (b"newer", 2) == (stored.record, stored.record_version)


async def test_a_lingering_seat_a_reservation_and_the_overdraft_move_too(timed: TimedStore) -> None:
    """Held seats stay held, for as long, and charged to the same."""
    pool = await office(
        timed, "floating", capacity=2, share="session", linger="1h", reserve=[{"users": ["*"], "seats": 1}]
    )
    granted = await pool.favoured("john")
    assert isinstance(granted, Taken)
    await pool.end("john", granted)
    before = pool.contents()
    assert Rename.RENAMED is await rename(pool, "john", "corp-john")
    after = pool.contents()
    for name in ("seats", "reserved"):
        moved = [
            (member.replace(index("john").encode(), index("corp-john").encode()), at) for member, at in before[name]
        ]
        assert moved == after[name]
    assert [(1, 1)] == [(len(after[name]), len(before[name])) for name in ("reserved",)]
    await pool.at("10:00:00.001", NODE)
    assert 0 == (await pool.count()).held


async def test_a_quarantined_seat_moves_and_stays_quarantined(timed: TimedStore) -> None:
    """Given back at 09:00 under one name, it is free at 09:00 the next day under the other."""
    pool = await office(timed, "named")
    await pool.end("john", await pool.start("john"))
    await pool.give_back("john")
    assert Rename.RENAMED is await rename(pool, "john", "corp-john")
    assert 1 == (await pool.count()).quarantined
    assert Reason.QUARANTINED is (await pool.refused("mary")).reason
    assert [index("corp-john").encode()] == [user for user, _ in pool.contents()["quarantine"]]


@pytest.mark.parametrize("holds", [True, False], ids=["with a lease", "without a lease"])
async def test_a_revocation_follows_its_user(timed: TimedStore, *, holds: bool) -> None:
    """Who was kept out under one name is kept out under the other, and for as long."""
    pool = await office(timed, "named", capacity=2)
    if holds:
        await pool.end("john", await pool.start("john"))
    revoked = await pool.give_back("john", Withdrawal.REVOKED)
    assert revoked is not None
    assert [index("john")] == [user async for user, _ in NameStore(timed.connection, FARM).barred("clearquest")]
    assert Rename.RENAMED is await rename(pool, "john", "corp-john")
    assert [index("corp-john")] == [user async for user, _ in NameStore(timed.connection, FARM).barred("clearquest")]
    refusal = await pool.refused("corp-john")
    assert (Reason.REVOKED, revoked.barred_until) == (refusal.reason, refusal.retry_at)


async def test_a_revocation_waits_for_the_sessions_of_the_other_name(timed: TimedStore) -> None:
    """Who works is kept out by no change of name; when the session has ended, the revocation moves."""
    pool = await office(timed, "named", capacity=2)
    await pool.give_back("john", Withdrawal.REVOKED)
    granted = await pool.start("corp-john")
    before = pool.contents()
    assert Rename.IN_USE is await rename(pool, "john", "corp-john")
    assert before == pool.contents()
    await pool.end("corp-john", granted)
    assert Rename.RENAMED is await rename(pool, "john", "corp-john")
    assert Reason.REVOKED is (await pool.refused("corp-john")).reason


async def test_what_is_not_there_is_not_moved(timed: TimedStore) -> None:
    """Neither a lease nor a revocation: there is nothing to do, and nothing is written."""
    pool = await office(timed, "named")
    before = pool.contents()
    assert Rename.NONE is await rename(pool, "john", "corp-john")
    assert before == pool.contents()


async def test_while_a_pool_recovers_nothing_moves(timed: TimedStore) -> None:
    """A session may yet be restored under the old index."""
    pool = await office(timed, "named")
    await pool.end("john", await pool.start("john"))
    timed.raw.hset(Shard(FARM, "clearquest").key("meta"), "recovering", timed.clock.now_ms + 1000)
    assert Rename.RECOVERING is await rename(pool, "john", "corp-john")
    timed.clock.advance(1000)
    assert Rename.RENAMED is await rename(pool, "john", "corp-john")


async def test_no_receipt_brings_the_old_index_back(timed: TimedStore) -> None:
    """A node that restores what it knows of the lease under the old index is answered that this is over."""
    pool = await office(timed, "named", capacity=3)
    granted = await pool.start("john")
    await pool.end("john", granted)
    await rename(pool, "john", "corp-john")
    beat = await pool.beat()
    for _ in range(2):
        answer = await timed.store.restore(pool.pool, pool.version, NODE, beat.epoch, restoring("john", granted))
        assert answer == Restored(ended=True, refused={})
        assert (None, 1) == (await pool.lease("john"), await pool.held())
        await pool.at("08:59", NODE, day=30)  # as long as the lease could have lasted


async def test_a_tombstone_stays_at_least_seven_days_and_is_forgotten_with_a_later_one(timed: TimedStore) -> None:
    """A lingering seat of a minute leaves one for a week; the next one takes those away that are over."""
    pool = await office(timed, "floating", capacity=3, linger="1m", lease="1d")
    await pool.end("john", await pool.start("john"))
    await rename(pool, "john", "corp-john")
    ((user, graves),) = pool.contents()["over"].items()
    assert (index("john").encode(), {"lease 1"}) == (user, json.loads(graves).keys())
    fence, until, moved_to = json.loads(graves)["lease 1"]
    assert (timed.clock.now_ms, timed.clock.now_ms + 7 * DAY, index("corp-john")) == (fence - 1, until, moved_to)
    await pool.at("09:00", NODE, day=7)
    await pool.end("mary", await pool.start("mary"))
    await rename(pool, "mary", "corp-mary")
    assert [index("mary").encode()] == [*pool.contents()["over"]]
    assert [index("mary").encode()] == [user for user, _ in pool.contents()["over_numbers"]]


async def test_a_copy_under_the_old_index_goes_without_a_second_lease(timed: TimedStore) -> None:
    """The same lease, put back under its old index by a node: the next move takes it away, and its seat is free."""
    pool = await office(timed, "named", capacity=3)
    granted = await pool.start("john")
    await pool.end("john", granted)
    await rename(pool, "john", "corp-john")
    timed.raw.delete(Shard(FARM, "clearquest").key("over"))  # lost
    timed.raw.hdel(Shard(FARM, "clearquest").key("meta"), "keys")  # by a version that does not count keys
    beat = await pool.beat()
    await timed.store.restore(pool.pool, pool.version, NODE, beat.epoch, restoring("john", granted))
    assert 2 == await pool.held()
    assert Rename.RENAMED is await rename(pool, "john", "corp-john")
    assert (None, 1) == (await pool.lease("john"), await pool.held())


# --- found by either name ----------------------------------------------------------------------------------------------


async def test_a_lease_under_a_former_name_is_found_in_the_same_call(timed: TimedStore) -> None:
    """One seat, one lease: the answer says under which index it stands, and the session goes on with that."""
    pool = await office(timed, "named", capacity=2)
    first = await pool.start("john")
    second = await taken(pool, "corp-john", "john", session="2")
    assert (first.lease.id, index("john"), 1) == (second.lease.id, second.user, await pool.held())
    assert index("john") == (await taken(pool, "corp-john", "john", session="2")).user
    await pool.timed.store.release("clearquest", replace(claim("john"), session="2"), second.fence)
    stored = await pool.lease("john")
    assert stored is not None
    assert ["1"] == [each.session for each in stored.sessions]


async def test_a_lease_under_the_present_name_comes_first_but_for_the_same_session(timed: TimedStore) -> None:
    """Of two leases of one person the present name's is used, and a session is asked again where it is counted."""
    pool = await office(timed, "named", capacity=2)
    await pool.start("john")
    await pool.start("corp-john", "2")
    assert index("corp-john") == (await taken(pool, "corp-john", "john", session="3")).user
    again = await taken(pool, "corp-john", "john", session="1")
    assert (index("john"), True) == (again.user, again.again)


async def test_without_a_lease_the_present_name_gets_one(timed: TimedStore) -> None:
    """A former name under which nothing stands changes nothing."""
    pool = await office(timed, "named")
    answer = await taken(pool, "corp-john", "john", "john@x")
    assert index("corp-john") == answer.user
    assert [index("corp-john").encode()] == [*pool.contents()["names"]]


async def test_a_revocation_under_a_former_name_keeps_out(timed: TimedStore) -> None:
    """Another spelling is no way round it."""
    pool = await office(timed, "named")
    await pool.give_back("john", Withdrawal.REVOKED)
    answer = await start(pool, "corp-john", "john")
    assert isinstance(answer, Refusal)
    assert Reason.REVOKED is answer.reason


async def test_a_denial_under_a_former_name_leaves_the_name_as_it_is(timed: TimedStore) -> None:
    """The sealed name opens for the index that it was sealed for, and for no other."""
    pool = await office(timed, "named", devices_per_user=1)
    await pool.start("john", device="nb-1")
    timed.raw.hdel(Shard(FARM, "clearquest").key("names"), index("john"))
    timed.raw.hdel(Shard(FARM, "clearquest").key("meta"), "keys")
    answer = await start(pool, "corp-john", "john", session="2")
    assert isinstance(answer, Refusal)
    assert Reason.DEVICE_LIMIT is answer.reason
    assert "names" not in pool.contents()


async def test_a_place_in_the_queue_is_kept_through_a_change_of_name(timed: TimedStore) -> None:
    """Who waited first under the old name is first under the new one."""
    pool = await office(timed, "floating", queue="10m")
    mary = await pool.start("mary")
    assert 0 == await pool.wait("john")
    assert 1 == await pool.wait("zoe")
    assert Waiting(ahead=0) == await start(pool, "corp-john", "john", wait_ms=2000)
    await pool.end("mary", mary)
    assert isinstance(await start(pool, "corp-john", "john", wait_ms=2000), Taken)
    assert 0 == await pool.wait("zoe")


# --- whoever reads the policy knows whether to search ------------------------------------------------------------------


async def test_a_policy_says_whether_leases_may_stand_under_former_names(timed: TimedStore) -> None:
    """Until it is settled, and by that policy only; the seal stays as it is."""
    names, store = NameStore(timed.connection, FARM), timed.store
    await store.apply_policy(0, 1, b"\1one\nsealed", former_names=True)
    found = await store.read_policy()
    assert SealedPolicy(version=1, sealed=b"\1one\nsealed", now=found.now, former_names=True) == found
    await store.apply_policy(0, 1, b"\1one\nsealed", former_names=True)  # a lost reply
    assert not await names.settle(2)
    assert (await store.read_policy()).former_names
    assert await names.settle(1)
    assert await names.settle(1)
    assert replace(found, former_names=False) == await store.read_policy()
    with pytest.raises(PolicyChanged):
        await store.apply_policy(0, 2, b"\1two")


async def test_a_lapsed_lease_is_nothing_to_rename(timed: TimedStore) -> None:
    """What ended before it was moved is over under every name."""
    pool = await office(timed, "named", lease="1d", quarantine="1h")
    await pool.end("john", await pool.start("john"))
    timed.clock.advance(DAY + HOUR)
    assert Rename.NONE is await rename(pool, "john", "corp-john")
