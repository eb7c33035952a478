"""The story of a session on its host, in one process: production agents on a store whose clock the test sets."""

import asyncio

import pytest

from farmlease.crypto.keyring import KeyRing
from farmlease.domain import denial_text
from farmlease.domain.model import Denial, Reason, Restricted, SessionRequest
from farmlease.errors import PolicyError
from tests.support.nodes import JOHN, MARY, Site
from tests.support.seats import contents
from tests.support.stores import DAY, HOUR

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
    assert [MARY] == [each.user for each in host.agent.all_uses()]


async def test_another_device_moves_the_use(site: Site) -> None:
    """The same session from another device keeps its seat and its fence, and is on that device from then on."""
    host = site.host()
    first = await host.granted(JOHN)
    grant = await host.granted(JOHN, device="nb-1")
    assert ("nb-1", True, first.fence) == (grant.device, grant.again, grant.fence)
    assert "nb-1" == host.agent.uses("7")[0].device
    lease = await site.lease()
    assert lease is not None
    assert ["nb-1"] == [each.device for each in lease.sessions]


async def test_another_pool_adds_a_use(site: Site) -> None:
    """The same id with an app that belongs to another pool is a second use, and the first is not touched."""
    await site.apply(site.policy + '[[pool]]\nname = "clearquest"\nkind = "named"\ncapacity = 1\n')
    host = site.host()
    first = await host.granted(JOHN, app="qlikview")
    grant = await host.granted(JOHN, app="clearquest")
    assert "clearquest" == grant.pool
    for pool in ("qlikview", "clearquest"):
        assert [("ctx-01", "7")] == await site.sessions(JOHN, pool)
    assert [first.fence, grant.fence] == [each.grant and each.grant.fence for each in reversed(host.agent.uses("7"))]


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
    assert [False, []] == verbs
    assert isinstance(start, Denial)
    assert Reason.NOT_ENTITLED is start.reason
    assert {"7": "active"} == host.states


# --- the policy changes while the agent runs -----------------------------------------------------------------------------


async def test_without_a_policy_nobody_is_let_in(site: Site) -> None:
    """No policy is no permission, and health says so."""
    site.timed.raw.flushall()
    host = site.host()
    denial = await host.denied(JOHN)
    assert (Reason.OFFLINE, denial_text.NO_POLICY) == (denial.reason, denial.detail)
    assert denial.retry_at is not None
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
    """A rule against john holds from his next start on; what he has is not touched until its host ends it."""
    host = site.host()
    await host.granted(JOHN)
    await site.apply(f"{site.policy}[[rule]]\nusers = ['corp\\john']\naccess = \"{access}\"\n")
    assert isinstance(await host.start(JOHN), answer)
    assert ({"7": "active"}, [("ctx-01", "7")]) == (host.states, await site.sessions())
    await host.end()
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
        await host.node.loops.beat()
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
