"""A host that comes late to a recovery: what the faults' judge makes of the seats that it has lost by then."""

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from farmlease.crypto.keyring import KeyRing
from farmlease.domain.policy import parse_policy
from tests.faults.grounds import ground
from tests.faults.history import History
from tests.faults.hosts import Host, Plan, farm_at, running_host
from tests.faults.judge import judge
from tests.faults.stage import IDENTITIES
from tests.support.patience import turns, until, within
from tests.support.servers import require

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="as the other faults")

JOHN = IDENTITIES.user(r"CORP\john")
SILENCE = 0.8  #: seconds for which the store keeps a silent node, at least


async def granted(host: Host, session: str) -> None:
    """Return when a session has a seat by the store."""
    for _ in turns(10):
        if (await host.start(JOHN, session)).by_store:
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"no seat for {session}")


async def test_what_a_later_beat_promises_is_not_to_who_had_lost_his_seat(tmp_path: Path) -> None:
    """L5: the store is emptied while a host is away for too long, and its user takes a seat elsewhere meanwhile.

    What the host restores is then an earlier lease, whose session has lost its seat: its node was silent past its
    deadline. The node beats again before it acts on that, and has another deadline, which is not this session's.
    """
    require("redis-server")
    silence, history = within(SILENCE), History()
    policy = (
        f'[[pool]]\nname = "late"\nkind = "floating"\nshare = "user"\ncapacity = 2\nlinger = "0s"\n'
        f'session_timeout = "{silence * 1000:.0f}ms"\nreacquire = {{ attempts = 3, every = "400ms" }}\n'
    )
    plan = Plan(farm="citrix-a", ring=KeyRing.generate(1), pool="late", capacity=2, share="user", kept=0.0, window=0.2)
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(ground("alone", lines=2))
        assert there.server is not None
        farm = await stack.enter_async_context(farm_at(there.url, plan, timeout_ms=5000))
        await farm.apply(parse_policy(policy, "the test's policy"))
        here, late = [
            await stack.enter_async_context(running_host(f"n{number}", there.url_of(number), plan, history, tmp_path))
            for number in range(2)
        ]
        await granted(late, "1")
        there.lines[1].cut()
        await asyncio.to_thread(there.server.ask, "FLUSHALL")
        await granted(here, "2")
        await until(lambda: time.time() > history.promised("n1", time.time()), "the host is still kept", 2 * silence)
        there.lines[1].mend()
        await until(lambda: bool(history.losses), "the session keeps its seat")
        await until(lambda: any(each.until == float("inf") for each in history.of("n1", "1")), "no seat again")
    judge(history, plan.capacity, plan.kept, [])
    assert ([("n1", "1", "timeout")], []) == (
        [(each.node, each.session, each.reason) for each in history.losses],
        history.violations,
    )
