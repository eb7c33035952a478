"""What one user may have in a pool at most, also where the policy knows no limit: 256 uses, 64 devices, 16 places."""

import re
from importlib import resources
from typing import Any

import pytest

from farmlease.domain.model import Reason
from farmlease.domain.pool import MOST_DEVICES, MOST_PLACES, MOST_USES
from farmlease.store.answers.admin import Import, Importing
from farmlease.store.answers.recovery import Restored, Restoring
from farmlease.store.answers.session import Refusal, Taken, Waiting
from tests.store.test_recovery import ask, emptied, knowledge, recover, restore
from tests.support.rules import office
from tests.support.seats import NODE, OTHER, Desk, desk
from tests.support.stores import NINE, TimedStore, index


async def filled(pool: Desk, uses: int, user: str = "john", node: str = NODE) -> Taken:
    """Start so many sessions of a user; return the last one's answer."""
    for number in range(uses):
        taken = await pool.start(user, str(number), node)
    return taken


def test_the_scripts_count_as_the_policy_does() -> None:
    """Both sides have the same numbers."""
    text = resources.files("farmlease.store").joinpath("lua/lib/seats.lua").read_text(encoding="utf-8")
    found = re.search(r"MOST_USES, MOST_DEVICES, MOST_PLACES = (\d+), (\d+), (\d+)", text)
    assert found is not None
    assert (MOST_USES, MOST_DEVICES, MOST_PLACES) == tuple(map(int, found.groups()))


@pytest.mark.parametrize("allowed", [0, MOST_USES + 1])
async def test_nobody_has_more_uses_than_256(timed: TimedStore, allowed: int) -> None:
    """L1, L8: the 257th is told the 256, whether the policy has no limit or a higher one; other users start."""
    pool = desk(timed, sessions_per_user=allowed)
    await pool.beat(NODE, OTHER)
    last = await filled(pool, MOST_USES)
    refusal = await pool.refused("john", "one more", OTHER)
    assert (Reason.USER_LIMIT, None, MOST_USES, MOST_USES) == (
        refusal.reason, refusal.retry_at, refusal.held, refusal.capacity,
    )  # fmt: skip
    assert {str(number) for number in range(MOST_USES)} == {each.session for each in refusal.blocking}
    assert (await pool.start("john", "7")).again
    assert (await pool.start("john", "7", device="nb-1")).moved
    await pool.start("mary", "one")
    await pool.end("john", last, str(MOST_USES - 1))
    await pool.start("john", "one more", OTHER)


async def test_a_limit_of_the_policy_has_its_own_reason(timed: TimedStore) -> None:
    """A policy that allows as many as anybody may have, or fewer, is what denies."""
    pool = desk(timed, sessions_per_user=2, devices_per_user=1)
    await pool.beat()
    await filled(pool, 2)
    assert Reason.SESSION_LIMIT is (await pool.refused("john", "3")).reason
    assert Reason.DEVICE_LIMIT is (await pool.refused("john", "3", device="nb-1")).reason


@pytest.mark.parametrize("kind", ["named", "floating"])
async def test_nobody_is_on_more_devices_than_64(timed: TimedStore, kind: str) -> None:
    """L1, L8: the 65th device is told the 64 and when the first of them ends; one of them goes on."""
    pool = await office(timed, kind, **({"devices_per_user": 0} if kind == "named" else {"share": "user"}))
    await pool.beat()
    for number in range(MOST_DEVICES):
        taken = await pool.start("john", str(number), device=f"nb-{number}")
    refusal = await pool.refused("john", "one more", device="nb-x")
    assert (Reason.USER_LIMIT, MOST_DEVICES, MOST_DEVICES) == (refusal.reason, refusal.held, refusal.capacity)
    assert {f"nb-{number}" for number in range(MOST_DEVICES)} == {each.device for each in refusal.blocking}
    await pool.end("john", taken, str(MOST_DEVICES - 1))
    assert pool.pool.lease_ms + NINE == (await pool.refused("john", "one more", device="nb-x")).retry_at
    await pool.start("john", "one more", device=f"nb-{MOST_DEVICES - 1}")


async def test_nobody_waits_more_than_16_times(timed: TimedStore) -> None:
    """L8: the 17th session of a user is denied at once, and who waits keeps the place; others are let in behind."""
    pool = await office(timed, "floating", queue="10m", share="session")
    await pool.beat()
    taken = await pool.start("mary")
    for number in range(MOST_PLACES):
        assert number == await pool.wait("john", str(number))
    refusal = await pool.want("john", "one more", wait_ms=2000)
    assert isinstance(refusal, Refusal)
    assert (Reason.USER_LIMIT, MOST_PLACES, MOST_PLACES, ()) == (
        refusal.reason, refusal.held, refusal.capacity, refusal.blocking,
    )  # fmt: skip
    assert 3 == await pool.wait("john", "3")
    assert MOST_PLACES == await pool.wait("zoe")
    await pool.end("mary", taken)
    assert isinstance(await pool.wait("john", "0"), Taken)
    assert isinstance(await pool.want("john", "one more", wait_ms=2000), Waiting)


async def test_a_place_that_lapsed_does_not_count(timed: TimedStore) -> None:
    """L5: who does not ask again waits no more, swept or not."""
    pool = await office(timed, "floating", queue="10m", share="session")
    await pool.beat()
    await pool.start("mary")
    for number in range(MOST_PLACES):
        await pool.wait("john", str(number))
    timed.clock.advance(2000)
    assert isinstance(await pool.want("john", "one more", wait_ms=2000), Waiting)


async def test_a_window_has_no_more_places_for_a_user(timed: TimedStore) -> None:
    """While a store recovers everybody waits, and nobody more often than otherwise."""
    pool = await office(timed, "floating", queue="10m", share="session")
    known = await knowledge(pool)
    emptied(pool)
    await recover(pool, known, roster=(NODE, OTHER))
    known = await knowledge(pool)
    for number in range(MOST_PLACES):
        assert isinstance(await pool.want("john", str(number), wait_ms=2000), Waiting)
    refusal = await pool.want("john", "one more", wait_ms=2000)
    assert isinstance(refusal, Refusal)
    assert Reason.USER_LIMIT is refusal.reason


async def test_a_restore_exceeds_no_limit_of_a_user(timed: TimedStore) -> None:
    """L1, L7: two nodes that restore a lease's sessions together bring back no more than anybody may have."""
    pool = desk(timed)
    known = await knowledge(pool)
    taken = await ask(pool, "john", known)
    assert isinstance(taken, Taken)
    emptied(pool)
    epoch = (await recover(pool, known, roster=(NODE, OTHER))).epoch
    await pool.beat(NODE, OTHER)
    mine = tuple(map(str, range(200)))
    first = await restore(pool, epoch, "john", taken, mine)
    assert isinstance(first, Restored)
    assert {} == first.refused
    second = await restore(pool, epoch, "john", taken, mine, OTHER)
    assert isinstance(second, Restored)
    assert (200 + 200 - MOST_USES, {"user_limit"}) == (len(second.refused), set(second.refused.values()))
    lease = await pool.lease("john")
    assert lease is not None
    assert MOST_USES == len(lease.sessions)
    again = await restore(pool, epoch, "john", taken, mine)
    assert isinstance(again, Restored)
    assert {} == again.refused


async def test_a_restore_brings_no_more_devices_back(timed: TimedStore) -> None:
    """L1: devices that no session uses give way, and a session on one device too many is not restored."""
    pool = desk(timed, devices_per_user=0)
    known = await knowledge(pool)
    taken = await ask(pool, "john", known)
    assert isinstance(taken, Taken)
    emptied(pool)
    epoch = (await recover(pool, known)).epoch
    await pool.beat()
    claims: dict[str, dict[str, Any]] = {
        str(number): {"device": f"nb-{number}", "fence": taken.fence, "started": taken.now}
        for number in range(MOST_DEVICES + 6)
    }
    restoring = Restoring(
        user=index("john"), document=taken.document, sessions=claims, version=1, record=b"record", name=b"name"
    )
    restored = await timed.store.restore(pool.pool, pool.version, NODE, epoch, restoring)
    assert isinstance(restored, Restored)
    assert (6, {"user_limit"}) == (len(restored.refused), set(restored.refused.values()))
    lease = await pool.lease("john")
    assert lease is not None
    assert MOST_DEVICES == len(lease.devices) == len(lease.sessions)


async def test_an_import_adds_no_device_beyond_64(timed: TimedStore) -> None:
    """L1: rows of the vendor's list are no way round."""
    pool = desk(timed, devices_per_user=0)
    await pool.beat()

    async def imported(number: int) -> tuple[Import, Reason | None]:
        importing = Importing(
            user=index("john"), device=f"nb-{number}", borrowed_at=NINE - 1000, lease_id="lease", record=b"record",
            name=b"name", reservations=(), by=b"by",
        )  # fmt: skip
        outcome = await timed.store.import_lease(pool.pool, pool.version, importing)
        return outcome.outcome, outcome.reason  # type: ignore[union-attr] # never behind here

    for number in range(MOST_DEVICES):
        assert (Import.IMPORTED, None) == await imported(number)
    assert (Import.DENIED, Reason.USER_LIMIT) == await imported(MOST_DEVICES)
    assert (Import.KNOWN, None) == await imported(3)
