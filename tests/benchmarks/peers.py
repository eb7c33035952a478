"""An acquire and its release, one pair at a time, beside what other libraries offer for a lock or a limit on Redis.

Ours counts the limit, fences, keeps a sealed record and writes the audit; a lock does none of that.
"""

import importlib
import secrets
import time
from collections.abc import Awaitable, Callable
from types import ModuleType

from redis import Redis, WatchError
from redis import asyncio as driver

from farmlease.store.answers.session import Claim
from tests.benchmarks.figures import Figure, Missing, ratios, side_by_side
from tests.benchmarks.store import NODE, POOL, Bench, bench

__all__ = ["peer_figures"]

Rate = Callable[[int], Awaitable[float]]


async def peer_figures(scale: int) -> list[Figure]:
    """Measure each peer beside us."""
    pairs = 1_000 // scale
    peers: list[tuple[str, str, Callable[[Bench], Rate], float, float]] = [
        ("P6a", "redis-py's Lock", redis_lock, 0.7, 1.0),
        ("P6b", "python-redis-lock", python_redis_lock, 1.3, 2.0),
        ("P6c", "pottery's Redlock, one master", redlock, 2.0, 3.0),
        ("P6d", "limits' moving window", moving_window, 0.5, 0.8),
        ("P6e", "a semaphore by WATCH and MULTI", semaphore, 2.0, 3.0),
    ]
    return [await against(*peer, pairs) for peer in peers]


async def against(
    name: str, peer: str, prepare: Callable[[Bench], Rate], floor: float, goal: float, pairs: int
) -> Figure:
    """Measure one peer beside us; a missing one is a row that says so."""
    what = f"acquire and release, pairs a second / {peer}"
    async with bench() as on:
        try:
            theirs = prepare(on)
        except Missing as error:
            return Figure(id=name, what=what, rounds=(), floor=floor, goal=goal, at_most=False, missing=str(error))
        mine, other = await side_by_side(lambda: ours(on, pairs), lambda: theirs(pairs))
    return Figure(
        id=name,
        what=what,
        rounds=ratios(mine, other),
        floor=floor,
        goal=goal,
        at_most=False,
        detail=f"{max(mine):,.0f} / {max(other):,.0f} a second at best",
    )


async def ours(on: Bench, pairs: int) -> float:
    """Return pairs a second of a user who has a lease; the fence must have moved on by each."""
    first = last = (await on.start("pair", "before")).fence
    began = time.perf_counter()
    for number in range(pairs):
        taken = await on.start("pair", str(number))
        last = taken.fence
        await on.store.release(POOL.name, Claim(user="pair", node=NODE, session=str(number)), last)
    took = time.perf_counter() - began
    await on.end("pair", "before")
    assert last >= first + pairs
    return pairs / took


def module(name: str, package: str) -> ModuleType:
    """Import a peer."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f"{package} is not installed (pip install '.[bench]')") from error


def per_second(pairs: int, pair: Callable[[], object]) -> float:
    """Time pairs that block."""
    began = time.perf_counter()
    for _ in range(pairs):
        pair()
    return pairs / (time.perf_counter() - began)


def redis_lock(on: Bench) -> Rate:
    """A lock of the driver's own, in asyncio as we are."""
    path = on.raw.connection_pool.connection_kwargs["path"]

    async def rate(pairs: int) -> float:
        async with driver.Redis(unix_socket_path=path) as client:
            began = time.perf_counter()
            for _ in range(pairs):
                lock = client.lock("lock", timeout=60)
                assert await lock.acquire()
                await lock.release()
            return pairs / (time.perf_counter() - began)

    return rate


def python_redis_lock(on: Bench) -> Rate:
    """The library of this name."""
    library = module("redis_lock", "python-redis-lock")

    async def rate(pairs: int) -> float:
        def pair() -> None:
            lock = library.Lock(on.raw, "lock", expire=60)
            assert lock.acquire()
            lock.release()

        return per_second(pairs, pair)

    return rate


def redlock(on: Bench) -> Rate:
    """Redlock, with one master."""
    library = module("pottery", "pottery")

    async def rate(pairs: int) -> float:
        def pair() -> None:
            lock = library.Redlock(key="lock", masters={on.raw}, auto_release_time=60)
            assert lock.acquire()
            lock.release()

        return per_second(pairs, pair)

    return rate


def moving_window(on: Bench) -> Rate:
    """A rate limit that remembers every hit; it has no release: a second hit stands in for it."""
    library = module("limits", "limits")
    path = on.raw.connection_pool.connection_kwargs["path"]

    async def rate(pairs: int) -> float:
        storage = library.storage.RedisStorage(f"redis+unix://{path}")
        limiter, limit = library.strategies.MovingWindowRateLimiter(storage), library.parse("1000000/minute")
        key = secrets.token_hex(4)

        def pair() -> None:
            assert limiter.hit(limit, key)
            assert limiter.hit(limit, key)

        found = per_second(pairs, pair)
        assert 1_000_000 - 2 * pairs == limiter.get_window_stats(limit, key).remaining
        return found

    return rate


def semaphore(on: Bench) -> Rate:
    """What is written by hand: watch, count, take in a transaction."""

    async def rate(pairs: int) -> float:
        def pair() -> None:
            token = take(on.raw)
            on.raw.zrem("semaphore", token)

        return per_second(pairs, pair)

    return rate


def take(raw: "Redis") -> str:
    """Take a place in a semaphore of a hundred."""
    token = secrets.token_hex(8)
    while True:
        with raw.pipeline() as pipe:
            try:
                pipe.watch("semaphore")
                pipe.zremrangebyscore("semaphore", "-inf", time.time() - 60)
                assert pipe.zcard("semaphore") < 100
                pipe.multi()
                pipe.zadd("semaphore", {token: time.time()})
                pipe.execute()
            except WatchError:
                continue
            return token
