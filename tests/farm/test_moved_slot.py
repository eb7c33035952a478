"""A Cluster moves the slot of a pool between its masters while sessions start: hardly anybody is told to come again."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.agents import RunningAgent, agents_on
from tests.support.topologies import cluster

POLICY = """\
[[pool]]
name = "clearquest"
kind = "floating"
share = "session"
capacity = 1000
"""
SHARD = "{citrix-a/clearquest/0}"
#: Of the starts while the slot moves, and for seconds after: so many may find the farm recovering. It was almost half.
MOST_RECOVERING = 0.1


@contextmanager
def starting(agent: RunningAgent, told: Counter[tuple[int, str]]) -> Iterator[None]:
    """Start and end sessions meanwhile; count the answers."""
    over = threading.Event()

    def work() -> None:
        number = 0
        while not over.is_set():
            number += 1
            reply = agent.start(agent.node, f"s{number}", pool="clearquest")
            told[reply.status, (reply.document or {}).get("reason") or ""] += 1
            agent.end(f"s{number}")
            time.sleep(0.02)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_moved_slot_is_no_loss() -> None:
    """Whole, or on its way for a while (ASK, TRYAGAIN), there and back; and the agents of before know it afterwards."""
    told: Counter[tuple[int, str]] = Counter()
    with cluster() as members, agents_on(members.url, policy=POLICY) as agents:
        first, second = agents
        assert 201 == first.start("john", "stays", pool="clearquest").status
        assert 201 == second.start("mary", "stays", pool="clearquest").status
        with starting(first, told), starting(second, told):
            for _ in range(3):
                source, destination = members.move_slot(SHARD, finish=False)
                time.sleep(0.3)
                members.finish_move(SHARD, source, destination)
                time.sleep(2)
        assert told[201, ""] > 20
        assert told[409, "recovering"] <= MOST_RECOVERING * told.total(), told
        for agent in agents:
            assert (
                200 == agent.start({"ctx-01": "john", "ctx-02": "mary"}[agent.node], "stays", pool="clearquest").status
            )
        log = first.log_text + second.log_text
        assert "session.lost" not in log
        assert "session.invalid" not in log
