"""A thousand probes a second, slow and half-sent ones among them, and the logons of the host do not notice."""

import socket
import time
from collections.abc import Iterator
from statistics import quantiles

import psutil
import pytest

from tests.support.agents import RunningAgent, agents_on
from tests.support.patience import within
from tests.support.servers import redis_server
from tests.support.storm import raging

POLICY = '[[pool]]\nname = "qlikview"\nkind = "named"\ncapacity = 100000\n'
STARTS = 150
RATE = 1_000
#: How many times as much as the barest answer over a connection a probe may cost the agent while nobody logs on.
TIMES = 12


@pytest.fixture
def agent() -> Iterator[RunningAgent]:
    """A running agent with seats enough."""
    with redis_server() as store, agents_on(store.url, nodes=("ctx-01",), policy=POLICY) as agents:
        yield agents["ctx-01"]


def p99(agent: RunningAgent, prefix: str) -> float:
    """Start sessions one after another; return the seconds that one in a hundred exceeds."""
    times = []
    for number in range(STARTS):
        began = time.perf_counter()
        assert 201 == agent.start(f"{prefix}{number}", f"{prefix}{number}").status
        times.append(time.perf_counter() - began)
    return quantiles(times, n=100)[98]


def test_a_storm_of_probes_does_not_reach_the_logons(agent: RunningAgent) -> None:
    """The slowest logons stay what they were, but for a generous share of a busy machine; every probe is answered."""
    p99(agent, "warm")
    quiet, loud = list[float](), list[float]()
    for turn in range(3):
        quiet.append(p99(agent, f"quiet{turn}-"))
        with raging(agent.health_port, RATE) as storm:
            loud.append(p99(agent, f"loud{turn}-"))
        assert storm.told["probes"] == storm.told["answered"]
        assert storm.told["probes"] > 100
    assert min(loud) < 4 * min(quiet) + within(0.05), (quiet, loud)


def bare(listener: socket.socket) -> None:
    """Answer a request over a connection of its own, and do nothing else."""
    with socket.create_connection(listener.getsockname()) as guest, listener.accept()[0] as host:
        guest.sendall(b"?" * 60)
        host.sendall(host.recv(4096))
        guest.recv(4096)


def test_a_storm_costs_the_agent_a_bounded_share_of_a_core(agent: RunningAgent) -> None:
    """By the processor's own count, against bare connections meanwhile: all cost more where others want the machine.

    Slow guests are thrown out.
    """
    assert agent.process is not None
    process = psutil.Process(agent.process.pid)
    asked, barely = 0, 0.0
    with socket.create_server(("127.0.0.1", 0)) as listener, raging(agent.health_port, RATE) as storm:
        before, began = process.cpu_times(), time.monotonic()
        while time.monotonic() - began < within(4):  # slow guests have five seconds, and are looked at one by one
            assert 200 == agent.health().status
            began_bare = time.thread_time()
            for _ in range(20):
                bare(listener)
            barely += time.thread_time() - began_bare
            asked += 20
            time.sleep(0.2)
        after, took = process.cpu_times(), time.monotonic() - began
    spent = after.user + after.system - before.user - before.system
    each = spent / (storm.told["probes"] * took / storm.told["seconds"])
    unit = barely / asked
    assert each < TIMES * unit, f"{each * 1e6:.0f} µs for a probe, {unit * 1e6:.0f} µs for a bare connection"
    assert storm.told["dropped"] >= 100
