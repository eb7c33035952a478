"""A node in its farm's list, and one wish to drain wherever it was made."""

import asyncio

import pytest

from farmlease import __version__
from farmlease.admin.nodes import NodeAdmin
from farmlease.domain.health import Status, health
from farmlease.domain.model import Reason
from farmlease.domain.node_view import NodeState
from farmlease.errors import FarmleaseError
from farmlease.farm import Farm
from farmlease.node.journal.journal import Journal
from tests.support.nodes import JOHN, MARY, Host, Site
from tests.support.stores import HOUR, TimedStore


@pytest.fixture
def roster(site: Site) -> NodeAdmin:
    """The nodes as an administrator sees them."""
    return NodeAdmin(Farm(site.farm.name, site.farm.leases, site.farm.sealer, by="anna on desk-7"))


async def drained(roster: NodeAdmin, *, on: bool = True, node: str = "ctx-01") -> None:
    """Drain a node from anywhere, or undrain it."""
    await roster.drain(node, on=on)


async def test_a_node_is_there_from_its_first_beat(site: Site, roster: NodeAdmin) -> None:
    """Its sessions, version and health are in the list; what keeps it from being taken away as well."""
    host = site.host()
    assert [] == await roster.all()
    await host.beat()
    await host.granted(JOHN)
    await host.node.loops.look()
    (view,) = await roster.all()
    assert ("ctx-01", NodeState.READY, 1, __version__, "pass") == (
        view.node, view.state, view.sessions, view.version, view.health,
    )  # fmt: skip
    assert (1, False) == ((await roster.occupancy("ctx-01")).sessions, (await roster.occupancy("ctx-01")).empty)


async def test_a_drain_from_anywhere_holds_from_the_next_look(site: Site, roster: NodeAdmin) -> None:
    """Nobody new gets in, who is here may come back, the health says so, and a restart changes nothing."""
    host = site.host()
    await host.beat()
    await host.granted(JOHN)
    await drained(roster)
    await host.node.loops.look()
    assert host.agent.facts().draining
    assert NodeState.DRAINING is (await roster.one("ctx-01")).state, "the list says so at once"
    assert Reason.DRAINING is (await host.denied(MARY, "8")).reason
    await host.granted(JOHN, "9")
    host = host.restart()
    assert Reason.DRAINING is (await host.denied(MARY, "8")).reason
    await drained(roster, on=False)
    await host.node.loops.look()
    await host.granted(MARY, "8")


async def test_a_drain_on_the_node_is_seen_everywhere_and_taken_back_anywhere(site: Site, roster: NodeAdmin) -> None:
    """The node's own API moves the same switch as an administrator elsewhere."""
    host = site.host()
    await host.beat()
    host.agent.drain(on=True)
    await host.node.loops.look()
    view = await roster.one("ctx-01")
    assert (NodeState.DRAINING, "somebody on ctx-01 itself") == (view.state, roster.requested_by(view))
    await drained(roster, on=False)
    await host.node.loops.look()
    assert not host.agent.draining
    assert "anna on desk-7" == roster.requested_by(await roster.one("ctx-01"))


@pytest.mark.parametrize("on", [True, False])
async def test_an_emptied_store_neither_drains_nor_undrains(site: Site, roster: NodeAdmin, *, on: bool) -> None:
    """L7: what was wished of a node is in its journal and goes back into the store."""
    host = site.host()
    await host.beat()
    await drained(roster)
    await host.beat()
    await drained(roster, on=on)
    await host.beat()
    site.timed.raw.flushall()
    host = host.restart()
    await host.beat()
    await host.beat()
    assert on is host.agent.draining
    view = await roster.one("ctx-01")
    assert (on, "anna on desk-7") == (view.draining, roster.requested_by(view))


async def test_a_node_drains_while_the_store_is_away(site: Site, roster: NodeAdmin) -> None:
    """What was asked on the node holds at once and is told when the store is back."""
    host = site.host()
    await host.beat()
    host.line.cut.add("*")
    host.agent.drain(on=True)
    await host.beat()
    host = host.restart()
    host.line.cut.clear()
    await host.beat()
    assert (True, True) == (host.agent.draining, (await roster.one("ctx-01")).wish.draining)


async def test_who_drains_while_the_store_answers_is_not_overruled(site: Site, roster: NodeAdmin) -> None:
    """An answer that was on its way when somebody drained the node here does not undo that."""
    host = site.host()
    await host.beat()
    await drained(roster)
    await host.node.loops.look()
    await drained(roster, on=False)
    with host.line.holding("report") as held:
        looking = asyncio.create_task(host.node.loops.look())
        await held()
        host.agent.drain(on=False)
        host.agent.drain(on=True)
    await looking
    assert not host.agent.draining, "drained before and after: nothing was asked here"
    with host.line.holding("report") as held:
        looking = asyncio.create_task(host.node.loops.look())
        await held()
        host.agent.drain(on=True)
    await looking
    await host.node.loops.look()
    assert (True, True) == (host.agent.draining, (await roster.one("ctx-01")).draining)


async def test_a_report_that_fails_harms_nothing(site: Site, roster: NodeAdmin) -> None:
    """A store that refuses reports is asked for seats as before."""
    host = site.host()
    host.line.refused.add("report")
    await host.beat()
    await host.node.loops.look()
    assert host.agent.facts().store_answers
    await host.granted(JOHN)
    host.line.refused.clear()
    await host.node.loops.look()
    assert 1 == (await roster.one("ctx-01")).sessions


async def test_two_hosts_of_one_name_are_told_by_both(site: Site, roster: NodeAdmin) -> None:
    """Clones of an image: each works, with a health that warns, and none is said to be empty."""
    hosts = [site.host(), site.host()]
    for host in (*hosts, *hosts):
        await host.beat()
    checks = [check for host in hosts for check in health(host.agent.facts()).checks if check.name == "name"]
    assert [Status.WARN, Status.WARN] == [check.status for check in checks]
    assert "2 hosts report under this name" in checks[0].output
    await drained(roster)
    for host in hosts:
        await host.node.loops.look()
    assert not (await roster.occupancy("ctx-01")).empty


async def test_an_agent_that_ends_says_so(site: Site, roster: NodeAdmin) -> None:
    """One that was told to end takes sessions until it does and is shown as stopping, then as stopped, then as ready."""
    host = site.host()
    await host.beat()
    host.agent.leave()
    await host.node.loops.look()
    view = await roster.one("ctx-01")
    assert (NodeState.STOPPING, "fail", True) == (view.state, view.health, view.heard)
    await host.granted(JOHN)
    await host.agent.stop()
    assert NodeState.STOPPED is (await roster.one("ctx-01")).state
    host = host.restart()
    await host.beat()
    assert NodeState.READY is (await roster.one("ctx-01")).state


async def test_a_node_is_empty_when_the_store_has_heard_everything(site: Site, roster: NodeAdmin) -> None:
    """A saved file that only the node has keeps it from being taken away."""
    host = site.host()
    await host.beat()
    await host.granted(JOHN)
    await drained(roster)
    host.line.cut.add("release")
    await host.end()
    await host.node.loops.look()
    left = await roster.occupancy("ctx-01")
    assert (0, 1, False) == (left.sessions, left.view.owed, left.empty)
    host.line.cut.clear()
    await host.beat()
    await host.node.loops.look()
    assert (await roster.occupancy("ctx-01")).empty


async def test_a_silent_node_is_empty_when_its_sessions_are_over(site: Site, roster: NodeAdmin) -> None:
    """Nobody answers for it, so the store counts: its sessions end with its deadline."""
    host = site.host()
    await host.beat()
    await host.granted(JOHN)
    await host.node.loops.look()
    site.timed.clock.advance(HOUR)
    left = await roster.occupancy("ctx-01")
    assert (True, 1, False) == (left.counted, left.sessions, left.empty)
    site.timed.clock.advance(HOUR)
    assert (await roster.occupancy("ctx-01")).empty


async def test_an_unknown_node_names_near_ones(site: Site, roster: NodeAdmin) -> None:
    """A mistyped name is answered with those that are like it."""
    with pytest.raises(FarmleaseError, match="no node has reported to this farm yet"):
        await drained(roster)
    for name in ("ctx-01", "ctx-02", "web"):
        await site.host(name).beat()
    with pytest.raises(FarmleaseError, match="there is no node CTX-1; did you mean ctx-01"):
        await drained(roster, node="CTX-1")
    with pytest.raises(FarmleaseError, match="did you mean ctx-01 or ctx-02 or web"):
        await roster.one("something else")


async def test_who_drained_is_not_to_be_read_in_redis(timed: TimedStore, site: Site, roster: NodeAdmin) -> None:
    """L10: an administrator's name is sealed like any other."""
    host: Host = site.host()
    await host.beat()
    await drained(roster)
    await host.beat()
    raw = timed.raw
    kept = (
        str([raw.dump(key) for key in raw.keys("*")])
        if timed.kind == "redis"
        else str(raw.hgetall("fl:{citrix-a}:nodes"))
    )  # type: ignore[union-attr] - a plain client is not asynchronous
    assert "anna" not in kept


async def test_a_disk_that_cannot_be_looked_at_stops_no_heartbeat(
    site: Site, roster: NodeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that the system does not list makes the node's report worse, and ends no loop of the agent."""
    host = site.host()
    await host.beat()

    def unreadable(_: object) -> None:
        raise OSError

    monkeypatch.setattr(Journal, "refused", property(unreadable))
    await host.node.loops.beat()
    await host.node.loops.look()
    await host.node.loops.watch()
    (view,) = await roster.all()
    assert ("fail", False) == (view.health, host.node.monitor.health.ready)


async def test_who_starts_while_the_drain_arrives_is_in_the_next_report(site: Site, roster: NodeAdmin) -> None:
    """A node is not called empty by facts from before its answer: somebody could reimage it."""
    host = site.host()
    await host.beat()
    await drained(roster)
    with host.line.holding("report") as held:
        looking = asyncio.create_task(host.node.loops.look())
        await held()
        await host.granted(JOHN)
    await looking
    left = await roster.occupancy("ctx-01")
    assert (True, 1, False) == (left.view.draining, left.view.sessions, left.empty)


async def test_a_report_that_waited_for_another_has_the_facts_of_now(site: Site, roster: NodeAdmin) -> None:
    """What got into the outbox while an earlier report was under way is in the later one."""
    host = site.host()
    await host.granted(JOHN)
    await host.beat()
    with host.line.holding("report") as held:
        first = asyncio.create_task(host.node.loops.look())
        await held()
        second = asyncio.create_task(host.node.loops.look())
        await asyncio.sleep(0.01)
        host.line.cut.add("release")
        await host.end()
    await asyncio.gather(first, second)
    (view,) = await roster.all()
    assert (0, 1) == (view.sessions, view.owed)
