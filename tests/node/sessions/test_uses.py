"""A session may use several pools at once: each use has a life of its own, and none touches another."""

import asyncio
import os
import signal
import subprocess

import pytest

from farmlease.admin.leases import LeaseAdmin
from farmlease.domain.identity import User
from farmlease.domain.model import Denial, Grant, Reason, SessionRequest, Withdrawal
from farmlease.domain.policy import parse_policy
from farmlease.errors import CannotHold, FileRefused
from farmlease.node.files.record_sync import RecordSync
from farmlease.node.sessions.per_use import NotDone
from tests.support.nodes import JOHN, MARY, Host, Site
from tests.support.patience import within
from tests.support.stores import HOUR

QLIKVIEW = '[[pool]]\nname = "qlikview"\nkind = "named"\ncapacity = 1\n'
CLEARQUEST = """\
[[pool]]
name = "clearquest"
kind = "floating"
capacity = 1
share = "user_device"
session_timeout = "120m"
max_hold = "4h"
idle_timeout = "30m"
reacquire = { attempts = 0 }
"""
POLICY = QLIKVIEW + CLEARQUEST


@pytest.fixture
async def host(site: Site) -> Host:
    """A host of a farm with a named and a floating pool of one seat each."""
    await site.apply(POLICY)
    return site.host()


def states(host: Host) -> dict[tuple[str, str], str]:
    """Return the uses that the API shows, and their states."""
    return {each.key: each.state.value for each in host.agent.all_uses()}


async def both(host: Host, session: str = "7", user: User = JOHN) -> tuple[Grant, Grant]:
    """Start a program of each pool in one session."""
    return (
        await host.granted(user, session, app="qlikview"),
        await host.granted(user, session, app="clearquest"),
    )


async def sessions(site: Site, user: User = JOHN) -> list[str]:
    """Return the pools in which the store counts a session of a user."""
    return [pool for pool in ("clearquest", "qlikview") if await site.sessions(user, pool)]


async def held(site: Site) -> int:
    """Return how many seats of the floating pool are held."""
    count = await site.timed.store.count("clearquest")
    assert count is not None
    return count.held


# --- two programs ---------------------------------------------------------------------------------------------------------


async def test_two_programs_with_a_hold_on_the_first(host: Host, site: Site) -> None:
    """One floating and one named: the hold of the first outlives the start and the end of the second."""
    await host.granted(JOHN, app="clearquest")
    until = await host.hold()
    await host.granted(JOHN, app="qlikview")
    held = {each.pool: each.hold_until for each in host.agent.uses("7")}
    assert {"clearquest": until, "qlikview": None} == held
    assert await host.agent.end_session("7", pool="qlikview")
    assert {("7", "clearquest"): "active"} == states(host)
    lease = await site.lease(JOHN, "clearquest")
    assert lease is not None
    assert [until] == [each.hold_until for each in lease.sessions]


async def test_a_denied_second_start_changes_nothing_of_the_first(host: Host, site: Site) -> None:
    """The other pool is full, its rule says no, or there is no such pool: the first program goes on as it was."""
    other = site.host("ctx-02")
    await other.granted(MARY, app="clearquest")
    first = await host.granted(JOHN, app="qlikview")
    before = host.agent.uses("7")
    assert Reason.CAPACITY is (await host.denied(JOHN, app="clearquest")).reason
    assert Reason.UNKNOWN_POOL is (await host.denied(JOHN, pool="nothing")).reason
    await site.apply(f'{POLICY}[[rule]]\napps = ["clearquest"]\naccess = "denied"\n')
    assert Reason.NOT_ENTITLED is (await host.denied(JOHN, app="clearquest")).reason
    assert before == host.agent.uses("7")
    again = await host.granted(JOHN, app="qlikview")
    assert (True, first.fence) == (again.again, again.fence)
    assert ["qlikview"] == await sessions(site)


async def test_the_end_of_a_session_ends_all_its_uses(host: Host, site: Site) -> None:
    """``end`` without a pool leaves nothing of the session, with one only the others."""
    await both(host)
    await host.end()
    assert ({}, []) == (states(host), await sessions(site))
    await both(host)
    await host.agent.end_session("7", pool="nothing")
    await host.agent.end_session("7", pool="clearquest")
    assert ({("7", "qlikview"): "active"}, ["qlikview"]) == (states(host), await sessions(site))


async def test_another_user_of_the_id_ends_every_use(host: Host, site: Site) -> None:
    """Hosts reuse ids: what john had under 7 is over when mary starts there, in every pool."""
    await both(host)
    denied = await host.denied(MARY, app="qlikview")  # the only named seat stays john's for the lease
    assert Reason.CAPACITY is denied.reason
    assert ({}, [], []) == (states(host), await sessions(site), await sessions(site, MARY))
    await host.granted(MARY, app="clearquest")
    assert {("7", "clearquest"): "active"} == states(host)


async def test_who_acts_for_himself_ends_no_use_of_another(host: Host, site: Site) -> None:
    """A caller without rights is denied the id, and all uses of the other go on."""
    await both(host)
    request = SessionRequest(user=MARY, session="7", app="clearquest")
    answer = await host.agent.start_session(request, only=MARY)
    assert isinstance(answer, Denial)
    assert Reason.NOT_ENTITLED is answer.reason
    assert not await host.agent.end_session("7", only=MARY)
    assert not await host.agent.end_session("7", only=MARY, pool="clearquest")
    assert ["clearquest", "qlikview"] == await sessions(site)


async def test_a_repeated_request_asks_for_the_use_that_there_is(host: Host, site: Site) -> None:
    """A plan of two pools, of which the session has the second: that one alone is asked for."""
    await site.apply(f'{POLICY}[[rule]]\npools = ["clearquest", "qlikview"]\n')
    other = site.host("ctx-02")
    await other.granted(MARY)
    assert "qlikview" == (await host.granted(JOHN)).pool
    await other.end()
    host.line.calls.clear()
    again = await host.granted(JOHN)
    assert ("qlikview", True, 1) == (again.pool, again.again, host.line.calls.count("acquire"))
    assert ["qlikview"] == await sessions(site)


async def test_a_restart_adopts_every_use(host: Host, site: Site) -> None:
    """L7: kill -9 of the agent loses none of them; both end when the session does."""
    grants = await both(host)
    host.restart()
    assert {("7", "qlikview"): "active", ("7", "clearquest"): "active"} == states(host)
    assert {each.fence for each in grants} == {each.grant.fence for each in host.agent.uses("7") if each.grant}
    await host.beat()
    await host.end()
    assert ({}, []) == (states(host), await sessions(site))


async def test_an_end_that_is_owed_holds_up_no_other_use(host: Host, site: Site) -> None:
    """The store took the end of one program's use late: another program's start does not wait for that."""
    await host.granted(JOHN, app="qlikview")
    host.line.refused.add("release")
    await host.agent.end_session("7")
    assert "clearquest" == (await host.granted(JOHN, app="clearquest")).pool
    assert Reason.OFFLINE is (await host.denied(JOHN, app="qlikview")).reason
    host.line.refused.clear()
    await host.granted(JOHN, app="qlikview")
    assert ["clearquest", "qlikview"] == await sessions(site)


async def test_a_second_program_starts_while_receipts_are_counted(site: Site) -> None:
    """After an outage the count of one pool and a start in another wait for each other's session: neither hangs."""
    await site.apply(TWO)
    host = site.host()
    await host.granted(JOHN, "0", pool="designer")
    await host.granted(MARY, "1", pool="qlikview")
    await host.end("1")
    host.line.cut.add("*")
    for session in ("5", "7"):
        await host.granted(JOHN, session, pool="designer")
    host.line.cut.clear()
    with host.line.holding("acquire") as asked:
        beat = asyncio.create_task(host.node.loops.beat())
        await asked()
        second = asyncio.create_task(host.start(JOHN, "7", pool="qlikview"))
        await asyncio.sleep(0.05)
    async with asyncio.timeout(within(10)):
        await asyncio.gather(beat, second)
    await host.beat()
    assert {"store"} == {each.grant.source for each in host.agent.all_uses() if each.grant}


async def test_the_end_of_another_s_ended_session_is_done(host: Host) -> None:
    """John's use of the id is over here, and the store is away: for mary there is nothing to end, and nothing of his."""
    await host.granted(JOHN, app="qlikview")
    host.line.cut.add("*")
    await host.end()
    assert await host.agent.end_session("7", only=MARY)


async def test_a_lost_seat_loses_that_use_alone(host: Host, site: Site) -> None:
    """An administrator takes one of two seats; the other program goes on, and touch knows which."""
    await both(host)
    pool = parse_policy(POLICY, "pools.toml").pool("clearquest")
    assert pool is not None
    await LeaseAdmin(site.farm).withdraw(pool, JOHN, Withdrawal.RETURNED)
    await host.beat()
    assert {("7", "qlikview"): "active", ("7", "clearquest"): "lost"} == states(host)
    touched = [host.agent.touch("7", pool) for pool in (None, "qlikview", "clearquest", "nothing")]
    assert [True, True, False, False] == touched
    await host.agent.end_session("7", pool="qlikview")
    assert not host.agent.touch("7")


async def test_a_use_that_idles_ends_alone(host: Host, site: Site) -> None:
    """Only the pool with an idle timeout takes its seat back; activity of one use is not the other's."""
    await both(host)
    await host.node.loops.watch()
    site.timed.clock.advance(31 * HOUR // 60)
    await host.node.loops.watch()
    await host.agent.settled()
    assert {("7", "qlikview"): "active", ("7", "clearquest"): "lost"} == states(host)


async def test_what_every_use_says_of_a_hold(host: Host) -> None:
    """One pool allows holds and the other does not: the answer says so of each."""
    await both(host)
    one, other = sorted(await host.agent.hold_session("7", None), key=lambda each: isinstance(each, NotDone))
    assert isinstance(other, NotDone)
    assert "clearquest" == one.pool
    assert ("qlikview", CannotHold) == (other.pool, type(other.error))
    assert [] == await host.agent.hold_session("7", None, pool="nothing")


async def test_health_counts_sessions_and_not_uses(host: Host) -> None:
    """Two programs are one session for the balancer's weight, for drain and for the list of nodes."""
    await both(host)
    assert 1 == host.agent.facts().sessions
    await both(host, "8")
    assert (2, 4) == (host.agent.facts().sessions, len(host.agent.all_uses()))


# --- devices --------------------------------------------------------------------------------------------------------------


async def test_a_use_moves_to_another_device_or_stays(host: Host, site: Site) -> None:
    """The third device is over the limit: the use stays where it is, with seat, fence and hold."""
    first = await host.granted(JOHN, app="qlikview")
    moved = await host.granted(JOHN, app="qlikview", device="nb-1")
    assert ("nb-1", first.fence, True) == (moved.device, moved.fence, moved.again)
    assert Reason.DEVICE_LIMIT is (await host.denied(JOHN, app="qlikview", device="nb-2")).reason
    (use,) = host.agent.uses("7")
    assert ("nb-1", "active") == (use.device, use.state.value)
    lease = await site.lease()
    assert lease is not None
    assert ["nb-1"] == [each.device for each in lease.sessions]
    host.line.cut.add("*")
    assert Reason.OFFLINE is (await host.denied(JOHN, app="qlikview", device="citrix-a")).reason
    assert "nb-1" == host.agent.uses("7")[0].device


async def test_a_floating_seat_moves_though_the_pool_is_full(host: Host, site: Site) -> None:
    """The seat of the old device falls free for the new one in the same script, and its hold goes with it."""
    first = await host.granted(JOHN, app="clearquest")
    until = await host.hold()
    moved = await host.granted(JOHN, app="clearquest", device="nb-1")
    assert first.fence == moved.fence
    lease = await site.lease(JOHN, "clearquest")
    assert lease is not None
    assert [("nb-1", until)] == [(each.device, each.hold_until) for each in lease.sessions]
    assert 1 == await held(site)
    await host.end()
    assert 0 == await held(site)


async def test_a_use_moves_though_the_host_cannot_place_its_files(host: Host, site: Site) -> None:
    """Its files are here already: an account database that is away ends no use that the store has moved."""
    await site.apply(
        POLICY.replace("capacity = 1\n[[pool]]", f'capacity = 1\nfiles = ["{site.disk}/{{user}}/f"]\n[[pool]]')
    )
    await host.granted(JOHN, app="qlikview")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordSync, "owner", no_owner)
        moved = await host.granted(JOHN, app="qlikview", device="nb-1")
    assert ("nb-1", True) == (moved.device, moved.again)
    assert {("7", "qlikview"): "active"} == states(host)


async def no_owner(*_: object) -> None:
    """Refuse as where the host's account database does not answer."""
    raise FileRefused("the account database of this host does not answer")


async def test_a_denied_move_leaves_the_processes(host: Host) -> None:
    """The use ends with its process as before, whatever the denied request said."""
    await host.granted(JOHN, app="qlikview", pid=os.getpid())
    await host.granted(JOHN, app="qlikview", device="nb-1", pid=os.getpid())
    before = host.agent.uses("7")
    await host.denied(JOHN, app="qlikview", device="nb-2")
    assert before == host.agent.uses("7")


# --- processes ------------------------------------------------------------------------------------------------------------


def program() -> subprocess.Popen[bytes]:
    """Start a program that a use may belong to."""
    return subprocess.Popen(["sleep", "600"])


def kill(*programs: subprocess.Popen[bytes]) -> None:
    """Kill programs; return when they are dead."""
    for each in programs:
        each.send_signal(signal.SIGKILL)
        each.wait()


async def looked(host: Host) -> dict[tuple[str, str], str]:
    """Let the agent look at the processes, and return what is left."""
    await host.node.loops.watch()
    await host.agent.settled()
    return states(host)


async def test_a_use_ends_with_the_last_of_its_processes(host: Host) -> None:
    """A second window of the program joins the use; the first one's end ends nothing."""
    one, two, other = program(), program(), program()
    try:
        await host.granted(JOHN, app="qlikview", pid=one.pid)
        await host.granted(JOHN, app="qlikview", pid=two.pid)
        await host.granted(JOHN, app="clearquest", pid=other.pid)
        host.restart()
        kill(one)
        assert {("7", "qlikview"), ("7", "clearquest")} == (await looked(host)).keys()
        kill(other)
        assert {("7", "qlikview")} == (await looked(host)).keys()
        kill(two)
        assert {} == await looked(host)
    finally:
        kill(*(each for each in (one, two, other) if each.poll() is None))


async def test_a_use_that_was_asked_for_without_a_process_ends_when_asked(host: Host) -> None:
    """Whichever came first: from then on only ``end`` ends it."""
    one = program()
    await host.granted(JOHN, app="qlikview", pid=one.pid)
    await host.granted(JOHN, app="qlikview")
    await host.granted(JOHN, app="qlikview", pid=os.getpid())
    await host.granted(JOHN, app="clearquest")
    await host.granted(JOHN, app="clearquest", pid=one.pid)
    kill(one)
    assert {("7", "qlikview"), ("7", "clearquest")} == (await looked(host)).keys()
    await host.end()
    assert {} == states(host)


async def test_asking_again_writes_nothing(host: Host) -> None:
    """L3: the same process asks for the same use: the use is what it was."""
    await host.granted(JOHN, app="qlikview", pid=os.getpid())
    before = host.agent.uses("7")
    await host.granted(JOHN, app="qlikview", pid=os.getpid())
    assert before == host.agent.uses("7")


# --- which pool comes first -----------------------------------------------------------------------------------------------

TWO = QLIKVIEW + QLIKVIEW.replace("qlikview", "designer").replace("capacity = 1", "capacity = 2")
BOTH = '[[rule]]\npools = ["{}", "{}"]\n'


@pytest.mark.parametrize("has_receipt", [True, False])
async def test_a_pool_with_a_named_seat_of_the_user_comes_first(site: Site, *, has_receipt: bool) -> None:
    """Nobody takes a second named seat by the order of a list: one look-up tells, whatever receipts there are."""
    await site.apply(TWO)
    first, second = site.host(), site.host("ctx-02")
    await first.granted(JOHN, pool="designer")
    await first.end()
    await site.apply(TWO + BOTH.format("qlikview", "designer"))
    host = first if has_receipt else second
    await host.beat()
    host.line.calls.clear()
    assert "designer" == (await host.granted(JOHN)).pool
    assert [] == await site.sessions(JOHN, "qlikview")
    asked = [name for name in host.line.calls if name in {"look_up", "acquire"}]
    assert ["look_up", "look_up", "acquire"] == asked


async def test_a_receipt_of_a_returned_lease_takes_no_second_seat(site: Site) -> None:
    """The administrator returned the idle lease, and the user has the other pool's by now: that one comes first."""
    await site.apply(TWO + BOTH.format("qlikview", "designer"))
    first, second = site.host(), site.host("ctx-02")
    await first.granted(JOHN)
    await first.end()
    pool = parse_policy(TWO, "pools.toml").pool("qlikview")
    assert pool is not None
    await LeaseAdmin(site.farm).withdraw(pool, JOHN, Withdrawal.RETURNED)
    site.timed.clock.advance(48 * HOUR)
    await second.granted(JOHN, "1", pool="designer")
    await first.beat()
    assert "designer" == (await first.granted(JOHN, "8")).pool


async def test_a_receipt_of_the_only_named_pool_is_enough(site: Site) -> None:
    """A floating pool stands first in the rule, and this node knows of the named seat: nothing is looked up."""
    await site.apply(POLICY + BOTH.format("clearquest", "qlikview"))
    host = site.host()
    await host.granted(JOHN, pool="qlikview")
    await host.end()
    await host.beat()
    host.line.calls.clear()
    assert "qlikview" == (await host.granted(JOHN)).pool
    assert ["acquire"] == [name for name in host.line.calls if name in {"look_up", "acquire"}]


async def test_one_pool_that_can_serve_costs_one_round_trip(site: Site) -> None:
    """Nothing is looked up where the answer could not change the order."""
    elsewhere = '[[pool]]\nname = "locked"\nkind = "node_locked"\nnodes = ["ctx-09"]\n'
    await site.apply(POLICY + elsewhere + BOTH.format("locked", "qlikview"))
    host = site.host()
    await host.beat()
    host.line.calls.clear()
    assert "qlikview" == (await host.granted(JOHN)).pool
    assert ["acquire"] == [name for name in host.line.calls if name in {"look_up", "acquire"}]


async def test_without_the_store_the_order_is_the_policys(site: Site) -> None:
    """A look-up that fails changes nothing: the receipt of the pool that has one decides."""
    await site.apply(POLICY + BOTH.format("clearquest", "qlikview"))
    host = site.host()
    await host.granted(JOHN, pool="qlikview")
    await host.end()
    await host.beat()
    host.line.cut.add("*")
    assert "qlikview" == (await host.granted(JOHN)).pool


# --- which denial is told ---------------------------------------------------------------------------------------------------


async def test_the_most_helpful_denial_is_told(site: Site) -> None:
    """A full pool can be waited for, another host cannot be had here: the first is told, whatever the order."""
    elsewhere = '[[pool]]\nname = "locked"\nkind = "node_locked"\nnodes = ["ctx-09"]\n'
    for order in (("locked", "clearquest"), ("clearquest", "locked")):
        await site.apply(POLICY + elsewhere + BOTH.format(*order))
        host, other = site.host(f"{order[0]}-1"), site.host(f"{order[0]}-2")
        await other.granted(MARY, pool="clearquest")
        denial = await host.denied(JOHN)
        assert (Reason.CAPACITY, "clearquest") == (denial.reason, denial.pool)
        await other.end()


async def test_a_wait_that_the_pool_cuts_short_says_so(site: Site) -> None:
    """Asked for an hour and allowed ten minutes: the denial names the ten minutes."""
    await site.apply(POLICY.replace('max_hold = "4h"', 'queue = "3s"'))
    host, other = site.host(), site.host("ctx-02")
    await other.granted(MARY, pool="clearquest")
    asked = asyncio.create_task(host.denied(JOHN, pool="clearquest", wait_ms=HOUR))
    while not host.states:
        await asyncio.sleep(0.01)
    site.timed.clock.advance(3_000)
    denial = await asked
    assert Reason.CAPACITY is denial.reason
    assert "waits for this pool for at most 3s" in denial.detail
