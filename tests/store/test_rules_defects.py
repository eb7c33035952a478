"""Defects other licence servers had, played on this one."""

import pytest

from farmlease.store.answers.session import Taken
from tests.support.rules import office
from tests.support.seats import NODE, OTHER, claim
from tests.support.stores import TimedStore


async def test_a_timed_out_client_that_goes_on_takes_nothing_from_the_new_holder(timed: TimedStore) -> None:
    """PK32588: john's client loses its seat to mary at 11:00 and goes on: no end, hold or save reaches hers."""
    pool = await office(timed, "floating", NODE, OTHER, max_hold="4h")
    old = await pool.start("john")
    await pool.at("11:00", OTHER)
    mary = await pool.start("mary", node=OTHER)
    before = pool.contents()
    assert None is await pool.hold("john", old, 1000)
    assert None is await timed.store.save("clearquest", claim("john"), old.lease.id, 2, b"late")
    await timed.store.release("clearquest", claim("mary", node=OTHER), old.fence)
    assert {"audit", "meta"} >= {name for name, now in pool.contents().items() if before.get(name) != now}
    assert [old.fence] == [each.fence for each in (await pool.beat(NODE)).lost]
    await pool.end("john", old)
    assert () == (await pool.beat(NODE)).lost
    assert (mary.fence, 1) == ((await pool.start("mary", node=OTHER)).fence, await pool.held())


async def test_the_late_end_of_a_lost_session_does_not_end_its_successor(timed: TimedStore) -> None:
    """PK32588: lost at 11:00 and granted anew, the session outlives every late word of its first life."""
    pool = await office(timed, "floating", NODE, OTHER, max_hold="4h")
    old = await pool.start("john")
    await pool.at("11:00", OTHER)
    await pool.beat(NODE)
    new = await pool.start("john")
    assert old.fence < new.fence
    await pool.end("john", old)
    assert None is await pool.hold("john", old, 1000)
    assert None is await timed.store.save("clearquest", claim("john"), old.lease.id, 2, b"late")
    assert (1, new.fence) == (await pool.held(), (await pool.start("john")).fence)


async def test_a_late_acknowledgement_hides_no_later_loss(timed: TimedStore) -> None:
    """L4: lost at 11:00, granted anew, lost again at 13:00: hearing of the first leaves word of the second."""
    pool = await office(timed, "floating", NODE, OTHER)
    first = await pool.start("john")
    await pool.at("11:00", OTHER)
    await pool.beat(NODE)
    second = await pool.start("john")
    await pool.at("13:00", OTHER)
    await pool.beat(NODE)
    await pool.end("john", first)
    assert [second.fence] == [each.fence for each in (await pool.beat(NODE)).lost]


@pytest.mark.parametrize("share", ["session", "user_device", "user"])
async def test_a_reconnect_after_a_lost_reply_takes_no_second_seat(timed: TimedStore, share: str) -> None:
    """FlexNet: the same session asks five times, its replies lost: one seat, one fence; one end frees it."""
    pool = await office(timed, "floating", capacity=2, share=share)
    answers = [await pool.start("john") for _ in range(5)]
    assert (1, 1) == (len({each.fence for each in answers}), await pool.held())
    await pool.end("john", answers[0])
    await pool.end("john", answers[0])
    assert 0 == await pool.held()


async def test_a_reply_lost_in_the_queue_takes_no_second_place(timed: TimedStore) -> None:
    """L3: asked three times, a session has one place; the grant that got lost is given again, and the place is gone."""
    pool = await office(timed, "floating", queue="10m")
    john = await pool.start("john")
    assert [0, 0, 0] == [await pool.wait("mary") for _ in range(3)]
    assert 1 == (await pool.count()).waiting
    await pool.end("john", john)
    first, again = await pool.wait("mary"), await pool.wait("mary")
    assert isinstance(first, Taken)
    assert isinstance(again, Taken)
    assert (first.fence, 0) == (again.fence, (await pool.count()).waiting)


@pytest.mark.parametrize(("kind", "keys"), [("named", {}), ("floating", {"share": "user"})])
async def test_one_user_on_several_hosts_behind_a_balancer_has_one_seat(
    timed: TimedStore, kind: str, keys: dict[str, str]
) -> None:
    """PM80778: john's six sessions on six hosts are one seat of two; after the last, the pool's rule goes on."""
    nodes = [f"ctx-{number:02}#a" for number in range(6)]
    pool = await office(timed, kind, *nodes, capacity=2, **keys)
    taken = [await pool.start("john", node=node) for node in nodes]
    assert (1, 1) == (await pool.held(), len({each.lease.id for each in taken}))
    await pool.start("mary", node=nodes[0])
    for node, each in zip(nodes, taken, strict=True):
        await pool.end("john", each, node=node)
    assert (2 if kind == "named" else 1) == await pool.held()
