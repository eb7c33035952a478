"""How seats are used, judged by a plain model: every seat's span, cut into hours."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import fakeredis
import pytest
import time_machine
from hypothesis import given, settings
from hypothesis import strategies as st

from farmlease.domain.usage import HOUR_MS, Hour, hours, parse_tally, sparkline, squeezed, summed
from farmlease.errors import Damaged
from farmlease.store.answers.session import Refusal, Taken
from farmlease.store.audit_store import AuditCursor, AuditStore, Erasure, NameInUse
from farmlease.store.connection.connection import Connection
from farmlease.store.connection.renewals import Renewals
from farmlease.store.lease_store import LeaseStore
from tests.support.rules import MINUTE, Office, office, pool_of
from tests.support.seats import FARM, NODE, claim
from tests.support.stores import DAY, HOUR, NINE, StoreClock, TimedStore, index, no_sleep

USERS = ["ann", "bob", "cid", "dot", "eve"]


@dataclass(slots=True)
class Diary:
    """Every span in which a seat was held, and every denial, in plain Python."""

    held: dict[str, int] = field(default_factory=dict)  #: user to since when
    ends: dict[str, float] = field(default_factory=dict)  #: user to when a lingering seat ends
    spans: list[tuple[int, int]] = field(default_factory=list)
    denied: list[int] = field(default_factory=list)

    def settle(self, now: int) -> None:
        """Note seats that have lapsed by now."""
        for user in [user for user, end in self.ends.items() if end <= now]:
            self.spans.append((self.held.pop(user), int(self.ends.pop(user))))

    def hour(self, begins: int, now: int) -> tuple[int, int, int]:
        """Return area, peak and denials of an hour."""
        until = min(begins + HOUR_MS, now)
        spans = [
            *self.spans,
            *((since, int(min(self.ends.get(user, until), until))) for user, since in self.held.items()),
        ]
        within = [
            (max(start, begins), min(end, until))
            for start, end in spans
            if start <= until and (end > begins or start >= begins)
        ]
        moments = {begins, *(start for start, _ in within)}
        peak = max(sum(start <= moment < max(end, start + 1) for start, end in within) for moment in moments)
        return (
            sum(max(0, end - start) for start, end in within), peak, sum(begins <= at < begins + HOUR_MS for at in self.denied)
        )  # fmt: skip


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["start", "start", "end", "wait", "wait"]), st.sampled_from(USERS), st.integers(1, 200 * MINUTE)
    ),
    max_size=40,
)


async def live(clock: StoreClock, store: LeaseStore, raw: Any, linger: int, steps: list[tuple[str, str, int]]) -> None:
    """Carry the steps out, and compare every hour with the diary's."""
    timed = TimedStore("fakeredis", store, clock, raw, store.connection)  # type: ignore[arg-type] # it is one
    pool = pool_of("floating", capacity=3, share="user", linger=f"{linger}ms", session_timeout="3650d")
    desk, diary = Office(timed, pool), Diary()
    await desk.beat()
    taken: dict[str, Taken] = {}
    for what, user, span in steps:
        now = clock.now_ms
        diary.settle(now)
        if what == "wait":
            clock.advance(span)
        elif what == "start" and user not in taken:
            answer = await desk.want(user)
            if isinstance(answer, Taken):
                taken[user] = answer
                diary.held.setdefault(user, now)
                diary.ends.pop(user, None)
            else:
                assert isinstance(answer, Refusal)
                diary.denied.append(now)
        elif what == "end" and user in taken:
            await desk.end(user, taken.pop(user))
            diary.ends[user] = now + linger
            diary.settle(now)
        clock.advance(1)  # so that no two decisions are at the same instant
    diary.settle(clock.now_ms)
    now, tallies = await AuditStore(store.connection, FARM).usage(pool.name, NINE)
    assert clock.now_ms == now
    found = list(hours(tallies, since=NINE, now=now))
    assert [*range(NINE, now + 1, HOUR_MS)] == [hour.begins_at for hour in found]
    assert [diary.hour(hour.begins_at, now) for hour in found] == [
        (hour.area, hour.peak, hour.denials.get("capacity", 0)) for hour in found
    ]
    assert now - NINE == sum(hour.counted_ms for hour in found)


@settings(max_examples=25, deadline=None)
@given(linger=st.sampled_from([0, 5 * MINUTE, 90 * MINUTE]), steps=STEPS)
def test_every_hour_is_what_a_diary_says(linger: int, steps: list[tuple[str, str, int]]) -> None:
    """Area, peak and denials of each hour are exact, seats that lapse unseen and hours of silence included."""

    async def once() -> None:
        server = fakeredis.FakeServer()
        client, raw = fakeredis.FakeAsyncRedis(server=server), fakeredis.FakeRedis(server=server)
        with time_machine.travel(NINE / 1000, tick=False) as traveller:
            clock = StoreClock(lambda now_ms: traveller.move_to((now_ms + 0.5) / 1000))
            connection = Connection(
                client, describe="fake", timeout_ms=10_000, server=None, sleep=no_sleep, renewals=Renewals()
            )
            await live(clock, LeaseStore(connection, FARM), raw, linger, steps)
        await client.aclose()
        raw.close()

    asyncio.run(once())


async def used(pool: Office, since: int = 0) -> list[Hour]:
    """Return every hour of the pool."""
    now, tallies = await AuditStore(pool.timed.connection, FARM).usage(pool.pool.name, since)
    return list(hours(tallies, since=since, now=now))


async def test_reading_changes_nothing(timed: TimedStore) -> None:
    """Usage, pages and extent may be read by somebody who may write nothing."""
    pool = await office(timed, "floating", linger="20m")
    await pool.end("john", await pool.start("john"))
    await pool.at("12:00")
    before, trail = pool.contents(), AuditStore(timed.connection, FARM)
    assert [HOUR // 3, 0, 0, 0] == [hour.area for hour in await used(pool)]
    assert ["configured", "acquired", "released"] == [
        each.event async for each in trail.entries(AuditCursor("clearquest"))
    ]
    assert 0 == (await trail.extent("clearquest")).cut
    assert before == pool.contents()


async def test_hours_older_than_400_days_go_but_for_what_was_held(timed: TimedStore) -> None:
    """Space is bounded: as hours come, old ones go; the last of those says what was held when the kept ones began."""
    pool = await office(timed, "floating", capacity=9, session_timeout="3650d", share="session")
    key = "fl:{citrix-a/clearquest/0}:usage"
    for day in range(6):
        await pool.at("09:00", day=day)
        await pool.start(f"user{day}")
    assert 5 == timed.raw.zcard(key)
    await pool.at("08:00", day=403)
    await pool.start("late")
    assert [NINE + 2 * DAY, NINE + 3 * DAY, NINE + 4 * DAY, NINE + 5 * DAY] == [
        int(score) for _, score in timed.raw.zrange(key, 0, -1, withscores=True)
    ]
    assert [3, 4] == [hour.peak for hour in await used(pool, NINE + 3 * DAY - HOUR)][:2]


async def test_a_clock_that_had_leapt_counts_no_hour_twice(timed: TimedStore) -> None:
    """A clock that was a day ahead while nobody knew better is right again: the hour it comes back to goes on."""
    pool = await office(timed, "floating", capacity=3, session_timeout="3650d")
    await pool.start("john")
    timed.clock.advance(DAY)
    await pool.start("mary")
    timed.clock.set(NINE + HOUR // 2)
    await pool.start("ann")
    (first, *_) = await used(pool, NINE)
    assert (NINE, 3) == (first.begins_at, first.peak)


async def test_a_damaged_tally_is_left_out(timed: TimedStore) -> None:
    """Somebody else's hand in the data hides no other hour, and stops no decision."""
    pool = await office(timed, "floating", capacity=3, session_timeout="3650d")
    await pool.start("john")
    await pool.at("11:00")
    await pool.start("mary")
    timed.raw.zadd("fl:{citrix-a/clearquest/0}:usage", {b"nonsense": NINE + 1})
    assert [1, 1, 2] == [hour.peak for hour in await used(pool, NINE)]
    timed.raw.hset("fl:{citrix-a/clearquest/0}:meta", "tally", "nonsense")
    await pool.start("ann")
    assert 3 == (await used(pool, NINE))[-1].peak
    with pytest.raises(Damaged):
        parse_tally(b"1 2 3")


async def test_a_name_is_erased_unless_it_is_needed(timed: TimedStore) -> None:
    """A lease, sessions or none, keeps the name; without one it goes, and leaves no seat behind."""
    pool, trail = await office(timed, "named", quarantine="1h"), AuditStore(timed.connection, FARM)
    taken = await pool.start("john")
    assert NameInUse(None) == await trail.forget("clearquest", index("john"), b"by")
    await pool.end("john", taken)
    assert NameInUse(NINE + 30 * DAY) == await trail.forget("clearquest", index("john"), b"by")
    await pool.give_back("john")
    await pool.at("10:00")
    assert Erasure(name=True, words=True) == await trail.forget("clearquest", index("john"), b"by")
    assert Erasure(name=False, words=False) == await trail.forget("clearquest", index("john"), b"by")
    assert not {"names", "records", "leases", "seats"} & pool.contents().keys()
    found = [entry async for entry in trail.entries(AuditCursor("clearquest"), [index("john")])]
    assert {(b"", b"")} == {(entry.name, entry.note) for entry in found}
    assert {"acquired", "released", "returned", "forgotten"} <= {entry.event for entry in found}
    assert Erasure(name=False, words=False) == await trail.forget("nowhere", index("john"), b"by")


async def test_a_name_noted_without_a_seat_is_erased_too(timed: TimedStore) -> None:
    """Who was let in or sent away by a rule alone stands in the farm's own audit by name, until forgotten."""
    trail = AuditStore(timed.connection, FARM)
    await timed.store.note(claim("john"), "restricted", "", b"sealed")
    assert [b"sealed"] == [entry.name async for entry in trail.entries(AuditCursor(""), [index("john")])]
    assert [True, False] == [(await trail.forget_name(index("john"), b"by")).name for _ in range(2)]
    found = [(entry.event, entry.name) async for entry in trail.entries(AuditCursor(""), [index("john")])]
    assert [("restricted", b""), ("forgotten", b"")] == found
    assert (2, 0) == ((await trail.extent("")).entries, (await trail.extent("")).cut)


async def test_a_place_in_the_queue_is_audited_once(timed: TimedStore) -> None:
    """Asking for the place again is no new decision."""
    pool = await office(timed, "floating", queue="10m")
    await pool.start("john")
    assert [0, 0] == [await pool.wait("mary") for _ in range(2)]
    assert ["acquired", "queued"] == pool.events()
    assert (
        NODE
        == [entry.node async for entry in AuditStore(timed.connection, FARM).entries(AuditCursor("clearquest"))][-1]
    )


def test_the_drawing_loses_no_peak() -> None:
    """Each bar is the greatest of its share; none at all is a blank."""
    assert [2, 9] == squeezed([1, 2, 3, 9, 1], 2)
    assert [1, 2] == squeezed([1, 2], 24)
    assert " ▁▄█" == sparkline([0, 1, 50, 100], 100)


def test_hours_are_summed_by_the_time_that_was_counted() -> None:
    """A quarter of an hour with 8 seats and a whole one with 2 are 3.2 on average."""
    one = Hour(begins_at=0, counted_ms=HOUR_MS // 4, area=2 * HOUR_MS, peak=8, held=2, capacity=9, denials={"a": 1})
    two = Hour(begins_at=HOUR_MS, counted_ms=HOUR_MS, area=2 * HOUR_MS, peak=2, held=2, capacity=9, denials={"a": 2})
    total = summed([one, two])
    assert (8, 0, 3.2, {"a": 3}) == (total.peak, total.peak_at, total.average, total.denials)
