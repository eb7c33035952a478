"""L3: a reply is lost and the question asked again. Each verb gives the same answer, and nothing happens twice."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from farmlease.domain.model import Withdrawal
from farmlease.store.answers.session import Taken
from farmlease.store.tombstone_store import TombstoneStore
from tests.support.seats import NODE, OTHER, claim, contents, desk
from tests.support.stores import HOUR, TimedStore, index, named_pool

Story = Callable[[TimedStore], Awaitable[Callable[[], Awaitable[Any]]]]


async def acquire(timed: TimedStore) -> Callable[[], Awaitable[Any]]:
    """John's first session."""
    pool = desk(timed, capacity=1)
    await pool.beat()

    async def ask() -> object:
        pool.asked = 0
        taken = await pool.start("john")
        return taken.lease, taken.fence, taken.record, taken.record_version

    return ask


async def join(timed: TimedStore) -> Callable[[], Awaitable[Any]]:
    """John's second session, on another node."""
    pool = desk(timed, capacity=1)
    await pool.beat(NODE, OTHER)
    await pool.start("john")

    async def ask() -> object:
        taken = await pool.start("john", node=OTHER)
        return taken.lease, taken.fence, taken.record, taken.record_version

    return ask


async def heartbeat(timed: TimedStore) -> Callable[[], Awaitable[Any]]:
    """A node silent for too long, which lost a session."""
    pool = desk(timed)
    await pool.beat()
    await pool.start("john")
    timed.clock.advance(2 * HOUR)
    return pool.beat


async def reboot(timed: TimedStore) -> Callable[[], Awaitable[Any]]:
    """The first heartbeat after a boot."""
    pool = desk(timed)
    await pool.beat()
    await pool.start("john")
    return lambda: pool.beat("ctx-01#z", previous=NODE)


async def release(timed: TimedStore) -> Callable[[], Awaitable[Any]]:
    """The end of a session."""
    pool = desk(timed)
    await pool.beat()
    john = await pool.start("john")
    return lambda: pool.end("john", john)


async def acknowledge(timed: TimedStore) -> Callable[[], Awaitable[Any]]:
    """A node heard that it lost a session."""
    pool = desk(timed)
    await pool.beat()
    await pool.start("john")
    timed.clock.advance(2 * HOUR)
    await pool.beat()
    return lambda: timed.store.release("qlikview", claim("john"), 0)


async def save(timed: TimedStore) -> Callable[[], Awaitable[Any]]:
    """A changed record."""
    pool = desk(timed)
    await pool.beat()
    john = await pool.start("john")
    return lambda: timed.store.save("qlikview", claim("john"), john.lease.id, 2, b"new")


async def conflict(timed: TimedStore) -> Callable[[], Awaitable[Any]]:
    """A changed record that came second."""
    pool = desk(timed)
    await pool.beat()
    john = await pool.start("john")
    await timed.store.save("qlikview", claim("john"), john.lease.id, 2, b"first")
    return lambda: timed.store.save("qlikview", claim("john"), john.lease.id, 2, b"second")


async def readmit(timed: TimedStore) -> Callable[[], Awaitable[Any]]:
    """The end of a revocation."""
    pool = desk(timed)
    await pool.beat()
    await pool.start("john")
    await timed.store.withdraw("qlikview", index("john"), Withdrawal.REVOKED, b"note")
    return lambda: TombstoneStore(timed.connection, "citrix-a").readmit("qlikview", index("john"), b"note", b"by")


async def configure(timed: TimedStore) -> Callable[[], Awaitable[Any]]:
    """New limits."""
    await desk(timed).beat()
    return lambda: timed.store.configure(named_pool(capacity=9), 2)


async def apply_policy(timed: TimedStore) -> Callable[[], Awaitable[Any]]:
    """A new policy."""
    await timed.store.apply_policy(0, 1, b"\1old")
    return lambda: timed.store.apply_policy(1, 2, b"\1new")


async def count(timed: TimedStore) -> Callable[[], Awaitable[Any]]:
    """How full the pool is, with dead sessions to end first."""
    pool = desk(timed)
    await pool.beat()
    await pool.start("john")
    timed.clock.advance(2 * HOUR)
    return pool.held


async def look_up(timed: TimedStore) -> Callable[[], Awaitable[Any]]:
    """One lease."""
    pool = desk(timed)
    await pool.beat()
    await pool.start("john")
    return lambda: pool.lease("john")


STORIES = [
    acquire, join, heartbeat, reboot, release, acknowledge, save, conflict, readmit, configure, apply_policy, count, look_up,
]  # fmt: skip


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
async def test_the_same_answer_and_no_second_effect(timed: TimedStore, story: Story) -> None:
    """Asked twice, every verb answers the same and the second time writes nothing, not even to the audit."""
    ask = await story(timed)
    first = await ask()
    before = contents(timed.raw), timed.raw.get("fl:{citrix-a}:policy")
    assert first == await ask()
    assert before == (contents(timed.raw), timed.raw.get("fl:{citrix-a}:policy"))


async def test_a_session_asked_for_a_hundred_times_takes_one_seat(timed: TimedStore) -> None:
    """L3: a hundred questions with a hundred lease ids and records are one session, one seat, one decision."""
    pool = desk(timed)
    await pool.beat()
    answers = [await pool.start("john") for _ in range(100)]
    assert 1 == len({(answer.lease.id, answer.fence, answer.record) for answer in answers})
    assert (1, 1, ["acquired"]) == (await pool.held(), (await pool.beat()).sessions, pool.events())


async def test_a_reply_lost_after_the_release_takes_a_seat_anew_with_a_later_fence(timed: TimedStore) -> None:
    """L4: what is asked after the end is a new session; the end of the one before does not reach it."""
    pool = desk(timed)
    await pool.beat()
    first = await pool.start("john")
    await pool.end("john", first)
    second = await pool.ask("john")
    assert isinstance(second, Taken)
    assert not second.again
    assert first.fence < second.fence
