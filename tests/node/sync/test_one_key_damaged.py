"""The table "one key damaged": each key of a pool and of the farm, deleted, of another type, garbage, and huge."""

from contextlib import suppress
from pathlib import Path

import pytest

from farmlease.admin.nodes import NodeAdmin
from farmlease.domain.diagnosis import store as judge
from farmlease.domain.health import Status
from farmlease.domain.model import Denial, Grant
from farmlease.errors import StoreError
from farmlease.store.connection.address import StoreAddress
from farmlease.store.connection.connection import open_connection
from farmlease.store.inspect.server_facts import ServerInspection
from farmlease.store.keys import Shard, farm_keys, kind_of
from tests.support.nodes import FARM, JOHN, MARY, Host, Site
from tests.support.servers import RedisServer

SHARD = Shard(FARM, "qlikview")
KEYS = [*SHARD.keys(), *farm_keys(FARM)]
WAYS = ("deleted", "other type", "garbage", "huge")
CAPACITY = 3
HUGE = 20_000
#: Keys that nodes write again by themselves within seconds, or with the next thing that is noted there.
WRITTEN_AGAIN = {"policy", "nodes", "rings", "noted", "names"}
ROWS: list[str] = []


def damage(site: Site, key: str, way: str) -> None:
    """Damage one key."""
    raw, kind = site.timed.raw, kind_of(key)
    if way in {"deleted", "other type"}:
        raw.delete(key)
        if way == "other type":
            raw.lpush(key, "x")
        return
    members = ["", "/", "x", "#", "a/b", "\ufffd"] if way == "garbage" else [f"x{number}" for number in range(HUGE)]
    match kind:
        case "hash":
            fields = raw.hkeys(key) if way == "garbage" else members
            raw.hset(key, mapping=dict.fromkeys([*fields, *members], "{"))
        case "zset":
            raw.zadd(key, dict.fromkeys(members, 2**52))
        case "stream":
            for member in members[:200]:
                raw.xadd(key, {"event": member or "?", "fence": "x"})
        case _:
            raw.set(key, b"{" * (1 if way == "garbage" else 1_000_000))


async def told(site: Site, host: Host, url: str) -> list[str]:
    """Return who says that something is wrong, or was mended."""
    host.node.monitor.look()
    found = [f"health: {each.name}" for each in host.node.monitor.health.checks if each.status is not Status.PASS]
    async with await open_connection(StoreAddress(url=url)) as connection:
        doctor = ServerInspection(connection, FARM, user=None, wait_replicas=0)
        findings = [*judge.wrong_types(await doctor.wrong_types()), *judge.lost_keys(await doctor.lost_farm_keys())]
        facts = await doctor.shard("qlikview")
        findings += [*judge.wrong_types(facts.wrong), *judge.damage(facts)]
    found += ["doctor: data"] * bool(findings)
    if site.timed.raw.type(SHARD.key("audit")) == b"stream":
        events = {entry.get(b"event", b"").decode() for _, entry in site.timed.raw.xrange(SHARD.key("audit"))}
        found += [f"audit: {event}" for event in sorted(events & {"recovering", "damaged", "put_back", "taken_back"})]
    return found


async def answer(host: Host, name: str) -> str:
    """Return what a new user's start is answered."""
    try:
        decision = await host.start(JOHN if name == "john" else MARY, f"new-{name}")
    except StoreError as error:
        return f"offline: {type(error).__name__}"
    if isinstance(decision, Denial):
        return f"denied: {decision.reason}"
    assert isinstance(decision, Grant)
    return "granted"


@pytest.mark.parametrize("timed", ["redis"], indirect=True)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", KEYS)
async def test_no_damage_is_silent_or_lets_too_many_in(
    site: Site, timed_server: tuple[RedisServer, Path], key: str, way: str
) -> None:
    """Somebody tells it, no limit is passed, and the agent goes on."""
    site.window = "15s"
    host = site.host()
    await host.granted(MARY, "8")
    host.write(b"marys", MARY)
    await host.beat()
    present = site.timed.raw.exists(key)
    before = site.timed.raw.dump(key)
    damage(site, key, way)
    site.timed.clock.advance(1000)
    answers = [await answer(host, "john")]
    for _ in range(3):
        await host.beat()
        site.timed.clock.advance(16_000)
    answers.append(await answer(host, "john"))
    found = await told(site, host, timed_server[0].url)
    name = key.rpartition(":")[2]
    if not found and way == "deleted" and (not present or name in WRITTEN_AGAIN):
        found = ["nothing was lost" if not present else "written again"]
    if not found and way in {"garbage", "huge"}:
        found = [await harmless(site, key, before)]
    ROWS.append(f"{name:13}{way:12}{answers[0]:22}{answers[1]:22}{', '.join(found)}")
    assert [] != found
    if site.timed.raw.type(SHARD.key("seats")) == b"zset":
        with suppress(StoreError):  # of a key of another type
            assert len([each async for each in site.farm.leases.list_of("qlikview")]) <= CAPACITY
    assert [] == [each for each in answers if each.startswith("offline") and way == "deleted"]


async def harmless(site: Site, key: str, before: object) -> str:
    """Return what it means that foreign members lie in a key that is read by name, or to its known length only."""
    name = key.rpartition(":")[2]
    if name == "nodes" and key == farm_keys(FARM)[-2]:
        assert [] != await NodeAdmin(site.farm).all()
    assert before is None or before != site.timed.raw.dump(key) or name in WRITTEN_AGAIN
    return "foreign members are passed over"


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Read it with -s."""
    with capsys.disabled():
        print("\nkey          damage      first start           later start           told by")  # noqa: T201
        print("\n".join(ROWS))  # noqa: T201 - the table is what this is for
