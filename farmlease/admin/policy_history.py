"""The last policies of a farm, in clear: what was in force when, and who applied it.

The store keeps ten, sealed. A store that lost everything has those again that were applied since. This module changes
nothing.
"""

from dataclasses import dataclass

from farmlease.admin.audit import UNREADABLE
from farmlease.crypto.seal import Purpose
from farmlease.domain.policy import Policy
from farmlease.errors import PolicyError, RecordRejected
from farmlease.farm import Farm
from farmlease.store.policy_store import FormerPolicy

__all__ = ["PolicyHistory", "PolicyVersion"]


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One policy that was applied. ``policy``: None if it does not open with these keys, or is none any more."""

    version: int
    applied_at: int | None  #: ms, by the store's clock
    by: str  #: the administrator, or the node that put it back
    policy: Policy | None
    sealed: bytes


class PolicyHistory:
    """The last policies of one farm."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    async def versions(self) -> list[PolicyVersion]:
        """Return them, the newest first."""
        return [self._opened(each) for each in await self._farm.policies.history()]

    async def text(self, version: PolicyVersion) -> str:
        """Return the text of a policy, byte for byte; RecordRejected if it does not open with these keys."""
        return self._text(version.version, version.sealed)

    def _text(self, version: int, sealed: bytes) -> str:
        return self._farm.sealer.unseal(Purpose.POLICY, "", (str(version),), sealed).decode()

    def _opened(self, found: FormerPolicy) -> PolicyVersion:
        try:
            policy = self._farm.read(self._text(found.version, found.sealed), f"policy {found.version}")
        except (RecordRejected, PolicyError):
            policy = None
        return PolicyVersion(found.version, found.applied_at, self._author(found), policy, found.sealed)

    def _author(self, found: FormerPolicy) -> str:
        if found.node or not found.by:
            return found.node
        try:
            return self._farm.sealer.unseal_author(found.by)
        except RecordRejected:
            return UNREADABLE
