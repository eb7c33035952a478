"""L11: what was taken back stays so, through restarts, receipts and older copies of the store.

Where nothing was lost, a recovery changes nothing.
"""

import json
from typing import Any

import pytest

from farmlease.admin.leases import LeaseAdmin
from farmlease.domain.identity import User
from farmlease.domain.model import Reason, Source, Withdrawal
from farmlease.domain.policy import Pool
from farmlease.store.answers.admin import Replacement
from farmlease.store.keys import Shard
from tests.support.nodes import FARM, JOHN, MARY, Host, Site
from tests.support.renames import PLAIN, read_otherwise
from tests.support.seats import contents
from tests.support.stores import Served

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
#: What a recovery writes of itself; everything else is what was counted before.
BOOKS = {"audit", "awaited", "usage", "nodes"}
OF_EPOCH = {
    b"epoch",
    b"keys",
    b"life",
    b"recovering",
    b"opened",
    b"present",
    b"blank",
    b"audited",
    b"tally",
    b"line",
    b"vouched",
    b"fence",
    b"taken",
    b"skew",
}


@pytest.fixture
def farm(site: Site) -> Site:
    """A farm with a recovery window."""
    site.window = "15s"
    return site


async def beaten(*hosts: Host, times: int = 2) -> None:
    """Let hosts beat, and finish what that brings to light."""
    for _ in range(times):
        for host in hosts:
            await host.beat()
        for host in hosts:
            await host.agent.settled()


def restarted(site: Site, life: str = "another life") -> None:
    """Let the store be another life of the server, with the same data."""
    for host in site.hosts:
        host.line.real = Served(site.timed.connection, life)


def emptied(site: Site) -> None:
    """Lose everything; some time passes until somebody notices."""
    site.timed.raw.flushall()
    site.timed.clock.advance(SECOND)


async def pool_of(site: Site) -> Pool:
    """The pool as it is in force."""
    pool = (await site.farm.policy()).pool("qlikview")
    assert pool is not None
    return pool


async def taken_back(site: Site, why: Withdrawal = Withdrawal.RETURNED, user: User = JOHN) -> None:
    """Let an administrator take a user's lease."""
    assert await LeaseAdmin(site.farm).withdraw(await pool_of(site), user, why)


def snapshot(site: Site) -> dict[str, Any]:
    """Return everything that the store keeps of the pool, but for the books of a recovery."""
    found = {name: value for name, value in contents(site.timed.raw).items() if name not in BOOKS}
    found |= {name: value for name, value in found.pop("meta").items() if name not in OF_EPOCH}
    found["leases"] = {user: json.loads(document) for user, document in found["leases"].items()}
    return found


def copy(site: Site) -> dict[bytes, bytes]:
    """Return a copy of the store's data."""
    return {key: site.timed.raw.dump(key) for key in site.timed.raw.keys("*")}  # type: ignore[union-attr,misc]


def put_back(site: Site, data: dict[bytes, bytes]) -> None:
    """Turn the store back to a copy."""
    site.timed.raw.flushall()
    for key, value in data.items():
        site.timed.raw.restore(key, 0, value)


@pytest.mark.parametrize("why", [Withdrawal.RETURNED, Withdrawal.REVOKED])
async def test_a_restart_brings_no_lease_back(farm: Site, why: Withdrawal) -> None:
    """A host that was cut off while the lease was taken, and its quarantine over, restores nothing of it."""
    one, two = farm.host(), farm.host("ctx-02")
    await one.granted(JOHN)
    await one.end()
    await beaten(one, two)
    one.line.cut.add("*")
    await taken_back(farm, why)
    farm.timed.clock.advance(2 * DAY)
    await beaten(two)
    assert None is await farm.lease()
    one.line.cut.clear()
    restarted(farm)
    await beaten(one, two)
    assert None is await farm.lease()
    assert (await one.granted(JOHN)).lease.id  # he is let in, with a new lease


async def test_a_revoked_user_is_not_let_in_by_a_receipt(site: Site) -> None:
    """One heartbeat after the revocation no host lets him in while the store is away; before it, his host would."""
    host = site.host()
    await host.granted(JOHN)
    await host.end()
    await beaten(host)
    await taken_back(site, Withdrawal.REVOKED)
    await beaten(host, times=1)
    host.line.cut.add("*")
    assert Reason.OFFLINE is (await host.denied(JOHN)).reason


@pytest.mark.parametrize("lost", ["nothing", "everything", "what came after the revocation"])
async def test_who_was_readmitted_is_let_in_again_whatever_is_lost(site: Site, lost: str) -> None:
    """With the store away, by his receipt; after its restart or loss, by the store.

    A node that was cut off meanwhile, which knows the revocation alone, brings it back to nobody.
    """
    one, two, three = site.host(), site.host("ctx-02"), site.host("ctx-03")
    await one.granted(JOHN)
    await one.end()
    await beaten(one, two, three)
    await taken_back(site, Withdrawal.REVOKED)
    revoked = copy(site)
    await beaten(two, three)
    three.line.cut.add("*")
    assert Reason.REVOKED is (await two.denied(JOHN)).reason
    site.timed.clock.advance(MINUTE)
    assert await LeaseAdmin(site.farm).readmit(await pool_of(site), JOHN)
    await two.granted(JOHN, "8")
    await two.end("8")
    await beaten(one, two)
    two.line.cut.add("*")
    assert Source.RECEIPT is (await two.granted(JOHN, "9")).source
    two.restart()
    assert Source.RECEIPT is (await two.granted(JOHN, "10")).source
    two.line.cut.clear()
    if lost == "everything":
        emptied(site)
    elif lost != "nothing":
        put_back(site, revoked)
        restarted(site)
    else:
        restarted(site)
    three.line.cut.clear()
    await beaten(three, two, one)
    site.timed.clock.advance(MINUTE)
    await beaten(three, two, one)
    assert {("ctx-02", "9"), ("ctx-02", "10")} <= set(await site.sessions())
    assert (await three.granted(JOHN, "11")).source is Source.STORE
    for host in (one, two, three):
        assert not [each async for each, _ in site.farm.names.barred("qlikview")], host


async def test_who_was_let_in_again_after_a_return_keeps_his_receipt(site: Site) -> None:
    """The lease is revived under its id: an older tombstone takes nothing of it, on this host or another."""
    one, two = site.host(), site.host("ctx-02")
    first = await one.granted(JOHN)
    await one.end()
    await taken_back(site)
    again = await two.granted(JOHN, "8")
    assert first.lease.id == again.lease.id
    await two.end("8")
    await beaten(one, two)
    for host in (one, two):
        host.line.cut.add("*")
    assert Source.RECEIPT is (await two.granted(JOHN, "8")).source
    assert Reason.OFFLINE is (await one.denied(JOHN)).reason, "what this host knows was taken back"
    for host in (one, two):
        host.line.cut.clear()
    emptied(site)
    await beaten(two, one)
    assert [("ctx-02", "8")] == await site.sessions()


async def test_a_restart_brings_no_device_back(farm: Site) -> None:
    """A released device whose quarantine is over, and one that was replaced, take no slot; the farm's own stays."""
    one, two = farm.host(), farm.host("ctx-02")
    await one.granted(JOHN)
    await one.end()
    await two.granted(JOHN, "8", device="NB-1")
    await two.end("8")
    await beaten(one, two)
    two.line.cut.add("*")
    assert (
        Replacement.REPLACED
        is (
            await LeaseAdmin(farm.farm).replace_device(await pool_of(farm), JOHN, "nb-1", "nb-2", note="broken")
        ).outcome
    )
    await LeaseAdmin(farm.farm).release_device(await pool_of(farm), JOHN, "nb-2")
    farm.timed.clock.advance(2 * DAY)
    await beaten(one)
    await one.granted(JOHN, "9", device="NB-3")
    await one.end("9")
    two.line.cut.clear()
    restarted(farm)
    await beaten(two, one)
    lease = await farm.lease()
    assert lease is not None
    assert ["citrix-a", "nb-3"] == sorted(each.device for each in lease.devices)


async def test_a_restart_without_loss_changes_nothing(farm: Site) -> None:
    """Same data, another life of the server: after all have recovered, the store holds what it held."""
    one, two = farm.host(), farm.host("ctx-02")
    await one.granted(JOHN)
    await two.granted(JOHN, "8", device="NB-1")
    await two.end("8")
    await two.granted(MARY, "8")
    await two.end("8")
    await taken_back(farm, user=MARY)
    await LeaseAdmin(farm.farm).release_device(await pool_of(farm), JOHN, "nb-1")
    await beaten(one, two)
    before = snapshot(farm)
    restarted(farm)
    await beaten(one, two)
    assert before == snapshot(farm)
    events = [entry[b"event"] for _, entry in contents(farm.timed.raw)["audit"]]
    assert (1, 0) == (events.count(b"recovering"), events.count(b"taken_back"))


async def test_a_store_that_lost_its_tombstones_gets_them_back(farm: Site) -> None:
    """One host heard of the return, the other has the receipt: the seat stays in quarantine, then the lease is gone."""
    one, two = farm.host(), farm.host("ctx-02")
    await one.granted(JOHN)
    await one.end()
    await beaten(one, two)
    before = copy(farm)
    one.line.cut.add("*")
    await taken_back(farm)
    await beaten(two)
    put_back(farm, before)
    farm.timed.clock.advance(SECOND)
    one.line.cut.clear()
    await beaten(one)  # which has not heard of it, and restores
    await beaten(two, one)
    lease = await farm.lease()
    assert lease is not None
    assert "quarantined" == lease.state.value
    farm.timed.clock.advance(25 * HOUR)
    await beaten(one, two)
    assert None is await farm.lease()
    one.line.cut.add("*")
    assert Reason.OFFLINE is (await one.denied(JOHN)).reason


async def test_a_store_that_lost_everything_keeps_a_seat_in_quarantine(farm: Site) -> None:
    """Nor are the vendor's quarantine of a seat and the time for which a revoked user stays out lost with the store."""
    host, other = farm.host(), farm.host("ctx-02")
    await host.granted(JOHN)
    await host.end()
    await taken_back(farm, Withdrawal.REVOKED)
    await beaten(host, other)
    emptied(farm)
    await beaten(host, other)
    use = await farm.farm.use(await pool_of(farm))
    assert (0, 1) == (use.used, use.quarantined)
    assert Reason.REVOKED is (await other.denied(JOHN)).reason
    farm.timed.clock.advance(25 * HOUR)
    await beaten(host, other)
    assert await other.granted(JOHN)
    assert (1, 0) == ((use := await farm.farm.use(await pool_of(farm))).used, use.quarantined)


async def test_a_session_of_a_lease_that_was_taken_is_lost_with_the_tombstone(farm: Site) -> None:
    """Its host did not hear of it and counts the session again in a store that forgot it: until another host comes."""
    one, two = farm.host(), farm.host("ctx-02")
    await one.granted(JOHN)
    await beaten(one, two)
    before = copy(farm)
    one.line.cut.add("*")
    await taken_back(farm, Withdrawal.REVOKED)
    await beaten(two)
    put_back(farm, before)
    farm.timed.clock.advance(SECOND)
    one.line.cut.clear()
    await beaten(one)
    assert {"7": "active"} == one.states
    await beaten(two, one)
    assert [] == await farm.sessions()
    assert {"7": "lost"} == one.states


async def test_a_forgotten_name_leaves_the_receipts(farm: Site) -> None:
    """No restore brings an erased name back, and no host keeps it."""
    host = farm.host()
    await host.granted(JOHN)
    await host.end()
    await beaten(host)
    await taken_back(farm)
    host.line.cut.add("*")
    farm.timed.clock.advance(2 * DAY)
    index = farm.farm.sealer.user_index(JOHN)
    assert await farm.farm.audit.forget("qlikview", index, b"") is not None
    host.line.cut.clear()
    restarted(farm)
    await beaten(host)
    assert {} == farm.timed.raw.hgetall(Shard(FARM, "qlikview").key("names"))
    receipt = host.node.state.receipts.find(index, "qlikview")
    assert receipt is None or b"" == receipt.name
    await host.granted(JOHN)
    assert [index.encode()] == [*farm.timed.raw.hkeys(Shard(FARM, "qlikview").key("names"))]  # type: ignore[union-attr,misc]


async def test_a_renamed_lease_is_restored_under_its_new_name_and_renamed_back(farm: Site) -> None:
    """A host that kept the receipt under the old index restores the lease where it stands now, there and back."""
    host = farm.host()
    await host.granted(PLAIN)
    await host.end()
    await beaten(host)
    await read_otherwise(farm)
    await beaten(host)
    emptied(farm)
    await beaten(host)
    assert await farm.lease(JOHN)
    assert None is await farm.lease(PLAIN)


async def test_tombstones_outlive_the_agent_and_are_told_by_number(site: Site) -> None:
    """A restarted agent knows what it heard; what it knows is not asked for again with each heartbeat."""
    host = site.host()
    await host.granted(JOHN)
    await host.end()
    await taken_back(site)
    await beaten(host)
    host.restart()
    assert 2 == host.node.state.tombstones.count()  # the lease, and its seat in quarantine
    await beaten(host)
    host.line.calls.clear()
    await beaten(host)
    assert "tombstones" not in host.line.calls
    site.timed.clock.advance(31 * DAY)
    await host.granted(MARY)
    await host.end()
    await taken_back(site, user=MARY)
    await beaten(host)
    assert [site.farm.sealer.user_index(MARY)] == [*host.node.state.tombstones.of_pool("qlikview")]
