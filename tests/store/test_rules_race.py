"""Reservations and the queue while 32 real processes race for the seats, on a real redis-server."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
import redis

from farmlease.store.keys import Shard
from tests.support.races import RACERS, Race
from tests.support.rules import policy_of
from tests.support.seats import audit, contents
from tests.support.servers import redis_server

SEATS, OVERDRAFT, RESERVED = 8, 2, 3
MIX_SECONDS, QUEUE_SECONDS = 2.0, 2.0
MOST_GOES = 10

#: Processes that start and race: seconds on a machine that has nothing else to do.
pytestmark = pytest.mark.timeout(1200)


Granted = list[tuple[int, int | None, bool]]


def run(race: Race, **order: object) -> Granted:
    """Tell all processes at once; return every grant in the order of the fences."""
    grants = [tuple(each) for answer in race.all([order] * RACERS) for each in answer]
    return sorted(grants, key=lambda grant: grant[0])


@pytest.fixture(scope="module")
def race() -> Iterator[Race]:
    """32 processes at one server, for both races."""
    with redis_server() as server, server.client() as raw:
        race = Race("tests.support.rules_racer", server.url, raw)
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
    most, grants = SEATS + OVERDRAFT, Granted()
    with watched(race.raw, "mix") as seen:
        for _ in range(MOST_GOES):
            grants += run(race, act="mix", seconds=MIX_SECONDS, policy=policy)
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
                assert other in {"denied", "queued", "configured"}
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
            arrivals += [arrival for _, arrival, _ in run(race, act="queue", seconds=QUEUE_SECONDS, policy=policy)]
            if sum(arrival is not None for arrival in arrivals) > RACERS:
                break
    assert max(held for held, _ in seen) == 1
    assert sum(arrival is not None for arrival in arrivals) > RACERS
    for before, after in pairwise([None, *arrivals]):
        assert after in {None, 1, (before or 0) + 1}
    assert {"meta", "nodes", "names", "audit"} == contents(race.raw, "one").keys()
