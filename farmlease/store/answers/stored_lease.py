"""One lease as it lies in the store: what lists show of it, without a key to open its name and its record."""

import json
from dataclasses import dataclass
from typing import Any

from farmlease.domain.model import DeviceClaim, Lease, SessionClaim

__all__ = ["StoredLease"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLease:
    """One lease at one instant of the store's clock, sessions of dead nodes taken off."""

    user: str  #: user index
    lease: Lease
    last_contact_at: int
    record_version: int
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

    @staticmethod
    def parse(
        *, user: bytes, document: bytes, expires: bytes, name: bytes, now: int, kept_ms: int, record: bytes = b""
    ) -> "StoredLease":
        """From an entry of look_up.lua or list.lua; ``kept_ms`` dates a lease that its sessions keep."""
        lease: dict[str, Any] = json.loads(document)
        # cjson writes an empty table as {} or [], whichever its author liked.
        sessions = tuple(_session(member, claim) for member, claim in sorted(dict(lease["sessions"]).items()))
        in_use = {session.device for session in sessions}
        devices = tuple(
            DeviceClaim(device=device, until=None if device in in_use else int(claim["until"]))
            for device, claim in sorted(dict(lease["devices"]).items())
            if device in in_use or int(claim["until"]) > now
        )
        return StoredLease(
            user=user.decode(),
            lease=Lease(
                id=lease["id"],
                issued_at=int(lease["issued"]),
                expires_at=int(expires) if expires else now + kept_ms,
            ),
            last_contact_at=now if sessions else int(lease["contact"]),
            record_version=int(lease["version"]),
            devices=devices,
            sessions=sessions,
            quarantined=lease.get("back") is not None,
            overdraft="+" in dict(lease.get("charges") or {}).values(),
            name=name,
            record=record,
            now=now,
        )


def _session(member: str, claim: dict[str, Any]) -> SessionClaim:
    node, _, session = member.partition("/")
    return SessionClaim(
        node=node.partition("#")[0],
        session=session,
        started_at=int(claim["started"]),
        device=claim["device"],
        fence=int(claim["fence"]),
        hold_until=int(claim["hold"]) if claim.get("hold") else None,
    )
