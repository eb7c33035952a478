"""A farm's shared state in clear: the store's pseudonyms and sealed bytes, opened with the farm's keys.

Agents and administrators' commands both look at the farm through this. It reads and applies; the decisions about
sessions are the store's, taken through the node's agent. Nothing it returns is written back unsealed.
"""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

from farmlease.crypto.seal import Purpose, RecordBinding, Sealer
from farmlease.domain.identity import User
from farmlease.domain.model import LeaseState, LeaseView, PoolUse, SessionRequest, Withdrawal
from farmlease.domain.policy import Policy, Pool, parse_policy
from farmlease.domain.record import BorrowedRecord, decode, encode
from farmlease.errors import RecordRejected
from farmlease.store.answers.admin import DeviceRelease, DeviceReplacement, Importing, ImportOutcome, Withdrawn
from farmlease.store.answers.session import Behind, SealedPolicy
from farmlease.store.answers.stored_lease import StoredLease
from farmlease.store.lease_store import LeaseStore

__all__ = ["Farm", "PolicyInForce"]


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """The policy every decision goes by, and its version. Version 0: none was ever applied."""

    version: int
    policy: Policy | None

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The pools of the policy, none without one."""
        return self.policy.pools if self.policy else ()

    def pool(self, name: str) -> Pool | None:
        """Return the pool of exactly this name."""
        return self.policy.pool(name) if self.policy else None


class Farm:
    """One farm, seen by somebody who holds its keys."""

    def __init__(self, name: str, store: LeaseStore, sealer: Sealer, *, by: str = "") -> None:
        """``by``: the administrator who looks, for the audit of what is changed; empty for an agent."""
        self.name = name
        self.store = store
        self.sealer = sealer
        self._by = by

    async def policy(self) -> PolicyInForce:
        """Read the policy; RecordRejected if it was not sealed with this farm's keys."""
        return self._opened(await self.store.read_policy())

    async def apply(self, policy: Policy, *, over: int | None = None) -> PolicyInForce:
        """Put ``policy`` in force on every node, over version ``over`` (default: the one in force now).

        Applying what is in force already makes no new version. PolicyChanged if another one is in force by now. Its
        limits reach each pool at once; should this be cut short, apply it again. A pool that is no longer in it is told
        too, so that no node goes on granting from it.
        """
        found = await self.store.read_policy()
        before = self._opened(found)
        expected = found.version if over is None else over
        if before.policy and (expected, policy.text) == (found.version, before.policy.text):
            version = before.version
        else:
            version = max(found.version + 1, found.now)
            await self.store.apply_policy(
                expected, version, self._sealed(version, policy), pools=_names(policy), by=self.signature()
            )
        removed = [pool for pool in before.pools if policy.pool(pool.name) is None]
        for pool in (*policy.pools, *removed):
            await self.store.configure(pool, version)
        return PolicyInForce(version, policy)

    async def put_back(self, known: PolicyInForce, *, over: int, node: str) -> None:
        """Put a policy that was in force over the older one of a store that lost it. PolicyChanged if that is gone."""
        if known.policy is not None:
            sealed = self._sealed(known.version, known.policy)
            await self.store.apply_policy(over, known.version, sealed, pools=_names(known.policy), node=node)

    async def use(self, pool: Pool) -> PoolUse:
        """Return how full a pool is."""
        count = await self.store.count(pool.name)
        return PoolUse(
            name=pool.name,
            kind=pool.kind,
            capacity=count.capacity if count else pool.capacity,
            used=count.held - count.quarantined if count else 0,
            quarantined=count.quarantined if count else 0,
            kept=count.reserved if count else pool.reserved_seats,
            queued=count.waiting if count else 0,
        )

    async def leases(self, pool: Pool) -> AsyncIterator[LeaseView]:
        """Every lease of a pool, a page at a time."""
        async for stored in self.store.list(pool):
            yield self._view(pool, stored)

    async def lease(self, pool: Pool, user: User) -> LeaseView | None:
        """Return one user's lease."""
        stored = await self.store.look_up(pool, self.sealer.user_index(user))
        return None if stored is None else self._view(pool, stored)

    async def withdraw(self, pool: Pool, user: User, why: Withdrawal, note: str = "") -> Withdrawn | None:
        """Give a user's lease back, or revoke it; its sessions are told at their nodes' next heartbeat.

        None if there is no lease to give back. ``note``, the administrator's words, goes into the audit, sealed.
        """
        index = self.sealer.user_index(user)
        return await self.store.withdraw(pool.name, index, why, self._note(index, note), self.signature())

    async def release_device(self, pool: Pool, user: User, device: str) -> DeviceRelease:
        """Free a user's device slot; a used one stays taken until its last use is a quarantine ago."""
        return await self.store.release_device(pool.name, self.sealer.user_index(user), device, self.signature())

    async def replace_device(
        self, pool: Pool, user: User, old: str, new: str, *, note: str, override: bool = False
    ) -> DeviceReplacement:
        """Move a user's device slot to another machine at once; the pool says how often in 30 days."""
        index = self.sealer.user_index(user)
        sealed = self._note(index, note)
        return await self.store.replace_device(
            pool.name, index, old, new, override=override, note=sealed, by=self.signature()
        )

    async def import_lease(
        self, pool: Pool, version: int, user: User, device: str, borrowed_at: int | None
    ) -> ImportOutcome | Behind:
        """Take over a lease from the vendor's books; ``borrowed_at`` in ms, None if it was never used."""
        index, lease_id = self.sealer.user_index(user), secrets.token_urlsafe(12)
        importing = Importing(
            user=index,
            device=device,
            borrowed_at=borrowed_at,
            lease_id=lease_id,
            record=self.first_record(pool, user, device, lease_id, borrowed_at or 0),
            name=self.sealer.seal_name(index, user.canonical),
            reservations=pool.reservations(SessionRequest(user=user, session=""), ""),
            by=self.signature(),
        )
        return await self.store.import_lease(pool, version, importing)

    def first_record(self, pool: Pool, user: User, device: str, lease_id: str, borrowed_at: int) -> bytes:
        """Return the sealed record, without files yet, that a new lease begins with."""
        index = self.sealer.user_index(user)
        record = BorrowedRecord(
            user=user.canonical, pool=pool.name, seat=index, device=device, borrowed_at=borrowed_at, files=()
        )
        binding = RecordBinding(pool=pool.name, user_index=index, lease_id=lease_id, version=1)
        return self.sealer.seal_record(binding, encode(record))

    async def fault(self, pool: Pool, user: User, device: str) -> str | None:
        """Return why a session of this user on this device would not find a valid lease; None if it would.

        RecordRejected if the lease is there but its record was sealed for something else, or is malformed.
        """
        stored = await self.store.look_up(pool, self.sealer.user_index(user))
        if stored is None:
            return f"the user has no lease in pool {pool.name}"
        if stored.quarantined:
            return f"the lease in pool {pool.name} was given back"
        if device not in {claim.device for claim in stored.devices}:
            return f"the lease is not on device {device}"
        decode(self.sealer.unseal_record(stored.binding(pool.name), stored.record))
        return None

    def signature(self) -> bytes:
        """Return who changes something, sealed, for the audit; empty for an agent."""
        return self.sealer.seal_author(self._by) if self._by else b""

    def _sealed(self, version: int, policy: Policy) -> bytes:
        return self.sealer.seal(Purpose.POLICY, "", (str(version),), policy.text.encode())

    def _opened(self, found: SealedPolicy) -> PolicyInForce:
        if found.version == 0:
            return PolicyInForce(0, None)
        text = self.sealer.unseal(Purpose.POLICY, "", (str(found.version),), found.sealed)
        return PolicyInForce(found.version, parse_policy(text.decode(), f"policy {found.version} of farm {self.name}"))

    def _view(self, pool: Pool, stored: StoredLease) -> LeaseView:
        return LeaseView(
            user=self._name(stored),
            pool=pool.name,
            kind=pool.kind,
            state=_state(stored),
            lease=stored.lease,
            devices=stored.devices,
            sessions=stored.sessions,
            last_contact_at=stored.last_contact_at,
            record_version=stored.record_version,
            fence=stored.fence,
            overdraft=stored.overdraft,
        )

    def _note(self, index: str, words: str) -> bytes:
        """Seal an administrator's words; apart from names, so that neither stands in for the other. None stay none."""
        return self.sealer.seal(Purpose.NOTE, index, (), words.encode("utf-8", "surrogatepass")) if words else b""

    def _name(self, stored: StoredLease) -> str:
        """Return the user's name; the pseudonym where the name was forgotten or does not open."""
        try:
            return self.sealer.unseal_name(stored.user, stored.name) if stored.name else stored.user
        except RecordRejected:
            return stored.user


def _names(policy: Policy) -> list[str]:
    return [pool.name for pool in policy.pools]


def _state(stored: StoredLease) -> LeaseState:
    if stored.sessions:
        return LeaseState.ACTIVE
    return LeaseState.QUARANTINED if stored.quarantined else LeaseState.IDLE
