"""What this node knows of the farm: the policy in force, and whether the store answers.

The policy as last read is kept in the journal, so that an agent that starts while the store is away still knows the
pools and their files. An older one, or none, never replaces it, but is replaced by it: a store that lost its data is
not an administrator's decision, and applying a policy always makes a newer one.
"""

from contextlib import suppress

import structlog

from farmlease.crypto.seal import Purpose
from farmlease.domain.policy import Policy, check_timing, parse_policy
from farmlease.errors import FarmleaseError, JournalFailed, PolicyChanged, PolicyError, RecordRejected
from farmlease.farm import Farm, PolicyInForce
from farmlease.node.journal.journal import Journal

__all__ = ["PolicyCache"]

_log = structlog.get_logger(__name__)


class PolicyCache:
    """One node's view of its farm. ``trouble`` says in one sentence why the policy cannot be kept here, if so."""

    def __init__(self, farm: Farm, journal: Journal, node: str, heartbeat_ms: int) -> None:
        self._farm = farm
        self._journal = journal
        self._node = node
        self._heartbeat_ms = heartbeat_ms
        self._store_answers: bool | None = None
        self.trouble: str | None = None
        #: The policy as last read, with its version: one value, so that nobody mixes the pools of two.
        self.in_force = self._remembered()

    @property
    def store_answers(self) -> bool:
        """Whether the store answered when it was last asked."""
        return bool(self._store_answers)

    @property
    def store_is_away(self) -> bool:
        """Whether the store did not answer when it was last asked; False before it ever was."""
        return self._store_answers is False

    async def read_policy(self) -> PolicyInForce:
        """Return the policy that is in force now. PolicyError if this node cannot open or understand it."""
        try:
            found = await self._farm.policy()
        except (RecordRejected, PolicyError) as error:
            self._in_trouble(str(error))
            raise PolicyError(str(error)) from None
        if found.version < self.in_force.version:
            await self._put_back(found.version)
        if found.version > self.in_force.version:
            self.in_force = found
            _log.info("policy.read", version=found.version)
            self._remember(found)
        self._in_trouble(self._impossible(self.in_force.policy))
        return self.in_force

    def reseal(self) -> None:
        """Keep the policy in the journal sealed with the primary."""
        if self.in_force.policy is not None:
            self._remember(self.in_force)

    async def _put_back(self, version: int) -> None:
        """The store has lost the policy, or has an older one: it gets ours, unless somebody was faster."""
        with suppress(PolicyChanged):
            await self._farm.put_back(self.in_force, over=version, node=self._node)
            _log.warning("policy.put_back", version=self.in_force.version, over=version)

    def store_failed(self, error: FarmleaseError) -> None:
        """Note that the store did not do what was asked; told in the log once."""
        if self._store_answers is not False:
            _log.error("store.away", why=str(error))
        self._store_answers = False

    def store_answered(self) -> None:
        """Note that the store does what it is asked."""
        if self._store_answers is False:
            _log.info("store.back")
        self._store_answers = True

    def _impossible(self, policy: Policy | None) -> str | None:
        """Return why this node's heartbeat is too slow for the policy, if it is."""
        try:
            for pool in policy.pools if policy else ():
                check_timing(self._heartbeat_ms, pool)
        except PolicyError as error:
            return str(error)
        return None

    def _in_trouble(self, why: str | None) -> None:
        if why is not None and why != self.trouble:
            _log.error("policy.trouble", why=why)
        self.trouble = why

    def _remember(self, found: PolicyInForce) -> None:
        text = f"{found.version}\n{found.policy.text if found.policy else ''}".encode()
        try:
            self._journal.write_document("policy", self._farm.sealer.seal(Purpose.POLICY, self._node, (), text))
        except JournalFailed as error:  # the store has it too
            _log.error("policy.not_remembered", why=str(error))

    def _remembered(self) -> PolicyInForce:
        body = self._journal.document("policy")
        if body is None:
            return PolicyInForce(0, None)
        try:
            version, _, text = self._farm.sealer.unseal(Purpose.POLICY, self._node, (), body).decode().partition("\n")
            return PolicyInForce(int(version), parse_policy(text, "policy in the journal"))
        except (RecordRejected, PolicyError) as error:
            _log.error("policy.forgotten", why=str(error))
            return PolicyInForce(0, None)
