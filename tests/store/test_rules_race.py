"""Reservations and the queue while 32 real processes race for the seats, on a real redis-server."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest
import redis

from farmlease.store.keys import Shard
from tests.rules import policy_of
from tests.seats import audit, contents
from tests.servers import redis_server

ROOT = Path(__file__).parents[2]
RACERS = 32
SEATS, OVERDRAFT, RESERVED = 8, 2, 3
MIX_SECONDS, QUEUE_SECONDS = 2.0, 2.0
MOST_GOES = 10

#: Processes that start and race: seconds on a machine that has nothing else to do.
pytestmark = pytest.mark.timeout(400)


class Race:
    """The processes, and a client to watch them with."""

    def __init__(self, path: Path, raw: redis.Redis) -> None:
        self.raw = raw
        self.racers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.rules_racer", str(path), f"ctx-{number:02}#a"],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for number in range(RACERS)
        ]  # fmt: skip
        for racer in self.racers:
            assert racer.stdout is not None
            assert "ready\n" == racer.stdout.readline()

    def run(self, **order: object) -> list[tuple[int, int | None, bool]]:
        """Tell all processes at once; return every grant in the order of the fences."""
        for racer in self.racers:
            assert racer.stdin is not None
            racer.stdin.write(json.dumps(order) + "\n")
            racer.stdin.flush()
        grants: list[tuple[int, int | None, bool]] = []
        for racer in self.racers:
            assert racer.stdout is not None
            line = racer.stdout.readline()
            assert line, "a racer ended"
            grants += [tuple(each) for each in json.loads(line)]
        return sorted(grants, key=lambda grant: grant[0])

    def close(self) -> None:
        """End the processes."""
        for racer in self.racers:
            assert racer.stdin is not None
            with suppress(BrokenPipeError):
                racer.stdin.close()
        for racer in self.racers:
            try:
                racer.wait(30)
            except subprocess.TimeoutExpired:
                racer.kill()
                racer.wait(10)
            assert racer.stdout is not None
            racer.stdout.close()


@pytest.fixture(scope="module")
def race() -> Iterator[Race]:
    """32 processes at one server, for both races."""
    with redis_server() as server, server.client() as raw:
        race = Race(server.socket, raw)
        try:
            yield race
        finally:
            race.close()


@contextmanager
def watched(raw: redis.Redis, pool: str) -> Iterator[list[tuple[int, int]]]:
    """Note again and again, in one step each, how many seats are held and how many of them as reserved."""
    keys = {key.rpartition(":")[2]: key for key in Shard("citrix-a", pool).keys()}  # noqa: SIM118 - not a dict
    script = raw.register_script(
        "local t = redis.call('TIME') "
        "local now = string.format('(%.0f', t[1] * 1000 + math.floor(t[2] / 1000)) "
        "return { redis.call('ZCOUNT', KEYS[1], now, '+inf'), redis.call('ZCOUNT', KEYS[2], now, '+inf') }"
    )
    seen: list[tuple[int, int]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            held, reserved = script(keys=[keys["seats"], keys["reserved"]])
            seen.append((held, reserved))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_nobody_takes_a_reserved_seat(race: Race) -> None:
    """L1: at no instant of the race are seats in use and seats kept for VIPs together more than there are."""
    policy = policy_of(
        "floating", name="mix", capacity=SEATS, overdraft=OVERDRAFT, share="session", queue="10m",
        reserve=[{"users": ["vip"], "seats": RESERVED}],
    )  # fmt: skip
    most, grants = SEATS + OVERDRAFT, list[tuple[int, int | None, bool]]()
    with watched(race.raw, "mix") as seen:
        for _ in range(MOST_GOES):
            grants += race.run(act="mix", seconds=MIX_SECONDS, policy=policy)
            if most in {held for held, _ in seen} and {True, False} == {vip for _, _, vip in grants}:
                break  # on a busy machine it may take longer until all seats were in use at once
    assert len(seen) > 50
    assert max(held + RESERVED - reserved for held, reserved in seen) <= most
    assert max(reserved for _, reserved in seen) <= RESERVED
    # The race was one: all seats were in use at times, and both kinds of users got some.
    assert most in {held for held, _ in seen}
    assert {True, False} == {vip for _, _, vip in grants}
    # L3, L4: each grant has its own fence, and nothing is left when all have gone.
    assert len(grants) == len({fence for fence, _, _ in grants})
    assert {"meta", "nodes", "names", "audit"} == contents(race.raw, "mix").keys()
    replay(race.raw, most)


def replay(raw: redis.Redis, most: int) -> None:
    """Replay every decision: never more seats than there are, none given back that was not taken."""
    held = set[str]()
    for entry in audit(raw, "mix"):
        key = f"{entry['node']}/{entry['session']}"
        match entry["event"]:
            case "acquired":
                held.add(key)
            case "released":
                held.remove(key)
            case other:
                assert "denied" == other
        assert len(held) <= most
    assert set() == held


def test_the_queue_is_served_in_the_order_of_arrival(race: Race) -> None:
    """One seat, 96 who wait for it again and again: whoever is granted came next after whoever was granted before.

    Arrivals are numbered from 1 whenever the queue was empty; who has no number found it empty and the seat free.
    """
    policy = policy_of("floating", name="one", capacity=1, share="session", queue="10m")
    arrivals = list[int | None]()
    with watched(race.raw, "one") as seen:
        for _ in range(MOST_GOES):
            arrivals += [arrival for _, arrival, _ in race.run(act="queue", seconds=QUEUE_SECONDS, policy=policy)]
            if sum(arrival is not None for arrival in arrivals) > RACERS:
                break
    assert max(held for held, _ in seen) == 1
    assert sum(arrival is not None for arrival in arrivals) > RACERS
    for before, after in pairwise([None, *arrivals]):
        assert after in {None, 1, (before or 0) + 1}
    assert {"meta", "nodes", "names", "audit"} == contents(race.raw, "one").keys()
