"""An agent that slept longer than its sessions live without it: stopped, killed, or its host suspended.

Whoever asks it first must not be answered from memory: by then the seats may be somebody else's (law L4).
"""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.support.agents import Agents, RunningAgent, agents_on, soon
from tests.support.servers import redis_server

POLICY = """\
[[pool]]
name = "clearquest"
kind = "floating"
capacity = 1
session_timeout = "3s"
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP is POSIX's")


@pytest.fixture(scope="module")
def farm() -> Iterator[Agents]:
    """Two agents and one seat."""
    with redis_server() as store, agents_on(store.url, policy=POLICY) as agents:
        yield agents


@pytest.fixture
def agent(farm: Agents) -> Iterator[RunningAgent]:
    """The agent whose user has the seat; afterwards everybody is gone."""
    agent = farm["ctx-01"]
    assert 201 == agent.start("john", "7").status
    yield agent
    for each in farm:
        for session in each.request("GET", "/v1/sessions").document:
            assert 204 == each.end(session["session"]).status


def wait_for_the_seat(farm: Agents) -> None:
    """Return when mary has the seat on the other host."""
    soon(lambda: farm["ctx-02"].start("mary", "8").status == 201, "the seat of a dead node is not free in time")


def asked_asleep(agent: RunningAgent, method: str, path: str, document: object = None) -> tuple[int, Any]:
    """Ask an agent that is stopped, let it go on, and return what it answers: the first thing it hears."""
    assert agent.process is not None
    headers = {"Host": agent.host, "Authorization": str(agent.authorization), "Content-Type": "application/json"}
    with closing(agent.connect()) as connection:
        connection.request(method, path, json.dumps(document) if document else None, headers)
        agent.process.send_signal(signal.SIGCONT)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")


def stop(agent: RunningAgent) -> None:
    """Stop the agent where it stands."""
    assert agent.process is not None
    agent.process.send_signal(signal.SIGSTOP)


def test_it_does_not_show_a_seat_it_lost(farm: Agents, agent: RunningAgent) -> None:
    """L4: the first answer after a long sleep already tells that the seat is lost."""
    stop(agent)
    wait_for_the_seat(farm)
    status, found = asked_asleep(agent, "GET", "/v1/sessions/7")
    (use,) = found["uses"]
    assert (200, "invalid", "timeout") == (status, use["state"], use["reason"])


def test_it_does_not_list_a_seat_it_lost(farm: Agents, agent: RunningAgent) -> None:
    """L4: nor does a list."""
    stop(agent)
    wait_for_the_seat(farm)
    status, found = asked_asleep(agent, "GET", "/v1/sessions")
    assert (200, ["invalid"]) == (status, [each["state"] for each in found])


def test_it_does_not_grant_a_seat_it_lost(farm: Agents, agent: RunningAgent) -> None:
    """L1: asking again for the session is not answered with the grant of before."""
    stop(agent)
    wait_for_the_seat(farm)
    status, found = asked_asleep(agent, "POST", "/v1/sessions", {"user": "john", "session": "7"})
    assert (409, "capacity") == (status, found["reason"])


def test_it_does_not_hold_a_seat_it_lost(farm: Agents, agent: RunningAgent) -> None:
    """L4: nor can the seat be held now."""
    stop(agent)
    wait_for_the_seat(farm)
    assert 409 == asked_asleep(agent, "POST", "/v1/sessions/7/hold", {"for": "1m"})[0]


def test_a_short_sleep_changes_nothing(agent: RunningAgent) -> None:
    """L5: who wakes before the deadline still has the seat."""
    stop(agent)
    status, found = asked_asleep(agent, "GET", "/v1/sessions/7")
    assert (200, ["active"]) == (status, [use["state"] for use in found["uses"]])


def test_it_was_dead_for_a_while(farm: Agents, agent: RunningAgent) -> None:
    """L4: an agent that adopts its sessions asks what became of them before it shows them."""
    agent.kill()
    wait_for_the_seat(farm)
    agent.launch()
    seen: list[str] = []

    def answers() -> bool:
        try:
            seen.append(agent.request("GET", "/v1/sessions/7").document["uses"][0]["state"])
        except OSError:
            return False
        return True

    soon(answers, "the agent does not come back")
    assert ["invalid"] == seen
    agent.wait_ready()
