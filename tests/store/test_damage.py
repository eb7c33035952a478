"""Damage stays where it is: a lost key is noticed before anybody is let in, and what does not decode stops nobody else."""

import json
from dataclasses import replace
from typing import Any

import pytest

from farmlease.domain.model import Withdrawal
from farmlease.domain.tombstones import Grave, Graves
from farmlease.store.answers.recovery import Recovering, Restoring
from farmlease.store.answers.session import NOTHING, Beat, Behind, Known, Refusal, Taken, Taking
from farmlease.store.damage_store import DamageStore, Rebuilt
from farmlease.store.keys import Shard
from farmlease.store.script import Script
from farmlease.store.tombstone_store import TombstoneStore
from tests.support.seats import FARM, NODE, OTHER, VERSION, Desk, claim, desk
from tests.support.stores import DAY, TimedStore, index

SHARD = Shard(FARM, "qlikview")
LOST = [name.rpartition(":")[2] for name in SHARD.keys()[1:18]]
#: What a lease's document does not have.
FOR_GOOD = {"audit", "barred", "usage", "over", "over_numbers"}


def known(beat: Beat) -> Known:
    """Return what a node knows after a heartbeat."""
    return Known(epoch=beat.epoch, fence=beat.fence, expected=beat.now, clock_generation=beat.clock_generation)


async def busy(timed: TimedStore, *, full: bool = False) -> tuple[Desk, Beat, Taken]:
    """Return a pool with sessions, what its node knows of it, and John's grant. ``full``: every key has something."""
    pool = desk(timed, capacity=3, queue="10m", max_hold="4h")
    await pool.beat(NODE, OTHER)
    john = await pool.start("john", record=b"record of john")
    await pool.start("mary", "2", OTHER)
    await timed.store.hold(pool.pool.name, claim("john"), john.fence, 3_600_000)
    for name in LOST:
        if full and not timed.raw.exists(SHARD.key(name)):
            put_something(timed.raw, name)
    timed.raw.hdel(SHARD.key("meta"), "keys")  # what the test wrote itself is to count as ours
    return pool, await pool.beat(), john


def put_something(raw: Any, name: str) -> None:
    """Put a member into a set that is empty."""
    raw.zadd(SHARD.key(name), {"something": 2**42})


@pytest.mark.parametrize("name", LOST)
async def test_a_lost_key_is_noticed_before_anybody_is_let_in(timed: TimedStore, name: str) -> None:
    """Whichever key is gone: the next call of a node that knew the store finds another one, and so does a start."""
    pool, beat, _ = await busy(timed, full=True)
    timed.raw.delete(SHARD.key(name))
    taking = await timed.store.acquire(pool.pool, VERSION, claim("zoe", "3"), taking_of("zoe"), known(beat))
    assert Behind.STRANGE is taking
    assert Behind.STRANGE is await timed.store.heartbeat(pool.pool, VERSION, NODE, None, known(beat))
    found = await timed.store.recover(pool.pool, VERSION, NODE, known(beat), window_ms=15_000, roster=[NODE, OTHER])
    assert isinstance(found, Recovering)
    assert found.epoch > beat.epoch
    again = await timed.store.heartbeat(pool.pool, VERSION, NODE, None, Known(epoch=found.epoch, fence=beat.fence))
    assert isinstance(again, Beat)
    assert name in again.missing or name in {"queue", "waits"}  # these two go together


async def test_a_key_that_became_empty_is_no_loss(timed: TimedStore) -> None:
    """The last session ends and the last lease goes: nobody sees a loss in that."""
    pool = desk(timed)
    beat = await pool.beat()
    await pool.end("john", await pool.start("john"))
    await timed.store.withdraw("qlikview", index("john"), "returned", b"")
    timed.clock.advance(DAY + 1)
    await pool.beat()
    await pool.held()
    assert {"leases", "records", "seats", "sessions"}.isdisjoint(pool.contents())
    after = await timed.store.heartbeat(pool.pool, VERSION, NODE, None, Known(epoch=beat.epoch, fence=beat.fence))
    assert isinstance(after, Beat)
    assert () == after.missing


@pytest.mark.parametrize("name", ["seats", "sessions", "holds"])
async def test_what_the_documents_claim_is_put_back(timed: TimedStore, name: str) -> None:
    """Seats, sessions and holds are made of the leases' documents: the same after a loss as before."""
    pool, beat, _ = await busy(timed)
    before = pool.contents()[name]
    timed.raw.delete(SHARD.key(name))
    await timed.store.recover(pool.pool, VERSION, NODE, known(beat), window_ms=0, roster=())
    rebuilt = await DamageStore(timed.connection, FARM).rebuild("qlikview")
    assert Rebuilt(put_back=len(before), removed=0) == rebuilt
    assert before == pool.contents()[name]
    assert () == (await pool.beat()).missing


async def test_nodes_that_were_lost_are_not_dead(timed: TimedStore) -> None:
    """The other node has a session: it lives on until it is silent for too long."""
    pool, beat, _ = await busy(timed)
    timed.raw.delete(SHARD.key("nodes"))
    await timed.store.recover(pool.pool, VERSION, NODE, known(beat), window_ms=0, roster=())
    assert {NODE, OTHER} == set(await timed.store.nodes("qlikview"))
    mary = await pool.lease("mary")
    assert mary is not None
    assert 1 == len(mary.sessions)


@pytest.mark.parametrize(
    "document",
    [
        b"", b"{", b"[]", b"5", b"null", b"{}", b"\xff\x00", b"[" * 2000, b'{"id": "x"}', b"x" * 1_000_000,
        b'{"id": "lease 1", "issued": 1, "contact": "soon", "version": 1, "devices": {}, "sessions": {}}',
        b'{"id": "lease 1", "issued": 1, "contact": 1, "version": 1, "devices": {}, "sessions": {"a#b/1": 7}}',
        b'{"id": "lease 1", "issued": 1, "contact": 1, "version": 1, "devices": {"d": {}}, "sessions": {}}',
    ],
    ids=lambda each: each[:24].decode("ascii", "replace"),
)  # fmt: skip
async def test_a_damaged_lease_is_set_aside_and_the_others_go_on(timed: TimedStore, document: bytes) -> None:
    """It is kept to the byte and counted; others start, end, lapse and are listed, and no limit gives."""
    pool, beat, _ = await busy(timed)
    timed.raw.hset(SHARD.key("leases"), index("john"), document)
    assert {index("mary")} == {each.user async for each in timed.store.list(pool.pool)}
    taken = await pool.start("zoe", "3")
    assert isinstance(await pool.ask("ann", "4"), Refusal)  # John's seat is his still
    await pool.end("zoe", taken, "3")
    refusal = await pool.refused("john", "9")
    assert "recovering" == refusal.reason
    assert not timed.raw.hexists(SHARD.key("leases"), index("john"))
    kept = timed.raw.hget(SHARD.key("damaged"), f"lease/{index('john')}")
    assert document == kept.partition(b" ")[2]
    again = await timed.store.heartbeat(pool.pool, VERSION, NODE, None, known(beat))
    assert isinstance(again, Beat)
    assert ("leases", "damaged") == again.missing
    assert "damaged" in pool.events()
    (aside,) = await DamageStore(timed.connection, FARM).set_aside("qlikview")
    assert ("lease", index("john")) == (aside.what, aside.whose)


async def test_a_damaged_lease_comes_back_from_its_node(timed: TimedStore) -> None:
    """Its node restores it as it was: same lease, same seat, same record, and what was set aside stays for inspection."""
    pool, beat, john = await busy(timed)
    timed.raw.hset(SHARD.key("leases"), index("john"), b"{")
    await pool.beat()
    await pool.refused("john", "9")
    restored = await timed.store.restore(pool.pool, VERSION, NODE, beat.epoch, restoring("john", john))
    assert not isinstance(restored, Behind)
    assert {} == restored.refused
    lease = await pool.lease("john")
    assert lease is not None
    assert (john.lease.id, b"record of john", 1) == (lease.lease.id, lease.record, len(lease.sessions))
    assert ("damaged",) == (await pool.beat()).missing
    assert f"record/{index('john')}".encode() not in timed.raw.hkeys(SHARD.key("damaged"))


async def test_a_record_that_is_there_is_not_overwritten_by_a_fresh_one(timed: TimedStore) -> None:
    """The leases are gone and nobody restores them: who starts anew begins anew, and the record before is kept."""
    pool, beat, _ = await busy(timed)
    timed.raw.delete(SHARD.key("leases"))
    await timed.store.recover(pool.pool, VERSION, NODE, known(beat), window_ms=0, roster=())
    await pool.start("john", "7", record=b"fresh")
    assert b"fresh" == timed.raw.hget(SHARD.key("records"), index("john"))
    kept = timed.raw.hget(SHARD.key("damaged"), f"record/{index('john')}")
    assert b"record of john" == kept.partition(b" ")[2]


async def test_records_come_back_from_a_node_that_has_one(timed: TimedStore) -> None:
    """The record of a lease that is there is put back; its version is that of what came."""
    pool, beat, john = await busy(timed)
    timed.raw.delete(SHARD.key("records"))
    found = await timed.store.recover(pool.pool, VERSION, NODE, known(beat), window_ms=15_000, roster=())
    assert isinstance(found, Recovering)
    await timed.store.restore(pool.pool, VERSION, NODE, found.epoch, restoring("john", john))
    lease = await pool.lease("john")
    assert lease is not None
    assert (1, b"record of john") == (lease.record_version, lease.record)


@pytest.mark.parametrize("name", ["seats", "nodes", "sessions", "holds", "reserved", "quarantine", "queue", "waits"])
@pytest.mark.parametrize("score", [1, 2**52], ids=["lapsed", "far"])
async def test_members_that_name_nothing_stop_nobody(timed: TimedStore, name: str, score: int) -> None:
    """Of any set: the sweeps go on past them."""
    pool, _, _ = await busy(timed)
    timed.raw.zadd(SHARD.key(name), dict.fromkeys(["", "/", "x", "#", "a/b", "/x/y", "#a#b/c", "a#b"], score))
    timed.raw.zadd(SHARD.key("nodes"), {"silent#x": 1})
    timed.raw.zadd(SHARD.key("sessions"), {"silent#x/no user": 0, "silent#x": 0})
    await pool.beat(NODE, OTHER)
    await timed.store.count("qlikview")
    await timed.store.sessions("qlikview", "silent#x")
    answer = await pool.ask("zoe", "3")
    assert isinstance(answer, Taken | Refusal)
    await pool.start("john", "8")


async def test_a_repair_removes_claims_that_no_lease_has(timed: TimedStore) -> None:
    """Seats, sessions and holds of nobody go, and are kept; those of a lease stay as they are."""
    pool, _, _ = await busy(timed)
    before = pool.contents()
    for name, member in (("seats", "nobody"), ("sessions", f"{NODE}/5/nobody"), ("holds", f"{NODE}/5/nobody")):
        timed.raw.zadd(SHARD.key(name), {member: 2**42})
    damage = DamageStore(timed.connection, FARM)
    rebuilt = await damage.rebuild("qlikview", b"root")
    assert 3 <= rebuilt.removed
    assert [before[name] for name in ("seats", "sessions", "holds")] == [
        pool.contents()[name] for name in ("seats", "sessions", "holds")
    ]
    assert "repaired" == pool.events()[-1]
    assert () == (await pool.beat()).missing


@pytest.mark.parametrize(
    "field",
    ["capacity", "kind", "lease_ms", "fence", "epoch", "skew", "tally", "recovering", "keys", "present", "reserve"],
)
@pytest.mark.parametrize("value", [b"", b"nan", b"\xff", b"{", b"9" * 400])
async def test_damaged_books_are_lost_books(timed: TimedStore, field: str, value: bytes) -> None:
    """A limit or a number of the shard that is none: the pool is configured again or recovered, and goes on."""
    pool, _, _ = await busy(timed)
    timed.raw.hset(SHARD.key("meta"), field, value)
    await pool.beat()
    assert isinstance(await pool.ask("zoe", "3"), Taken | Refusal | Behind)
    count = await timed.store.count("qlikview")
    assert count is not None
    assert count.held <= 3


def taking_of(user: str) -> Taking:
    """Return a question of a user."""
    return Taking(device=FARM, lease_id="new", record=b"fresh", name=b"name of " + user.encode())


def restoring(user: str, taken: Taken, session: str = "1") -> Restoring:
    """Return what a node knows of a lease."""
    document = json.loads(taken.document)
    (entry,) = [each for key, each in document["sessions"].items() if key.endswith(f"/{session}")]
    return Restoring(
        user=index(user), document=taken.document, sessions={session: entry}, version=taken.record_version,
        record=taken.record, name=b"name of " + user.encode(),
    )  # fmt: skip


FAR = 2**52


async def test_a_fence_far_ahead_of_the_clock_is_refused_everywhere(timed: TimedStore) -> None:
    """In the books, from a node, in a receipt or a tombstone: the next fence is of today, and the others' calls count."""
    pool, beat, john = await busy(timed)
    for fence in (FAR, 10**400):
        timed.raw.hset(SHARD.key("meta"), "fence", fence)
        assert (await pool.start(f"zoe{fence % 7}", "3")).fence < timed.clock.now_ms + DAY
        await pool.end(f"zoe{fence % 7}", await pool.start(f"zoe{fence % 7}", "3"), "3")
        await timed.store.withdraw("qlikview", index(f"zoe{fence % 7}"), Withdrawal.RETURNED, b"")
        timed.clock.advance(2 * DAY)
        await pool.beat(NODE, OTHER)
    forged = Known(epoch=beat.epoch, fence=FAR)
    answer = await timed.store.heartbeat(pool.pool, VERSION, NODE, None, forged)
    assert isinstance(answer, Beat)
    found = await timed.store.recover(pool.pool, VERSION, NODE, forged, window_ms=0, roster=())
    assert isinstance(found, Recovering)
    sent = restoring("john", john)
    sent = replace(sent, sessions={"1": {**sent.sessions["1"], "fence": FAR}})
    await timed.store.restore(pool.pool, VERSION, NODE, found.epoch, sent)
    graves = Graves({"/": Grave(FAR, timed.clock.now_ms + DAY)})
    await TombstoneStore(timed.connection, FARM).put_back("qlikview", NODE, found.epoch, index("eve"), graves)
    john_is_taken = Graves({sent.document and json.loads(sent.document)["id"]: Grave(FAR, timed.clock.now_ms + DAY)})
    timed.raw.hset(SHARD.key("over"), index("john"), john_is_taken.dump())
    timed.raw.zadd(SHARD.key("over_numbers"), {index("john"): 2**40})
    told = await TombstoneStore(timed.connection, FARM).since("qlikview", 2**40 - 1)
    assert index("john") not in told.graves
    again = await timed.store.restore(pool.pool, VERSION, NODE, found.epoch, sent)
    assert not isinstance(again, Behind)
    assert not again.ended
    after = await pool.beat()
    assert after.fence < timed.clock.now_ms + DAY
    assert (await pool.start("ann", "5")).fence < timed.clock.now_ms + DAY


async def test_damaged_tombstones_stop_nobody(timed: TimedStore) -> None:
    """Of one user: what was taken back from the others is still told, and the user's leases go on."""
    pool, _, john = await busy(timed)
    await timed.store.withdraw("qlikview", index("mary"), Withdrawal.RETURNED, b"")
    for graves in (b"{", b"[1]", b'{"x": 5}'):
        timed.raw.hset(SHARD.key("over"), index("john"), graves)
        timed.raw.zadd(SHARD.key("over_numbers"), {index("john"): 2**42})
        assert {index("mary")} == {*(await TombstoneStore(timed.connection, FARM).since("qlikview", 0)).graves}
        beat = await pool.beat()
        assert not isinstance(
            await timed.store.restore(pool.pool, VERSION, NODE, beat.epoch, restoring("john", john)), Behind
        )
    assert await timed.store.withdraw("qlikview", index("john"), Withdrawal.RETURNED, b"")


async def test_more_dead_sessions_than_one_call_ends_do_not_stop_a_record(timed: TimedStore) -> None:
    """Hundreds of sessions are to be ended first: a record is put back all the same."""
    pool, beat, john = await busy(timed)
    await pool.end("john", john)
    raw, dead = timed.raw, "dead#1"
    document = json.loads(raw.hget(SHARD.key("leases"), index("john")))
    raw.zadd(SHARD.key("nodes"), {dead: 1})
    for number in range(1200):
        user = f"{number:022}"
        session = {"device": "d", "started": 1, "fence": number + 1}
        lease = document | {"id": user, "sessions": {f"{dead}/{number}": session}}
        lease["devices"] = {"d": {"seen": 1, "until": 2**42}}
        raw.hset(SHARD.key("leases"), user, json.dumps(lease))
        raw.zadd(SHARD.key("sessions"), {f"{dead}/{number}/{user}": 0})
    script = Script.load("put_back_record")
    assert [b"more"] == await timed.connection.call(
        script, SHARD.keys(), script.ordered({
            "user": index("john"), "node": NODE, "lease": john.lease.id, "version": 9, "record": b"x",
            **known(beat).arguments(),
        }),
    )  # fmt: skip
    done = await DamageStore(timed.connection, FARM).put_back_record(
        "qlikview", claim("john"), john.lease.id, 9, b"nine", known(beat)
    )
    assert done
    assert b"nine" == raw.hget(SHARD.key("records"), index("john"))


async def test_a_record_that_is_its_leases_again_hides_no_later_damage(timed: TimedStore) -> None:
    """An administrator has seen one thing; it is put right, and another is set aside: health tells."""
    pool, _, john = await busy(timed)
    raw, store = timed.raw, DamageStore(timed.connection, FARM)
    record = raw.hget(SHARD.key("records"), index("john"))
    raw.hset(SHARD.key("damaged"), f"record/{index('john')}", b"1 " + record)
    raw.hdel(SHARD.key("records"), index("john"))
    await store.rebuild("qlikview", b"an administrator")
    assert "damaged" not in (await pool.beat()).missing
    assert await store.put_back_record("qlikview", claim("john"), john.lease.id, 1, record, NOTHING)
    raw.hset(SHARD.key("leases"), index("mary"), b"{")
    await pool.refused("mary", "9")
    assert "damaged" in (await pool.beat()).missing
