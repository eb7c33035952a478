"""The policy in force as this node knows it, kept in the journal.

An agent that starts while the store is away still knows the pools and their files. A store with an older policy, or
with none, never replaces the one kept here but gets it back: a store that lost its data is no administrator's decision,
and applying a policy always makes a newer one.
"""

from contextlib import suppress

import structlog

from farmlease.crypto.seal import Purpose
from farmlease.domain.policy import HostTable, Policy, PolicyInForce, check_timing, host_table
from farmlease.errors import JournalFailed, PolicyChanged, PolicyError, RecordRejected
from farmlease.farm import Farm
from farmlease.node.journal.journal import Journal

__all__ = ["PolicyCache"]

#: Behind the version, while leases may stand under names that their users no longer have.
_FORMER = " former"

_log = structlog.get_logger(__name__)


class PolicyCache:
    """The policy as last read. ``trouble``: in one sentence, why this node cannot follow it; None if it can."""

    def __init__(self, farm: Farm, journal: Journal, node: str, heartbeat_ms: int) -> None:
        self._farm = farm
        self._journal = journal
        self._node = node
        self.heartbeat_ms = heartbeat_ms
        self.trouble: str | None = None
        #: The policy as last read, with its version: one value, so that the pools of two are never mixed.
        self.in_force = self._restored()

    async def read_policy(self) -> PolicyInForce:
        """Return the policy that is in force now. PolicyError if this node cannot open or understand it."""
        try:
            found = await self._farm.policy()
        except (RecordRejected, PolicyError) as error:
            self._set_trouble(str(error))
            raise PolicyError(str(error)) from None
        if found.version < self.in_force.version:
            await self._put_back(found.version)
        settled = (found.version, found.former_names) == (self.in_force.version, not self.in_force.former_names)
        if found.version > self.in_force.version or settled:
            self.in_force = found
            _log.info("policy.read", version=found.version)
            self._keep(found)
        self._set_trouble(self._impossible(self.in_force.policy))
        return self.in_force

    @property
    def host_table(self) -> HostTable:
        """What becomes of an ``[identity]`` in this host's own configuration."""
        return host_table(self._farm.host_identity, self.in_force.policy)

    def reseal(self) -> None:
        """Seal the policy in the journal anew, with the primary key."""
        if self.in_force.policy is not None:
            self._keep(self.in_force)

    async def _put_back(self, version: int) -> None:
        """Give the policy back to a store that lost it or has an older one, unless another node was faster."""
        with suppress(PolicyChanged):
            await self._farm.put_back(self.in_force, over=version, node=self._node)
            _log.warning("policy.put_back", version=self.in_force.version, over=version)

    def _impossible(self, policy: Policy | None) -> str | None:
        """Return why this node's heartbeat is too slow for the policy, if it is."""
        try:
            for pool in policy.pools if policy else ():
                check_timing(self.heartbeat_ms, pool)
        except PolicyError as error:
            return str(error)
        return None

    def _set_trouble(self, why: str | None) -> None:
        if why is not None and why != self.trouble:
            _log.error("policy.trouble", why=why)
        self.trouble = why

    def _keep(self, found: PolicyInForce) -> None:
        former = _FORMER if found.former_names else ""
        text = f"{found.version}{former}\n{found.policy.text if found.policy else ''}".encode()
        try:
            self._journal.write_document(
                "policy", self._farm.sealer.seal(Purpose.POLICY, self._journal.sealed_for, (), text)
            )
        except JournalFailed as error:  # the store has it too
            _log.error("policy.not_kept", why=str(error))

    def _restored(self) -> PolicyInForce:
        body = self._journal.document("policy")
        if body is None:
            return self._farm.in_force(0, None)
        try:
            plain = self._farm.sealer.unseal(Purpose.POLICY, self._journal.sealed_for, (), body)
            head, _, text = plain.decode().partition("\n")
            version, _, former = head.partition(" ")
            policy = self._farm.read(text, "policy in the journal")
            return self._farm.in_force(int(version), policy, former_names=bool(former))
        except (RecordRejected, PolicyError) as error:
            _log.error("policy.rejected", why=str(error))
            return self._farm.in_force(0, None)
