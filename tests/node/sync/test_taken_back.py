"""L11: what was taken back stays so, through restarts, receipts and older copies of the store.

Where nothing was lost, a recovery changes nothing.
"""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from farmlease.admin.leases import LeaseAdmin
from farmlease.admin.renaming import DueRename, LeaseRenamer
from farmlease.domain.identity import User
from farmlease.domain.model import Reason, Source, Withdrawal
from farmlease.domain.policy import Pool
from farmlease.node.sessions.housekeeping import Housekeeping
from farmlease.store.answers.admin import Replacement
from farmlease.store.keys import Shard
from farmlease.store.name_store import Rename
from tests.support.nodes import FARM, JOHN, MARY, Host, Site, booted
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


@pytest.fixture
async def hosts(farm: Site) -> tuple[Host, Host]:
    """Two hosts: John had a session on the first, which has his receipt."""
    one, two = farm.host(), farm.host("ctx-02")
    await one.granted(JOHN)
    await one.end()
    await beaten(one, two)
    return one, two


async def pool_of(site: Site) -> Pool:
    """The pool as it is in force."""
    pool = (await site.farm.policy()).pool("qlikview")
    assert pool is not None
    return pool


async def taken_back(site: Site, why: Withdrawal = Withdrawal.RETURNED, user: User = JOHN) -> None:
    """Let an administrator take a user's lease."""
    assert await LeaseAdmin(site.farm).withdraw(await pool_of(site), user, why)


async def moved_by_hand(site: Site, old: User, new: User) -> Rename:
    """Let an administrator move what stands under one name to another, whatever the policy reads."""
    due = DueRename(pool="qlikview", index=site.farm.sealer.user_index(old), name=old.canonical, user=new)
    return await LeaseRenamer(site.farm).move(due)


async def devices(site: Site) -> list[str]:
    """The devices of John's lease, in order."""
    lease = await site.lease()
    assert lease is not None
    return sorted(each.device for each in lease.devices)


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


async def taken_back_and_lost(site: Site, one: Host, two: Host, why: Withdrawal = Withdrawal.RETURNED) -> None:
    """Take a lease and lose that with the store, while only the second host hears of it; then the first recovers."""
    before = copy(site)
    one.line.cut.add("*")
    await taken_back(site, why)
    await beaten(two)
    put_back(site, before)
    site.timed.clock.advance(SECOND)
    one.line.cut.clear()
    await beaten(one)


@pytest.mark.parametrize("why", [Withdrawal.RETURNED, Withdrawal.REVOKED])
async def test_a_restart_brings_no_lease_back(farm: Site, hosts: tuple[Host, Host], why: Withdrawal) -> None:
    """A host that was cut off while the lease was taken, and its quarantine over, restores nothing of it."""
    one, two = hosts
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


async def test_a_revoked_user_is_not_let_in_by_a_receipt(farm: Site, hosts: tuple[Host, Host]) -> None:
    """One heartbeat after the revocation no host lets him in while the store is away; before it, his host would."""
    host, _ = hosts
    await taken_back(farm, Withdrawal.REVOKED)
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


async def test_who_was_let_in_again_after_a_return_keeps_his_receipt(farm: Site, hosts: tuple[Host, Host]) -> None:
    """The lease is revived under its id: an older tombstone takes nothing of it, on this host or another."""
    one, two = hosts
    first = await one.granted(JOHN)
    await one.end()
    await taken_back(farm)
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
    emptied(farm)
    await beaten(two, one)
    assert [("ctx-02", "8")] == await farm.sessions()


async def test_a_restart_brings_no_device_back(farm: Site, hosts: tuple[Host, Host]) -> None:
    """A released device whose quarantine is over, and one that was replaced, take no slot; the farm's own stays."""
    one, two = hosts
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
    assert ["citrix-a", "nb-3"] == await devices(farm)


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


async def test_a_store_that_lost_its_tombstones_gets_them_back(farm: Site, hosts: tuple[Host, Host]) -> None:
    """One host heard of the return, the other has the receipt: the seat stays in quarantine, then the lease is gone."""
    one, two = hosts
    await taken_back_and_lost(farm, one, two)
    await beaten(two, one)
    lease = await farm.lease()
    assert lease is not None
    assert "quarantined" == lease.state.value
    farm.timed.clock.advance(25 * HOUR)
    await beaten(one, two)
    assert None is await farm.lease()
    one.line.cut.add("*")
    assert Reason.OFFLINE is (await one.denied(JOHN)).reason


async def test_a_store_that_lost_everything_keeps_a_seat_in_quarantine(farm: Site, hosts: tuple[Host, Host]) -> None:
    """Nor are the vendor's quarantine of a seat and the time for which a revoked user stays out lost with the store."""
    host, other = hosts
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
    await taken_back_and_lost(farm, one, two, Withdrawal.REVOKED)
    assert {"7": "active"} == one.states
    await beaten(two, one)
    assert [] == await farm.sessions()
    assert {"7": "lost"} == one.states


@pytest.mark.parametrize(("instead", "stay"), [("", ["citrix-a", "nb-1"]), ("nb-2", ["citrix-a"])])
async def test_a_device_that_was_in_use_in_an_older_copy_stays_taken_back(
    farm: Site, hosts: tuple[Host, Host], instead: str, stay: list[str]
) -> None:
    """The store is turned back to when a session used it: that session ends, and its slot is not held anew.

    A released device is held for a quarantine from that end, one that was replaced not at all.
    """
    one, two = hosts
    farm.timed.clock.advance(SECOND)
    await two.granted(JOHN, "8", device="NB-1")
    await beaten(one, two)
    before = copy(farm)
    farm.timed.clock.advance(SECOND)
    if instead:
        await LeaseAdmin(farm.farm).replace_device(await pool_of(farm), JOHN, "nb-1", instead, note="broken")
    else:
        await two.end("8")
        await LeaseAdmin(farm.farm).release_device(await pool_of(farm), JOHN, "nb-1")
    await beaten(one, two)
    put_back(farm, before)
    farm.timed.clock.advance(SECOND)
    await beaten(one, two)
    assert stay == await devices(farm)
    farm.timed.clock.advance(25 * HOUR)
    await beaten(one, two)
    assert ["citrix-a"] == await devices(farm)


async def with_a_session_forgotten(farm: Site) -> tuple[Host, Host]:
    """Return two hosts: John's session on the second is not in the store any more, which only the first has heard."""
    one, two = farm.host(), farm.host("ctx-02")
    await one.granted(JOHN)
    await beaten(one, two)
    before = copy(farm)
    await two.granted(JOHN, "8")
    put_back(farm, before)
    farm.timed.clock.advance(SECOND)
    await beaten(one, times=1)
    return one, two


@pytest.mark.parametrize("why", [Withdrawal.RETURNED, Withdrawal.REVOKED])
async def test_a_session_that_the_store_had_lost_is_told_that_its_lease_was_taken(farm: Site, why: Withdrawal) -> None:
    """The store forgot it before an administrator took the lease: no notice waits for its host, but the tombstone."""
    one, two = await with_a_session_forgotten(farm)
    await taken_back(farm, why)
    await beaten(two, times=1)
    assert {"8": "lost"} == two.states
    assert (lost := two.use("8")) is not None
    assert why == lost.lost_because
    assert await one.granted(MARY, "9")


async def test_a_session_whose_agent_was_killed_before_it_was_told_is_told_by_the_next(
    farm: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken is in the journal by then, and the session is not marked yet."""
    _, two = await with_a_session_forgotten(farm)
    await taken_back(farm)
    with monkeypatch.context() as patch:
        patch.setattr(Housekeeping, "take_events", lambda self: bool(self._sync.events.take()) and False)
        await beaten(two, times=1)
    assert {"8": "active"} == two.states
    two.restart()
    await beaten(two, times=1)
    assert {"8": "lost"} == two.states


async def test_who_came_again_after_a_return_is_counted_again(farm: Site) -> None:
    """The word of the returned session comes later, and takes nothing of what was granted since."""
    host = farm.host()
    await host.granted(JOHN)
    await taken_back(farm)
    grant = await host.granted(JOHN, "8")
    await beaten(host)
    assert {"7": "lost", "8": "active"} == host.states
    emptied(farm)
    await beaten(host)
    assert [("ctx-01", "8")] == await farm.sessions()
    assert grant.fence == (await host.granted(JOHN, "8")).fence


async def test_the_other_device_of_a_lease_is_restored_after_one_was_replaced(farm: Site) -> None:
    """The session on the replaced device is lost; the lease goes on with the other, and its receipt with it."""
    host = farm.host()
    grant = await host.granted(JOHN)
    await host.granted(JOHN, "8", device="NB-1")
    replaced = await LeaseAdmin(farm.farm).replace_device(await pool_of(farm), JOHN, "nb-1", "nb-2", note="broken")
    assert Replacement.REPLACED is replaced.outcome
    await beaten(host)
    assert {"7": "active", "8": "lost"} == host.states
    emptied(farm)
    await beaten(host)
    assert [("ctx-01", "7")] == await farm.sessions()
    assert grant.fence == (await host.granted(JOHN)).fence


async def test_a_session_that_was_lost_is_not_counted_again_while_its_end_is_owed(farm: Site) -> None:
    """Its device was taken, and is another session's since: that one's grant is later than the taking, not this."""
    one = farm.host()
    await one.granted(JOHN)
    replaced = await LeaseAdmin(farm.farm).replace_device(await pool_of(farm), JOHN, FARM, "nb-1", note="moved")
    assert Replacement.REPLACED is replaced.outcome
    await beaten(one)
    assert {"7": "lost"} == one.states
    await one.granted(JOHN, "8")
    one.line.cut.add("release")
    await one.end("7")
    one.line.cut.clear()
    restarted(farm)
    with one.line.holding("restored") as held:
        beating = asyncio.create_task(beaten(one))
        await held()
        assert [("ctx-01", "8")] == await farm.sessions()
    await beating


async def test_a_session_that_moved_to_a_released_device_is_restored(farm: Site) -> None:
    """The slot is taken anew by a session that is older than the release."""
    host = farm.host()
    await host.granted(JOHN, "8", device="NB-1")
    await host.end("8")
    await host.granted(JOHN)
    await LeaseAdmin(farm.farm).release_device(await pool_of(farm), JOHN, "nb-1")
    await host.granted(JOHN, device="NB-1")
    await beaten(host)
    restarted(farm)
    await beaten(host)
    assert {"7": "active"} == host.states
    emptied(farm)
    await beaten(host)
    assert [("ctx-01", "7")] == await farm.sessions()


async def test_a_device_that_took_anothers_place_is_restored_though_it_was_released_before(farm: Site) -> None:
    """Its slot was last used before the release, as the one whose place it took, and is later all the same."""
    host = farm.host()
    await host.granted(JOHN)
    await host.end()
    farm.timed.clock.advance(MINUTE)
    await host.granted(JOHN, device="NB-1")
    await host.end()
    await LeaseAdmin(farm.farm).release_device(await pool_of(farm), JOHN, "nb-1")
    farm.timed.clock.advance(2 * DAY)
    replaced = await LeaseAdmin(farm.farm).replace_device(await pool_of(farm), JOHN, FARM, "nb-1", note="moved")
    assert Replacement.REPLACED is replaced.outcome
    await host.granted(JOHN)
    await host.end()
    await beaten(host)
    before = await farm.lease()
    assert before is not None
    emptied(farm)
    await beaten(host)
    after = await farm.lease()
    assert after is not None
    assert ["citrix-a", "nb-1"] == sorted(each.device for each in after.devices)
    assert before.devices == after.devices


async def test_a_hold_of_a_grant_before_is_not_restored(farm: Site) -> None:
    """The lease was taken, and the session asked again before its host heard of that: nobody holds the new seat."""
    await farm.apply(farm.policy + 'max_hold = "2h"\n')
    host = farm.host()
    await host.granted(JOHN)
    await host.hold(span_ms=HOUR)
    await taken_back(farm)
    assert await host.granted(JOHN)
    await beaten(host)
    before = snapshot(farm)
    restarted(farm)
    await beaten(host)
    assert before == snapshot(farm)


async def test_a_restart_adds_nothing_to_the_contact_that_ended_with_a_boot(
    farm: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its device was last in use when it started, as far as the store could know, whatever other device was later."""
    with booted(monkeypatch) as reboot:
        one, two = farm.host(), farm.host("ctx-02")
        await beaten(one, two)
        farm.timed.clock.advance(MINUTE)
        await one.granted(JOHN, "8", device="NB-1")
        farm.timed.clock.advance(MINUTE)
        await one.granted(JOHN)
        await one.end()
        one.kill()
        farm.timed.clock.advance(3 * HOUR)
        await beaten(two)
        await two.granted(JOHN)
        await two.end()
        before = snapshot(farm)
        reboot()
        restarted(farm)
        await beaten(two)
        one.boot()
        await beaten(one, two)
        assert before == snapshot(farm)


async def test_a_late_answer_to_an_end_brings_no_receipt_back(site: Site) -> None:
    """The end was carried out before the lease was taken; its answer comes after the host has heard of that."""
    host = site.host()
    await host.granted(JOHN)
    with host.line.holding("release") as held:
        end = asyncio.create_task(host.end())
        await held()
        await taken_back(site, Withdrawal.REVOKED)
        in_force = await site.farm.policy()
        await host.node.sync.heartbeat.beat(in_force.version, await pool_of(site))
    await end
    host.line.cut.add("*")
    assert Reason.OFFLINE is (await host.denied(JOHN)).reason


async def test_a_late_answer_to_an_end_takes_no_device_that_a_session_moved_to(farm: Site) -> None:
    """The move was answered first: its receipt has the device, and the store that lost all counts the session again."""
    host = farm.host()
    await host.granted(JOHN, "8", device="NB-1")
    await host.end("8")
    await host.granted(JOHN)
    await LeaseAdmin(farm.farm).release_device(await pool_of(farm), JOHN, "nb-1")
    await host.granted(JOHN, "9")
    farm.timed.clock.advance(SECOND)
    with host.line.holding("release") as held:
        end = asyncio.create_task(host.end("9"))
        await held()
        await host.granted(JOHN, device="NB-1")
    await end
    await beaten(host)
    emptied(farm)
    await beaten(host, times=3)
    assert {"7": "active"} == host.states


async def test_the_end_of_one_session_of_an_old_lease_is_as_late_as_the_others(farm: Site) -> None:
    """A lease of farmlease 0.1.0 has no fence of its own: the receipt learns what the end of the earlier one left."""
    host = farm.host()
    await host.granted(JOHN, "1")
    farm.timed.clock.advance(SECOND)
    await host.granted(JOHN, "2")
    user, leases = farm.farm.sealer.user_index(JOHN), Shard(FARM, "qlikview").key("leases")
    old = json.loads(farm.timed.raw.hget(leases, user))  # type: ignore[arg-type] # a synchronous client's answer
    del old["fence"]
    body = json.dumps(old).encode()
    farm.timed.raw.hset(leases, user, body)
    receipts = host.node.state.receipts
    receipt = receipts.find(user, "qlikview")
    assert receipt is not None
    receipts.keep(user, "qlikview", replace(receipt, document=body))
    await host.end("1")
    await host.agent.settled()
    receipt = receipts.find(user, "qlikview")
    assert receipt is not None
    assert 1 == len(json.loads(receipt.document)["sessions"])


async def test_the_word_of_one_lost_session_leaves_the_receipt_of_a_later_grant(farm: Site) -> None:
    """It comes after the user was let in anew on this host: that receipt admits the user, and restores the session."""
    host = farm.host()
    await host.granted(JOHN, "1")
    await taken_back(farm)
    farm.timed.clock.advance(SECOND)
    await host.granted(JOHN, "2")
    await beaten(host)
    assert {"2": "active"} == {session: state for session, state in host.states.items() if state == "active"}
    host.line.cut.add("*")
    assert Source.RECEIPT is (await host.granted(JOHN, "3")).source


async def test_a_receipt_takes_nothing_of_a_later_lease(site: Site) -> None:
    """Of that one only the end was answered: the receipt of the lease before admits nobody by it."""
    host = site.host()
    await host.granted(JOHN)
    await host.end()
    site.timed.clock.advance(31 * DAY)
    await beaten(host)
    host.line.deaf.add("acquire")
    assert Reason.OFFLINE is (await host.denied(JOHN)).reason
    host.line.deaf.clear()
    await beaten(host)
    assert [] == await site.sessions()
    host.line.cut.add("*")
    assert Reason.OFFLINE is (await host.denied(JOHN)).reason


async def test_a_forgotten_name_leaves_the_receipts(farm: Site, hosts: tuple[Host, Host]) -> None:
    """No restore brings an erased name back, and no host keeps it."""
    host, other = hosts
    await taken_back(farm)
    host.line.cut.add("*")
    farm.timed.clock.advance(2 * DAY)
    index = farm.farm.sealer.user_index(JOHN)
    assert await farm.farm.audit.forget("qlikview", index, b"") is not None
    host.line.cut.clear()
    restarted(farm)
    await beaten(host, other)
    assert {} == farm.timed.raw.hgetall(Shard(FARM, "qlikview").key("names"))
    receipt = host.node.state.receipts.find(index, "qlikview")
    assert receipt is None or b"" == receipt.name
    await host.granted(JOHN)
    assert [index.encode()] == [*farm.timed.raw.hkeys(Shard(FARM, "qlikview").key("names"))]  # type: ignore[union-attr,misc]


async def test_an_erased_name_leaves_a_receipt_that_is_kept_for_files(farm: Site, hosts: tuple[Host, Host]) -> None:
    """The receipt says which files may lie on the host's disk, and no longer whose name that was."""
    host, other = hosts
    index, receipts = farm.farm.sealer.user_index(JOHN), host.node.state.receipts
    receipt = receipts.find(index, "qlikview")
    assert receipt is not None
    assert receipt.name
    receipts.keep(index, "qlikview", replace(receipt, files=("borrowed",)))
    await taken_back(farm)
    farm.timed.clock.advance(2 * DAY)
    assert await farm.farm.audit.forget("qlikview", index, b"") is not None
    await beaten(host, other)
    left = receipts.find(index, "qlikview")
    assert left is not None
    assert (("borrowed",), b"", b"") == (left.files, left.document, left.name)


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


async def test_a_receipt_of_a_renamed_lease_goes_though_the_new_name_has_one(farm: Site) -> None:
    """The lease was used here under both names, and the host hears of the first only now: nobody gets in by that."""
    host = farm.host()
    await host.granted(JOHN)
    await host.end()
    assert Rename.RENAMED is await moved_by_hand(farm, JOHN, MARY)
    await host.granted(MARY, "8")
    await host.beat()
    host.line.cut.add("*")
    assert Reason.OFFLINE is (await host.denied(JOHN, "9")).reason
    assert Source.RECEIPT is (await host.granted(MARY, "10")).source


async def test_a_lease_that_was_renamed_by_hand_is_restored_where_it_stands(farm: Site) -> None:
    """L7: the policy does not read the one name as the other; in a recovery the receipt stays under the new one."""
    host = farm.host()
    await host.granted(JOHN)
    await host.end()
    assert Rename.RENAMED is await moved_by_hand(farm, JOHN, MARY)
    await beaten(host)
    emptied(farm)
    await beaten(host)
    lease = await farm.lease(MARY)
    assert lease is not None
    assert MARY.canonical == lease.user
    assert None is await farm.lease(JOHN)


@pytest.mark.parametrize("then", ["forgotten", "revoked"])
@pytest.mark.parametrize("why", [Withdrawal.RETURNED, Withdrawal.REVOKED])
async def test_a_receipt_that_moves_heeds_what_was_taken_under_the_new_name(
    farm: Site, why: Withdrawal, then: str
) -> None:
    """A host that was cut off hears of the new name first, as something was taken under the former one afterwards."""
    host, other = farm.host(), farm.host("ctx-02")
    await host.granted(PLAIN)
    await host.end()
    await beaten(host, other)
    host.line.cut.add("*")
    await read_otherwise(farm)
    await taken_back(farm, why)
    if then == "forgotten":
        await farm.farm.audit.forget("qlikview", farm.farm.sealer.user_index(PLAIN), farm.farm.signature())
    else:
        await taken_back(farm, Withdrawal.REVOKED, PLAIN)
    host.line.cut.clear()
    await beaten(host)
    host.line.cut.add("*")
    assert Reason.OFFLINE is (await host.denied(JOHN, "10")).reason


async def test_a_revocation_that_was_renamed_survives_the_store(farm: Site) -> None:
    """Who was kept out under the former name is kept out under the new one, and nobody is under the former any more."""
    host, other = farm.host(), farm.host("ctx-02")
    await host.granted(JOHN)
    await host.end()
    await taken_back(farm, Withdrawal.REVOKED)
    await beaten(host, other)
    assert Rename.RENAMED is await moved_by_hand(farm, JOHN, MARY)
    await host.granted(JOHN, "8")
    await beaten(host, other)
    emptied(farm)
    await beaten(host, other, times=3)
    assert Reason.REVOKED is (await other.denied(MARY, "9")).reason
    assert {"8": "active"} == host.states
    assert ["8"] == [session for _, session in await farm.sessions()]


async def test_a_lease_that_moved_back_unheard_is_restored_under_one_name(farm: Site) -> None:
    """L11: its host was told of the first move and not of the second, had it anew, and the store lost all of that.

    It has no files of the user here, whose place would have told.
    """
    host = farm.host()
    await host.granted(JOHN)
    await host.end()
    assert Rename.RENAMED is await moved_by_hand(farm, JOHN, MARY)
    await beaten(host)
    assert Rename.RENAMED is await moved_by_hand(farm, MARY, JOHN)
    farm.timed.clock.advance(SECOND)
    receipts, mary = host.node.state.receipts, farm.farm.sealer.user_index(MARY)
    former = receipts.find(mary, "qlikview")
    assert former is not None
    granted = await host.granted(JOHN, "8")
    await host.end("8")
    receipts.keep(mary, "qlikview", replace(former, files=(), paths=()))
    emptied(farm)
    await beaten(host, times=3)
    assert None is await farm.lease(MARY)
    lease = await farm.lease(JOHN)
    assert lease is not None
    assert granted.lease.id == lease.lease.id


@pytest.mark.parametrize("late", [True, False])
async def test_a_revocation_that_was_renamed_and_ended_keeps_out_nobody(farm: Site, *, late: bool) -> None:
    """Under neither name, whether or not the first host to tell of it in a new store had heard of more than its begin."""
    host, other = farm.host(), farm.host("ctx-02")
    await host.granted(JOHN)
    await host.end()
    await taken_back(farm, Withdrawal.REVOKED)
    await beaten(host, other)
    if late:
        host.line.cut.add("*")
    assert Rename.RENAMED is await moved_by_hand(farm, JOHN, MARY)
    assert await LeaseAdmin(farm.farm).readmit(await pool_of(farm), MARY)
    await beaten(other)
    host.line.cut.clear()
    emptied(farm)
    await beaten(host, other, times=3)
    assert not [each async for each, _ in farm.farm.names.barred("qlikview")]
    for user, session in ((MARY, "8"), (JOHN, "9")):
        await other.granted(user, session)


async def test_a_revocation_that_is_renamed_ends_no_session_with_the_next_restart(farm: Site) -> None:
    """L7: it waits for the sessions under the other name; once those have ended it moves, and keeps the user out."""
    host, other = farm.host(), farm.host("ctx-02")
    await host.granted(JOHN)
    await taken_back(farm, Withdrawal.REVOKED, PLAIN)
    await beaten(host, other)
    assert Rename.IN_USE is await moved_by_hand(farm, PLAIN, JOHN)
    restarted(farm)
    await beaten(host, other, times=3)
    assert {"7": "active"} == host.states
    assert ["7"] == [session for _, session in await farm.sessions()]
    farm.timed.clock.advance(MINUTE)
    await beaten(host, other)
    await host.end()
    assert Rename.RENAMED is await moved_by_hand(farm, PLAIN, JOHN)
    assert Reason.REVOKED is (await host.denied(JOHN, "8")).reason


async def test_tombstones_outlive_the_agent_and_are_told_by_number(farm: Site, hosts: tuple[Host, Host]) -> None:
    """A restarted agent knows what it heard; what it knows is not asked for again with each heartbeat."""
    host, _ = hosts
    await taken_back(farm)
    await beaten(host)
    host.restart()
    assert 2 == host.node.state.tombstones.count()  # the lease, and its seat in quarantine
    await beaten(host)
    host.line.calls.clear()
    await beaten(host)
    assert "tombstones" not in host.line.calls
    farm.timed.clock.advance(31 * DAY)
    await host.granted(MARY)
    await host.end()
    await taken_back(farm, user=MARY)
    await beaten(host)
    assert [farm.farm.sealer.user_index(MARY)] == [*host.node.state.tombstones.of_pool("qlikview")]
