"""Data of the store that are lost or damaged while nodes run: users' files survive, and health says what is wrong."""

import pytest

from farmlease.domain.health import Status
from farmlease.errors import StoreUnavailable
from farmlease.store.keys import Shard
from tests.support.nodes import FARM, JOHN, MARY, Host, Site

SHARD = Shard(FARM, "qlikview")


@pytest.fixture
def farm(site: Site) -> Site:
    """A farm with a recovery window."""
    site.window = "15s"
    return site


async def saved_elsewhere(farm: Site) -> tuple[Host, Host]:
    """John's file is saved on one host and is not on the other's disk; Mary works there."""
    one, two = farm.host(), farm.host("ctx-02")
    await one.granted(JOHN)
    one.write(b"johns licence")
    await one.end()
    await two.granted(MARY, "8")
    await two.beat()
    await one.beat()
    return one, two


def data_check(host: Host) -> tuple[Status, str]:
    """Return what health says of the store's data."""
    host.node.monitor.look()
    (check,) = [each for each in host.node.monitor.health.checks if each.name == "data"]
    return check.status, check.output


@pytest.mark.parametrize("name", ["leases", "records", "names", "seats", "sessions", "nodes", "audit", "meta"])
async def test_whatever_key_is_lost_files_are_not(farm: Site, name: str) -> None:
    """One key is deleted: at the next heartbeats everything is as before, and a user's file comes along."""
    one, two = await saved_elsewhere(farm)
    farm.timed.raw.delete(SHARD.key(name))
    farm.timed.clock.advance(1000)
    await two.beat()
    assert [] != [entry for entry in farm.timed.raw.xrange(SHARD.key("audit")) if entry[1][b"event"] == b"recovering"]
    await one.beat()
    await two.beat()
    await one.beat()
    farm.timed.clock.advance(16_000)
    grant = await two.granted(JOHN)
    assert b"johns licence" == two.read()
    assert [("ctx-02", grant.session)] == await farm.sessions(JOHN)
    assert [("ctx-02", "8")] == await farm.sessions(MARY)
    assert farm.timed.raw.zcard(SHARD.key("seats")) == 2


async def test_a_start_that_comes_before_the_heartbeat_waits(farm: Site) -> None:
    """The leases are gone: who starts meanwhile is told to try again, and takes nothing of anybody."""
    one, two = await saved_elsewhere(farm)
    farm.timed.raw.delete(SHARD.key("leases"))
    denial = await two.denied(JOHN)
    assert "recovering" == denial.reason
    await one.beat()
    await two.beat()
    farm.timed.clock.advance(16_000)
    await two.granted(JOHN)
    assert b"johns licence" == two.read()


@pytest.mark.parametrize("damage", [b"{", b"[1]", b""])
async def test_a_damaged_lease_is_mended_by_its_node(farm: Site, damage: bytes) -> None:
    """Of one user's lease only garbage is left: Mary's goes on, John's comes back from his node, and health tells."""
    one, two = await saved_elsewhere(farm)
    before = await farm.lease(JOHN)
    (index,) = [each async for each in indexes(farm, before)]
    farm.timed.raw.hset(SHARD.key("leases"), index, damage)
    assert "recovering" == (await two.denied(JOHN)).reason
    assert (await two.granted(MARY, "8")).again
    await one.beat()
    status, text = data_check(one)
    assert Status.WARN is status
    assert "farmlease lease repair --pool qlikview" in text
    after = await farm.lease(JOHN)
    assert before is not None
    assert after is not None
    assert before.lease.id == after.lease.id
    await two.granted(JOHN)
    assert b"johns licence" == two.read()


async def test_a_second_damaged_lease_is_mended_while_the_first_awaits_repair(farm: Site) -> None:
    """What was set aside first has not been seen by an administrator yet: the next user's lease comes back all the same."""
    one, two = await saved_elsewhere(farm)
    for user, host, session in ((JOHN, one, "7"), (MARY, two, "8")):
        before = await farm.lease(user)
        (index,) = [each async for each in indexes(farm, before)]
        farm.timed.raw.hset(SHARD.key("leases"), index, b"{")
        await host.start(user, f"{session}1")
        await one.beat()
        await two.beat()
        after = await farm.lease(user)
        assert before is not None
        assert after is not None
        assert before.lease.id == after.lease.id
    assert 2 == farm.timed.raw.hlen(SHARD.key("damaged"))


async def test_a_mend_that_the_store_did_not_answer_is_tried_again(farm: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is away while the lease is put back: the next heartbeat does it."""
    one, two = await saved_elsewhere(farm)
    before = await farm.lease(JOHN)
    (index,) = [each async for each in indexes(farm, before)]
    farm.timed.raw.hset(SHARD.key("leases"), index, b"{")
    await two.denied(JOHN)

    async def away(*_: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(type(one.node.sync.recovery), "_restore_one", away)
        await one.beat()
    assert None is await farm.lease(JOHN)
    await one.beat()
    after = await farm.lease(JOHN)
    assert before is not None
    assert after is not None
    assert before.lease.id == after.lease.id


async def test_the_files_of_a_lease_are_kept_when_another_takes_its_place(farm: Site) -> None:
    """No node could restore the lease: the next one begins without files, and the last host has those of before."""
    host = farm.host()
    await host.granted(JOHN)
    host.write(b"the only copy")
    await host.end()
    await host.beat()
    for name in ("leases", "records", "seats"):
        farm.timed.raw.delete(SHARD.key(name))
    farm.timed.raw.hdel(SHARD.key("meta"), "keys")  # as after an upgrade: nothing is known of what there was
    await host.granted(JOHN)
    assert [("2", [b"the only copy"])] == host.superseded


async def indexes(farm: Site, lease):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Yield the user index of a lease."""
    pool = (await farm.farm.policy()).pool("qlikview")
    async for stored in farm.farm.leases.list(pool):
        if stored.lease.id == lease.lease.id:
            yield stored.user


async def saved_twice(farm: Site) -> tuple[Host, str, bytes, bytes]:
    """John's file was saved twice: return his host, his index, and the lease and record of the first time."""
    host = farm.host()
    await host.granted(JOHN)
    host.write(b"first")
    await host.save()
    lease = await farm.lease(JOHN)
    (index,) = [each async for each in indexes(farm, lease)]
    first = [farm.timed.raw.hget(SHARD.key(name), index) for name in ("leases", "records")]
    host.write(b"second")
    await host.end()
    await host.beat()
    return host, index, *first


async def test_an_older_record_is_told_and_put_right_by_the_node_that_knows_better(farm: Site) -> None:
    """L6: lease and record are turned back while nodes run. The node goes on with its own, and the store gets it."""
    host, index, lease, record = await saved_twice(farm)
    farm.timed.raw.hset(SHARD.key("leases"), index, lease)
    farm.timed.raw.hset(SHARD.key("records"), index, record)
    await host.granted(JOHN, "8")
    assert b"second" == host.read()
    await host.agent.settled()
    assert 3 == await farm.record_version()
    assert "put_back" in [entry[b"event"].decode() for _, entry in farm.timed.raw.xrange(SHARD.key("audit"))]
    two = farm.host("ctx-02")
    await two.granted(JOHN, "9")
    assert b"second" == two.read()


async def test_a_record_that_does_not_open_is_refused(farm: Site) -> None:
    """L6: it is kept as evidence, and no node puts its own in its place: that is for an administrator to judge."""
    host, index, _, _ = await saved_twice(farm)
    farm.timed.raw.hset(SHARD.key("records"), index, b"garbage")
    assert "record_rejected" == (await host.denied(JOHN, "8")).reason
    assert ("rejected-record", b"garbage") in host.kept
    await host.agent.settled()
    assert b"garbage" == farm.timed.raw.hget(SHARD.key("records"), index)
