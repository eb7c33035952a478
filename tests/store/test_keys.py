"""What lies in Redis: these keys and no others, of these types, each pool's in one slot of a cluster."""

import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from farmlease.store.answers.session import Taken
from farmlease.store.keys import Shard, farm_keys, kind_of, node_member, policies_key, policy_key
from tests.support.seats import NODE, OTHER, Desk, claim, desk
from tests.support.stores import HOUR, TimedStore, named_pool

SHARD = resources.files("farmlease.store").joinpath("lua", "lib", "shard.lua").read_text(encoding="utf-8")
TYPES = dict(re.findall(r"^-- (?:KEYS|    ) +\d+ (\w+) +(\w+)", SHARD.partition("-- ARGV")[0], re.MULTILINE))
#: Sets that only a queue, holds, reservations, returns, revocations, renamed leases and damage fill; the busy hour has
#: none.
NOT_YET = {"queue", "waits", "holds", "reserved", "quarantine", "barred", "awaited", "over", "over_numbers", "damaged"}


async def busy_hour(timed: TimedStore) -> list[Desk]:
    """Let 60 users of two pools come and go on two nodes, one of which dies, while the policy changes."""
    desks = [desk(timed, capacity=20), Desk(timed, named_pool(name="clearquest", capacity=15, sessions_per_user=2))]
    await timed.store.apply_policy(0, 1, b"\1one")
    for pool in desks:
        await pool.beat(NODE, OTHER)
    for minute in range(60):
        timed.clock.advance(HOUR // 60)
        for pool in desks:
            user, node = f"user{minute}", (NODE, OTHER)[minute % 2]
            for number in range(4):
                taken = await pool.ask(user, f"{minute} {number}", node, device=f"nb-{number}")
                if isinstance(taken, Taken) and number < minute % 3:
                    await timed.store.save(pool.pool.name, claim(user), taken.lease.id, number + 2, b"x")
                    await pool.end(user, taken, f"{minute} {number}", node)
            await pool.lease(user)
            await pool.held()
    await timed.store.apply_policy(1, 2, b"\1two")
    for pool in desks:
        await timed.store.configure(pool.pool, 2)
        pool.version = 2
        await pool.beat(OTHER)
    timed.clock.advance(HOUR)
    for pool in desks:
        await pool.beat(OTHER)
    timed.clock.advance(HOUR)
    for pool in desks:
        await pool.held()
    return desks


async def test_after_a_busy_hour_every_key_is_known(timed: TimedStore) -> None:
    """All keys of the database are the documented ones with the documented types, however many users came."""
    desks = await busy_hour(timed)
    expected = {policy_key("citrix-a"): "string", "fl:{citrix-a}:audit": "stream", "fl:{citrix-a}:counts": "hash"}
    expected[policies_key("citrix-a")] = "hash"
    for pool in desks:
        tag = f"fl:{{citrix-a/{pool.pool.name}/0}}:"
        expected |= {tag + name: kind for name, kind in TYPES.items() if name not in NOT_YET}
    raw: Any = timed.raw
    assert expected == {key.decode(): raw.type(key).decode() for key in raw.keys("*")}


async def test_no_key_ends_by_itself(timed: TimedStore) -> None:
    """Deadlines are in the data, not on the keys: nothing of a pool may vanish alone."""
    await busy_hour(timed)
    raw: Any = timed.raw
    assert {-1} == {raw.ttl(key) for key in raw.keys("*")}


@pytest.mark.parametrize(("farm", "pool"), [("citrix-a", "qlikview"), ("a b", "%"), ("é" * 128, "x" * 128)])
def test_the_keys_of_a_pool_are_in_one_slot(farm: str, pool: str) -> None:
    """A script may touch all keys of its pool on a cluster too."""
    keys = Shard(farm, pool).keys()
    assert len(TYPES) == len(set(keys))
    assert 1 == len({key_slot(key.encode()) for key in keys})
    assert key_slot(f"{farm}/{pool}/0".encode()) == key_slot(keys[0].encode())


def test_two_farms_pools_and_slices_share_no_key() -> None:
    """Names that may stand in a key never make two pools one."""
    shards = [Shard("a", "b"), Shard("a", "b", 1), Shard("a", "c"), Shard("b", "b"), Shard("a", "b:meta")]
    keys = [key for shard in shards for key in shard.keys()] + [policy_key("a"), policy_key("b")]  # noqa: SIM118 - no dict
    assert len(keys) == len(set(keys))


def test_two_lives_of_a_node_are_two_members() -> None:
    """A node's life is its name and its incarnation."""
    assert "ctx-01#a" == node_member("ctx-01", "a") != node_member("ctx-01", "b")


def test_every_key_has_its_type() -> None:
    """What is looked up of a key is what the header of the scripts says, and a farm's own keys have one each."""
    assert TYPES == {name: kind_of(Shard("citrix-a", "p:q").key(name)) for name in TYPES}
    kinds = {key.rpartition(":")[2]: kind_of(key) for key in farm_keys("citrix-a")}
    expected = {"policy": "string", "audit": "stream", "noted": "zset"}
    assert expected | dict.fromkeys(("counts", "names", "pools", "policies", "nodes", "rings"), "hash") == kinds


def test_the_reference_has_each_key_with_its_type() -> None:
    """Doctor names keys: an administrator finds each in REFERENCE.md, and no other."""
    text = (Path(__file__).parents[2] / "deploy" / "REFERENCE.md").read_text(encoding="utf-8")
    section = text[text.index("### What lies in Redis") : text.index("## The farm")]
    rows = re.findall(r"^\| (`.*`) \| (hash|zset|stream|string) \|", section, re.MULTILINE)
    found = sorted((name, kind) for names, kind in rows for name in re.findall("`([^`]+)`", names))
    keys = [*Shard("f", "p").keys(), *farm_keys("f")]
    assert sorted((key.rpartition(":")[2], kind_of(key)) for key in keys) == found
