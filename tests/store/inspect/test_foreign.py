"""What farmlease wrote itself is never called foreign, whatever pools, nodes and sessions are called."""

import pytest

from farmlease.domain.pool import Pool
from farmlease.store.answers.session import Taken, Taking
from farmlease.store.inspect.foreign import foreign_members
from farmlease.store.keys import Shard, farm_keys
from farmlease.store.node_store import NodeStore
from farmlease.store.seal_store import SealStore
from tests.store.test_node_store import NEVER, REPORT
from tests.store.test_seal_store import SAID
from tests.support.rules import pool_of
from tests.support.seats import FARM, beat_anywhere, claim
from tests.support.stores import DAY, HOUR, TimedStore

#: As `check_token` lets a node, and a pool but for braces, be called; as `check_id` lets a session and a device.
NODES = ["ctx-01", "Büro PC", "a@b", "c:d", "host.example.com", "100%", "{e}", "O'Brien\\", "日本", "@x"]
POOLS = ["qlikview", "Qlik View", "Büro", "cad+", "a@b", "c:d", "100%", "O'Brien\\", "日本"]
IDS = ["7", "a/b#c", "RDP-Tcp#5", "ü x", "{7}", "\\n", "%2F", "/", "#", "@x", "日本"]
KINDS = {
    "devices": ("floating", {"share": "user_device", "linger": "1h", "max_hold": "4h", "queue": "1h", "overdraft": 1}),
    "sessions": ("floating", {"share": "session", "reserve": [{"seats": 1, "nodes": ["*"]}]}),
    "node": ("node_locked", {}),
    "named": ("named", {"max_hold": "4h"}),
}


async def live(timed: TimedStore, pool: Pool, node: str, word: str) -> None:
    """Have something in each set: users with seats and without, held and waiting, ended, revoked and never heard of."""
    store, at = timed.store, f"{node}#a"
    await beat_anywhere(store, pool, at)
    reservations = tuple(each.id for each in pool.reserve)
    for user in ("john", "mary", "zoe"):
        taking = Taking(
            device=word,
            lease_id=f"lease of {user}",
            record=b"\1" * 40,
            name=b"\1" * 40,
            reservations=reservations,
            wait_ms=60_000,
        )
        answer = await store.acquire(pool, 1, claim(user, word, at), taking)
        if isinstance(answer, Taken) and user == "john":
            await store.hold(pool.name, claim(user, word, at), answer.fence, HOUR)
        elif isinstance(answer, Taken):
            await store.release(pool.name, claim(user, word, at), answer.fence)


async def foreign(timed: TimedStore, pool: Pool) -> list[str]:
    """Return what is called foreign, of the pool and of the farm."""
    keys = [key for key in Shard(FARM, pool.name).keys() if not key.endswith(":damaged")]  # noqa: SIM118 - no dict
    return [f"{each.key} {each.first}" for each in await foreign_members(timed.connection, [*keys, *farm_keys(FARM)])]


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_of_ours_is_foreign(timed: TimedStore, kind: str) -> None:
    """Any node with any session on any device."""
    name, keys = KINDS[kind]
    nodes, seals = NodeStore(timed.connection, FARM), SealStore(timed.connection, FARM)
    keys = {"nodes": NODES} if name == "node_locked" else keys | {"capacity": 2}
    pool = pool_of(name, **keys)
    for number in range(max(len(NODES), len(IDS))):
        node, word = NODES[number % len(NODES)], IDS[number % len(IDS)]
        await live(timed, pool, node, word)
        await nodes.report(node, REPORT, NEVER, "", b"")
        await seals.tell(node, SAID)
        await timed.store.note(claim("ann", word, f"{node}#a"), "denied", "no_rule", b"\1" * 40)
        assert [] == await foreign(timed, pool)
        timed.clock.advance(DAY)  # what was not ended is lost, and told
        await live(timed, pool, NODES[(number + 1) % len(NODES)], word)
        assert [] == await foreign(timed, pool)


@pytest.mark.parametrize("name", POOLS)
async def test_a_pool_of_any_name_is_ours(timed: TimedStore, name: str) -> None:
    """The farm's list of pools has it."""
    pool = pool_of("floating", name=name, capacity=2)
    await timed.store.apply_policy(0, 5, b"\1" * 40, pools=[name], by=b"\1" * 40)
    await live(timed, pool, "ctx-01", "7")
    assert [] == await foreign(timed, pool)


@pytest.mark.parametrize("name", ["", "a/b", "a#b", "{a}"])
async def test_what_no_pool_can_be_called_is_foreign(timed: TimedStore, name: str) -> None:
    """Nobody can have applied it."""
    (pools,) = [key for key in farm_keys(FARM) if key.endswith(":pools")]
    timed.raw.hset(pools, name, "5")
    assert [name] == [each.first for each in await foreign_members(timed.connection, farm_keys(FARM))]
