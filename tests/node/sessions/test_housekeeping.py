"""What the agent does about its sessions by itself holds up nothing else where one of it fails."""

import os

import pytest

from farmlease.errors import JournalFailed
from farmlease.node.sessions import liveness
from farmlease.node.sessions.reacquire import Reacquisition
from farmlease.store.answers.session import Lost
from tests.support.nodes import JOHN, MARY, Site
from tests.support.stores import HOUR


async def test_a_process_that_cannot_be_looked_at_holds_up_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions whose process is gone end, also beside one whose process the system does not show."""
    host = site.host()
    for number, session in enumerate(("1", "2", "3")):
        await host.granted(JOHN, session, pid=os.getpid())
        assert number + 1 == len(host.states)
    hidden = host.node.state.sessions.find("2", "qlikview")
    assert hidden is not None
    asked = []

    def lives(pid: int, started: float) -> bool:
        asked.append((pid, started))
        if len(asked) % 3 == 2:  # the second of three
            raise PermissionError
        return False

    monkeypatch.setattr(liveness, "lives", lives)
    await host.node.loops.watch()
    await host.agent.settled()
    assert {"2": "active"} == host.states
    assert 1 == host.agent.facts().unseen


async def test_a_loss_that_cannot_be_written_is_acted_on_later(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """L4: a full disk keeps no session going without its seat: the next heartbeat tries again."""
    host = site.host()
    await host.granted(JOHN)
    await host.granted(MARY, "8")
    real, full = Reacquisition.seat_lost, [True]

    async def seat_lost(self: Reacquisition, pool: str, lost: Lost) -> None:
        if full:
            raise JournalFailed("the disk is full: the test wanted it to be")
        await real(self, pool, lost)

    monkeypatch.setattr(Reacquisition, "seat_lost", seat_lost)
    site.timed.clock.advance(3 * HOUR)
    await host.beat()
    assert {"7": "active", "8": "active"} == host.states
    host.line.swallowed.add("heartbeat")  # the store reports it no more
    full.clear()
    host.node.sessions.housekeeping.tidy()
    await host.agent.settled()
    assert {"7": "lost", "8": "lost"} == host.states
