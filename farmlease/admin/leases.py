"""What administrators do with leases: list, take back, import and check them, and free or move their devices.

The decisions are the store's, each one atomic. This module opens names and seals notes with the farm's keys; it must
never write back what it returned in clear.
"""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

from farmlease.crypto.seal import Purpose
from farmlease.domain.identity import User
from farmlease.domain.model import LeaseState, LeaseView, SessionRequest, Withdrawal
from farmlease.domain.policy import Pool
from farmlease.domain.record import decode
from farmlease.errors import RecordRejected
from farmlease.farm import Farm
from farmlease.store.answers.admin import DeviceRelease, DeviceReplacement, Importing, ImportOutcome, Withdrawn
from farmlease.store.answers.session import Behind
from farmlease.store.answers.stored_lease import StoredLease

__all__ = ["LeaseAdmin", "Pseudonym", "Who"]


@dataclass(frozen=True, slots=True)
class Pseudonym:
    """Whoever has this user index: the one under which a lease was found."""

    index: str


Who = User | Pseudonym


class LeaseAdmin:
    """The leases of one farm, in clear."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    async def leases(self, pool: Pool) -> AsyncIterator[LeaseView]:
        """Yield every lease of a pool; they are read a page at a time."""
        async for stored in self._farm.leases.list(pool):
            yield self._view(pool, stored)

    async def lease(self, pool: Pool, user: Who) -> LeaseView | None:
        """Return one user's lease."""
        stored = await self._farm.leases.look_up(pool, self.index_of(user))
        return None if stored is None else self._view(pool, stored)

    async def withdraw(self, pool: Pool, user: Who, why: Withdrawal, note: str = "") -> Withdrawn | None:
        """Return or revoke a user's lease; its sessions are lost at their nodes' next heartbeat.

        None if there is no lease to take; a revocation bars the user even without one, if the pool has a quarantine.
        ``note``, the administrator's reason, goes into the audit, sealed.
        """
        index = self.index_of(user)
        return await self._farm.leases.withdraw(pool.name, index, why, self._note(index, note), self._farm.signature())

    async def release_device(self, pool: Pool, user: Who, device: str) -> DeviceRelease:
        """Free a user's device slot; a used one stays taken until the quarantine after its last use is over."""
        return await self._farm.leases.release_device(
            pool.name, self.index_of(user), self._farm.device(device), self._farm.signature()
        )

    async def replace_device(
        self, pool: Pool, user: Who, old: str, new: str, *, note: str, override: bool = False
    ) -> DeviceReplacement:
        """Move a user's device slot to another machine at once; the pool limits how often in 30 days."""
        index = self.index_of(user)
        sealed = self._note(index, note)
        before, after = self._farm.device(old), self._farm.device(new)
        return await self._farm.leases.replace_device(
            pool.name, index, before, after, override=override, note=sealed, by=self._farm.signature()
        )

    async def import_lease(
        self, pool: Pool, version: int, user: User, device: str, borrowed_at: int | None
    ) -> ImportOutcome | Behind:
        """Import a lease that the vendor recorded; ``borrowed_at`` in ms, None if it was never used."""
        index, lease_id = self._farm.sealer.user_index(user), secrets.token_urlsafe(12)
        device = self._farm.device(device)
        importing = Importing(
            user=index,
            device=device,
            borrowed_at=borrowed_at,
            lease_id=lease_id,
            record=self._farm.sealer.seal_first_record(
                pool.name, user, device=device, lease_id=lease_id, borrowed_at=borrowed_at or 0
            ),
            name=self._farm.sealer.seal_name(index, user.canonical),
            reservations=pool.reservations(SessionRequest(user=user, session=""), ""),
            by=self._farm.signature(),
        )
        return await self._farm.leases.import_lease(pool, version, importing)

    async def fault(self, pool: Pool, user: Who, device: str) -> str | None:
        """Return why a user has no valid lease on a device; None if it is valid.

        RecordRejected if the lease exists but its record does not open or is malformed.
        """
        stored = await self._farm.leases.look_up(pool, self.index_of(user))
        if stored is None:
            return f"the user has no lease in pool {pool.name}"
        if stored.quarantined:
            return f"the lease in pool {pool.name} was given back"
        name = self._farm.device(device)
        if name not in {claim.device for claim in stored.devices}:
            return f"the lease is not on device {name}"
        decode(self._farm.sealer.unseal_record(stored.binding(pool.name), stored.record))
        return None

    def name_of(self, stored: StoredLease) -> str:
        """Return the user's name; the pseudonym if the name was erased or does not open."""
        try:
            return self._farm.sealer.unseal_name(stored.user, stored.name) if stored.name else stored.user
        except RecordRejected:
            return stored.user

    def index_of(self, who: Who) -> str:
        """Return the user index under which somebody's lease stands."""
        return who.index if isinstance(who, Pseudonym) else self._farm.sealer.user_index(who)

    def _view(self, pool: Pool, stored: StoredLease) -> LeaseView:
        return LeaseView(
            user=self.name_of(stored),
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

    def _note(self, index: str, text: str) -> bytes:
        """Seal an administrator's note, under another purpose than names, so that neither replaces the other."""
        return self._farm.sealer.seal(Purpose.NOTE, index, (), text.encode("utf-8", "surrogatepass")) if text else b""


def _state(stored: StoredLease) -> LeaseState:
    if stored.sessions:
        return LeaseState.ACTIVE
    return LeaseState.QUARANTINED if stored.quarantined else LeaseState.IDLE
