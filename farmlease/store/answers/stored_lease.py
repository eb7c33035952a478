"""One lease as it lies in the store, its name and its record still sealed."""

from dataclasses import dataclass

from farmlease.crypto.seal import RecordBinding
from farmlease.domain.lease_document import LeaseDocument, SessionEntry
from farmlease.domain.model import DeviceClaim, Lease, SessionClaim

__all__ = ["StoredLease"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLease:
    """One lease at one instant of the store's clock, without the sessions of dead nodes."""

    user: str  #: user index
    lease: Lease
    last_contact_at: int
    record_version: int
    record_saved_at: int | None  #: ms; None if it never was, or that is not known
    devices: tuple[DeviceClaim, ...]
    sessions: tuple[SessionClaim, ...]
    quarantined: bool
    overdraft: bool  #: a seat of it is beyond the capacity
    name: bytes  #: sealed; empty once forgotten
    record: bytes  #: sealed; empty in a list
    now: int

    @property
    def fence(self) -> int:
        """The highest fence among its sessions, 0 without one."""
        return max((session.fence for session in self.sessions), default=0)

    def binding(self, pool: str) -> RecordBinding:
        """Return what the record is sealed for."""
        return RecordBinding(pool=pool, user_index=self.user, lease_id=self.lease.id, version=self.record_version)

    @staticmethod
    def parse(
        *, user: bytes, document: bytes, expires: bytes, name: bytes, now: int, kept_ms: int, record: bytes = b""
    ) -> "StoredLease":
        """From an entry of look_up.lua or list.lua; ``kept_ms`` dates a lease that its sessions keep."""
        lease = LeaseDocument.parse(document)
        return StoredLease(
            user=user.decode(),
            lease=Lease(id=lease.id, issued_at=lease.issued_at, expires_at=int(expires) if expires else now + kept_ms),
            last_contact_at=now if lease.sessions else lease.contact_at,
            record_version=lease.record_version,
            record_saved_at=lease.saved_at,
            devices=tuple(
                DeviceClaim(device=device, until=until) for device, until in sorted(lease.device_deadlines(now).items())
            ),
            sessions=tuple(_claim(member, session) for member, session in sorted(lease.sessions.items())),
            quarantined=lease.returned,
            overdraft=lease.overdraft,
            name=name,
            record=record,
            now=now,
        )


def _claim(member: str, session: SessionEntry) -> SessionClaim:
    node, _, name = member.partition("/")
    return SessionClaim(
        node=node.partition("#")[0],
        session=name,
        started_at=session.started_at,
        device=session.device,
        fence=session.fence,
        hold_until=session.hold_until,
    )
