"""The story of a session on its host, in one process: production agents on a store whose clock the test sets."""

import asyncio

import pytest

from farmlease.domain.model import Denial, Grant, Reason, Restricted, SessionRequest
from farmlease.errors import PolicyError
from farmlease.seal import KeyRing
from farmlease.store.answers import Claim, Taken, Taking
from tests.nodes import FARM, JOHN, MARY, Site, booted
from tests.seats import contents
from tests.stores import DAY, HOUR, index

MINUTE = 60_000


# --- a start, and the same again ------------------------------------------------------------------------------------------


async def test_a_start_and_the_same_again(site: Site) -> None:
    """L3: asking again for the same session gives the same answer and takes nothing."""
    host = site.host()
    first = await host.granted(JOHN)
    again = await host.granted(JOHN, pool="qlikview")
    assert (False, True) == (first.again, again.again)
    assert (first.fence, first.lease) == (again.fence, again.lease)
    assert [("ctx-01", "7")] == await site.sessions()
    assert {"7": "active"} == host.states


async def test_a_start_is_one_round_trip(site: Site) -> None:
    """What a logon waits for is one question to the store, once the node has shown that it lives."""
    host = site.host()
    await host.beat()
    host.line.calls.clear()
    await host.granted(JOHN)
    assert ["acquire"] == host.line.calls


async def test_another_user_on_the_same_session_id_ends_the_first(site: Site) -> None:
    """Hosts reuse session ids: john's old session 7 is over when mary comes with 7."""
    host = site.host()
    await host.granted(JOHN)
    await host.granted(MARY)
    assert ([], [("ctx-01", "7")]) == (await site.sessions(JOHN), await site.sessions(MARY))
    assert [MARY] == [each.user for each in host.agent.sessions()]


async def test_another_device_on_the_same_session_id_ends_the_first(site: Site) -> None:
    """The same user from his notebook is another session, even under the same id."""
    host = site.host()
    await host.granted(JOHN)
    grant = await host.granted(JOHN, device="nb-1")
    assert ("nb-1", False) == (grant.device, grant.again)
    lease = await site.lease()
    assert lease is not None
    assert ["nb-1"] == [each.device for each in lease.sessions]


async def test_another_pool_on_the_same_session_id_ends_the_first(site: Site) -> None:
    """The same id with an app that belongs to another pool is another session, though no pool is named."""
    await site.apply(site.policy + '[[pool]]\nname = "clearquest"\nkind = "named"\ncapacity = 1\n')
    host = site.host()
    await host.granted(JOHN, app="qlikview")
    grant = await host.granted(JOHN, app="clearquest")
    assert "clearquest" == grant.pool
    assert [] == await site.sessions(JOHN)
    assert [("ctx-01", "7")] == await site.sessions(JOHN, "clearquest")


async def test_pools_are_tried_in_order(site: Site) -> None:
    """The second pool serves who finds the first one full, and asking again keeps to the seat that is held."""
    one = '[[pool]]\nname = "{}"\nkind = "named"\ncapacity = 1\n'
    rule = '[[rule]]\napps = ["designer"]\npools = ["first", "second"]\n'
    await site.apply(one.format("first") + one.format("second") + rule)
    host = site.host()
    assert "first" == (await host.granted(MARY, "1", app="designer")).pool
    assert "second" == (await host.granted(JOHN, "2", app="designer")).pool
    again = await host.granted(JOHN, "2", app="designer")
    assert ("second", True) == (again.pool, again.again)


async def test_fifty_at_once_for_one_session_are_one(site: Site) -> None:
    """A hook that was started fifty times takes one seat: one new grant, forty-nine times the same."""
    host = site.host()
    answers = await asyncio.gather(*(host.granted(JOHN) for _ in range(50)))
    assert [False] + [True] * 49 == sorted(answer.again for answer in answers)
    assert 1 == len({answer.fence for answer in answers})
    assert [("ctx-01", "7")] == await site.sessions()


async def test_fifty_sessions_at_once_of_one_user_are_one_seat(site: Site) -> None:
    """L2: one user with fifty sessions has one lease, and his files are put in place and removed once."""
    host = site.host()
    await asyncio.gather(*(host.granted(JOHN, str(number)) for number in range(50)))
    assert 50 == len(await site.sessions())
    host.write(b"changed")
    await asyncio.gather(*(host.end(str(number)) for number in range(50)))
    assert (None, 2, []) == (host.read(), await site.record_version(), await site.sessions())


async def test_a_denial_explains_itself(site: Site) -> None:
    """L8: which limit, how many hold it, and when the first seat is free."""
    await site.apply(site.policy.replace("capacity = 3", "capacity = 1"))
    host = site.host()
    await host.granted(JOHN)
    await host.end()
    denial = await host.denied(MARY)
    assert (Reason.CAPACITY, 1, 1) == (denial.reason, denial.held, denial.capacity)
    assert site.timed.clock.now_ms + 30 * DAY == denial.retry_at
    assert {} == host.states


async def test_ending_twice_and_what_never_was(site: Site) -> None:
    """An end is an end, however often it is told."""
    host = site.host()
    await host.granted(JOHN)
    for _ in range(3):
        await host.end()
    await host.end("never")
    assert ({}, []) == (host.states, await site.sessions())


# --- who may ------------------------------------------------------------------------------------------------------------


async def test_nobody_ends_or_takes_over_the_session_of_another(site: Site) -> None:
    """A caller without rights cannot touch another's session, not even one that is just being started."""
    host = site.host()
    with host.line.holding("acquire") as asked:
        starting = asyncio.create_task(host.granted(JOHN))
        await asked()
        attacks = [
            asyncio.create_task(host.agent.end_session("7", only=MARY)),
            asyncio.create_task(host.agent.save_session("7", only=MARY)),
            asyncio.create_task(host.agent.start_session(SessionRequest(user=MARY, session="7"), only=MARY)),
        ]
        await asyncio.sleep(0)
    await starting
    *verbs, start = [await attack for attack in attacks]
    assert [False, None] == verbs
    assert isinstance(start, Denial)
    assert Reason.NOT_ENTITLED is start.reason
    assert {"7": "active"} == host.states


# --- the policy changes while the agent runs -----------------------------------------------------------------------------


async def test_without_a_policy_nobody_is_let_in(site: Site) -> None:
    """No policy is no permission, and health says so."""
    site.timed.raw.flushall()
    host = site.host()
    denial = await host.denied(JOHN)
    assert Reason.UNKNOWN_POOL is denial.reason
    assert not host.agent.facts().policy_known
    await site.apply(site.policy)
    await host.granted(JOHN)


async def test_a_lower_capacity_counts_at_the_next_decision(site: Site) -> None:
    """A policy applied while agents run is in force for the very next start, without a heartbeat in between."""
    host = site.host()
    await host.granted(JOHN)
    await site.apply(site.policy.replace("capacity = 3", "capacity = 1"))
    assert Reason.CAPACITY is (await host.denied(MARY, "8")).reason


async def test_a_running_session_stays_over_a_change_of_policy(site: Site) -> None:
    """Asking again for a running session after another policy was applied changes nothing for it."""
    host = site.host()
    first = await host.granted(JOHN)
    await site.apply(site.policy.replace("capacity = 3", "capacity = 5"))
    again = await host.granted(JOHN)
    assert (True, first.fence, {"7": "active"}) == (again.again, again.fence, host.states)
    await site.apply(site.policy.replace("capacity = 3", "capacity = 6"))
    await host.beat()
    assert {"7": "active"} == host.states


@pytest.mark.parametrize(("access", "answer"), [("denied", Denial), ("restricted", Restricted)])
async def test_a_rule_counts_at_the_next_decision(site: Site, access: str, answer: type) -> None:
    """A rule against john holds from his next start on; the session he asks again for is over."""
    host = site.host()
    await host.granted(JOHN)
    await site.apply(f"{site.policy}[[rule]]\nusers = ['corp\\john']\naccess = \"{access}\"\n")
    assert isinstance(await host.start(JOHN), answer)
    assert ({}, []) == (host.states, await site.sessions())
    await host.granted(MARY)


async def test_a_rule_that_is_gone_lets_in(site: Site) -> None:
    """A denial by the policy that the agent knows is checked against the one in force before it is given."""
    await site.apply(f'{site.policy}[[rule]]\naccess = "denied"\n')
    host = site.host()
    assert Reason.NOT_ENTITLED is (await host.denied(JOHN)).reason
    await site.apply(site.policy)
    await host.granted(JOHN)


async def test_a_removed_pool_grants_nothing_and_its_sessions_are_lost(site: Site) -> None:
    """Nobody goes on with a seat of a pool that is no more: the next heartbeat tells, and the files come back."""
    other = '[[pool]]\nname = "clearquest"\nkind = "named"\ncapacity = 1\n'
    await site.apply(site.policy + other)
    host = site.host()
    await host.granted(JOHN, pool="qlikview")
    host.write(b"changed")
    await site.apply(other)
    assert Reason.UNKNOWN_POOL is (await host.denied(MARY, "8", pool="qlikview")).reason
    await host.beat()
    assert ({"7": "lost"}, None) == (host.states, host.read())
    await site.apply(site.policy + other)
    assert ([], 2) == (await site.sessions(), await site.record_version())


async def test_a_removed_pool_is_known_to_nodes_that_know_the_old_policy(site: Site) -> None:
    """A node that has not read the new policy yet cannot grant from a pool that it removed."""
    other = '[[pool]]\nname = "clearquest"\nkind = "named"\ncapacity = 1\n'
    await site.apply(site.policy + other)
    host = site.host()
    await host.beat()
    await site.apply(other)
    assert Reason.UNKNOWN_POOL is (await host.denied(JOHN, pool="qlikview")).reason


async def test_limits_of_two_policies_are_never_mixed(site: Site) -> None:
    """L1: a policy that is read while a start waits for the store never gives its version to the older one's limits."""
    host = site.host()
    await host.beat()
    site.timed.clock.advance(2 * HOUR)
    with host.line.holding("acquire") as asked:
        starting = asyncio.create_task(host.start(JOHN))
        await asked()
        await site.apply(site.policy.replace("capacity = 3", "capacity = 1"))
        host.line.cut.add("heartbeat")
        await host.agent.beat()
        host.line.cut.clear()
        site.timed.raw.delete(*site.timed.raw.keys("*qlikview*"))
    await starting
    await host.beat()
    assert b"1" == contents(site.timed.raw)["meta"][b"capacity"]


async def test_an_older_policy_does_not_come_back(site: Site) -> None:
    """A store that lost its data, and the policy with it, is no administrator's decision: nodes go by what they know."""
    host = site.host()
    await host.granted(JOHN)
    site.timed.raw.flushall()
    await host.beat()
    assert host.agent.facts().policy_known
    await host.granted(MARY, "8")


async def test_a_key_ring_of_another_farm_is_told_clearly(site: Site) -> None:
    """A node that cannot open the policy grants nothing, fails its health check and says what to do."""
    host = site.host(ring=KeyRing.generate(0))
    with pytest.raises(PolicyError, match="does not open with this node's key ring"):
        await host.start(JOHN)
    await host.beat()
    assert "key ring" in (host.agent.facts().policy_trouble or "")


async def test_a_heartbeat_too_slow_for_the_policy_is_told(site: Site) -> None:
    """Impossible timing is not served in silence: the node says which pool its heartbeat is too slow for."""
    host = site.host()
    await site.apply(site.policy.replace("capacity = 3", 'capacity = 3\nsession_timeout = "2m"'))
    await host.beat()
    assert "session_timeout 2m" in (host.agent.facts().policy_trouble or "")
    await site.apply(site.policy)
    await host.beat()
    assert host.agent.facts().policy_trouble is None


async def test_draining(site: Site) -> None:
    """A draining node takes nobody new, whoever has a session here may come back, and it remembers that."""
    host = site.host()
    await host.granted(JOHN)
    host.agent.drain(on=True)
    host = host.restart()
    assert Reason.DRAINING is (await host.denied(MARY, "8")).reason
    assert (await host.granted(JOHN)).again
    await host.granted(JOHN, "9")
    host.agent.drain(on=False)
    await host.granted(MARY, "8")


# --- heartbeats ---------------------------------------------------------------------------------------------------------


async def test_a_silent_node_learns_what_it_lost(site: Site) -> None:
    """L4: silent from 09:00 to 11:00, told at its next heartbeat; the files come back and leave, and the store hears it."""
    host = site.host()
    await host.granted(JOHN)
    host.write(b"changed at 10:00")
    site.timed.clock.advance(2 * HOUR)
    await host.beat()
    assert ({"7": "lost"}, None, 2) == (host.states, host.read(), await site.record_version())
    assert "sessions" not in contents(site.timed.raw)
    await host.end()
    assert {} == host.states


async def test_a_lost_session_can_be_started_again(site: Site) -> None:
    """Who asks again for a lost session gets a new seat, and the files with it."""
    host = site.host()
    first = await host.granted(JOHN)
    host.write(b"changed")
    site.timed.clock.advance(2 * HOUR)
    await host.beat()
    second = await host.granted(JOHN)
    assert (False, True) == (second.again, second.fence > first.fence)
    assert ({"7": "active"}, b"changed") == (host.states, host.read())


async def test_a_session_started_anew_is_not_lost_by_an_old_word(site: Site) -> None:
    """L4: the start that finds its node lapsed gets a new seat; the word of the old one does not take it."""
    host = site.host()
    await host.granted(JOHN)
    site.timed.clock.advance(2 * HOUR)
    anew = await host.granted(JOHN)
    await host.agent.settled()
    await host.beat()
    assert (False, {"7": "active"}) == (anew.again, host.states)
    assert [("ctx-01", "7")] == await site.sessions()


async def test_an_emptied_store_is_told_about_each_session(site: Site) -> None:
    """L7: after FLUSHALL the next heartbeat notices, and every live session is counted again, its files with it."""
    host = site.host()
    await host.granted(JOHN)
    await host.granted(MARY, "8")
    host.write(b"john's")
    site.timed.raw.flushall()
    await host.beat()
    assert {"7": "active", "8": "active"} == host.states
    await host.beat()
    await site.apply(site.policy)
    assert ([("ctx-01", "7")], [("ctx-01", "8")]) == (await site.sessions(JOHN), await site.sessions(MARY))
    await host.end()
    assert (None, 2) == (host.read(), await site.record_version())


async def test_who_finds_no_seat_any_more_is_lost(site: Site) -> None:
    """L4: a session that the store forgot and has no seat for is told so; it does not go on in silence."""
    host, other = site.host(), site.host("ctx-02")
    await site.apply(site.policy.replace("capacity = 3", "capacity = 1"))
    await host.granted(JOHN)
    host.write(b"changed")
    site.timed.raw.flushall()
    site.timed.clock.advance(MINUTE)
    await site.apply(site.policy.replace("capacity = 3", "capacity = 1"))
    await other.granted(MARY)
    await host.beat()
    assert ({"7": "lost"}, None) == (host.states, host.read())
    assert [("lease-gone", b"changed")] == host.kept


async def test_the_same_difference_is_looked_into_once(site: Site) -> None:
    """Sessions that only the store counts cannot be helped from here; each heartbeat must not ask about all again."""
    host = site.host()
    await host.granted(JOHN)
    (member,) = (name for name in contents(site.timed.raw)["nodes"] if not name[0].startswith(b"!"))
    node = member[0].decode()
    claim = Claim(user=index("ghost"), node=node, session="ghost")
    taking = Taking(device=FARM, lease_id="x", record=b"x", name=b"x")
    in_force = await site.farm.policy()
    assert isinstance(await site.farm.store.acquire(in_force.pools[0], in_force.version, claim, taking), Taken)
    host.line.calls.clear()
    for _ in range(3):
        await host.beat()
    assert 1 == host.line.calls.count("acquire")


async def test_one_pool_that_is_refused_does_not_silence_the_others(site: Site) -> None:
    """A heartbeat that the store refuses for one pool still keeps the sessions of the others alive."""
    await site.apply('[[pool]]\nname = "aaa"\nkind = "named"\ncapacity = 1\n' + site.policy)
    host = site.host()
    await host.granted(JOHN, pool="qlikview")
    site.timed.raw.set("fl:{citrix-a/aaa/0}:meta", "no hash")
    site.timed.clock.advance(HOUR)
    await host.beat()
    assert not host.agent.facts().store_answers
    site.timed.clock.advance(HOUR + 59 * MINUTE)
    assert [("ctx-01", "7")] == await site.sessions()


# --- the agent's and the host's own life -----------------------------------------------------------------------------------


async def test_a_restarted_agent_adopts_its_sessions(site: Site) -> None:
    """L7: kill -9 of the agent within one boot is not visible outside."""
    host = site.host()
    first = await host.granted(JOHN)
    host.write(b"changed")
    host = host.restart()
    await host.beat()
    assert {"7": "active"} == host.states
    again = await host.granted(JOHN)
    assert (True, first.fence) == (again.again, again.fence)
    await host.end()
    assert ([], 2) == (await site.sessions(), await site.record_version())


async def test_a_start_that_was_killed_leaves_no_seat(site: Site) -> None:
    """L3: the agent is killed after the store has committed and before it heard: the next one gives the seat back."""
    host = site.host()
    await host.beat()
    with host.line.holding("acquire") as asked:
        starting = asyncio.create_task(host.start(JOHN))
        await asked()
        assert [("ctx-01", "7")] == await site.sessions()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        host.kill()
    host.boot()
    assert {} == host.states
    await host.beat()
    assert [] == await site.sessions()


async def test_a_reboot_ends_the_old_life(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reboot ends the old life's sessions at the first heartbeat, not after 120 min, and takes their files back."""
    with booted(monkeypatch) as reboot:
        host = site.host()
        await host.granted(JOHN)
        host.write(b"changed")
        host.kill()
        reboot()
        host.boot()
        await host.agent.settled()
        await host.beat()
        assert ({}, None) == (host.states, host.read())
        assert ([], 2) == (await site.sessions(), await site.record_version())


async def test_two_reboots_while_the_store_is_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every life that the store was not told of is ended, not only the last one."""
    with booted(monkeypatch) as reboot:
        host = site.host()
        await host.granted(JOHN)
        for _ in range(2):
            host.kill()
            host.line.cut.add("*")
            reboot()
            host.boot()
            await host.beat()
        host.line.cut.clear()
        await host.beat()
        assert [] == await site.sessions()
        host.line.calls.clear()
        await host.beat()
        assert 1 == host.line.calls.count("heartbeat")


async def test_the_policy_is_known_to_an_agent_that_starts_without_the_store(site: Site) -> None:
    """An agent that starts while the store is away knows pools and files, so that ends lose nothing."""
    host = site.host()
    await host.granted(JOHN)
    host.write(b"changed")
    host.kill()
    host.line.cut.add("*")
    host.boot()
    await host.beat()
    assert host.agent.facts().policy_known
    await host.end()
    assert None is host.read()
    host.line.cut.clear()
    await host.beat()
    assert ([], 2) == (await site.sessions(), await site.record_version())


# --- the store is away ------------------------------------------------------------------------------------------------------


async def test_an_offline_denial_leaks_nothing(site: Site) -> None:
    """While the store is away nobody new is let in, and nothing of the attempt is left when it is back."""
    host = site.host()
    await host.beat()
    host.line.cut.add("*")
    denial = await host.denied(JOHN)
    assert (Reason.OFFLINE, site.timed.clock.now_ms + MINUTE) == (denial.reason, denial.retry_at)
    assert {} == host.states
    host.line.cut.clear()
    await host.beat()
    assert (0, []) == (host.agent.facts().owed, await site.sessions())
    await host.granted(JOHN)


async def test_a_lost_answer_leaves_no_seat(site: Site) -> None:
    """L3: the store has committed and its answer is lost: the seat is given back, and the next start is a new one."""
    host = site.host()
    await host.beat()
    host.line.deaf.add("acquire")
    assert Reason.OFFLINE is (await host.denied(JOHN)).reason
    host.line.deaf.clear()
    await host.beat()
    assert [] == await site.sessions()
    assert not (await host.granted(JOHN)).again


async def test_a_lost_answer_and_the_same_question_again(site: Site) -> None:
    """L3: who asks again at once, before anything was tidied up, gets one seat."""
    host = site.host()
    await host.beat()
    host.line.deaf.add("acquire")
    await host.denied(JOHN)
    host.line.deaf.clear()
    await host.granted(JOHN)
    assert ([("ctx-01", "7")], {"7": "active"}) == (await site.sessions(), host.states)
    await host.beat()
    assert [("ctx-01", "7")] == await site.sessions()


async def test_a_running_session_is_confirmed_without_the_store(site: Site) -> None:
    """Who has a session here keeps it while the store is away."""
    host = site.host()
    await host.granted(JOHN)
    host.line.cut.add("*")
    assert (await host.granted(JOHN)).again


async def test_ends_and_files_wait_for_the_store(site: Site) -> None:
    """Ends and changed files outlive an outage and a kill -9 of the agent, and arrive once."""
    host = site.host()
    await host.granted(JOHN)
    host.write(b"changed")
    host.line.cut.add("*")
    await host.end()
    assert ({}, None, 2) == (host.states, host.read(), host.agent.facts().owed)
    await host.end()
    assert 2 == host.agent.facts().owed
    host = host.restart()
    host.line.cut.clear()
    host.line.deaf.add("save")
    await host.beat()
    host.line.deaf.clear()
    await host.beat()
    await host.beat()
    assert (0, [], 2) == (host.agent.facts().owed, await site.sessions(), await site.record_version())
    await site.host("ctx-02").granted(JOHN)
    assert b"changed" == site.hosts[1].read()


async def test_a_start_waits_until_the_store_knows_the_end_before(site: Site) -> None:
    """The end of the session that had this id before must not reach the store after the new one's start."""
    host = site.host()
    await host.granted(JOHN)
    host.line.cut.add("release")
    await host.end()
    assert Reason.OFFLINE is (await host.denied(MARY)).reason
    host.line.cut.clear()
    await host.granted(MARY)
    await host.beat()
    assert ([], [("ctx-01", "7")]) == (await site.sessions(JOHN), await site.sessions(MARY))


async def test_what_was_saved_here_is_there_before_the_store_has_it(site: Site) -> None:
    """A user who comes back before his files reached the store finds them as he left them, and nothing is a conflict."""
    host = site.host()
    await host.granted(JOHN)
    host.write(b"changed")
    host.line.cut.add("save")
    await host.end()
    await host.granted(JOHN, "8")
    assert b"changed" == host.read()
    host.line.cut.clear()
    await host.beat()
    host.write(b"changed again")
    await host.end("8")
    assert (3, []) == (await site.record_version(), host.kept)


async def test_a_debt_that_is_refused_holds_up_nobody_else(site: Site) -> None:
    """What the store does not take stays owed and is told by health; the others' ends arrive all the same."""
    host = site.host()
    await host.granted(JOHN)
    await host.granted(MARY, "8")
    host.write(b"changed")
    host.line.refused.add("save")
    await host.end()
    await host.end("8")
    await host.beat()
    facts = host.agent.facts()
    assert (1, 1, True) == (facts.owed, facts.refused, facts.store_answers)
    assert ([], []) == (await site.sessions(JOHN), await site.sessions(MARY))
    host.line.refused.clear()
    await host.beat()
    assert (0, 0) == (host.agent.facts().owed, host.agent.facts().refused)
    assert 2 == await site.record_version()


async def test_many_who_wait_for_a_hanging_store_wait_together(site: Site) -> None:
    """Fifty logoffs while the store hangs ask it twice, not fifty times one after the other."""
    host = site.host()
    for number in range(50):
        await host.granted(JOHN, str(number))
    host.line.deaf.add("release")
    host.line.calls.clear()
    with host.line.holding("release"):
        ends = [asyncio.create_task(host.end(str(number))) for number in range(50)]
        while host.agent.facts().owed < 50:
            await asyncio.sleep(0.001)
    await asyncio.gather(*ends)
    assert 2 == host.line.calls.count("release")


async def test_a_caller_who_goes_away_leaves_nothing_halfway(site: Site) -> None:
    """A client that disconnects in the middle of its start leaves a session in due form, or none; never a lost seat."""
    host = site.host()
    await host.beat()
    with host.line.holding("acquire") as asked:
        starting = asyncio.create_task(host.start(JOHN))
        await asked()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    await host.agent.settled()
    assert ({"7": "active"}, [("ctx-01", "7")]) == (host.states, await site.sessions())
    assert (await host.granted(JOHN)).again


async def test_a_fault_in_the_middle_of_a_start_leaves_no_seat(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised between question and answer, a fault of ours included, the seat goes back."""
    host = site.host()
    await host.beat()
    with monkeypatch.context() as patch:
        patch.setattr("farmlease.node.seats.Grant", None)
        with pytest.raises(TypeError):
            await host.start(JOHN)
    await host.beat()
    assert ({}, [], None) == (host.states, await site.sessions(), host.read())
    assert isinstance(await host.start(JOHN), Grant)
