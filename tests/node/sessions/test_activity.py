"""Activity that the host's logind reports, on virtual time: who works keeps the seat, who idles loses it."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from farmlease.domain.health import Status, health
from farmlease.node.sessions import activity
from tests.support.login import FakeLoginctl, fake_loginctl, scoped
from tests.support.nodes import JOHN, MARY, Host, Site
from tests.support.timelines import Day, day_on

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="logind is Linux's")

POOL = """\
[[pool]]
name = "clearquest"
kind = "floating"
capacity = 2
idle_timeout = "30m"
reacquire = { attempts = 0 }
"""


@pytest.fixture
def day(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Day]:
    """A day on the site."""
    with day_on(site, monkeypatch) as made:
        yield made


@pytest.fixture
def loginctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLoginctl:
    """The first loginctl on PATH."""
    made = fake_loginctl(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    return made


@pytest.fixture
def programs() -> Iterator[ExitStack]:
    """Programs that end with the test."""
    with ExitStack() as stack:
        yield stack


async def minutes(day: Day, host: Host, since: str, until: str) -> None:
    """Let the minutes pass one by one, and the host look in each; both are of one hour."""
    hour, first = map(int, since.split(":"))
    for minute in range(first, int(until.partition(":")[2]) + 1):
        await day.at(f"{hour}:{minute:02}", host)
        await day.watched(host)


async def test_who_works_keeps_the_seat_and_who_idles_loses_it(
    day: Day, loginctl: FakeLoginctl, programs: ExitStack
) -> None:
    """Both begin at 09:00. John works; mary idles from 09:10 on, so her session is lost at 09:39, and his goes on."""
    await day.site.apply(POOL)
    host = day.site.host()
    for user, session, scope in ((JOHN, "7", "51"), (MARY, "8", "52")):
        process = programs.enter_context(scoped(f"session-{scope}.scope", "sleep", "600"))
        await host.granted(user, session, pid=process.pid)
        loginctl.say(scope, idle=False)
    await minutes(day, host, "9:00", "9:09")
    loginctl.say("52", idle=True)
    await minutes(day, host, "9:10", "9:38")
    assert {"7": "active", "8": "active"} == host.states
    await minutes(day, host, "9:39", "9:50")
    assert ({"7": "active", "8": "lost"}, ["lost 8 idle"]) == (host.states, day.hooks[-1:])
    assert 51 == len(loginctl.asked), "once a minute, for all sessions together"


async def test_who_comes_back_begins_anew(day: Day, loginctl: FakeLoginctl, programs: ExitStack) -> None:
    """Idle from 09:00 to 09:20, at work at 09:21, idle again: over at 09:51, and not at 09:50."""
    await day.site.apply(POOL)
    host = day.site.host()
    process = programs.enter_context(scoped("session-51.scope", "sleep", "600"))
    await host.granted(JOHN, pid=process.pid)
    loginctl.say("51", idle=True)
    await minutes(day, host, "9:00", "9:20")
    loginctl.say("51", idle=False)
    await minutes(day, host, "9:21", "9:21")
    loginctl.say("51", idle=True)
    await minutes(day, host, "9:22", "9:50")
    assert {"7": "active"} == host.states
    await minutes(day, host, "9:51", "9:51")
    assert {"7": "lost"} == host.states


async def test_a_desktop_that_is_its_users_own_services_counts(
    day: Day, loginctl: FakeLoginctl, programs: ExitStack
) -> None:
    """What the user's own manager runs is in no session: any session of the user counts."""
    await day.site.apply(POOL)
    host = day.site.host()
    process = programs.enter_context(scoped("user@1000.service", "sleep", "600"))
    await host.granted(JOHN, pid=process.pid)
    loginctl.say("1000", idle=False, kind="user")
    await minutes(day, host, "9:00", "9:40")
    assert {"7": "active"} == host.states


async def test_nobody_is_asked_where_no_pool_asks_for_it(day: Day, loginctl: FakeLoginctl, programs: ExitStack) -> None:
    """Without idle_timeout no program is run, nor for a session without a process."""
    await day.site.apply(POOL.replace('idle_timeout = "30m"\n', ""))
    host = day.site.host()
    process = programs.enter_context(scoped("session-51.scope", "sleep", "600"))
    await host.granted(JOHN, pid=process.pid)
    await minutes(day, host, "9:00", "9:05")
    await day.site.apply(POOL)
    await host.granted(MARY, "8")
    await host.end("7")
    await minutes(day, host, "9:06", "9:08")
    assert [] == loginctl.asked


async def test_a_pool_with_little_patience_is_looked_at_more_often(
    day: Day, loginctl: FakeLoginctl, programs: ExitStack
) -> None:
    """With an idle_timeout of a minute somebody who works is asked about every fifteen seconds."""
    await day.site.apply(POOL.replace("30m", "1m"))
    host = day.site.host()
    process = programs.enter_context(scoped("session-51.scope", "sleep", "600"))
    await host.granted(JOHN, pid=process.pid)
    loginctl.say("51", idle=False)
    for _ in range(120):
        day.site.timed.clock.advance(1_000)
        await day.watched(host)
    assert ({"7": "active"}, 8) == (host.states, len(loginctl.asked))


async def test_without_logind_health_says_what_is_about_to_end(
    day: Day, loginctl: FakeLoginctl, programs: ExitStack
) -> None:
    """Nothing reports: at half its time health warns, a touch ends that, and the session idles as without any of it."""
    await day.site.apply(POOL)
    host = day.site.host()
    process = programs.enter_context(scoped("session-51.scope", "sleep", "600"))
    await host.granted(JOHN, pid=process.pid)
    loginctl.fail(how="away")
    await minutes(day, host, "9:00", "9:14")
    assert (Status.PASS, ()) == warned(host)
    await minutes(day, host, "9:15", "9:16")
    status, texts = warned(host)
    assert Status.WARN is status
    assert "nothing reports activity of 1 session in clearquest" in texts[0]
    host.agent.touch("7")
    assert (Status.PASS, ()) == warned(host)
    await minutes(day, host, "9:17", "9:45")
    assert {"7": "active"} == host.states
    await minutes(day, host, "9:46", "9:46")
    assert {"7": "lost"} == host.states


async def test_who_is_known_to_idle_is_no_warning(day: Day, loginctl: FakeLoginctl, programs: ExitStack) -> None:
    """A session that logind watches ends because its user is away, which is what the pool asks for."""
    await day.site.apply(POOL)
    host = day.site.host()
    process = programs.enter_context(scoped("session-51.scope", "sleep", "600"))
    await host.granted(JOHN, pid=process.pid)
    loginctl.say("51", idle=True)
    await minutes(day, host, "9:00", "9:29")
    assert (Status.PASS, ()) == warned(host)


async def test_a_logind_that_breaks_ends_no_loop(
    day: Day, programs: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in a look, the agent goes on."""
    await day.site.apply(POOL)
    host = day.site.host()
    process = programs.enter_context(scoped("session-51.scope", "sleep", "600"))
    await host.granted(JOHN, pid=process.pid)

    def broken(pid: int) -> None:
        raise RuntimeError(str(pid))

    monkeypatch.setattr(activity, "login_session_of", broken)
    await day.watched(host)
    assert {"7": "active"} == host.states
    programs.close()
    await day.watched(host)
    assert {} == host.states


def warned(host: Host) -> tuple[Status, tuple[str, ...]]:
    """Return what the health's check of activity says, and its text where it warns."""
    (check,) = (check for check in health(host.agent.facts()).checks if check.name == "activity")
    return check.status, (check.output,) if check.status is not Status.PASS else ()
