"""What an administrator does with leases, without a command around it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from farmlease.admin.leases import LeaseAdmin
from farmlease.domain.identity import User
from farmlease.domain.model import LeaseState, Withdrawal
from farmlease.domain.policy import Pool
from farmlease.errors import RecordRejected
from farmlease.farm import Farm, open_farm
from farmlease.store.seal_store import Kind
from tests.support.commands import Host

T = TypeVar("T")
JOHN, MARY, ZOE = User("corp\\john"), User("corp\\mary"), User("corp\\zoe")
FARM = "citrix-a"


def with_pool(host: Host, use: Callable[[Farm, LeaseAdmin, Pool], Awaitable[T]], by: str = "") -> T:
    """Return what a function makes of the farm, its leases and its first pool."""

    async def opened() -> T:
        async with open_farm(host.config, by=by) as (farm, _):
            return await use(farm, LeaseAdmin(farm), (await farm.policy()).pools[0])

    return asyncio.run(opened())


def test_every_lease_is_listed_by_name(lent: Host) -> None:
    """One with a session is active, one without is idle."""

    async def listed(_: Farm, leases: LeaseAdmin, pool: Pool) -> dict[str, LeaseState]:
        return {view.user: view.state async for view in leases.leases(pool)}

    assert {"corp\\john": LeaseState.ACTIVE, "corp\\mary": LeaseState.IDLE} == with_pool(lent, listed)


@pytest.mark.parametrize(
    ("user", "device", "fault"),
    [
        (JOHN, FARM, None),
        (ZOE, FARM, "the user has no lease in pool qlikview"),
        (JOHN, "NB-0042", "the lease is not on device nb-0042"),
    ],
)
def test_a_fault_says_what_is_missing(lent: Host, user: User, device: str, fault: str | None) -> None:
    """A lease is valid for its own user on its own device."""

    async def looked(_: Farm, leases: LeaseAdmin, pool: Pool) -> str | None:
        return await leases.fault(pool, user, device)

    assert fault == with_pool(lent, looked)


def test_a_lease_that_was_given_back_is_not_valid(lent: Host) -> None:
    """A returned seat is quarantined: it is listed, and no session finds it."""

    async def returned(_: Farm, leases: LeaseAdmin, pool: Pool) -> str | None:
        await leases.withdraw(pool, MARY, Withdrawal.RETURNED)
        return await leases.fault(pool, MARY, FARM)

    assert "the lease in pool qlikview was given back" == with_pool(lent, returned)


def test_without_a_lease_nothing_is_returned_but_a_revocation_bars(lent: Host) -> None:
    """A return has nothing to do; a revocation keeps the user out all the same."""

    async def withdrawn(_: Farm, leases: LeaseAdmin, pool: Pool) -> None:
        assert None is await leases.withdraw(pool, ZOE, Withdrawal.RETURNED)
        revoked = await leases.withdraw(pool, ZOE, Withdrawal.REVOKED, "left us")
        assert revoked is not None
        assert (None, True) == (revoked.quarantined_until, revoked.barred_until is not None)

    with_pool(lent, withdrawn, by="anna on desk-7")


def test_a_name_that_does_not_open_is_a_pseudonym(lent: Host) -> None:
    """Another user's seal in place of the name hides neither the lease nor, worse, who holds it."""

    async def swapped(farm: Farm, leases: LeaseAdmin, pool: Pool) -> tuple[str, str]:
        john, mary = farm.sealer.user_index(JOHN), farm.sealer.user_index(MARY)
        old, other = await farm.seals.name(pool.name, john), await farm.seals.name(pool.name, mary)
        assert await farm.seals.reseal(pool.name, Kind.NAMES, john, old, other)
        view = await leases.lease(pool, JOHN)
        assert view is not None
        return john, view.user

    index, shown = with_pool(lent, swapped)
    assert index == shown


def test_a_swapped_record_is_rejected(lent: Host) -> None:
    """L6: the record of another user opens for nobody else, and that is an error and no fault of the lease."""

    async def swapped(farm: Farm, leases: LeaseAdmin, pool: Pool) -> None:
        john, mary = farm.sealer.user_index(JOHN), farm.sealer.user_index(MARY)
        old, other = await farm.seals.record(pool.name, john), await farm.seals.record(pool.name, mary)
        assert await farm.seals.reseal(pool.name, Kind.RECORDS, john, old.record, other.record)
        with pytest.raises(RecordRejected):
            await leases.fault(pool, JOHN, FARM)

    with_pool(lent, swapped)
