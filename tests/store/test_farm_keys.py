"""The farm's own keys that lose members to somebody else: told until they are written again, and audited then."""

import pytest

from farmlease.domain.store_damage import farm_loss_text
from farmlease.store.audit_store import AuditStore
from farmlease.store.inspect.farm_keys import lost_farm_keys
from farmlease.store.keys import farm_keys, node_keys, note_keys, ring_keys
from farmlease.store.lease_store import LeaseStore
from farmlease.store.node_store import NodeStore
from farmlease.store.seal_store import SealStore
from tests.store.test_node_store import NEVER, REPORT
from tests.store.test_seal_store import SAID
from tests.support.seats import FARM, claim
from tests.support.stores import DAY, TimedStore, index

AUDIT, COUNTS, NOTED, NAMES = note_keys(FARM)
NODES, RINGS = node_keys(FARM)[0], ring_keys(FARM)[0]


async def write_again(timed: TimedStore, number: int) -> None:
    """Have each of the keys written by farmlease: a report of a node, one of its keys, and a user who is denied."""
    node = f"ctx-{number}"
    await NodeStore(timed.connection, FARM).report(node, REPORT, NEVER, "", b"")
    await SealStore(timed.connection, FARM).tell(node, SAID)
    await LeaseStore(timed.connection, FARM).note(claim(f"user {number}", f"{number}"), "denied", "no_rule", b"sealed")


def audited(timed: TimedStore) -> list[bytes]:
    """Return which losses the audit tells."""
    return [entry[b"detail"] for _, entry in timed.raw.xrange(AUDIT) if entry[b"event"] == b"lost"]


@pytest.mark.parametrize("part", ["the whole key", "a member"])
@pytest.mark.parametrize("key", [NODES, RINGS, NOTED, NAMES])
async def test_a_loss_is_told_until_the_key_is_written_and_audited_then(timed: TimedStore, key: str, part: str) -> None:
    """Counts has how many members there were, and the audit which key lost some."""
    for number in range(3):
        await write_again(timed, number)
    assert [] == await lost_farm_keys(timed.connection, FARM)
    if part == "the whole key":
        timed.raw.delete(key)
    elif timed.raw.type(key) == b"hash":
        timed.raw.hdel(key, timed.raw.hkeys(key)[0])
    else:
        timed.raw.zpopmin(key)
    assert [key] == await lost_farm_keys(timed.connection, FARM)
    assert "farmlease pool apply" in farm_loss_text(key)
    timed.clock.advance(11_000)
    await write_again(timed, 9)
    assert [] == await lost_farm_keys(timed.connection, FARM)
    assert [key.rpartition(":")[2].encode()] == audited(timed)
    extent = await AuditStore(timed.connection, FARM).extent("")
    assert 0 == extent.cut


async def test_what_ends_by_itself_is_no_loss(timed: TimedStore) -> None:
    """A user is forgotten, a day is over, nodes are silent for a season: nothing was lost."""
    for number in range(3):
        await write_again(timed, number)
    audit = AuditStore(timed.connection, FARM)
    for number in range(3):
        await audit.forget_name(index(f"user {number}"), b"by")
        assert [] == await lost_farm_keys(timed.connection, FARM)
    timed.clock.advance(100 * DAY)
    assert [] == await SealStore(timed.connection, FARM).rings()
    assert [] == await lost_farm_keys(timed.connection, FARM)
    await write_again(timed, 4)
    assert [] == await lost_farm_keys(timed.connection, FARM)
    assert [] == audited(timed)


async def test_an_administrator_who_applies_the_policy_has_seen_it(timed: TimedStore) -> None:
    """The names do not come back by themselves: it is told until then."""
    await LeaseStore(timed.connection, FARM).apply_policy(0, 5, b"\1sealed", pools=["qlikview"], by=b"admin")
    await write_again(timed, 1)
    timed.raw.delete(NAMES)
    assert [NAMES] == await lost_farm_keys(timed.connection, FARM)
    await LeaseStore(timed.connection, FARM).apply_policy(5, 6, b"\1sealed", pools=["qlikview"], by=b"admin")
    assert [] == await lost_farm_keys(timed.connection, FARM)


@pytest.mark.parametrize("other", [COUNTS, AUDIT])
async def test_counts_or_an_audit_of_another_type_stop_no_report(timed: TimedStore, other: str) -> None:
    """Nodes report of themselves and of their keys all the same."""
    timed.raw.rpush(other, "something else")
    await NodeStore(timed.connection, FARM).report("ctx-1", REPORT, NEVER, "", b"")
    timed.raw.delete(NODES)
    await NodeStore(timed.connection, FARM).report("ctx-2", REPORT, NEVER, "", b"")
    await SealStore(timed.connection, FARM).tell("ctx-1", SAID)
    assert 1 == timed.raw.hlen(NODES)
    assert 1 == timed.raw.hlen(RINGS)


def test_each_key_of_the_farm_has_its_words() -> None:
    """What its loss means and what to do."""
    for key in farm_keys(FARM):
        assert key in farm_loss_text(key)
