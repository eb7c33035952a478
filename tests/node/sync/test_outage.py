"""The store is away, deaf, hanging, or says no: nothing leaks, and what was owed arrives once."""

import asyncio

import pytest

from farmlease.domain.model import Grant, Reason
from farmlease.domain.wording import moment
from farmlease.errors import StoreUnavailable
from farmlease.node.journal.outbox import ReleaseMessage
from tests.support.nodes import JOHN, MARY, Site

MINUTE = 60_000


async def test_an_offline_denial_leaks_nothing(site: Site) -> None:
    """While the store is away nobody new is let in, and nothing of the attempt is left when it is back."""
    host = site.host()
    await host.beat()
    host.line.cut.add("*")
    denial = await host.denied(JOHN)
    assert (Reason.OFFLINE, site.timed.clock.now_ms + MINUTE) == (denial.reason, denial.retry_at)
    assert denial.detail.endswith(f"; try again at {moment(site.timed.clock.now_ms + MINUTE)}.")
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
    # Whether another host's session uses the file on a shared disk, only the store knows.
    assert ({}, b"changed", 2) == (host.states, host.read(), host.agent.facts().owed)
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
    assert host.read() is None
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


async def test_a_debt_copied_from_another_node_is_not_delivered(site: Site) -> None:
    """L6: an entry of another host's journal does not open here: it is kept, and ends nothing."""
    one, two = site.host(), site.host("ctx-02")
    await two.granted(JOHN)
    two.line.cut.add("*")
    await two.end()
    owed = two.node.state.journal.next_message(0)
    assert owed is not None
    one.node.state.journal.add_message(owed.session, owed.pool, owed.body)
    await one.beat()
    assert (0, [("ctx-02", "7")]) == (one.agent.facts().owed, await site.sessions(JOHN))
    assert [(f"rejected-message-{owed.number}", owed.body)] == one.kept


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


async def test_a_heartbeat_leaves_a_start_under_way_alone(site: Site) -> None:
    """What looks unfinished may just be waiting for the store."""
    host = site.host()
    await host.beat()
    with host.line.holding("acquire") as asked:
        starting = asyncio.create_task(host.granted(JOHN))
        await asked()
        await host.node.loops.beat()
    await starting
    await host.beat()
    assert ({"7": "active"}, [("ctx-01", "7")]) == (host.states, await site.sessions())


async def test_a_fault_in_the_middle_of_a_start_leaves_no_seat(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised between question and answer, a fault of ours included, the seat goes back."""
    host = site.host()
    await host.beat()
    with monkeypatch.context() as patch:
        patch.setattr("farmlease.node.sessions.grant.Grant", None)
        with pytest.raises(TypeError):
            await host.start(JOHN)
    await host.beat()
    assert ({}, [], None) == (host.states, await site.sessions(), host.read())
    assert isinstance(await host.start(JOHN), Grant)


async def test_a_strange_store_is_reported_even_if_the_store_goes_away_in_the_same_round(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a cut-short delivery found out is in the report of the next one."""
    host = site.host()
    delivery, outbox = host.node.sync.delivery, host.node.state.outbox
    claim = host.node.state.sessions.claim_of(JOHN, "7")
    for pool in ("one", "two"):
        outbox.add(ReleaseMessage(pool=pool, claim=claim, fence=1))
    away = [True]

    async def sent(number: int, message: ReleaseMessage) -> bool:
        if message.pool == "two" and away:
            raise StoreUnavailable("away: the test wanted it to be")
        if message.pool == "two":
            outbox.settle(number)
        return message.pool == "two"

    monkeypatch.setattr(delivery, "_send", sent)
    with pytest.raises(StoreUnavailable):
        await delivery.deliver()
    away.clear()
    assert {"one"} == (await delivery.deliver()).strange
