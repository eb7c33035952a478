"""A farm's shared state, opened with the farm's keys: the policy, the pools' use, and the stores below them.

Agents and administrators' commands both open a farm here, so that all use the same connection settings and keys. The
decisions about sessions and leases are the store's. This module must never write back unsealed what it returned in
clear.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from farmlease.config.model import Config
from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.crypto.seal import Purpose, RecordBinding, Sealer
from farmlease.domain.identity import AS_GIVEN, Identities, device_name
from farmlease.domain.model import PoolUse
from farmlease.domain.policy import Policy, PolicyInForce, Pool, parse_policy
from farmlease.errors import RecordRejected
from farmlease.store.answers.session import Explained, SealedPolicy, Taken
from farmlease.store.audit_store import AuditStore
from farmlease.store.connection.connection import Connection, open_connection
from farmlease.store.damage_store import DamageStore
from farmlease.store.lease_store import LeaseStore
from farmlease.store.name_store import NameStore
from farmlease.store.node_store import NodeStore
from farmlease.store.policy_store import PolicyStore
from farmlease.store.seal_store import SealStore
from farmlease.store.tombstone_store import TombstoneStore

__all__ = ["Farm", "open_farm", "renames"]

_POLICY_NOT_OPENED = (
    "the farm's policy does not open with this node's key ring; copy the key ring of a node that works, "
    "or check farm and [store] url in the configuration"
)


class Farm:
    """One farm, opened with its keys.

    ``leases``, ``nodes``, ``seals``, ``audit``, ``policies``, ``names``, ``tombstones`` and ``damage`` are the farm's
    parts of the store, over one connection.
    """

    def __init__(
        self, name: str, leases: LeaseStore, sealer: Sealer, *, by: str = "", host_identity: Identities = AS_GIVEN
    ) -> None:
        """``by``: the administrator who opens it, for the audit of what is changed; empty for an agent.

        ``host_identity``: the table of ``farmlease.toml``, which counts until the policy has one.
        """
        self.name = name
        self.leases = leases
        self.nodes = NodeStore(leases.connection, name)
        self.seals = SealStore(leases.connection, name)
        self.audit = AuditStore(leases.connection, name)
        self.policies = PolicyStore(leases.connection, name)
        self.names = NameStore(leases.connection, name)
        self.tombstones = TombstoneStore(leases.connection, name)
        self.damage = DamageStore(leases.connection, name)
        self.sealer = sealer
        self.host_identity = host_identity
        self._by = by

    def read(self, text: str, source: str) -> Policy:
        """Return the policy in force from its ``text``; PolicyError names ``source``, the key and the line."""
        return parse_policy(text, source, self.host_identity, in_force=True)

    def in_force(self, version: int, policy: Policy | None, *, former_names: bool = False) -> PolicyInForce:
        """Return a version of the policy, with the table of who is who that counts under it."""
        return PolicyInForce(version, policy, self.host_identity, former_names)

    def opens(self, pool: str, found: Explained) -> bool:
        """Whether the record that an explained start would bring opens with these keys.

        A new lease gets a new one, and a session that has its seat already needs none.
        """
        answer = found.answer
        if not isinstance(answer, Taken) or found.lease is None or answer.again:
            return True
        binding = RecordBinding(
            pool=pool, user_index=answer.user, lease_id=answer.lease.id, version=answer.record_version
        )
        try:
            self.sealer.unseal_record(binding, answer.record)
        except RecordRejected:
            return False
        return True

    async def policy(self) -> PolicyInForce:
        """Read the policy; RecordRejected if it does not open with this farm's keys."""
        return self._unsealed(await self.leases.read_policy())

    async def apply(self, policy: Policy, *, over: int | None = None, anew: bool = False) -> PolicyInForce:
        """Put ``policy`` in force on every node, over version ``over`` (default: the one in force now).

        Applying the policy that is in force makes no new version; ``anew`` writes it again, and with it what the farm's
        own keys have lost. PolicyChanged if another version is in force by now.
        Where it reads names otherwise, leases may stand under former ones until they are moved (``LeaseRenamer``).
        The limits are then written into each pool; if that is interrupted, apply the policy again. Removed pools are
        marked as well, so that no node goes on granting from them.
        """
        found = await self.leases.read_policy()
        before = self._unsealed(found)
        expected = found.version if over is None else over
        former_names = before.former_names or renames(before, policy)
        same = before.policy is not None and (expected, policy.text) == (found.version, before.policy.text)
        version = before.version if same else max(found.version + 1, found.now)
        if anew or not same:
            await self.leases.apply_policy(
                expected, version, self._sealed(version, policy), pools=_pool_names(policy), by=self.signature(),
                former_names=former_names,
            )  # fmt: skip
        removed = [pool for pool in before.pools if policy.pool(pool.name) is None]
        for pool in (*policy.pools, *removed):
            await self.leases.configure(pool, version)
        return self.in_force(version, policy, former_names=former_names)

    async def put_back(self, known: PolicyInForce, *, over: int, node: str) -> None:
        """Write a policy back into a store that lost it. PolicyChanged if its version is not ``over`` any more.

        A store that has an older one may have leases under names of that.
        """
        if known.policy is not None:
            sealed = self._sealed(known.version, known.policy)
            await self.leases.apply_policy(
                over,
                known.version,
                sealed,
                pools=_pool_names(known.policy),
                node=node,
                former_names=known.former_names or over > 0,
            )

    async def use(self, pool: Pool) -> PoolUse:
        """Return how full a pool is."""
        count = await self.leases.count(pool.name)
        return PoolUse(
            name=pool.name,
            kind=pool.kind,
            capacity=count.capacity if count else pool.capacity,
            used=count.held - count.quarantined if count else 0,
            quarantined=count.quarantined if count else 0,
            kept=count.reserved if count else pool.reserved_seats,
            queued=count.waiting if count else 0,
        )

    def device(self, text: str) -> str:
        """Return the one name of a device of any spelling; the farm, as a device, is called as it is configured."""
        return device_name(text, self.name)

    def signature(self) -> bytes:
        """Return the administrator, sealed, for the audit; empty for an agent."""
        return self.sealer.seal_author(self._by) if self._by else b""

    def _sealed(self, version: int, policy: Policy) -> bytes:
        return self.sealer.seal(Purpose.POLICY, "", (str(version),), policy.text.encode())

    def _unsealed(self, found: SealedPolicy) -> PolicyInForce:
        if found.version == 0:
            return self.in_force(0, None)
        try:
            text = self.sealer.unseal(Purpose.POLICY, "", (str(found.version),), found.sealed)
        except RecordRejected:
            raise RecordRejected(_POLICY_NOT_OPENED) from None
        policy = self.read(text.decode(), f"policy {found.version} of farm {self.name}")
        return self.in_force(found.version, policy, former_names=found.former_names)


@asynccontextmanager
async def open_farm(
    config: Config, *, owner: bool = False, by: str = "", ring: KeyRing | None = None
) -> AsyncIterator[tuple[Farm, Connection]]:
    """Open the farm of a configuration; with ``owner`` this process starts and owns an embedded store.

    ``by``: the administrator who opens it, for the audit of what is changed. ``ring``: in place of the one of the file.
    Raises KeyRingRejected, ConfigError, and for an embedded store AlreadyRunning and StoreError. An unreachable store
    elsewhere raises nothing here; the first call to it does.
    """
    sealer = Sealer(ring or keyring_file.load(config.keys.file), config.farm)
    connection = await open_connection(config.store.address, state_dir=config.agent.state_dir, owner=owner)
    async with connection:
        leases = LeaseStore(connection, config.farm)
        yield Farm(config.farm, leases, sealer, by=by, host_identity=config.host_identity), connection


def renames(before: PolicyInForce, policy: Policy) -> bool:
    """Whether a policy may read a name otherwise than the one ``before``, or than some host's own table did."""
    old = before.policy
    if old is None or not (old.has_identity or policy.has_identity):
        return False
    return old.has_identity != policy.has_identity or old.identity != policy.identity


def _pool_names(policy: Policy) -> list[str]:
    return [pool.name for pool in policy.pools]
