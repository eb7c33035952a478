"""What is wrong with a farm as a whole: full for long, many people denied, nodes that do not report."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from farmlease.domain.diagnosis import farm
from farmlease.domain.diagnosis.farm import Denials, FullSince, PoolState, full_since
from farmlease.domain.diagnosis.finding import Verdict
from farmlease.domain.model import Kind
from farmlease.domain.node_view import NodeView, Wish
from farmlease.domain.usage import HOUR_MS, Hour

NINE = 1_767_603_600_000  #: 09:00 of a day
MINUTE = 60_000


def hour(begins_at: int, seats: float, ms: int = HOUR_MS, capacity: int = 3) -> Hour:
    """Return an hour in which so many seats were held on average."""
    return Hour(
        begins_at=begins_at, counted_ms=ms, area=int(seats * ms), peak=capacity, held=capacity, capacity=capacity
    )


def pool(now: int, hours: Sequence[Hour], held: int = 3, kind: Kind = Kind.FLOATING, capacity: int = 3) -> PoolState:
    """Return a pool of three seats."""
    return PoolState(
        name="q", kind=kind, held=held, capacity=capacity, overdraft=0, quarantined=0, waiting=2, now=now, hours=hours
    )


def told(at: PoolState, since: FullSince | None) -> list[str]:
    """Return the texts on a pool."""
    return [each.text for each in farm.pools([at], {} if since is None else {"q": since})]


def test_a_pool_that_became_full_is_told_after_ten_minutes() -> None:
    """At the first look nobody knows since when; ten minutes later it was full all the time."""
    first = pool(NINE + 20 * MINUTE, [hour(NINE, 2, 20 * MINUTE)])
    since = full_since(first)
    assert FullSince(first.now, 2 * 20 * MINUTE, 3) == since
    assert [] == told(first, since)
    area = 2 * 20 * MINUTE + 3 * 10 * MINUTE
    later = pool(NINE + 30 * MINUTE, [replace(hour(NINE, 0, 30 * MINUTE), area=area)])
    assert since == full_since(later, since)
    assert ["q is full for 10 minutes: 3 of 3 seats held, 2 sessions waiting; see `farmlease lease list --pool q`"] == (
        told(later, since)
    )


def test_a_seat_that_was_free_in_between_begins_anew() -> None:
    """Full at two looks is not full all the time; a moment between two users is no pause."""
    since = FullSince(NINE + 20 * MINUTE, 2 * 20 * MINUTE, 3)
    at = NINE + 30 * MINUTE
    free = replace(hour(NINE, 0, 30 * MINUTE), area=2 * 20 * MINUTE + 3 * 10 * MINUTE - 2 * MINUTE)
    assert FullSince(at, free.area, 3) == full_since(pool(at, [free]), since)
    moment = replace(free, area=free.area + 2 * MINUTE - 1_000)
    assert since == full_since(pool(at, [moment]), since)


def test_full_over_the_turn_of_an_hour() -> None:
    """What was held in the hour before counts from the first look on, and a longer time by whole hours."""
    since = FullSince(NINE + 55 * MINUTE, 0, 3)
    hours = [hour(NINE, 0.25), hour(NINE + HOUR_MS, 3, 5 * MINUTE)]
    assert since == full_since(pool(NINE + 65 * MINUTE, hours), since)
    days = FullSince(NINE - 100 * HOUR_MS, 0, 3)
    assert days == full_since(pool(NINE + 65 * MINUTE, [hour(NINE, 3), hours[1]]), days)


def test_the_hours_tell_a_first_look_since_when() -> None:
    """Hours that were full throughout count back; a pool's first hour from its beginning."""
    now = NINE + 65 * MINUTE
    full = [hour(NINE - HOUR_MS, 2), hour(NINE, 3), hour(NINE + HOUR_MS, 3, 5 * MINUTE)]
    assert FullSince(NINE, 0, 3) == full_since(pool(now, full))
    young = [hour(NINE, 3, 20 * MINUTE), full[2]]
    assert FullSince(NINE + 40 * MINUTE, 0, 3) == full_since(pool(now, young))


@pytest.mark.parametrize(
    "at",
    [
        pool(NINE, [hour(NINE, 3, MINUTE)], held=2),
        pool(NINE, [hour(NINE, 3, MINUTE)], kind=Kind.NODE_LOCKED),
        pool(NINE, [], held=0, capacity=0),
    ],
    ids=["a free seat", "each node has its own", "closed"],
)
def test_what_is_not_full(at: PoolState) -> None:
    """One free seat, a node-locked pool whose nodes all have users, and a pool that gives nothing on purpose."""
    assert None is full_since(at, FullSince(NINE - HOUR_MS, 0, 3))


def test_another_capacity_begins_anew() -> None:
    """Whoever bought seats wants to know whether they are enough."""
    since = FullSince(NINE, 0, 2)
    assert full_since(pool(NINE + HOUR_MS, [hour(NINE + HOUR_MS, 3, 0)]), since) != since


def test_five_different_people_are_told() -> None:
    """Who is denied in two pools, or again and again, is one; more than was read is at least as many."""
    four = Denials({"q": frozenset("abcd"), "": frozenset("a")})
    assert [] == [*farm.denials(four)]
    five = Denials({"q": frozenset("abcd"), "": frozenset("ae"), "z": frozenset()}, whole=False)
    (found,) = farm.denials(five)
    assert "at least 5 people were denied within 10 minutes (q 4, without a pool 2)" in found.text


def view(node: str, seen_ago_s: int = 0, health: str = "pass", **changes: int | bool) -> NodeView:
    """Return a node's report."""
    plain = NodeView(
        node=node, incarnation="1", version="1", sessions=0, owed=0, draining=False, stopping=False, health=health,
        listen="", started_at=0, seen_at=NINE - seen_ago_s * 1000, now=NINE, wish=Wish(),
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]  # of these two kinds


def test_nodes_that_do_not_report_or_cannot_grant_are_told() -> None:
    """Silent, failing and doubled ones; draining and stopped ones are as somebody wished."""
    views = [
        view("a"), view("b", 300), view("c", health="fail"), view("d", draining=True), view("e", 300, stopping=True),
        view("f", namesakes=1), view("g", 40),
    ]  # fmt: skip
    found = [(each.subject, each.verdict, each.text.partition(";")[0]) for each in farm.nodes(views)]
    assert [
        ("b", Verdict.WARN, "b is silent: not heard of for 5 minutes"),
        ("c", Verdict.FAIL, "c cannot grant"),
        ("f name", Verdict.WARN, "2 hosts report as f"),
        ("g", Verdict.WARN, "g is silent: not heard of for half a minute"),
    ] == found
