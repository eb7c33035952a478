"""Which policy a pool goes by, and what a new one changes."""

from dataclasses import replace

import pytest

from farmlease.errors import PolicyChanged
from farmlease.store.answers.session import Behind, SealedPolicy
from tests.support.seats import NODE, Desk, desk
from tests.support.stores import DAY, HOUR, NINE, TimedStore, named_pool


def under(before: Desk, version: int, **keys: object) -> Desk:
    """Return the desk of the same pool under another policy."""
    return replace(before, pool=named_pool(**keys), version=version)


async def test_a_pool_gets_its_limits_with_its_first_decision(timed: TimedStore) -> None:
    """A policy that was not yet given to a pool is given to it by whoever decides by it first."""
    await desk(timed).beat()
    meta = desk(timed).contents()["meta"]
    assert (b"1", b"3", b"2", str(30 * DAY).encode(), b"named") == (
        meta[b"policy"],
        meta[b"capacity"],
        meta[b"devices_per_user"],
        meta[b"lease_ms"],
        meta[b"kind"],
    )


async def test_who_goes_by_an_older_policy_is_sent_to_read_the_newer(timed: TimedStore) -> None:
    """No session starts and no node beats by a policy that was replaced."""
    old = desk(timed, capacity=1)
    await old.beat()
    await timed.store.configure(named_pool(capacity=5), 2)
    before = old.contents()
    assert Behind.POLICY is await old.ask("john")
    assert Behind.POLICY is await timed.store.heartbeat(old.pool, old.version, NODE, None)
    assert before == old.contents()
    new = under(old, 2, capacity=5)
    await new.beat()
    await new.start("john")


async def test_an_older_policy_never_replaces_a_newer(timed: TimedStore) -> None:
    """A node that is late with the policy before last changes nothing, nor does one with the same."""
    await timed.store.configure(named_pool(capacity=5), 7)
    before = desk(timed).contents()
    await timed.store.configure(named_pool(capacity=9), 6)
    await timed.store.configure(named_pool(capacity=9), 7)
    assert before == desk(timed).contents()


async def test_less_capacity_takes_no_seat_away(timed: TimedStore) -> None:
    """L5: three users hold seats when the capacity becomes one: they stay, and nobody new gets in."""
    old = desk(timed, capacity=3)
    await old.beat()
    taken = {user: await old.start(user) for user in ("john", "mary", "zoe")}
    new = under(old, 2, capacity=1)
    await new.beat()
    assert [True] * 3 == [(await new.start(user)).again for user in taken]
    refusal = await new.refused("paul")
    assert (3, 1) == (refusal.held, refusal.capacity)


async def test_a_longer_lease_brings_no_lapsed_one_back(timed: TimedStore) -> None:
    """L1, L5: 20 leases of one day lapse; a policy of 30 days comes too late for them, however few were swept."""
    old = desk(timed, capacity=20, lease="1d")
    await old.beat()
    for number in range(20):
        await old.end(f"old{number}", await old.start(f"old{number}", str(number)), str(number))
    timed.clock.advance(DAY)
    new = under(old, 2, capacity=20, lease="30d")
    await new.beat()
    assert None is await new.lease("old19")
    for number in range(19):
        await new.start(f"new{number}", str(number))
    returned = await new.start("old19", "19")
    assert timed.clock.now_ms == returned.lease.issued_at
    assert 20 == await new.held()
    assert 20 == (await new.refused("old18")).held


async def test_a_shorter_lease_is_for_contacts_to_come(timed: TimedStore) -> None:
    """L5: promised on 5 January for 30 days, the seat stays John's for 30 days when the policy becomes one day."""
    old = desk(timed, capacity=1, lease="30d")
    await old.beat()
    await old.end("john", await old.start("john"))
    new = under(old, 2, capacity=1, lease="1d")
    timed.clock.set(NINE + 30 * DAY - 1)
    await new.beat()
    refusal = await new.refused("mary")
    assert NINE + 30 * DAY == refusal.retry_at
    lease = await new.lease("john")
    assert lease is not None
    assert [NINE + 30 * DAY] == [each.until for each in lease.devices]
    timed.clock.advance(1)
    mary = await new.start("mary")
    assert NINE + 31 * DAY == mary.lease.expires_at


async def test_a_shorter_lease_shortens_none_that_is_renewed(timed: TimedStore) -> None:
    """L5: a session under the new policy does not take back what the old one promised."""
    old = desk(timed, lease="30d")
    await old.beat()
    await old.end("john", await old.start("john"))
    new = under(old, 2, lease="1d")
    timed.clock.advance(HOUR)
    assert NINE + 30 * DAY == (await new.start("john")).lease.expires_at
    timed.clock.set(NINE + 30 * DAY)
    await new.beat()
    assert 0 == await new.held()


async def test_a_farm_without_policy_says_so(timed: TimedStore) -> None:
    """Version 0 means that none was ever applied."""
    assert SealedPolicy(version=0, sealed=b"", now=NINE) == await timed.store.read_policy()


@pytest.mark.parametrize("sealed", [b"\0", b"\1\n", bytes(range(256)), b"\n1\n2\n3"])
async def test_a_policy_is_any_bytes(timed: TimedStore, sealed: bytes) -> None:
    """What was applied is read back byte for byte, with its version and the store's time, if it begins as a seal does."""
    await timed.store.apply_policy(0, NINE, sealed)
    assert SealedPolicy(version=NINE, sealed=sealed, now=NINE) == await timed.store.read_policy()


async def test_of_two_administrators_one_is_told(timed: TimedStore) -> None:
    """Both read version 1; the second to apply is told that somebody else did, and replaces nothing."""
    await timed.store.apply_policy(0, 1, b"\1first")
    await timed.store.apply_policy(1, 2, b"\1mine")
    with pytest.raises(PolicyChanged, match="another administrator applied a policy meanwhile"):
        await timed.store.apply_policy(1, 3, b"\1yours")
    assert b"\1mine" == (await timed.store.read_policy()).sealed
    with pytest.raises(PolicyChanged):
        await timed.store.apply_policy(0, 4, b"\1first of all")
    with pytest.raises(PolicyChanged):
        await timed.store.apply_policy(7, 8, b"\1after a roll-back")
