"""A session that lost its seat: what its host sees, when it tries again, and how that ends."""

from collections.abc import Iterator

import pytest

from farmlease.admin.leases import LeaseAdmin
from farmlease.domain.model import Grant, Withdrawal
from tests.support.nodes import JOHN, MARY, Host, Site
from tests.support.timelines import Day, day_on

POOL = """\
[[pool]]
name = "clearquest"
kind = "floating"
capacity = 1
session_timeout = "120m"
reacquire = { attempts = 3, every = "10m" }
"""


@pytest.fixture
def day(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Day]:
    """A day on the site."""
    with day_on(site, monkeypatch) as made:
        yield made


async def john_is_silent(day: Day, policy: str = POOL) -> tuple[Host, Host, Grant]:
    """09:00 john on ctx-01, which falls silent; 11:00 mary has the only seat; 11:30 ctx-01 is heard again."""
    await day.site.apply(policy)
    first, second = day.site.host("ctx-01"), day.site.host("ctx-02")
    grant = await first.granted(JOHN)
    await day.at("10:59", second)
    await second.denied(MARY)
    await day.at("11:00", second)
    await second.granted(MARY)
    assert {"7": "active"} == first.states
    await day.at("11:30", first, second)
    return first, second, grant


async def test_a_session_without_its_seat_is_shown_as_invalid(day: Day) -> None:
    """11:00 the seat is another's; 11:30 the node is heard again: its session is invalid, and no hook says lost yet."""
    first, _, _ = await john_is_silent(day)
    found = first.use("7")
    assert found is not None
    assert ("invalid", "timeout") == (found.state.value, found.lost_because)
    assert ["granted 7", "granted 7"] == day.hooks
    assert [] == await day.site.sessions(JOHN, "clearquest")


async def test_the_seat_is_free_again_at_the_third_attempt(day: Day) -> None:
    """11:30 invalid, 11:40 and 11:50 in vain, 11:55 mary leaves, 12:00 the same session is active with a new fence."""
    first, second, grant = await john_is_silent(day)
    await day.at("11:59", second)
    assert {"7": "invalid"} == first.states
    await second.end()
    await day.at("12:00")
    found = first.use("7")
    assert found is not None
    assert found.grant is not None
    assert ("active", "7", None) == (found.state.value, found.grant.session, found.lost_because)
    assert found.grant.fence > grant.fence
    assert [("ctx-01", "7")] == await day.site.sessions(JOHN, "clearquest")
    await day.at("13:00", first)
    assert ({"7": "active"}, []) == (first.states, [line for line in day.hooks if line.startswith("lost")])


async def test_attempts_are_made_at_their_minutes_and_at_no_other(day: Day) -> None:
    """11:30 invalid; mary leaves at 11:31; the seat is taken again at 11:40, not at the heartbeats in between."""
    first, second, _ = await john_is_silent(day)
    await day.at("11:31")
    await second.end()
    await day.at("11:39", first, second)
    assert {"7": "invalid"} == first.states
    await day.at("11:40")
    assert {"7": "active"} == first.states


async def test_after_the_last_attempt_the_session_is_lost(day: Day) -> None:
    """11:40, 11:50 and 12:00 in vain: at 12:00 the session is lost, and the hook is told why, once."""
    first, second, _ = await john_is_silent(day)
    await day.at("11:59", first, second)
    assert {"7": "invalid"} == first.states
    await day.at("12:00")
    assert {"7": "lost"} == first.states
    await day.at("12:30", first, second)
    assert ["lost 7 timeout"] == [line for line in day.hooks if line.startswith("lost")]
    await second.end()
    await day.at("13:30", first)
    assert {"7": "lost"} == first.states
    await first.end()
    assert ({}, []) == (first.states, await day.site.sessions(JOHN, "clearquest"))


async def test_zero_attempts_are_none(day: Day) -> None:
    """With attempts = 0 a session is lost as soon as its node hears that the seat is gone."""
    first, _, _ = await john_is_silent(day, POOL.replace("attempts = 3", "attempts = 0"))
    assert {"7": "lost"} == first.states
    assert "lost 7 timeout" in day.hooks


@pytest.mark.parametrize("why", Withdrawal)
async def test_who_lost_the_seat_by_hand_does_not_try(day: Day, why: Withdrawal) -> None:
    """09:10 an administrator takes the lease; at its next heartbeat the session is lost, with the reason."""
    policy = await day.site.apply(POOL)
    host = day.site.host()
    await host.granted(JOHN)
    await day.at("09:10")
    pool = policy.pool("clearquest")
    assert pool is not None
    await LeaseAdmin(day.site.farm).withdraw(pool, JOHN, why)
    assert {"7": "active"} == host.states
    await day.at("09:11", host)
    assert {"7": "lost"} == host.states
    assert ["granted 7", f"lost 7 {why.value}"] == day.hooks
    assert [] == day.sleepers


async def test_who_lost_the_seat_twice_hears_of_the_later_one(day: Day) -> None:
    """09:10 an administrator takes the lease, 09:11 john asks anew, 09:12 it is taken again; 09:13 the host beats."""
    policy = await day.site.apply(POOL)
    host, pool = day.site.host(), policy.pool("clearquest")
    assert pool is not None
    await host.granted(JOHN)
    await day.at("09:10")
    await LeaseAdmin(day.site.farm).withdraw(pool, JOHN, Withdrawal.RETURNED)
    await day.at("09:11")
    await host.granted(JOHN)
    await day.at("09:12")
    await LeaseAdmin(day.site.farm).withdraw(pool, JOHN, Withdrawal.REVOKED)
    await day.at("09:13", host)
    assert {"7": "lost"} == host.states
    assert "lost 7 revoked" == day.hooks[-1]


async def test_an_invalid_session_can_be_ended(day: Day) -> None:
    """11:35 john logs off: nothing is tried for him afterwards, and the seat that falls free stays free."""
    first, second, _ = await john_is_silent(day)
    await day.at("11:35")
    await first.end()
    await second.end()
    await day.at("12:30", first, second)
    assert ({}, []) == (first.states, await day.site.sessions(JOHN, "clearquest"))
    assert [] == [line for line in day.hooks if line.startswith("lost")]


async def test_an_invalid_session_can_be_started_anew(day: Day) -> None:
    """11:35 mary leaves and john asks again himself: he has the seat at once, with a new fence."""
    first, second, grant = await john_is_silent(day)
    await day.at("11:35", second)
    await second.end()
    assert grant.fence < (await first.granted(JOHN)).fence
    await day.at("12:30", first)
    assert {"7": "active"} == first.states
    assert [("ctx-01", "7")] == await day.site.sessions(JOHN, "clearquest")


async def test_a_restarted_agent_goes_on_trying(day: Day) -> None:
    """11:35 the agent is killed and started again: still invalid, and active ten minutes later."""
    first, second, _ = await john_is_silent(day)
    await day.at("11:35", second)
    await first.node.sessions.reacquisition.stop()  # a killed process has no tasks
    await second.end()
    first.restart()
    await day.settled()
    assert {"7": "invalid"} == first.states
    await day.at("11:44")
    assert {"7": "invalid"} == first.states
    await day.at("11:45")
    assert {"7": "active"} == first.states


async def test_an_attempt_whose_answer_is_lost_takes_no_seat_for_good(day: Day) -> None:
    """L4: the store granted at 11:40 and nobody heard it; john logs off at 11:45, and nothing is counted for him."""
    first, second, _ = await john_is_silent(day)
    await second.end()
    first.line.deaf = {"acquire"}
    await day.at("11:40")
    first.line.deaf = set()
    assert {"7": "invalid"} == first.states
    assert [("ctx-01", "7")] == await day.site.sessions(JOHN, "clearquest")
    await day.at("11:45", first, second)
    await first.end()
    await day.settled()
    assert [] == await day.site.sessions(JOHN, "clearquest")
