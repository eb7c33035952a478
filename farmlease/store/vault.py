"""What is sealed in the store, seen from outside: which key each seal names, how one is replaced, who can open what.

Guaranteed: a seal is replaced only where it is still the one that was read, so that a record that was saved meanwhile
is never written over. Not guaranteed: that a walk counts what comes or goes meanwhile; what is there during all of it
is seen at least once.

This module must never open a seal, nor hold more than a page of them.
"""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from farmlease.domain.rotation import Told
from farmlease.store.answers import SealedPolicy
from farmlease.store.keys import Shard, policy_key, rings_key
from farmlease.store.redis import Caller
from farmlease.store.script import Script

__all__ = ["Kind", "SealedUser", "Vault"]

NOTES = Script.load("notes")
RESEAL = Script.load("reseal")
RESEAL_POLICY = Script.load("reseal_policy")
RINGS = Script.load("rings")
SEALED = Script.load("sealed")
SEALS = Script.load("seals")
TELL_KEYS = Script.load("tell_keys")

#: Milliseconds for which a node that says nothing any more is remembered.
SILENT_FOR = 90 * 24 * 3_600_000
_PAGE = 500


class Kind(StrEnum):
    """What is sealed for each user of a pool."""

    RECORDS = "records"
    NAMES = "names"


@dataclass(frozen=True, slots=True)
class SealedUser:
    """What a pool has of one user, sealed; empty where there is none. ``version``: of the record."""

    user: str
    record: bytes
    name: bytes
    lease_id: str
    version: int


class Vault:
    """The seals of one farm."""

    def __init__(self, connection: Caller, farm: str) -> None:
        self._connection = connection
        self._farm = farm

    async def seals(self, pool: str, kind: Kind) -> AsyncIterator[tuple[str, bytes]]:
        """Every user of a pool who has such a seal, with its first bytes, a page at a time."""
        cursor = b"0"
        while True:
            _, cursor, *words = await self._run(SEALS, pool, kind=kind, cursor=cursor, count=_PAGE)
            for user, head in zip(words[::2], words[1::2], strict=True):
                yield user.decode(), head
            if cursor == b"0":
                return

    async def notes(self, pool: str) -> AsyncIterator[bytes]:
        """The first bytes of all sealed words in a pool's audit, a page at a time."""
        begin = "-"
        while begin:
            _, behind, *heads = await self._run(NOTES, pool, begin=begin, count=_PAGE)
            begin = behind.decode()
            for head in heads:
                yield head

    async def sealed(self, pool: str, user: str) -> SealedUser:
        """All that is sealed of one user."""
        _, record, name, lease_id, version = await self._run(SEALED, pool, user=user)
        return SealedUser(user=user, record=record, name=name, lease_id=lease_id.decode(), version=int(version))

    async def reseal(self, pool: str, kind: Kind, user: str, old: bytes, new: bytes) -> bool:
        """Replace a seal by another of the same content; False if it is not the one that was read any more."""
        answer = await self._run(RESEAL, pool, kind=kind, user=user, old=old, new=new)
        return bool(answer[0] == b"resealed")

    async def reseal_policy(self, found: SealedPolicy, new: bytes) -> bool:
        """Replace the seal of the policy; False if another one is in force by now."""
        arguments = RESEAL_POLICY.ordered({"version": found.version, "old": found.sealed, "new": new})
        answer = await self._connection.call(RESEAL_POLICY, (policy_key(self._farm),), arguments)
        return bool(answer[0] == b"resealed")

    async def tell(self, node: str, said: Mapping[str, object]) -> None:
        """Say what a node can open: the fields of ``Told`` but for its name and when it was heard."""
        arguments = TELL_KEYS.ordered({"node": node, "said": json.dumps(said)})
        await self._connection.call(TELL_KEYS, (rings_key(self._farm),), arguments)

    async def rings(self) -> list[Told]:
        """Return what every node said last, by name."""
        arguments = RINGS.ordered({"kept": SILENT_FOR})
        _, now, *words = await self._connection.call(RINGS, (rings_key(self._farm),), arguments)
        found = zip(*(iter(words),) * 3, strict=True)
        return sorted((_told(*each, now=int(now)) for each in found), key=lambda told: told.node)

    async def _run(self, script: Script, pool: str, **arguments: Any) -> list[Any]:  # noqa: ANN401 - arguments of the script
        return await self._connection.call(script, Shard(self._farm, pool).keys(), script.ordered(arguments))


def _told(node: bytes, at: bytes, said: bytes, now: int) -> Told:
    words = json.loads(said)
    return Told(
        node=node.decode(),
        silent_ms=now - int(at),
        every_ms=int(words["every"]),
        primary=str(words["primary"]),
        opens=tuple(words["opens"]),
        holds=dict(words["holds"]),
    )
