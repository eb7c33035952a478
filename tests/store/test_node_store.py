"""What nodes say of themselves and what is wished of them, script by script."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest

from farmlease.domain.node_view import SILENT_MS, NodeState, NodeView, Wish, near_names
from farmlease.store.keys import node_keys
from farmlease.store.node_store import NodeStore, Report, ReportReply
from farmlease.store.seal_store import SealStore
from tests.support.seats import NODE, OTHER, Desk, claim, desk
from tests.support.stores import DAY, HOUR, NINE, TimedStore, named_pool

FARM = "citrix-a"
REPORT = Report(
    incarnation="aaa", version="1.2", sessions=3, owed=0, draining=False, stopping=False, health="pass", listen="h:1"
)
NEVER = Wish()


class Roll:
    """The nodes of a store, in few words."""

    def __init__(self, timed: TimedStore) -> None:
        self.timed = timed
        self.nodes = NodeStore(timed.connection, FARM)

    async def report(
        self, node: str = "ctx-01", known: Wish = NEVER, asked: Literal["drain", "undrain", ""] = "", **changes: Any
    ) -> Wish:
        """Report, and return what is wished."""
        heard = await self.nodes.report(node, replace(REPORT, **changes), known, asked, b"node" if asked else b"")
        assert isinstance(heard, ReportReply)
        assert self.timed.clock.now_ms == heard.now
        return heard.wish

    async def view(self, node: str = "ctx-01") -> NodeView:
        """Return a node as it is listed."""
        (found,) = [view for view in await self.nodes.roster() if view.node == node]
        return found

    @property
    def audit(self) -> list[tuple[str, str, str]]:
        """Each decision: which, of which node, by whom."""
        raw: Any = self.timed.raw
        rows = [entry for _, entry in raw.xrange(node_keys(FARM)[1])]
        return [(row[b"event"].decode(), row[b"node"].decode(), row[b"by"].decode()) for row in rows]


@pytest.fixture
def roll(timed: TimedStore) -> Roll:
    """The nodes of an empty store."""
    return Roll(timed)


async def test_a_node_is_listed_as_it_described_itself(roll: Roll) -> None:
    """What a node says is what is listed, with the store's own time."""
    assert NEVER == await roll.report()
    await roll.report("ctx-02", sessions=0, health="fail")
    first, second = await roll.nodes.roster()
    assert NodeView(
        node="ctx-01", incarnation="aaa", version="1.2", sessions=3, owed=0, draining=False, stopping=False,
        health="pass", listen="h:1", started_at=NINE, seen_at=NINE, now=NINE, wish=NEVER,
    ) == first  # fmt: skip
    assert ("ctx-02", 0, NodeState.READY, NodeState.FAILING) == (
        second.node, second.sessions, first.state, second.state,
    )  # fmt: skip


async def test_a_report_that_says_nothing_new_is_written_now_and_then(roll: Roll) -> None:
    """Looks every two seconds are no writes every two seconds; something new is written at once."""
    await roll.report()
    for second in range(2, 10, 2):
        roll.timed.clock.set(NINE + 1000 * second)
        await roll.report()
        assert NINE == (await roll.view()).seen_at
    await roll.report(sessions=4)
    assert (NINE + 8000, 4) == ((await roll.view()).seen_at, (await roll.view()).sessions)
    roll.timed.clock.advance(10_000)
    await roll.report(sessions=4)
    assert NINE + 18_000 == (await roll.view()).seen_at


async def test_a_node_that_is_not_heard_of_is_silent(roll: Roll) -> None:
    """After half a minute without a report, and since the last one; an agent that ended in order is stopped."""
    await roll.report()
    await roll.report("ctx-02", stopping=True, health="fail")
    roll.timed.clock.advance(SILENT_MS)
    assert NodeState.READY is (await roll.view()).state
    roll.timed.clock.advance(1)
    view = await roll.view()
    assert (NodeState.SILENT, NINE, False) == (view.state, view.since, view.heard)
    assert (NodeState.STOPPED, False) == ((await roll.view("ctx-02")).state, (await roll.view("ctx-02")).heard)


async def test_a_reboot_is_another_beginning(roll: Roll) -> None:
    """A node is there since its incarnation was first heard of."""
    await roll.report()
    roll.timed.clock.advance(HOUR)
    await roll.report()
    assert NINE == (await roll.view()).started_at
    await roll.report(incarnation="bbb")
    assert NINE + HOUR == (await roll.view()).started_at == (await roll.view()).since


@pytest.mark.parametrize("hosts", [2, 3])
async def test_hosts_of_one_name_are_counted(roll: Roll, hosts: int) -> None:
    """A life that is back after another one is another host; when only one is left, half a minute later it is alone."""
    lives = [str(number) for number in range(hosts)]
    for life in lives:
        await roll.report(incarnation=life)
        assert 0 == (await roll.view()).namesakes, "each might be the boot of the one before"
        roll.timed.clock.advance(1000)
    for life in lives * 2:
        await roll.report(incarnation=life)
        assert hosts - 1 == (await roll.view()).namesakes
        roll.timed.clock.advance(1000)
    for _ in range(SILENT_MS // 2000):
        roll.timed.clock.advance(2000)
        await roll.report(incarnation="0")
    assert (0, NodeState.READY) == ((await roll.view()).namesakes, (await roll.view()).state)


async def test_a_quick_boot_is_no_other_host(roll: Roll) -> None:
    """However often: each life is a new one."""
    for life in "abc":
        for _ in range(3):
            roll.timed.clock.advance(1000)
            await roll.report(incarnation=life)
            assert 0 == (await roll.view()).namesakes


async def test_a_node_that_is_gone_for_a_month_is_forgotten(roll: Roll) -> None:
    """Others clear it away, at their first report of a day, when it was silent for thirty days."""
    await roll.report("gone")
    await roll.report("kept")
    roll.timed.clock.advance(30 * DAY)
    await roll.report("kept")
    assert ["gone", "kept"] == [view.node for view in await roll.nodes.roster()]
    roll.timed.clock.advance(DAY)
    await roll.report("kept")
    assert ["kept"] == [view.node for view in await roll.nodes.roster()]


async def test_a_wish_is_heard_and_kept(roll: Roll) -> None:
    """Who drains a node from anywhere is heard at its next report; nobody is told twice in the audit."""
    await roll.report()
    roll.timed.clock.advance(1000)
    assert await roll.nodes.drain("ctx-01", on=True, by=b"anna")
    assert await roll.nodes.drain("ctx-01", on=True, by=b"bert")
    wish = await roll.report()
    assert Wish(version=NINE + 1000, draining=True, at=NINE + 1000, by="YW5uYQ==") == wish
    assert wish == await roll.report(known=wish, draining=True)
    view = await roll.view()
    assert (NodeState.DRAINING, NINE + 1000) == (view.state, view.since)
    assert await roll.nodes.drain("ctx-01", on=False, by=b"bert")
    assert not (await roll.report(known=wish, draining=True)).draining
    assert [("drained", "ctx-01", "anna"), ("undrained", "ctx-01", "bert")] == roll.audit


async def test_nobody_drains_a_node_that_is_not_known(roll: Roll) -> None:
    """A name that was mistyped leaves nothing behind."""
    assert not await roll.nodes.drain("ctx-01", on=True, by=b"")
    assert ([], []) == (await roll.nodes.roster(), roll.audit)


@pytest.mark.parametrize(
    "entry", [b"", b"{", b"[]", b"5", b"null", b"{}", b'{"wish": 7}', b'{"wish": {"version": "x"}}']
)
async def test_an_entry_that_does_not_decode_stops_nobody(roll: Roll, entry: bytes) -> None:
    """Under the former name of a host that reports, or under a node's own until it reports: as if it were not there."""
    nodes, seals, raw = roll.nodes, SealStore(roll.timed.connection, FARM), roll.timed.raw
    raw.hset(node_keys(FARM)[0], "ctx-00", entry)
    assert not await nodes.drain("ctx-00", on=True, by=b"admin")
    assert not await seals.reseal_wish("ctx-00", b"admin", b"admin anew")
    for _ in range(2):
        await nodes.report("ctx-01", REPORT, NEVER, "", b"", ("ctx-00",))
        roll.timed.clock.advance(HOUR)
    await nodes.report("ctx-00", replace(REPORT, incarnation="bbb"), NEVER, "", b"")
    assert [b"ctx-00", b"ctx-01"] == sorted(raw.hkeys(node_keys(FARM)[0]))
    assert await nodes.drain("ctx-00", on=True, by=b"admin")


async def test_what_was_asked_on_the_node_is_a_wish_like_any(roll: Roll) -> None:
    """The node's own API and an administrator elsewhere move the same switch."""
    first = await roll.report(asked="drain", draining=True)
    assert first.draining
    assert first == await roll.report(asked="drain", draining=True), "the answer was lost: nothing changes"
    second = await roll.report(known=first, asked="undrain")
    assert (False, True) == (second.draining, second.version > first.version)
    assert [("drained", "ctx-01", "node"), ("undrained", "ctx-01", "node")] == roll.audit


@pytest.mark.parametrize("lose", [lambda raw: raw.flushall(), lambda raw: raw.delete(*node_keys(FARM))])
async def test_a_store_that_lost_a_wish_gets_it_back(roll: Roll, lose: Callable[[Any], object]) -> None:
    """A draining node goes on draining whatever becomes of the store, and so does an undrained one go on serving."""
    await roll.report()
    await roll.nodes.drain("ctx-01", on=True, by=b"anna")
    wish = await roll.report()
    lose(roll.timed.raw)
    assert wish == await roll.report(known=wish, draining=True)
    assert wish == (await roll.view()).wish


async def test_an_older_wish_of_a_rolled_back_store_does_not_count(roll: Roll) -> None:
    """The node knows a later wish than an old backup: that is put back."""
    await roll.report()
    await roll.nodes.drain("ctx-01", on=True, by=b"")
    key = node_keys(FARM)[0]
    raw: Any = roll.timed.raw
    backup = raw.hget(key, "ctx-01")
    await roll.nodes.drain("ctx-01", on=False, by=b"")
    wish = await roll.report()
    raw.hset(key, "ctx-01", backup)
    assert wish == await roll.report(known=wish)
    assert not (await roll.view()).wish.draining


async def test_of_two_wishes_at_once_draining_counts(roll: Roll) -> None:
    """A node that was cut off: whoever wants it drained has it drained, until somebody undrains it knowing that."""
    await roll.report()
    await roll.nodes.drain("ctx-01", on=True, by=b"")
    drained = await roll.report()
    await roll.nodes.drain("ctx-01", on=False, by=b"")
    await roll.nodes.drain("ctx-01", on=True, by=b"")
    again = await roll.report(known=drained, asked="undrain")
    assert (True, True) == (again.draining, again.version > drained.version)
    await roll.nodes.drain("ctx-01", on=False, by=b"")
    open_ = await roll.report(known=again, draining=True)
    await roll.nodes.drain("ctx-01", on=True, by=b"")
    await roll.nodes.drain("ctx-01", on=False, by=b"")
    assert (await roll.report(known=open_, asked="drain", draining=True)).draining


async def test_the_store_counts_who_lives_on_a_host(timed: TimedStore) -> None:
    """Sessions of all lives of a node and of no other; those of a node past its deadline are over, held ones are not."""
    pool, nodes = desk(timed, capacity=9, session_timeout="2h", max_hold="9h"), NodeStore(timed.connection, FARM)
    assert 0 == await nodes.guests(pool.pool.name, "ctx-01")
    await pool.beat(NODE, OTHER, "ctx-011#c", "ctx-01#b")
    await pool.start("john")
    mary = await pool.start("mary", "2")
    await pool.start("zoe", "3", "ctx-01#b")
    await pool.start("anna", "4", OTHER)
    await pool.start("bert", "5", "ctx-011#c")
    assert [3, 1, 1] == [await nodes.guests(pool.pool.name, name) for name in ("ctx-01", "ctx-02", "ctx-011")]
    await pool.end("mary", mary, "2")
    assert 2 == await nodes.guests(pool.pool.name, "ctx-01")
    timed.clock.advance(2 * HOUR)
    assert 0 == await nodes.guests(pool.pool.name, "ctx-01")


async def test_a_held_session_outlives_its_node(timed: TimedStore) -> None:
    """Who promised to keep a seat is counted until the promise is over."""
    pool = Desk(timed, named_pool(max_hold="9h", session_timeout="2h"))
    nodes = NodeStore(timed.connection, FARM)
    await pool.beat()
    taken = await pool.start("john")
    await timed.store.hold(pool.pool.name, claim("john"), taken.fence, 4 * HOUR)
    timed.clock.advance(3 * HOUR)
    assert 1 == await nodes.guests(pool.pool.name, "ctx-01")
    timed.clock.advance(HOUR)
    assert 0 == await nodes.guests(pool.pool.name, "ctx-01")


def test_near_names_are_found_in_any_case() -> None:
    """Who mistypes a node is shown those that are like it, as they are written."""
    assert ["CTX-01", "ctx-20"] == near_names("ctx-1", ["ctx-20", "CTX-01", "web"])
    assert ["CTX-01"] == near_names("ctx-01", ["CTX-01", "web"])
    assert [] == near_names("ctx-01", [])
