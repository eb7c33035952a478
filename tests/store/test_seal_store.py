"""Seals in the store: counted without being opened, and replaced only where they are still the ones that were read."""

from dataclasses import replace

import pytest

from farmlease.domain.key_rotation import KeyReport
from farmlease.domain.node_view import Wish
from farmlease.store.answers.session import SealedPolicy
from farmlease.store.keys import Shard, policies_key, policy_key, ring_keys
from farmlease.store.node_store import NodeStore, Report
from farmlease.store.seal_store import SILENT_FOR, Kind, SealedRecord, SealStore
from tests.support.seats import Desk, claim, desk
from tests.support.stores import TimedStore, index

SAID = {"every": 60_000, "primary": "aaaaaaaa", "opens": ["aaaaaaaa", "bbbbbbbb"], "holds": {"bbbbbbbb": 2}}
LONG = b"\x01\xaa\xbb\xcc\xdd" + b"n" * 40
OVER = 1300  #: more than two pages


@pytest.fixture
async def pool(timed: TimedStore) -> Desk:
    """A pool with a session of john's."""
    made = desk(timed)
    await made.beat()
    await made.start("john")
    return made


@pytest.fixture
def vault(timed: TimedStore) -> SealStore:
    """The seals of the same farm."""
    return SealStore(timed.connection, "citrix-a")


def key_of(pool: Desk, name: str) -> str:
    """Return a key of the pool's shard, or the one of the farm's former policies."""
    if name == Kind.POLICIES:
        return policies_key("citrix-a")
    return next(key for key in Shard("citrix-a", pool.pool.name).keys() if key.endswith(f":{name}"))  # noqa: SIM118 - not a dict


@pytest.mark.parametrize("kind", Kind)
async def test_every_seal_is_seen_by_its_first_bytes(pool: Desk, vault: SealStore, kind: Kind) -> None:
    """All pages together have each user once at least, and of a long record no more than its beginning."""
    pool.timed.raw.hset(key_of(pool, kind), mapping={f"u{number}": LONG for number in range(OVER)})
    name = "" if kind is Kind.POLICIES else pool.pool.name
    found = {user: head async for user, head in vault.seals(name, kind)}
    assert {f"u{number}" for number in range(OVER)} <= found.keys()
    assert LONG[:33] == found["u7"]


async def test_a_users_seals_come_with_what_they_belong_to(pool: Desk, vault: SealStore) -> None:
    """Record and name as stored, and the lease's id and version; nothing of a user nobody knows."""
    lease = await pool.lease("john")
    assert lease is not None
    name = pool.pool.name
    assert SealedRecord(lease.record, lease.lease.id, 1) == await vault.record(name, index("john"))
    assert lease.name == await vault.name(name, index("john"))
    assert (SealedRecord(b"", "", 0), b"") == (await vault.record(name, "nobody"), await vault.name(name, "nobody"))


@pytest.mark.parametrize("kind", [Kind.RECORDS, Kind.NAMES])
async def test_a_seal_is_replaced_once(pool: Desk, vault: SealStore, kind: Kind) -> None:
    """Asked again after a lost reply it says the same; by somebody who read an older one nothing is written."""
    name, user = pool.pool.name, index("john")
    before = await vault.record(name, user)
    old = before.record if kind is Kind.RECORDS else await vault.name(name, user)
    assert await vault.reseal(name, kind, user, old, b"new")
    assert await vault.reseal(name, kind, user, old, b"new")
    assert not await vault.reseal(name, kind, user, old, b"other")
    assert not await vault.reseal(name, kind, "nobody", old, b"other")
    after = await vault.record(name, user)
    assert b"new" == (after.record if kind is Kind.RECORDS else await vault.name(name, user))
    assert (before.lease_id, before.version) == (after.lease_id, after.version)


async def test_a_former_policy_is_replaced_once(timed: TimedStore, vault: SealStore) -> None:
    """Likewise, and so is who applied it; one that is gone is not written again."""
    await timed.store.apply_policy(0, 7, b"old", by=b"who")
    applied = f"7 {timed.clock.now_ms} "
    for field, old in ((applied, b"old"), ("7 by", b"who")):
        assert old == await vault.former_policy(field)
        for new, is_written in ((b"new", True), (b"new", True), (b"other", False)):
            assert is_written is await vault.reseal("", Kind.POLICIES, field, old, new)
        assert b"new" == await vault.former_policy(field)
    assert not await vault.reseal("", Kind.POLICIES, "6 by", b"who", b"new")
    assert b"" == await vault.former_policy("6 by")


async def test_the_policy_is_replaced_under_its_version(timed: TimedStore, vault: SealStore) -> None:
    """The same version with another seal; not over a policy that was applied meanwhile."""
    await timed.store.apply_policy(0, 7, b"\1old")
    found = await timed.store.read_policy()
    assert await vault.reseal_policy(found, b"\1new\nseal")
    assert await vault.reseal_policy(found, b"\1new\nseal")
    assert b"7\n\1new\nseal" == timed.raw.get(policy_key("citrix-a"))
    assert not await vault.reseal_policy(SealedPolicy(version=6, sealed=b"\1new\nseal", now=0), b"other")
    assert b"7\n\1new\nseal" == timed.raw.get(policy_key("citrix-a"))


async def test_who_drained_is_replaced_under_the_wish(timed: TimedStore, vault: SealStore) -> None:
    """The same wish with another seal, once; not over a wish that was made meanwhile, nor of a node nobody knows."""
    nodes = NodeStore(timed.connection, "citrix-a")
    assert not await vault.reseal_wish("ctx-01", b"", b"new")
    report = Report(
        incarnation="a", version="1", sessions=0, owed=0, draining=False, stopping=False, health="pass", listen=""
    )
    before = (await nodes.report("ctx-01", report, Wish(), "drain", b"old")).wish
    assert await vault.reseal_wish("ctx-01", b"old", b"new")
    assert await vault.reseal_wish("ctx-01", b"old", b"new")
    assert not await vault.reseal_wish("ctx-01", b"old", b"other")
    after = (await nodes.report("ctx-01", report, before, "", b"")).wish
    assert (b"new", replace(after, by=before.by)) == (after.wisher, before)


async def test_names_without_a_seat_are_seals_like_any(timed: TimedStore, vault: SealStore) -> None:
    """Who was only denied has a name in the farm's own hash: listed, read, replaced."""
    await timed.store.note(claim("john"), "denied", "not_entitled", LONG)
    assert {index("john"): LONG[:33]} == {user: head async for user, head in vault.seals("", Kind.NAMES)}
    assert LONG == await vault.name("", index("john"))
    assert await vault.reseal("", Kind.NAMES, index("john"), LONG, b"new")
    assert b"new" == await vault.name("", index("john"))


async def test_notes_are_found_in_the_audit(pool: Desk, vault: SealStore) -> None:
    """Sealed words of every page of the audit, those of an override too, and no others."""
    audit = key_of(pool, "audit")
    for number in range(OVER):
        pool.timed.raw.xadd(audit, {"event": "denied", "detail": f"capacity {number} and so on, for a long while"})
    pool.timed.raw.xadd(audit, {"event": "revoked", "detail": LONG})
    pool.timed.raw.xadd(audit, {"event": "device_replaced", "detail": b"override " + LONG})
    assert [LONG[:33]] * 2 == [head async for head in vault.notes(pool.pool.name)]


async def test_an_audit_of_exactly_one_page_ends(pool: Desk, vault: SealStore) -> None:
    """No page is asked for for ever."""
    audit = key_of(pool, "audit")
    pool.timed.raw.delete(audit)
    for _ in range(500):
        pool.timed.raw.xadd(audit, {"detail": LONG})
    assert 500 == len([head async for head in vault.notes(pool.pool.name)])


async def test_each_nodes_last_word_counts(timed: TimedStore, vault: SealStore) -> None:
    """What nodes say of their keys is there with the time since; who was silent for 90 days is forgotten."""
    await vault.tell("ctx-02", SAID | {"primary": "bbbbbbbb"})
    timed.clock.advance(1000)
    await vault.tell("ctx-02", SAID)
    await vault.tell("ctx-01", SAID)
    timed.clock.advance(4000)
    told = KeyReport(
        node="ctx-01", silent_ms=4000, every_ms=60_000, primary="aaaaaaaa", opens=("aaaaaaaa", "bbbbbbbb"),
        holds={"bbbbbbbb": 2},
    )  # fmt: skip
    assert [told.node, "ctx-02"] == [each.node for each in await vault.rings()]
    assert told == (await vault.rings())[0]
    timed.clock.advance(SILENT_FOR - 4000)
    await vault.tell("ctx-02", SAID)
    timed.clock.advance(1)
    assert ["ctx-02"] == [each.node for each in await vault.rings()]
    assert {b"ctx-02"} == timed.raw.hgetall(ring_keys("citrix-a")[0]).keys()
