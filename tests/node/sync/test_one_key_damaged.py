"""The table "one key damaged": each key of a pool and of the farm, deleted, of another type, garbage, and huge."""

import json
from contextlib import suppress
from pathlib import Path

import pytest

from farmlease.domain.diagnosis import store as judge
from farmlease.domain.diagnosis.finding import Verdict
from farmlease.domain.health import Status
from farmlease.domain.model import Denial, Grant
from farmlease.errors import StoreError
from farmlease.node.sync.store_watch import StoreWatch
from farmlease.store.answers.session import Claim
from farmlease.store.connection.address import StoreAddress
from farmlease.store.connection.connection import open_connection
from farmlease.store.inspect.server_facts import ServerInspection
from farmlease.store.keys import Shard, farm_keys, kind_of, note_keys
from farmlease.store.seal_store import SealStore
from tests.support.nodes import FARM, JOHN, MARY, Host, Site
from tests.support.servers import RedisServer

SHARD = Shard(FARM, "qlikview")
KEYS = [*SHARD.keys(), *farm_keys(FARM)]
WAYS = ("deleted", "other type", "garbage", "huge")
CAPACITY = 3
HUGE = 10_000
#: The farm is told of all within three minutes.
LOOKS = 6
NOBODY = "A" * 22
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


async def fill(site: Site, host: Host) -> None:
    """Have something in nearly every key: of users and nodes that are gone, or that decide nothing here."""
    await host.hold("8")
    await SealStore(site.timed.connection, FARM).tell("ctx-01", {"every": 60_000})
    await site.timed.store.note(Claim(user=NOBODY, node="ctx-01#1", session="1"), "denied", "no_rule", b"\1" * 40)
    raw, past = site.timed.raw, site.timed.clock.now_ms - 1
    waiting = f"ctx-09#1/1/{NOBODY}"
    for name, member in (("queue", waiting), ("waits", waiting), ("reserved", f"vip/{NOBODY}"), ("quarantine", NOBODY),
                         ("barred", NOBODY), ("over_numbers", NOBODY)):  # fmt: skip
        raw.zadd(SHARD.key(name), {member: 1 if name in {"queue", "over_numbers"} else past + 60_000})
    raw.zadd(SHARD.key("usage"), {"0 0 0 0 0 0 3 -": 0})
    raw.zadd(SHARD.key("awaited"), {"ctx-09#1": 1})
    raw.hset(SHARD.key("over"), NOBODY, json.dumps({"lease": [1, past + 60_000]}))
    raw.hset(SHARD.key("damaged"), f"lease/{NOBODY}", "1 {")
    raw.hset(SHARD.key("meta"), mapping={"inspected": "1", "aside": "1"})
    raw.hdel(SHARD.key("meta"), "keys")  # what the test wrote is to count as farmlease's own


async def told(site: Site, host: Host, url: str, key: str) -> dict[str, str]:
    """Return who says that something is wrong, or was mended, and whether by the key's name and with what to do."""
    async with await open_connection(StoreAddress(url=url)) as connection:
        watch = StoreWatch(connection, FARM, host.node.state, host.node.sync.damage)
        for _ in range(LOOKS):
            await watch.look()
        doctor = ServerInspection(connection, FARM, user=None, wait_replicas=0)
        findings = [*judge.wrong_types(await doctor.wrong_types()), *judge.lost_keys(await doctor.lost_farm_keys())]
        facts = await doctor.shard("qlikview")
        findings += [*judge.foreign(await doctor.foreign()), *judge.wrong_types(facts.wrong), *judge.damage(facts)]
        findings += judge.foreign(facts.foreign, "qlikview")
    host.node.monitor.look()
    checks = [each for each in host.node.monitor.health.checks if each.status is not Status.PASS]
    found = {}
    if checks:
        found["health"] = by_name(key, " ".join(each.output for each in checks))
    if any(each.verdict is not Verdict.OK for each in findings):
        found["doctor"] = by_name(key, " ".join(each.text for each in findings))
    for audit in (SHARD.key("audit"), note_keys(FARM)[0]):
        if site.timed.raw.type(audit) == b"stream":
            events = {entry.get(b"event", b"").decode() for _, entry in site.timed.raw.xrange(audit)}
            known = {"recovering", "damaged", "put_back", "policy_put_back", "taken_back", "lost"}
            found |= dict.fromkeys(sorted(f"audit {event}" for event in events & known), "")
    return found


def by_name(key: str, text: str) -> str:
    """Return how a key is told: by its name, with what to do, or else."""
    named = key in text or (key in SHARD.keys() and key.rpartition(":")[2] in text)  # noqa: SIM118
    return "by name" if named and ("`farmlease " in text or "`redis-cli " in text) else "otherwise"


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
    await site.apply(site.policy.replace("capacity = 3", 'capacity = 3\nmax_hold = "4h"'))
    host = site.host()
    await host.granted(MARY, "8")
    host.write(b"marys", MARY)
    await fill(site, host)
    await host.beat()
    await host.beat()
    assert {} == await told(site, host, timed_server[0].url, key)
    present = site.timed.raw.exists(key)
    damage(site, key, way)
    site.timed.clock.advance(1000)
    answers = [await answer(host, "john")]
    for _ in range(3):
        await host.beat()
        site.timed.clock.advance(16_000)
    answers.append(await answer(host, "john"))
    found = await told(site, host, timed_server[0].url, key)
    tellers = ", ".join(f"{who} {how}".strip() for who, how in found.items())
    assert present
    farms = "farm's " * (key in farm_keys(FARM))
    ROWS.append(f"{farms + key.rpartition(':')[2]:15}{way:12}{answers[0]:22}{answers[1]:22}{tellers}")
    assert "" != tellers
    if way != "deleted" and not any(who.startswith("audit") for who in found):
        assert {"health": "by name", "doctor": "by name"}.items() <= found.items()
    if site.timed.raw.type(SHARD.key("seats")) == b"zset":
        with suppress(StoreError):  # of a key of another type
            assert len([each async for each in site.farm.leases.list_of("qlikview")]) <= CAPACITY
    assert [] == [each for each in answers if each.startswith("offline") and way == "deleted"]


@pytest.mark.parametrize("timed", ["redis"], indirect=True)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", KEYS)
async def test_no_damage_lets_a_second_user_into_a_full_pool(site: Site, key: str, way: str) -> None:
    """Capacity 1, and its one user works: nobody else is let in, neither at once nor later."""
    site.window = "15s"
    await site.apply(site.policy.replace("capacity = 3", "capacity = 1"))
    host = site.host()
    await host.granted(MARY, "8")
    await host.beat()
    damage(site, key, way)
    site.timed.clock.advance(1000)
    for _ in range(4):
        assert "granted" != await answer(host, "john")
        await host.beat()
        site.timed.clock.advance(16_000)
    assert "active" == host.states["8"]


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Read it with -s."""
    with capsys.disabled():
        print("\nkey          damage      first start           later start           told by")  # noqa: T201
        print("\n".join(ROWS))  # noqa: T201 - the table is what this is for
