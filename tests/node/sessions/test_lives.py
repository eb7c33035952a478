"""What a heartbeat brings to light, and what a restart or a reboot leaves behind."""

import asyncio

import pytest

from farmlease.store.answers.session import Claim, Taken, Taking
from tests.support.nodes import FARM, JOHN, MARY, Site, booted
from tests.support.seats import contents
from tests.support.stores import HOUR, index

MINUTE = 60_000


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


async def test_who_slept_too_long_asks_first(site: Site) -> None:
    """L4: asleep from 09:00 to 11:00; whoever asks meanwhile waits for one heartbeat, all together, and is told."""
    host = site.host()
    await host.granted(JOHN)
    await host.beat()
    host.line.calls.clear()
    await host.node.loops.awake()
    assert [] == host.line.calls
    site.timed.clock.advance(2 * HOUR)
    await asyncio.gather(*(host.node.loops.awake() for _ in range(20)))
    assert ({"7": "lost"}, 1) == (host.states, host.line.calls.count("heartbeat"))


async def test_who_wakes_in_an_outage(site: Site) -> None:
    """With the store away it is an outage like any other: one attempt, then sessions are shown as they were."""
    host = site.host()
    await host.granted(JOHN)
    await host.beat()
    site.timed.clock.advance(2 * HOUR)
    host.line.cut.add("*")
    await host.node.loops.awake()
    host.line.calls.clear()
    await host.node.loops.awake()
    assert ({"7": "active"}, []) == (host.states, host.line.calls)
    host.line.cut.clear()
    await host.beat()
    assert {"7": "lost"} == host.states


async def test_an_agent_that_starts_asks_first(site: Site) -> None:
    """L4: how long its forerunner has been dead nobody told it."""
    host = site.host()
    await host.granted(JOHN)
    host.kill()
    site.timed.clock.advance(2 * HOUR)
    host.boot()
    await host.node.loops.awake()
    await host.agent.settled()
    assert {"7": "lost"} == host.states


async def test_the_same_difference_is_looked_into_once(site: Site) -> None:
    """Sessions that only the store counts cannot be helped from here; each heartbeat must not ask about all again."""
    host = site.host()
    await host.granted(JOHN)
    (member,) = (name for name in contents(site.timed.raw)["nodes"] if not name[0].startswith(b"!"))
    node = member[0].decode()
    claim = Claim(user=index("ghost"), node=node, session="ghost")
    taking = Taking(device=FARM, lease_id="x", record=b"x", name=b"x")
    in_force = await site.farm.policy()
    assert isinstance(await site.farm.leases.acquire(in_force.pools[0], in_force.version, claim, taking), Taken)
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
    facts = host.agent.facts()
    assert (True, True) == (facts.store_answers, "fl:{citrix-a/aaa/0}:meta" in str(facts.store_damage))
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
    host.line.cut.clear()
    await host.beat()
    assert ([], 2, None) == (await site.sessions(), await site.record_version(), host.read())
