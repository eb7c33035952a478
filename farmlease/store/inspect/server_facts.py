"""What a store reports of itself and allows us, as facts for the doctor. Nothing is changed, and nothing judged here.

A right that is lacking is a fact too: what a server refuses to answer is left out. StoreError where it cannot be
reached at all.
"""

import time
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from redis.crc import key_slot
from redis.exceptions import ResponseError

from farmlease.domain.diagnosis.store import Rights, ServerFacts, ShardFacts
from farmlease.domain.store_damage import Foreign
from farmlease.store.connection.acl_texts import lack_in
from farmlease.store.connection.connection import Connection
from farmlease.store.connection.server_life import parse_info
from farmlease.store.connection.socket import Channel
from farmlease.store.connection.wrong_type import WrongType, wrong_types
from farmlease.store.damage_store import DamageStore
from farmlease.store.inspect.farm_keys import lost_farm_keys
from farmlease.store.inspect.foreign import foreign_members
from farmlease.store.keys import Shard, farm_keys, node_keys, note_keys, policies_key, policy_key, pools_key, ring_keys

__all__ = ["SAMPLES", "ServerInspection"]

#: An example of every command that scripts use, behind the command and its key: ACL DRYRUN wants whole commands.
SAMPLES: Mapping[str, tuple[str, ...]] = {
    "DEL": (), "EXISTS": (), "GET": (), "HDEL": ("f",), "HEXISTS": ("f",), "HGET": ("f",), "HGETALL": (),
    "HINCRBY": ("f", "1"), "HKEYS": (), "HLEN": (),
    "HSCAN": ("0",), "HSET": ("f", "v"), "HSETNX": ("f", "v"), "HVALS": (), "SET": ("v",),
    "TYPE": (), "XADD": ("*", "f", "v"), "XDEL": ("1-1",), "XLEN": (), "XRANGE": ("-", "+"), "XREVRANGE": ("+", "-"),
    "ZADD": ("1", "m"), "ZCARD": (), "ZCOUNT": ("0", "1"), "ZLEXCOUNT": ("-", "+"), "ZRANGEBYLEX": ("-", "+"),
    "ZRANGEBYSCORE": ("0", "1"), "ZRANK": ("m",), "ZREM": ("m",), "ZREMRANGEBYSCORE": ("0", "1"),
    "ZREVRANGE": ("0", "1"), "ZREVRANGEBYSCORE": ("1", "0"), "ZSCORE": ("m",),
}  # fmt: skip
#: Commands that are sent outside scripts, or have no key in them.
_PLAIN = (("TIME",), ("INFO",), ("WAIT", "0", "1"), ("CLIENT", "SETNAME", "farmlease"))
_SCRIPTS = (("EVAL", "return 1", "1"), ("EVALSHA", "0" * 40, "1"))
_SLOTS = (("CLUSTER", "SLOTS"),)
#: What no agent needs.
_BEYOND: Mapping[str, tuple[str, ...]] = {
    "FLUSHALL": ("FLUSHALL",),
    "CONFIG SET": ("CONFIG", "SET", "maxmemory", "0"),
    "KEYS": ("KEYS", "*"),
    "read keys of others": ("GET", "somebody:elses"),
}
_ASKS_NO_MORE = "a server before 7.0 has no ACL DRYRUN"


class ServerInspection:
    """Reads the facts of a farm's store. ``user``: the ACL user of the configuration."""

    def __init__(self, connection: Connection, farm: str, *, user: str | None, wait_replicas: int) -> None:
        self._connection = connection
        self._farm = farm
        self._user = user or "default"
        self._wait_replicas = wait_replicas

    async def masters(self, *, cluster: bool) -> list[tuple[str, str]]:
        """Return each master that serves: its name, and a key that leads to it."""
        if not cluster:
            return [(self._connection.describe, policy_key(self._farm))]
        found: dict[str, str] = {}
        for first, last, (host, port) in await self._slots():
            found.setdefault(f"{host}:{port}", _key_between(first, last))
        return list(found.items())

    async def ranges(self) -> list[tuple[int, int]]:
        """Return which slots of a Cluster are served."""
        return [(first, last) for first, last, _ in await self._slots()]

    async def cluster_state(self) -> Mapping[str, str]:
        """Return CLUSTER INFO of a member; empty where it does not answer that."""

        async def read(channel: Channel) -> Mapping[str, str]:
            try:
                return parse_info(await channel.execute("CLUSTER", "INFO"))
            except ResponseError:
                return {}

        state: Mapping[str, str] = await self._connection.query(read, ())
        return state

    async def server(self, key: str, *, cluster: bool, watched: bool) -> ServerFacts:
        """Ask the server that has ``key``."""

        async def read(channel: Channel) -> ServerFacts:
            return ServerFacts(
                info=parse_info(await channel.execute("INFO")),
                saves=await _saves(channel),
                rights=await self._rights(channel, cluster=cluster),
                ahead_ms=await _ahead(channel),
                wait_replicas=self._wait_replicas,
                watched=watched,
            )

        facts: ServerFacts = await self._connection.query(read, (key,))
        return facts

    async def wrong_types(self, pool: str = "") -> list[WrongType]:
        """Return each key of a pool ("": of the farm itself) that is of another type than farmlease gave it."""
        keys = Shard(self._farm, pool).keys() if pool else farm_keys(self._farm)

        async def read(channel: Channel) -> list[WrongType]:
            return await wrong_types(channel, keys)

        found: list[WrongType] = await self._connection.query(read, keys)
        return found

    async def lost_farm_keys(self) -> list[str]:
        """Return the names of the farm's own keys that are gone, or have lost members."""
        return await lost_farm_keys(self._connection, self._farm)

    async def foreign(self) -> list[Foreign]:
        """Return which of the farm's own keys have members that farmlease did not write."""
        return await foreign_members(self._connection, farm_keys(self._farm))

    async def shard(self, pool: str) -> ShardFacts:
        """Read the state of a pool's epoch and time, and what it lacks."""
        meta, taken_back = Shard(self._farm, pool).key("meta"), Shard(self._farm, pool).key("over_numbers")
        if wrong := await self.wrong_types(pool):
            return ShardFacts(pool=pool, known=True, skew_ms=0, recovering=False, wrong=tuple(wrong))
        damage = DamageStore(self._connection, self._farm)
        *keys, _ = Shard(self._farm, pool).keys()  # but for what was set aside
        foreign = tuple(await foreign_members(self._connection, keys))
        missing, aside = await damage.missing(pool), await damage.set_aside(pool)

        async def read(channel: Channel) -> ShardFacts:
            words = iter(await channel.execute("HGETALL", meta))
            fields: dict[bytes, bytes] = dict(zip(words, words, strict=True))
            skew, until = _number(fields.get(b"skew", b"0")), _number(fields.get(b"recovering", b"0"))
            seconds, _ = map(int, await channel.execute("TIME"))
            return ShardFacts(
                pool=pool,
                known=b"policy" in fields,
                skew_ms=int(skew),
                recovering=until > seconds * 1000 - skew,
                missing=missing,
                set_aside=len(aside),
                foreign=foreign,
                taken_back=int(await channel.execute("ZCARD", taken_back)),
            )

        facts: ShardFacts = await self._connection.query(read, (meta,))
        return facts

    async def _slots(self) -> list[tuple[int, int, tuple[str, int]]]:
        async def read(channel: Channel) -> Any:  # noqa: ANN401 - a reply of the driver
            return await channel.execute("CLUSTER", "SLOTS")

        answer = await self._connection.query(read, ())
        return [(first, last, (host.decode(), port)) for first, last, (host, port, *_), *_ in answer]

    async def _rights(self, channel: Channel, *, cluster: bool) -> Rights:
        """Ask about everything that agents and scripts do, without doing it."""
        user = await self._who(channel)
        try:
            if await _denied(channel, user, ("PING",)) is None:
                return Rights(user=user, unknown=_ASKS_NO_MORE)
        except ResponseError:
            how = f"ask as an administrator: ACL DRYRUN {user} HSET {policy_key(self._farm)} f v"
            return Rights(user=user, unknown=f"user {user} may not ask (+acl|whoami +acl|dryrun let it), or {how}")
        key = policy_key(self._farm)
        wanted = [(name, (name, key, *SAMPLES[name])) for name in sorted(SAMPLES)]
        wanted += [(" ".join(words[:2] if words[0] in {"CLIENT", "CLUSTER"} else words[:1]), words)
                   for words in (*_PLAIN, *(_SLOTS if cluster else ()))]  # fmt: skip
        wanted += [(words[0], (*words, key)) for words in _SCRIPTS]
        denied = [name for name, words in wanted if await _denied(channel, user, words) == "command"]
        keys = [each for each in self._keys() if await _denied(channel, user, ("HSET", each, "f", "v")) == "key"]
        denied += [f"key {each}" for each in keys]
        beyond = [name for name, words in _BEYOND.items() if not await _denied(channel, user, words)]
        return Rights(user=user, denied=tuple(denied), beyond=tuple(beyond))

    async def _who(self, channel: Channel) -> str:
        try:
            who: bytes = await channel.execute("ACL", "WHOAMI")
        except ResponseError:
            return self._user
        return who.decode()

    def _keys(self) -> Sequence[str]:
        """Return a key of each kind."""
        return (
            policy_key(self._farm),
            *note_keys(self._farm),
            pools_key(self._farm),
            policies_key(self._farm),
            node_keys(self._farm)[0],
            ring_keys(self._farm)[0],
            *Shard(self._farm, "pool").keys()[:1],
        )


def _number(field: bytes) -> float:
    """Return a number of a pool's books; 0 of what is damaged, as the scripts read it."""
    try:
        number = float(field)
    except ValueError:
        return 0
    return number if abs(number) < 2**53 else 0


async def _denied(channel: Channel, user: str, words: Sequence[str]) -> str | None:
    """Return what stands in a user's way, "command" or "key"; empty if nothing does, None where the server cannot say.

    ResponseError if it will not.
    """
    try:
        answer: bytes = await channel.execute("ACL", "DRYRUN", user, *words)
    except ResponseError as error:
        if "unknown subcommand" in str(error).lower():
            return None
        if "not found" in str(error).lower():  # a command that this server does not have
            return ""
        raise
    if answer == b"OK":
        return ""
    lack = lack_in(answer.decode(errors="replace"))
    return "key" if lack is not None and lack.what == "key" else "command"


async def _ahead(channel: Channel) -> int | None:
    """Return by how many ms the server's clock is ahead of ours; None if it does not answer that."""
    before = time.time_ns()
    try:
        seconds, micros = map(int, await channel.execute("TIME"))
    except ResponseError:
        return None
    return seconds * 1000 + micros // 1000 - (before + time.time_ns()) // 2_000_000


async def _saves(channel: Channel) -> str | None:
    try:
        answer = await channel.execute("CONFIG", "GET", "save")
    except ResponseError:
        return None
    values = [each.decode() for each in answer]
    return dict(zip(values[::2], values[1::2], strict=True)).get("save")


def _key_between(first: int, last: int) -> str:
    """Return a key whose slot is one of these."""
    return next(key for key in map("fl:{{{}}}".format, count()) if first <= key_slot(key.encode()) <= last)
