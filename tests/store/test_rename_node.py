"""A host that was renamed: its sessions go on under the new name, in one moment, and no limit is broken by it."""

from typing import Any

import pytest

from farmlease.domain.model import Reason
from farmlease.store.answers.session import NOTHING, Beat, Behind, Known, Taken
from farmlease.store.inspect.foreign import foreign_members
from farmlease.store.keys import Shard
from farmlease.store.node_store import NodeStore
from tests.support.rules import MINUTE, Office, office
from tests.support.seats import FARM, NODE, OTHER, audit, claim
from tests.support.stores import HOUR, TimedStore, index

#: The same life of the first node under its new name, and another life of its old name.
RENAMED, SUCCESSOR = "ctx-09#a", "ctx-01#c"
POOL = "clearquest"


async def rename(office: Office, old: str = NODE, new: str = RENAMED, known: Known = NOTHING) -> int | None:
    """Move what the store has of a node to its new name."""
    return await NodeStore(office.timed.connection, FARM).rename_node(POOL, old, new, known)


async def places(office: Office, user: str) -> set[tuple[str, str]]:
    """Return where a user's sessions are: node and session."""
    lease = await office.lease(user)
    return set() if lease is None else {(each.node, each.session) for each in lease.sessions}


def seats(office: Office) -> dict[str, Any]:
    """Return the seats that are held, with their deadlines."""
    return {seat.decode(): deadline for seat, deadline in office.contents().get("seats", [])}


def names_in(office: Office, name: str) -> list[str]:
    """Return every set in which something is called by a node's name, but for the audit and what says it is former."""
    found = office.contents()
    found.pop("audit")
    found["nodes"] = [entry for entry in found.get("nodes", []) if not entry[0].startswith(b"##")]
    return [key for key, entries in found.items() if name in str(entries)]


@pytest.mark.parametrize(
    ("kind", "keys", "seat"),
    [
        ("named", {}, index("john")),
        ("floating", {"share": "user"}, index("john")),
        ("floating", {"share": "user_device"}, f"{index('john')}/{FARM}"),
        ("floating", {"share": "session"}, f"{index('john')}/{RENAMED}/1"),
        ("node_locked", {"nodes": ["ctx-01", "ctx-09"]}, "@ctx-09"),
    ],
)
async def test_its_sessions_go_on(timed: TimedStore, kind: str, keys: dict[str, Any], seat: str) -> None:
    """The seat is the same one, by whatever it is called; nothing is left under the old name; nobody else gets it."""
    pool = await office(timed, kind, NODE, OTHER, **keys)
    taken = await pool.start("john")
    held = await pool.held()
    assert 1 == await rename(pool)
    assert {("ctx-09", "1")} == await places(pool, "john")
    assert ({seat: float("inf")}, held) == (seats(pool), await pool.held())
    assert [] == names_in(pool, "ctx-01")
    again = await pool.start("john", node=RENAMED)
    assert (True, taken.fence, taken.lease.id) == (again.again, again.fence, again.lease.id)
    if kind != "node_locked":
        assert Reason.CAPACITY is (await pool.refused("mary", node=OTHER)).reason
    timed.clock.advance(HOUR)
    await pool.beat(RENAMED, OTHER)
    timed.clock.advance(HOUR + MINUTE)
    assert 1 == (await pool.beat(RENAMED)).sessions
    await pool.end("john", taken, node=RENAMED)
    assert set() == await places(pool, "john")
    assert (index("john") in seats(pool)) == (kind == "named")


async def test_it_is_audited_once(timed: TimedStore) -> None:
    """With both names; asked again, it changes nothing."""
    pool = await office(timed, "named", NODE)
    await pool.start("john")
    await rename(pool)
    last = audit(timed.raw, POOL)[-1]
    assert ("node_renamed", RENAMED, "ctx-01") == (last["event"], last["node"], last["detail"])
    before = pool.contents()
    assert 0 == await rename(pool)
    assert before == pool.contents()


async def test_what_comes_late_under_the_former_name_is_refused(timed: TimedStore) -> None:
    """L3: a copy of a heartbeat makes no node of it, and so one of a question takes no seat; until it is its name again."""
    pool = await office(timed, "named", NODE, OTHER, capacity=3)
    await pool.start("john")
    await rename(pool)
    nodes = NodeStore(timed.connection, FARM)
    for late in (None, "ctx-01#0"):
        assert Behind.STRANGE is await timed.store.heartbeat(pool.pool, pool.version, NODE, late)
        assert Behind.LAPSED is await pool.ask("john")
        assert {RENAMED, OTHER} == {*await timed.store.nodes(POOL)}
    timed.clock.advance(HOUR)
    assert 1 == (await pool.beat(RENAMED)).sessions
    await pool.beat(SUCCESSOR)
    assert 1 == await nodes.rename_node(POOL, RENAMED, NODE, NOTHING)
    assert 1 == (await pool.beat(NODE)).sessions
    assert Behind.STRANGE is await timed.store.heartbeat(pool.pool, pool.version, RENAMED, None)
    assert {NODE, OTHER, SUCCESSOR} == {*await timed.store.nodes(POOL)}


async def test_a_node_that_recovers_has_its_name(timed: TimedStore) -> None:
    """Data of another past may have the present name for a former one: whoever recovers goes on under it."""
    pool = await office(timed, "named", NODE)
    await rename(pool)
    await timed.store.recover(pool.pool, pool.version, NODE, NOTHING, window_ms=0, roster=())
    assert isinstance(await timed.store.heartbeat(pool.pool, pool.version, NODE, None), Beat)


async def test_a_former_name_is_no_damage_and_is_forgotten(timed: TimedStore) -> None:
    """Nothing foreign lies in the key, and a week later nothing is left."""
    pool = await office(timed, "named", NODE)
    await rename(pool)
    key = Shard(FARM, POOL).key("nodes")
    assert [] == await foreign_members(timed.connection, [key])
    timed.clock.advance(8 * 24 * HOUR)
    await pool.beat(RENAMED)
    assert await pool.start("mary", node=RENAMED)
    assert [RENAMED.encode()] == timed.raw.zrange(key, 0, -1)


async def test_no_moment_in_between(timed: TimedStore) -> None:
    """All sessions of a host move in one call, as the seat of a node_locked pool does with them."""
    pool = await office(timed, "node_locked", NODE, nodes=["ctx-01", "ctx-09"])
    for number in range(100):
        await pool.start(f"user{number}", str(number))
    assert 100 == await rename(pool)
    assert {"@ctx-09": float("inf")} == seats(pool)
    assert 100 == (await pool.beat(RENAMED)).sessions


async def test_more_than_one_call_moves(timed: TimedStore) -> None:
    """A host with more sessions than that loses none of them either."""
    pool = await office(timed, "floating", NODE, capacity=2000, share="session")
    for number in range(1003):
        await pool.start(f"user{number % 7}", str(number))
    assert 3 == await rename(pool)
    assert (1003, 1003) == ((await pool.beat(RENAMED)).sessions, await pool.held())
    assert [] == names_in(pool, "ctx-01")


async def test_what_stays_with_a_session(timed: TimedStore) -> None:
    """Its hold, its reservation and its notice are its own under the new name too."""
    keys: dict[str, Any] = {
        "capacity": 2,
        "share": "session",
        "max_hold": "4h",
        "reserve": [{"users": ["john"], "seats": 1}],
    }
    pool = await office(timed, "floating", NODE, **keys)
    taken = await pool.want("john", reserved=True)
    assert isinstance(taken, Taken)
    await timed.store.hold(POOL, claim("john"), taken.fence, 3 * HOUR)
    reserved = pool.contents()["reserved"]
    await rename(pool)
    moved = [(entry.replace(NODE.encode(), RENAMED.encode()), score) for entry, score in reserved]
    assert moved == pool.contents()["reserved"]
    timed.clock.advance(2 * HOUR)
    beat = await pool.beat(RENAMED)
    assert (1, ()) == (beat.sessions, beat.lost)


async def test_what_died_under_the_old_name_is_dead(timed: TimedStore) -> None:
    """L4: a host that was away for too long hears under its new name what it lost."""
    pool = await office(timed, "named", NODE, OTHER)
    taken = await pool.start("john")
    timed.clock.advance(2 * HOUR)
    await pool.beat(OTHER)
    assert 0 == await rename(pool)
    (lost,) = (await pool.beat(RENAMED)).lost
    assert ("1", taken.fence, "timeout") == (lost.session, lost.fence, lost.reason)
    assert set() == await places(pool, "john")


async def test_a_host_that_has_the_name_since(timed: TimedStore) -> None:
    """L1: where another host sits on the old name's seat, the new name's is one more, and is not taken over the limit."""
    pool = await office(timed, "node_locked", NODE, OTHER, nodes=["ctx-01", "ctx-02"])
    await pool.start("john")
    await pool.beat(SUCCESSOR)
    await pool.start("anna", node=SUCCESSOR)
    await pool.start("mary", node=OTHER)
    assert 2 == await pool.held()
    assert 0 == await rename(pool)
    assert {"@ctx-01", "@ctx-02"} == set(seats(pool))
    (lost,) = (await pool.beat(RENAMED)).lost
    assert "capacity" == lost.reason
    assert {("ctx-01", "1")} == await places(pool, "anna")


async def test_two_hosts_that_change_their_names(timed: TimedStore) -> None:
    """What belongs to other lives of either name is left alone."""
    pool = await office(timed, "floating", NODE, OTHER, capacity=2, share="session")
    await pool.start("john")
    await pool.start("mary", node=OTHER)
    assert 1 == await rename(pool, NODE, "ctx-02#a")
    assert 1 == await rename(pool, OTHER, "ctx-01#b")
    assert ({("ctx-02", "1")}, {("ctx-01", "1")}) == (await places(pool, "john"), await places(pool, "mary"))
    assert 2 == await pool.held()


async def test_a_store_that_is_not_the_one(timed: TimedStore) -> None:
    """Nothing moves in a store that the node does not know, nor where nothing is."""
    pool = await office(timed, "named", NODE)
    await pool.start("john")
    before = pool.contents()
    assert None is await rename(pool, known=Known(epoch=1, fence=2**52))
    assert before == pool.contents()
    timed.raw.flushall()
    assert None is await rename(pool)
    assert {} == pool.contents()


async def test_half_of_an_older_move(timed: TimedStore) -> None:
    """A session that is counted under both names, as after older data came back, keeps one seat."""
    pool = await office(timed, "floating", NODE, RENAMED, capacity=2, share="session")
    await pool.start("john")
    await pool.start("john", node=RENAMED)
    assert 2 == await pool.held()
    assert 0 == await rename(pool)
    assert (1, {("ctx-09", "1")}) == (await pool.held(), await places(pool, "john"))
    assert [] == names_in(pool, "ctx-01")
