"""What the store still has of policies that are in force no more: the last ten, and the limits of removed pools.

Guaranteed: nothing here changes anything.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from farmlease.store.keys import Shard, policies_key
from farmlease.store.lease_store import ScriptRunner
from farmlease.store.script import Script

__all__ = ["FormerPolicy", "PolicyStore"]

LIMITS = Script.load("limits")
POLICIES = Script.load("policies")
#: What a policy's field says of it: version, when, and the node that put it back.
_ENTRY = re.compile(r"^(\d+) (\d*) (\S*)$")


@dataclass(frozen=True, slots=True)
class FormerPolicy:
    """A policy that was applied, sealed."""

    version: int
    applied_at: int | None  #: ms; None if the store did not note that yet
    node: str  #: that put it back into a store which had lost it; empty for an administrator's
    sealed: bytes
    by: bytes  #: the administrator, sealed; empty if not known


class PolicyStore:
    """The former policies of one farm."""

    def __init__(self, connection: ScriptRunner, farm: str) -> None:
        self._connection = connection
        self._farm = farm

    async def history(self) -> list[FormerPolicy]:
        """Return the last policies, the newest first; a field that is none is passed over."""
        _, *words = await self._connection.call(POLICIES, (policies_key(self._farm),), [])
        found = {field.decode(): value for field, value in zip(words[::2], words[1::2], strict=True)}
        policies = [
            FormerPolicy(int(version), int(at) if at else None, node, sealed, found.get(f"{version} by", b""))
            for field, sealed in found.items()
            for version, at, node in _ENTRY.findall(field)
        ]
        return sorted(policies, key=lambda each: -each.version)

    async def limits(self, pool: str) -> Mapping[str, str] | None:
        """Return the limits that a pool has or had, by name; None if no policy ever gave it any."""
        word, *words = await self._connection.call(LIMITS, Shard(self._farm, pool).keys(), [])
        if word == b"none":
            return None
        texts = [each.decode() for each in words]
        return dict(zip(texts[::2], texts[1::2], strict=True))
