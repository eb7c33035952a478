"""Held and idle sessions, and sessions that belong to a process, on virtual time."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from farmlease.errors import CannotHold
from farmlease.node.host_identity import lives, started_at
from tests.support.nodes import JOHN, MARY, Site
from tests.support.stores import HOUR
from tests.support.timelines import Day, day_on

POOL = """\
[[pool]]
name = "clearquest"
kind = "floating"
capacity = 1
session_timeout = "120m"
idle_timeout = "30m"
max_hold = "4h"
reacquire = { attempts = 0 }
"""


@pytest.fixture
def day(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Day]:
    """A day on the site."""
    with day_on(site, monkeypatch) as made:
        yield made


def program(*command: str) -> subprocess.Popen[bytes]:
    """Start a program that sessions may belong to."""
    return subprocess.Popen(command)


def kill(running: subprocess.Popen[bytes]) -> None:
    """Kill a program; return when it is dead and nobody has reaped it."""
    running.kill()
    os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)


def dead_pid() -> int:
    """The pid of a process that has ended."""
    with program("true") as short:
        return short.pid


def lost(day: Day) -> list[str]:
    """What the hook ``lost`` was told."""
    return [line for line in day.hooks if line.startswith("lost")]


@pytest.mark.parametrize("kind", ["floating", "named"])
async def test_a_session_is_shown_with_the_present_end_of_its_lease(day: Day, kind: str) -> None:
    """Granted at 09:00 and asked about at 10:00, it says what the farm's list of leases says."""
    await day.site.apply(f'[[pool]]\nname = "clearquest"\nkind = "{kind}"\ncapacity = 1\n')
    host = day.site.host()
    granted = await host.granted(JOHN)
    await day.at("10:00", host)
    await host.beat()
    lease, session = await day.site.lease(JOHN, "clearquest"), host.use("7")
    assert None not in (lease, session, session and session.grant)
    assert granted.lease.expires_at + HOUR == lease.lease.expires_at == session.grant.lease.expires_at
    assert [session] == host.agent.all_uses()
    day.site.timed.clock.advance(3 * HOUR)  # longer than the store lets a silent node keep its sessions
    assert granted.lease == host.use("7").grant.lease


# --- idle -----------------------------------------------------------------------------------------------------------


async def test_thirty_minutes_without_a_touch_end_a_session(day: Day) -> None:
    """09:29 john still has his seat; at 09:30 it is mary's, his session is lost, and the hook is told ``idle``."""
    await day.site.apply(POOL)
    host = day.site.host()
    await host.granted(JOHN)
    await day.watched(host)
    await day.at("09:29", host)
    await day.watched(host)
    assert {"7": "active"} == host.states
    await day.at("09:30", host)
    await day.watched(host)
    assert ({"7": "lost"}, ["lost 7 idle"]) == (host.states, lost(day))
    await host.granted(MARY, "8")


async def test_a_new_session_of_an_old_id_does_not_inherit_its_idleness(day: Day) -> None:
    """Hosts reuse ids: john's session 7 was untouched since 09:00; mary's, begun at 09:30, idles at 10:00."""
    await day.site.apply(POOL)
    host = day.site.host()
    await host.granted(JOHN)
    await day.watched(host)
    await day.at("09:30", host)
    await host.granted(MARY)
    await day.watched(host)
    await day.at("09:59", host)
    await day.watched(host)
    assert {"7": "active"} == host.states
    await day.at("10:00", host)
    await day.watched(host)
    assert {"7": "lost"} == host.states


async def test_a_touch_starts_the_idle_time_anew(day: Day) -> None:
    """Touched at 09:20, a session idles at 09:50 and not at 09:49."""
    await day.site.apply(POOL)
    host = day.site.host()
    await host.granted(JOHN)
    await day.at("09:20", host)
    host.agent.touch("7")
    await day.at("09:49", host)
    await day.watched(host)
    assert {"7": "active"} == host.states
    await day.at("09:50")
    await day.watched(host)
    assert {"7": "lost"} == host.states


async def test_an_idle_time_of_zero_is_none(day: Day) -> None:
    """With idle_timeout = 0 a session that nobody touches goes on all day."""
    await day.site.apply(POOL.replace('idle_timeout = "30m"', 'idle_timeout = "0s"'))
    host = day.site.host()
    await host.granted(JOHN)
    for time in ("09:01", "10:30", "12:00", "13:30"):
        await day.at(time, host)
        await day.watched(host)
    assert ({"7": "active"}, []) == (host.states, lost(day))


async def test_who_idles_while_the_store_is_away_is_not_counted_when_it_is_back(day: Day) -> None:
    """L4: two sessions idle at 09:30, both in one look though the store is away; it hears of both when it is back."""
    await day.site.apply(POOL.replace("capacity = 1", "capacity = 2"))
    host = day.site.host()
    await host.granted(JOHN)
    await host.granted(MARY, "8")
    await day.watched(host)
    host.line.cut = {"*"}
    await day.at("09:30")
    await day.watched(host)
    assert {"7": "lost", "8": "lost"} == host.states
    host.line.cut = set()
    await day.at("09:31", host)
    assert [] == await day.site.sessions(JOHN, "clearquest") + await day.site.sessions(MARY, "clearquest")


# --- held -----------------------------------------------------------------------------------------------------------


async def test_a_hold_is_as_long_as_the_pool_allows_at_most(day: Day) -> None:
    """An hour is an hour; eight hours, and no word of how long, are max_hold."""
    await day.site.apply(POOL)
    host = day.site.host()
    await host.granted(JOHN)
    now = day.site.timed.clock.now_ms
    held = [await host.hold("7", span) for span in (HOUR, 8 * HOUR, None)]
    assert [now + HOUR, now + 4 * HOUR, now + 4 * HOUR] == held


async def test_a_held_session_does_not_idle(day: Day) -> None:
    """Held at 09:00 for four hours: active at 12:59 though nobody touched it, idle at 13:00."""
    await day.site.apply(POOL)
    host = day.site.host()
    await host.granted(JOHN)
    await host.hold("7", None)
    for time in ("09:01", "10:30", "12:00", "12:59"):
        await day.at(time, host)
        await day.watched(host)
    assert {"7": "active"} == host.states
    await day.at("13:00", host)
    await day.watched(host)
    assert ({"7": "lost"}, ["lost 7 idle"]) == (host.states, lost(day))


async def test_a_held_seat_outlives_its_node_s_silence(day: Day) -> None:
    """Held at 09:00, silent since: at 12:59 mary is refused, at 13:01 she has the seat, and john's session is lost."""
    await day.site.apply(POOL)
    first, second = day.site.host("ctx-01"), day.site.host("ctx-02")
    await first.granted(JOHN)
    await first.hold("7", None)
    for time in ("10:30", "12:00", "12:59"):
        await day.at(time, second)
        await second.denied(MARY)
    await day.at("13:01", second)
    await second.granted(MARY)
    await day.at("13:02", first)
    assert {"7": "lost"} == first.states


async def test_what_cannot_be_held(day: Day) -> None:
    """No such session, and a pool without max_hold, allow no hold."""
    await day.site.apply(POOL.replace('max_hold = "4h"', 'max_hold = "0s"'))
    host = day.site.host()
    await host.granted(JOHN)
    with pytest.raises(CannotHold, match="max_hold"):
        await host.hold("7", HOUR)
    assert [] == await host.agent.hold_session("none", HOUR)


# --- a process ------------------------------------------------------------------------------------------------------


async def test_a_session_ends_with_its_process(day: Day) -> None:
    """The session of a program that was killed is over at the next look, before anybody reaped the program."""
    await day.site.apply(POOL)
    host = day.site.host()
    with program("sleep", "600") as running:
        await host.granted(JOHN, pid=running.pid)
        await day.watched(host)
        assert {"7": "active"} == host.states
        kill(running)
        await day.watched(host)
        assert ({}, []) == (host.states, await day.site.sessions(JOHN, "clearquest"))
    assert ["granted 7", "ended 7"] == day.hooks


async def test_a_process_that_is_gone_holds_no_seat(day: Day) -> None:
    """A session started for a process that is dead already ends at the first look."""
    await day.site.apply(POOL)
    host = day.site.host()
    await host.granted(JOHN, pid=dead_pid())
    await day.watched(host)
    assert ({}, []) == (host.states, await day.site.sessions(JOHN, "clearquest"))


async def test_a_lost_session_is_out_of_sight_when_its_process_ends(day: Day) -> None:
    """Nobody else ends a session of a program: lost at 09:30, forgotten when the program ends."""
    await day.site.apply(POOL)
    host = day.site.host()
    with program("sleep", "600") as running:
        await host.granted(JOHN, pid=running.pid)
        await day.watched(host)
        await day.at("09:30", host)
        await day.watched(host)
        assert {"7": "lost"} == host.states
        kill(running)
    await day.watched(host)
    assert {} == host.states


def test_a_process_is_known_by_its_start() -> None:
    """A pid that is used again is another process, also one with an odd name; a zombie is dead."""
    started = started_at(os.getpid())
    assert started is not None
    assert [True, False] == [lives(os.getpid(), started), lives(os.getpid(), started + 1)]
    with subprocess.Popen(["sh", "-c", r"printf 'a) Z 1 (' > /proc/self/comm; echo; read x"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:  # fmt: skip
        assert program.stdout is not None
        program.stdout.readline()
        odd = started_at(program.pid)
        assert odd is not None
        assert lives(program.pid, odd)
        program.kill()
        os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
        assert not lives(program.pid, odd)
    assert not lives(program.pid, odd)
    assert started_at(program.pid) is None
