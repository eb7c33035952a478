"""The sealed bytes in the store, unopened: which key each names, how one is replaced, which node can open which.

Guaranteed: a seal is replaced only where it is still the one that was read, so that a record that was saved meanwhile
is never overwritten. Not guaranteed: that a walk counts what comes or goes meanwhile; a seal that is there all the time
is counted at least once.

This module must never open a seal, nor hold more than a page of them.
"""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from farmlease.domain.key_rotation import KeyReport
from farmlease.errors import RightsLacking
from farmlease.store.answers.session import SealedPolicy
from farmlease.store.keys import Shard, node_keys, policies_key, policy_key, ring_keys, trail_keys
from farmlease.store.lease_store import ScriptRunner
from farmlease.store.node_store import in_json
from farmlease.store.script import Argument, Script

__all__ = ["Kind", "SealStore", "SealedRecord"]

NAME = Script.load("name")
NOTES = Script.load("notes")
RESEAL = Script.load("reseal")
RESEAL_POLICY = Script.load("reseal_policy")
RESEAL_WISH = Script.load("reseal_wish")
RINGS = Script.load("rings")
SEALED = Script.load("sealed")
SEALS = Script.load("seals")
TELL_KEYS = Script.load("tell_keys")

#: Milliseconds for which a silent node is remembered.
SILENT_FOR = 90 * 24 * 3_600_000
#: Longer than any node can have been silent.
_FOR_GOOD = 2**52
_PAGE = 500


class Kind(StrEnum):
    """What is sealed for each user of a pool; of what was decided without a seat there are names only."""

    RECORDS = "records"
    NAMES = "names"
    POLICIES = "policies"  #: the last ones of the farm, and who applied them: of no pool


@dataclass(frozen=True, slots=True)
class SealedRecord:
    """A user's record in a pool, and what it belongs to; empty where there is none."""

    record: bytes
    lease_id: str
    version: int


class SealStore:
    """The seals of one farm. ``pool`` is "" for what was decided without a seat."""

    def __init__(self, connection: ScriptRunner, farm: str) -> None:
        self._connection = connection
        self._farm = farm

    async def seals(self, pool: str, kind: Kind) -> AsyncIterator[tuple[str, bytes]]:
        """Yield every user of a pool with such a seal, and its first bytes, a page at a time."""
        cursor = b"0"
        while True:
            _, cursor, *words = await self._ask(SEALS, self._hash(pool, kind), cursor=cursor, count=_PAGE)
            for user, head in zip(words[::2], words[1::2], strict=True):
                yield user.decode(), head
            if cursor == b"0":
                return

    async def notes(self, pool: str) -> AsyncIterator[bytes]:
        """Yield the first bytes of all sealed comments and names in an audit, a page at a time."""
        audit, begin = trail_keys(self._farm, pool)[0], "-"
        while begin:
            _, behind, *heads = await self._ask(NOTES, audit, begin=begin, count=_PAGE)
            begin = behind.decode()
            for head in heads:
                yield head

    async def record(self, pool: str, user: str) -> SealedRecord:
        """Return one user's record."""
        arguments = SEALED.ordered({"user": user})
        answer = await self._connection.call(SEALED, Shard(self._farm, pool).keys(), arguments)
        _, record, lease_id, version = answer
        return SealedRecord(record=record, lease_id=lease_id.decode(), version=int(version))

    async def name(self, pool: str, user: str) -> bytes:
        """Return one user's sealed name; empty if there is none."""
        _, name = await self._ask(NAME, self._hash(pool, Kind.NAMES), user=user)
        return bytes(name)

    async def former_policy(self, field: str) -> bytes:
        """Return one of the last policies, or who applied it; empty if it is gone."""
        _, sealed = await self._ask(NAME, policies_key(self._farm), user=field)
        return bytes(sealed)

    async def reseal(self, pool: str, kind: Kind, user: str, old: bytes, new: bytes) -> bool:
        """Replace a seal by another of the same content; False if it is not the one that was read any more."""
        answer = await self._ask(RESEAL, self._hash(pool, kind), user=user, old=old, new=new)
        return bool(answer[0] == b"resealed")

    async def reseal_policy(self, found: SealedPolicy, new: bytes) -> bool:
        """Replace the seal of the policy; False if another one is in force by now."""
        key = policy_key(self._farm)
        answer = await self._ask(RESEAL_POLICY, key, version=found.version, old=found.sealed, new=new)
        return bool(answer[0] == b"resealed")

    async def reseal_wish(self, node: str, old: bytes, new: bytes) -> bool:
        """Replace the sealed administrator of a node's wish; False if it is another wish by now."""
        key = node_keys(self._farm)[0]
        answer = await self._ask(RESEAL_WISH, key, node=node, old=in_json(old), new=in_json(new))
        return bool(answer[0] == b"resealed")

    async def tell(self, node: str, report: Mapping[str, object]) -> None:
        """Report what a node can open: the fields of ``KeyReport`` but for its name and its age."""
        arguments = TELL_KEYS.ordered({"node": node, "said": json.dumps(report)})
        await self._connection.call(TELL_KEYS, ring_keys(self._farm), arguments)

    async def rings(self) -> list[KeyReport]:
        """Return the last report of every node, by name. Who may only read forgets nobody there."""
        try:
            now, *words = await self._reports(SILENT_FOR)
        except RightsLacking:
            now, *words = await self._reports(_FOR_GOOD)
        found = [each for each in zip(*(iter(words),) * 3, strict=True) if int(each[1]) + SILENT_FOR >= int(now)]
        return sorted((_key_report(*each, now=int(now)) for each in found), key=lambda report: report.node)

    async def _reports(self, kept_ms: int) -> list[bytes]:
        """Return the store's time, then node, time and report of each; forget those of longer ago."""
        _, *answer = await self._connection.call(RINGS, ring_keys(self._farm), RINGS.ordered({"kept": kept_ms}))
        return answer

    def _hash(self, pool: str, kind: Kind) -> str:
        """Return the key of the seals of one kind."""
        if kind is Kind.POLICIES:
            return policies_key(self._farm)
        return trail_keys(self._farm, pool)[1] if kind is Kind.NAMES else Shard(self._farm, pool).key("records")

    async def _ask(self, script: Script, key: str, **arguments: Argument) -> list[Any]:
        return await self._connection.call(script, (key,), script.ordered(arguments))


def _key_report(node: bytes, at: bytes, report: bytes, now: int) -> KeyReport:
    words = json.loads(report)
    return KeyReport(
        node=node.decode(),
        silent_ms=now - int(at),
        every_ms=int(words["every"]),
        primary=str(words["primary"]),
        opens=tuple(words["opens"]),
        holds=dict(words["holds"]),
    )
