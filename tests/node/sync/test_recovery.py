"""The store lost its data, or the farm lost the store: what this node has is counted again, and told if it cannot be."""

import asyncio

import pytest

from farmlease.admin.leases import LeaseAdmin
from farmlease.domain.identity import User
from farmlease.domain.model import Grant, Reason, Source, Withdrawal
from farmlease.node.journal.outbox import ANY_FENCE
from farmlease.node.journal.receipts import Receipts
from farmlease.store.answers.session import Claim
from farmlease.store.keys import Shard
from tests.support.nodes import FARM, JOHN, MARY, Host, Site, booted
from tests.support.patience import within

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000


def emptied(site: Site) -> None:
    """Lose everything; some time passes until somebody notices."""
    site.timed.raw.flushall()
    site.timed.clock.advance(SECOND)


async def beaten(*hosts: Host) -> None:
    """Let hosts beat, and finish what that brings to light."""
    for host in hosts:
        await host.beat()
    for host in hosts:
        await host.agent.settled()


def policy(site: Site, **keys: str) -> str:
    """The usual policy with other keys of its pool."""
    lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
    return site.policy.replace("capacity = 3\n", "" if "capacity" in keys else "capacity = 3\n") + lines


@pytest.fixture
def farm(site: Site) -> Site:
    """A farm with a recovery window."""
    site.window = "15s"
    return site


async def test_an_emptied_store_has_everything_again(farm: Site) -> None:
    """L7: policy, leases, sessions and files are back, with their fences, without an administrator."""
    one, two = farm.host(), farm.host("ctx-02")
    johns, marys = await one.granted(JOHN), await two.granted(MARY, "8")
    await beaten(one, two)
    one.write(b"changed")
    await one.save()
    emptied(farm)
    await beaten(one, two)
    await beaten(one, two)
    assert ([("ctx-01", "7")], [("ctx-02", "8")]) == (await farm.sessions(JOHN), await farm.sessions(MARY))
    assert 2 == await farm.record_version()
    again = await one.granted(JOHN)
    assert (johns.fence, johns.lease.id, True) == (again.fence, again.lease.id, again.again)
    assert marys.fence == (await two.granted(MARY, "8")).fence
    assert ({"7": "active"}, {"8": "active"}) == (one.states, two.states)


async def test_who_waits_gets_no_seat_by_the_ghost_of_an_earlier_session(farm: Site) -> None:
    """L4: an old copy of the store counts the session that had this id before; its seat is another's by now."""
    await farm.apply('[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 1\nqueue = "10m"\n')
    one, two = farm.host(), farm.host("ctx-02")
    await one.granted(JOHN)
    await beaten(one, two)
    await beaten(one, two)
    copy = {key: farm.timed.raw.dump(key) for key in farm.timed.raw.scan_iter()}
    await one.end()
    await two.granted(MARY, "8")
    await beaten(one, two)
    waits = asyncio.ensure_future(one.start(JOHN, wait_ms=600_000))
    while one.states != {"7": "waiting"}:
        await asyncio.sleep(0)
    emptied(farm)
    for key, value in copy.items():
        farm.timed.raw.restore(key, 0, value)
    await beaten(one, two)
    await beaten(one, two)
    assert ([], [("ctx-02", "8")]) == (await farm.sessions(JOHN, "clearquest"), await farm.sessions(MARY, "clearquest"))
    assert ({"7": "waiting"}, {"8": "active"}) == (one.states, two.states)
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)


async def test_the_ghost_of_an_id_whose_next_end_is_owed_takes_no_seat(farm: Site) -> None:
    """L7: an old copy of the store counts who had an id before; who had it next has ended, and that is not told yet."""
    await farm.apply(
        '[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 2\nshare = "session"\n'
        "reacquire = { attempts = 0 }\n"
    )
    host = farm.host()
    await host.granted(JOHN)
    await beaten(host)
    copy = {key: farm.timed.raw.dump(key) for key in farm.timed.raw.scan_iter()}
    await host.end()
    await host.granted(MARY)
    await host.granted(JOHN, "8")
    await beaten(host)
    host.line.cut.add("*")
    await host.end()
    emptied(farm)
    for key, value in copy.items():
        farm.timed.raw.restore(key, 0, value)
    host.line.cut.clear()
    await beaten(host)
    assert {"8": "active"} == host.states
    assert ([("ctx-01", "8")], []) == (await farm.sessions(JOHN, "clearquest"), await farm.sessions(MARY, "clearquest"))


async def test_nobody_new_gets_in_before_all_have_restored(farm: Site) -> None:
    """L1: a new user waits until every node that was there has come, and is told until when."""
    await farm.apply(policy(farm, capacity="1"))
    one, two = farm.host(), farm.host("ctx-02")
    await two.granted(MARY, "8")
    await beaten(one, two)
    await beaten(one, two)
    emptied(farm)
    denial = await one.denied(JOHN)
    assert Reason.RECOVERING is denial.reason
    assert denial.retry_at is not None
    await beaten(one)
    assert Reason.RECOVERING is (await one.denied(JOHN)).reason
    await beaten(two)
    await beaten(one)
    assert Reason.CAPACITY is (await one.denied(JOHN)).reason


async def test_who_came_while_a_node_was_cut_off_is_waited_for_too(farm: Site) -> None:
    """L7: the store is emptied, and once more before the node's next heartbeat: it knows whom to wait for by then."""
    one = farm.host()
    await beaten(one)
    one.line.cut.add("*")
    two = farm.host("ctx-02")
    await beaten(two)
    await two.granted(JOHN)
    emptied(farm)
    await beaten(two, two)
    farm.timed.clock.advance(MINUTE)
    one.line.cut.clear()
    await beaten(one)
    emptied(farm)
    await beaten(one)
    assert Reason.RECOVERING is (await one.denied(MARY, "8")).reason
    await beaten(two, two)
    await one.granted(MARY, "8")


async def test_a_lease_without_a_session_comes_back(farm: Site) -> None:
    """A named lease is its user's for thirty days; the node where he last worked knows it."""
    await farm.apply(policy(farm, capacity="1"))
    host = farm.host()
    grant = await host.granted(JOHN)
    farm.timed.clock.advance(MINUTE)
    await host.end()
    lease = await farm.lease()
    assert lease is not None
    emptied(farm)
    await beaten(host)
    found = await farm.lease()
    assert found is not None
    assert (grant.lease.id, lease.lease.expires_at, ()) == (found.lease.id, found.lease.expires_at, found.sessions)
    await beaten(host)
    assert Reason.CAPACITY is (await host.denied(MARY, "8")).reason


async def test_who_came_while_the_end_before_was_answered_is_counted_again(farm: Site) -> None:
    """The end took the whole lease, the next start got another; the answer to the end came later."""
    await farm.apply('[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 1\nreacquire = { attempts = 0 }\n')
    host = farm.host()
    await host.granted(JOHN)
    with host.line.holding("release") as held:
        end = asyncio.create_task(host.end())
        await held()
        grant = await host.granted(JOHN, "8")
    await end
    emptied(farm)
    await beaten(host)
    await beaten(host)
    assert [("ctx-01", "8")] == await farm.sessions(pool="clearquest")
    assert grant.fence == (await host.granted(JOHN, "8")).fence


async def test_a_lease_that_was_withdrawn_does_not_come_back(farm: Site) -> None:
    """What an administrator took with the session still there is not this node's to restore."""
    host = farm.host()
    await host.granted(JOHN)
    pool = (await farm.farm.policy()).pool("qlikview")
    assert pool is not None
    await LeaseAdmin(farm.farm).withdraw(pool, JOHN, Withdrawal.RETURNED)
    await beaten(host)
    emptied(farm)
    await beaten(host)
    assert None is await farm.lease()


async def test_a_kill_between_loss_and_recovery_changes_nothing(farm: Site) -> None:
    """The memory of the store lies in the journal: the next agent of this boot restores too."""
    host = farm.host()
    await host.granted(JOHN)
    await beaten(host)
    emptied(farm)
    await beaten(host.restart())
    assert [("ctx-01", "7")] == await farm.sessions()


async def test_a_file_saved_while_the_store_was_lost_is_there_afterwards(farm: Site) -> None:
    """An end and a changed file that were owed when the store lost everything arrive after the lease is back."""
    host = farm.host()
    await host.granted(JOHN)
    host.write(b"changed")
    host.line.cut.add("*")
    await host.end()
    emptied(farm)
    host.line.cut.clear()
    await beaten(host)
    await beaten(host)
    assert (0, [], 2) == (host.agent.facts().owed, await farm.sessions(), await farm.record_version())
    await farm.host("ctx-02").granted(JOHN)
    assert b"changed" == farm.hosts[1].read()


async def test_several_files_saved_while_the_store_was_lost_do_not_fight(farm: Site) -> None:
    """L7: the last of three versions is restored: the first two are no other node's, and the next one counts."""
    host = farm.host()
    await host.granted(JOHN)
    await beaten(host)
    host.line.cut.add("*")
    for content in (b"two", b"three", b"four"):
        host.write(content)
        await host.save()
    emptied(farm)
    host.line.cut.clear()
    await beaten(host)
    await beaten(host)
    host.write(b"five")
    assert not (await host.save()).superseded
    assert (5, b"five", []) == (await farm.record_version(), host.read(), host.kept)


async def test_a_session_without_room_is_told(farm: Site) -> None:
    """L1, L4: more was granted than there are seats now: who does not fit loses the session, and knows."""
    one, two = farm.host(), farm.host("ctx-02")
    await one.granted(JOHN)
    await two.granted(MARY, "8")
    await beaten(one, two)
    await farm.apply(policy(farm, capacity="1"))
    await beaten(one, two)
    emptied(farm)
    await beaten(one, two)
    await beaten(one, two)
    assert 1 == len(await farm.sessions(JOHN)) + len(await farm.sessions(MARY))
    assert ["active", "lost"] == sorted([one.states["7"], two.states["8"]])


async def leak(site: Site, host: Host) -> None:
    """Let a question reach the store after its caller has given up and undone it: a seat that only the store counts."""
    host.line.deaf.add("acquire")
    host.line.swallowed.add("release")
    await host.denied(JOHN)
    host.line.deaf.clear()
    await host.beat()
    assert [("ctx-01", "7")] == await site.sessions()
    host.line.swallowed.clear()


async def test_what_only_the_store_counts_is_given_back(site: Site) -> None:
    """L3: a question that reached the store after its caller had given up and undone it leaks no seat."""
    host = site.host()
    await host.beat()
    await leak(site, host)
    await beaten(host)
    await beaten(host)
    assert ([], 0) == (await site.sessions(), host.agent.facts().owed)


async def test_what_only_the_store_counts_again_is_given_back_again(site: Site) -> None:
    """L3: a late question brings a seat back that was given back, before a heartbeat has seen that it was gone."""
    host = site.host()
    await host.beat()
    for _ in range(2):
        await leak(site, host)
        await beaten(host)
        assert ([], 0) == (await site.sessions(), host.agent.facts().owed)


async def test_what_the_store_forgets_again_is_counted_again(site: Site) -> None:
    """L4: a late end takes a session's seat twice, before a heartbeat has seen that it was counted again."""
    host = site.host()
    grant = await host.granted(JOHN)
    await host.beat()
    (member,) = await site.timed.store.nodes("qlikview")
    claim = Claim(user=site.farm.sealer.user_index(JOHN), node=member, session="7")
    for _ in range(2):
        await site.timed.store.release("qlikview", claim, ANY_FENCE)
        assert [] == await site.sessions()
        await beaten(host)
        assert [("ctx-01", "7")] == await site.sessions()
    assert grant.fence < (await host.granted(JOHN)).fence


async def test_a_grant_whose_answer_was_lost_with_the_master_is_ended_by_its_fence(farm: Site) -> None:
    """L3: a receipt let in whom the store had let in: after the recovery both name one fence, and the end is the end."""
    host = farm.host()
    await host.granted(JOHN)
    await host.end()
    await beaten(host)
    host.line.deaf.add("acquire")
    assert Source.RECEIPT is (await host.granted(JOHN, "9")).source
    host.line.deaf.clear()
    farm.timed.raw.hset(Shard(FARM, "qlikview").keys()[0], "life", "of a new master")
    await beaten(host)
    lease, session = await farm.lease(), host.use("9")
    assert lease is not None
    assert session is not None
    assert session.grant is not None
    assert [(session.grant.fence, Source.STORE)] == [(each.fence, session.grant.source) for each in lease.sessions]
    await host.end("9")
    assert [] == await farm.sessions()


async def test_health_says_that_the_store_recovers(farm: Site) -> None:
    """While leases are being restored the node says so."""
    host = farm.host()
    await host.granted(JOHN)
    await beaten(host)
    emptied(farm)
    with host.line.holding("restore") as held:
        await host.node.loops.beat()
        await held()
        assert host.agent.facts().recovering
    await host.agent.settled()
    assert not host.agent.facts().recovering


def another_life(farm: Site) -> None:
    """Have the store be another one than who comes without a life of it in mind takes it for, as real servers are."""
    farm.timed.raw.hset(Shard(FARM, "qlikview").keys()[0], "life", "of a real server")


async def test_a_first_start_is_no_loss(farm: Site) -> None:
    """L9: a node that visits a store for the first time misses nothing there, and health raises no alarm."""
    one = farm.host()
    await one.node.loops.beat()
    facts = [one.agent.facts()]
    another_life(farm)
    two = farm.host("ctx-02")
    with two.line.holding("recover") as held:
        await two.node.loops.beat()
        await held()
        facts.append(two.agent.facts())
    await two.agent.settled()
    assert [(False, True)] * 2 == [(each.recovering, each.store_answers) for each in facts]


async def test_a_new_node_says_that_the_farm_recovers(farm: Site) -> None:
    """Who comes for the first time while others restore their leases admits nobody new either, and says why."""
    one = farm.host()
    await one.granted(JOHN)
    await beaten(one)
    emptied(farm)
    with one.line.holding("restore") as held:
        await one.node.loops.beat()
        await held()
        another_life(farm)
        two = farm.host("ctx-02")
        with two.line.holding("restored") as joined:
            await two.node.loops.beat()
            await joined()
            assert two.agent.facts().recovering
    await one.agent.settled()
    await two.agent.settled()
    assert not two.agent.facts().recovering


# --- the store is away ------------------------------------------------------------------------------------------------


async def test_a_receipt_lets_its_user_in(site: Site) -> None:
    """Who has a lease by this node's own word starts while the store is away, with his files; others are told."""
    host = site.host()
    first = await host.granted(JOHN)
    host.write(b"changed")
    await host.end()
    host.line.cut.add("*")
    await host.beat()
    grant = await host.granted(JOHN, "9")
    assert (Source.RECEIPT, first.lease.id, b"changed") == (grant.source, grant.lease.id, host.read())
    denial = await host.denied(MARY, "8")
    assert Reason.OFFLINE is denial.reason
    assert denial.retry_at is not None
    assert Source.RECEIPT is (await host.granted(JOHN, "9")).source  # the same again


async def test_who_started_by_receipt_is_counted_before_anybody_new(site: Site) -> None:
    """L7: the store is back: the first question of a new session comes after those of the sessions it never heard of."""
    host = site.host()
    await host.granted(JOHN)
    await host.end()
    host.line.cut.add("*")
    await host.granted(JOHN, "9")
    host.line.cut.clear()
    await host.granted(MARY, "8")
    assert [("ctx-01", "9")] == await site.sessions()
    shown = host.use("9")
    assert shown is not None
    assert shown.grant is not None
    assert Source.STORE is shown.grant.source


async def test_a_heartbeat_counts_them_too(site: Site) -> None:
    """Nobody new has to come for that."""
    host = site.host()
    await host.granted(JOHN)
    await host.end()
    host.line.cut.add("*")
    await host.granted(JOHN, "9")
    host.line.cut.clear()
    await beaten(host)
    assert [("ctx-01", "9")] == await site.sessions()


async def test_without_room_they_are_lost(site: Site) -> None:
    """The lease was given to another meanwhile: the session is told, never silently kept."""
    await site.apply(policy(site, capacity="1"))
    one, two = site.host(), site.host("ctx-02")
    await one.granted(JOHN)
    await one.end()
    one.line.cut.add("*")
    await one.granted(JOHN, "9")
    pool = (await site.farm.policy()).pool("qlikview")
    assert pool is not None
    site.timed.clock.advance(DAY)
    lease = await LeaseAdmin(site.farm).withdraw(
        pool, JOHN, Withdrawal.RETURNED
    )  # fmt: skip
    assert lease is not None
    site.timed.clock.advance(DAY)
    await two.granted(MARY, "8")
    one.line.cut.clear()
    await beaten(one)
    assert {"9": "lost"} == one.states
    assert ([], [("ctx-02", "8")]) == (await site.sessions(JOHN), await site.sessions(MARY))


async def test_a_receipt_ends_with_its_lease(site: Site) -> None:
    """L5: the node counts the store's time on by itself; what ended there lets nobody in here."""
    host = site.host()
    await host.granted(JOHN)
    await host.end()
    host.line.cut.add("*")
    site.timed.clock.advance(30 * DAY - 1)
    assert Source.RECEIPT is (await host.granted(JOHN, "9")).source
    await host.end("9")
    site.timed.clock.advance(1)
    assert Reason.OFFLINE is (await host.denied(JOHN, "10")).reason


async def test_a_receipt_is_for_its_devices(site: Site) -> None:
    """A machine that the lease is not on is for the store to decide about."""
    host = site.host()
    await host.granted(JOHN)
    host.line.cut.add("*")
    assert Source.RECEIPT is (await host.granted(JOHN, "8")).source
    assert Reason.OFFLINE is (await host.denied(JOHN, "9", device="NB-1")).reason


async def test_a_receipt_is_for_one_life_of_the_node(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a boot the store decides; the lease is still restored from the receipt."""
    host = site.host()
    await host.granted(JOHN)
    await host.end()
    host.kill()
    monkeypatch.setattr("farmlease.node.journal.journal.boot_marker", lambda: "another boot")
    host.boot()
    host.line.cut.add("*")
    assert Reason.OFFLINE is (await host.denied(JOHN, "9")).reason


async def test_a_floating_seat_lets_in_who_still_sits_on_it(site: Site) -> None:
    """Without a session here the seat may be anybody's by now; with one on the same device it is shared."""
    await site.apply('[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 2\nreacquire = { attempts = 0 }\n')
    host = site.host()
    await host.granted(JOHN)
    await host.granted(MARY, "8")
    await host.end("8")
    host.line.cut.add("*")
    assert Source.RECEIPT is (await host.granted(JOHN, "9")).source
    assert Reason.OFFLINE is (await host.denied(MARY, "10")).reason
    site.timed.clock.advance(2 * HOUR)
    assert Reason.OFFLINE is (await host.denied(JOHN, "11")).reason


async def test_a_pool_that_counts_sessions_counts_them_without_the_store(site: Site) -> None:
    """A receipt is not a way round ``sessions_per_user``."""
    await site.apply(policy(site, sessions_per_user="1"))
    host = site.host()
    await host.granted(JOHN)
    host.line.cut.add("*")
    assert Reason.OFFLINE is (await host.denied(JOHN, "9")).reason


async def test_a_receipt_that_does_not_open_is_kept_and_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """L6: what was changed or copied lets nobody in; health says so, and the agent goes on."""
    host = site.host()
    await host.granted(JOHN)
    await host.end()
    journal = host.node.state.journal
    (index,) = journal.receipts("qlikview")
    body = journal.receipt(index, "qlikview")
    assert body is not None
    journal.write_receipt(index, "qlikview", body[:-1] + bytes([body[-1] ^ 1]))
    host.line.cut.add("*")
    assert Reason.OFFLINE is (await host.denied(JOHN, "9")).reason
    assert (1, True) == (host.agent.facts().rejected, any("rejected-receipt" in name for name in host.kept))
    host.line.cut.clear()
    assert isinstance(await host.start(JOHN, "10"), Grant)


async def test_an_older_copy_does_not_bring_an_earlier_life_back(farm: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """L3: a session of the life before a boot, held for hours, ends again where the store forgot that it has ended."""
    await farm.apply(policy(farm, max_hold='"4h"'))
    one, two = farm.host(), farm.host("ctx-02")
    await one.granted(JOHN)
    await one.hold("7", 4 * HOUR)
    await beaten(one, two)
    raw = farm.timed.raw
    older = {key: raw.dump(key) for key in raw.keys()}  # noqa: SIM118 - not a dict
    farm.timed.clock.advance(MINUTE)
    one.kill()
    monkeypatch.setattr("farmlease.node.journal.journal.boot_marker", lambda: "another boot")
    one.boot()
    await beaten(one)
    await two.granted(MARY, "8")
    assert [] == await farm.sessions(JOHN)
    raw.flushall()
    for key, value in older.items():
        raw.restore(key, 0, value)
    farm.timed.clock.advance(SECOND)
    for _ in range(3):
        await beaten(one, two)
    assert [] == await farm.sessions(JOHN)


async def test_a_session_that_ended_before_a_boot_takes_no_seat_after_it(
    farm: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L1: what its end names is the life before the boot, so nothing of it may be counted in the next one."""
    with booted(monkeypatch) as reboot:
        host = farm.host()
        ended = await host.granted(JOHN)
        await beaten(host)
        host.line.cut.add("*")
        await host.end()
        host.kill()
        reboot()
        host.boot()
        emptied(farm)
        host.line.cut.clear()
        await beaten(host)
        assert ({}, []) == (host.states, await farm.sessions(JOHN))
        farm.timed.clock.advance(MINUTE)
        again = await host.granted(JOHN)
        assert (False, True) == (again.again, again.fence > ended.fence)


@pytest.mark.parametrize(
    ("rules", "user"),
    [('kind = "floating"\ncapacity = 1', MARY), ('kind = "named"\ncapacity = 1\nsessions_per_user = 1', JOHN)],
)
async def test_a_session_that_ended_with_a_boot_takes_no_place_from_one_that_lives(
    farm: Site, monkeypatch: pytest.MonkeyPatch, rules: str, user: User
) -> None:
    """L7: the store lost both; the place is there for the one that goes on, in whatever order their nodes come."""
    await farm.apply(f'[[pool]]\nname = "qlikview"\n{rules}\n')
    with booted(monkeypatch) as reboot:
        one, two = farm.host(), farm.host("ctx-02")
        await one.granted(JOHN)
        await beaten(one, two)
        one.kill()
        farm.timed.clock.advance(3 * HOUR)
        await two.granted(user, "8")
        emptied(farm)
        reboot()
        one.boot()
        with one.line.holding("restored") as done:
            recovering = asyncio.create_task(one.beat())
            await done()
            await beaten(two)
        await recovering
        assert ({"8": "active"}, [("ctx-02", "8")]) == (two.states, await farm.sessions(user))


async def test_a_lease_lasts_from_the_end_of_its_last_session(farm: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """L7: longer in use than the lease lasts, then the store is lost and the host boots: lease and files are there."""
    await farm.apply(policy(farm, lease='"10m"'))
    with booted(monkeypatch) as reboot:
        host = farm.host()
        johns = await host.granted(JOHN)
        host.write(b"changed")
        farm.timed.clock.advance(HOUR)
        await beaten(host)
        host.kill()
        reboot()
        emptied(farm)
        host.boot()
        for _ in range(2):
            await beaten(host)
        lease = await farm.lease()
        assert lease is not None
        assert (johns.lease.id, [], 2) == (lease.lease.id, await farm.sessions(), await farm.record_version())
        assert 10 * MINUTE - SECOND == lease.lease.expires_at - farm.timed.clock.now_ms, "since it was last heard of"


async def test_a_receipt_is_not_asked_for_where_the_store_answers(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store decides whenever it can."""
    host = site.host()
    await host.granted(JOHN)
    with monkeypatch.context() as patch:
        patch.setattr(Receipts, "is_of_this_life", lambda *_: pytest.fail("a receipt was asked for"))
        await host.granted(JOHN, "9")


async def test_a_leap_of_the_stores_clock_is_told_and_ends_nothing(farm: Site) -> None:
    """The store is an hour ahead of what the node counted: health warns, the session is there, the lease as long."""
    host = farm.host()
    await host.granted(JOHN)
    await beaten(host)
    before = await farm.lease()
    assert before is not None
    with host.asleep():
        farm.timed.clock.advance(3 * HOUR)
    await beaten(host)
    await beaten(host)
    assert 3 * HOUR == host.agent.facts().clock_off_ms
    assert ([("ctx-01", "7")], {"7": "active"}) == (await farm.sessions(), host.states)


async def test_a_clock_that_went_back_is_told(farm: Site) -> None:
    """Nothing ends by that either."""
    host = farm.host()
    await host.granted(JOHN)
    await beaten(host)
    with host.asleep():
        farm.timed.clock.advance(-HOUR)
    await beaten(host)
    assert (-HOUR, [("ctx-01", "7")]) == (host.agent.facts().clock_off_ms, await farm.sessions())


async def test_a_clock_that_stands_still_is_told(farm: Site) -> None:
    """A frozen store keeps everything; the node goes by its own count of the store's time."""
    host = farm.host()
    await host.granted(JOHN)
    await beaten(host)
    host.clock.missed_ms -= HOUR // 2
    await beaten(host)
    assert (-HOUR // 2, [("ctx-01", "7")]) == (host.agent.facts().clock_off_ms, await farm.sessions())
    assert {"7": "active"} == host.states


async def test_a_clock_that_stands_still_is_noticed_however_often_it_is_heard(farm: Site) -> None:
    """Half a minute at a time is no leap, a quarter of an hour of them is; nothing ends when the clock is right again."""
    host = farm.host()
    await host.granted(JOHN)
    await beaten(host)
    for _ in range(30):
        host.clock.missed_ms -= MINUTE // 2
        await beaten(host)
    assert -15 * MINUTE <= host.agent.facts().clock_off_ms <= -14 * MINUTE
    with host.asleep():
        farm.timed.clock.advance(15 * MINUTE)
    await beaten(host)
    await beaten(host)
    assert (0, {"7": "active"}) == (host.agent.facts().clock_off_ms, host.states)


async def test_a_store_that_is_away_longer_than_the_sessions_may_be_silent(site: Site) -> None:
    """L4: the store was there all the time, and others took the seats: the sessions are told with the next heartbeat."""
    await site.apply('[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 1\nreacquire = { attempts = 0 }\n')
    one, two = site.host(), site.host("ctx-02")
    await one.granted(JOHN)
    one.line.cut.add("*")
    site.timed.clock.advance(2 * HOUR)
    await two.granted(MARY, "8")
    one.line.cut.clear()
    await beaten(one)
    assert {"7": "lost"} == one.states


async def test_a_store_that_hangs_holds_up_only_the_first(site: Site) -> None:
    """Once it is known to be away, who holds a receipt waits half a second for it, and no longer."""
    host = site.host()
    await host.granted(JOHN)
    host.line.cut.add("*")
    await host.beat()
    host.line.cut.clear()
    with host.line.holding("acquire"):
        began = asyncio.get_running_loop().time()
        assert Source.RECEIPT is (await host.granted(JOHN, "9")).source
        assert asyncio.get_running_loop().time() - began < within(2)
    await beaten(host)
    assert [("ctx-01", "7"), ("ctx-01", "9")] == await site.sessions()


async def test_a_host_s_clock_that_is_set_moves_no_hold(site: Site) -> None:
    """L5: held for four hours, the host's clock set two days back or ahead: an emptied store gets the same hold back."""
    await site.apply(
        '[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 2\nmax_hold = "4h"\nidle_timeout = "1ms"\n'
    )
    host = site.host()
    await host.beat()
    await host.granted(JOHN)
    until = await host.hold("7", None)
    for hours in (-48, 48):
        host.clock.wrong_ms = hours * HOUR
        site.timed.raw.flushall()
        await host.beat()
        await host.beat()
        lease = await site.lease(JOHN, "clearquest")
        assert lease is not None
        assert [until] == [session.hold_until for session in lease.sessions]
        site.timed.clock.advance(1000)
        await host.node.loops.watch()
        assert {"7": "active"} == host.states


async def test_a_hold_that_was_given_while_the_store_s_clock_stood_still_is_as_long(farm: Site) -> None:
    """L5: still for ten minutes, then held for four hours; the clock runs on, an hour ahead: four hours from there."""
    await farm.apply('[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 2\nmax_hold = "4h"\n')
    host = farm.host()
    await host.granted(JOHN)
    await beaten(host)
    counted = farm.timed.clock.now_ms
    host.clock.missed_ms -= 10 * MINUTE
    assert counted + 4 * HOUR == await host.hold("7", None)
    with host.asleep():
        farm.timed.clock.advance(HOUR)
    await beaten(host)
    await beaten(host)
    lease = await farm.lease(JOHN, "clearquest")
    assert lease is not None
    assert [counted + 10 * MINUTE + 4 * HOUR] == [session.hold_until for session in lease.sessions]


async def test_a_hold_of_a_host_whose_count_began_on_a_clock_that_stood_still_is_as_long(farm: Site) -> None:
    """L5: held ten minutes after the clock stopped; another host's count sets it right, and the hold lasts four hours."""
    await farm.apply('[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 2\nmax_hold = "4h"\n')
    elder = farm.host("ctx-02")
    await beaten(elder)
    stood = farm.timed.clock.now_ms
    elder.clock.missed_ms -= 10 * MINUTE
    host = farm.host()
    await beaten(host)
    await host.granted(JOHN)
    assert stood + 4 * HOUR == await host.hold("7", None)
    with host.asleep(), elder.asleep():
        farm.timed.clock.advance(HOUR)
    await beaten(elder)
    await beaten(host, elder)
    lease = await farm.lease(JOHN, "clearquest")
    assert lease is not None
    assert [stood + 10 * MINUTE + 4 * HOUR] == [session.hold_until for session in lease.sessions]


@pytest.mark.parametrize("ended", [True, False])
async def test_a_fence_survives_the_agent_and_the_store(farm: Site, *, ended: bool) -> None:
    """L4: granted, ended or not, the store emptied and its clock an hour back, the agent killed: the next is higher."""
    host = farm.host()
    await beaten(host)
    johns = await host.granted(JOHN)
    if ended:
        await host.end()
    with host.asleep():
        farm.timed.clock.advance(-HOUR)
    host.kill()
    emptied(farm)
    host.boot()
    assert johns.fence == host.node.state.store_state.known("qlikview").fence
    await beaten(host)
    await beaten(host)
    marys = await host.granted(MARY, "8")
    assert johns.fence < marys.fence
