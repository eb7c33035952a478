"""The lease document: one user's lease in one pool, in the form that the store's scripts keep it in.

The scripts write it; ``store/lua/leases.lua`` lists its fields. Python reads it in lists, to admit a session while the
store is away, and to hand the lease back to a store that lost it. It is one JSON object; all times are ms by the
store's clock. This module must never write a document: a field that it does not know would be lost.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["LeaseDocument", "SessionEntry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEntry:
    """A session of a lease."""

    device: str
    started_at: int
    fence: int
    seat: str | None = None  #: None: the seat named by the user index, as for every named lease
    hold_until: int | None = None  #: kept until then whatever its node does


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseDocument:
    """One lease document, parsed."""

    id: str
    issued_at: int
    contact_at: int  #: the user's last contact
    record_version: int
    saved_at: int | None  #: when this version of the record was saved, if it ever was and the store still knows
    devices: Mapping[str, int]  #: each device's deadline; it counts while no session uses the device
    sessions: Mapping[str, SessionEntry]  #: by ``node#incarnation/session``
    returned: bool  #: given back; its seat is in quarantine
    overdraft: bool  #: one of its seats is beyond the pool's capacity

    @classmethod
    def parse(cls, document: bytes) -> Self:
        """Return the lease of a document that a script wrote. ValueError, KeyError or TypeError if it is none."""
        lease: dict[str, Any] = json.loads(document)
        return cls(
            id=lease["id"],
            issued_at=int(lease["issued"]),
            contact_at=int(lease["contact"]),
            record_version=int(lease["version"]),
            saved_at=None if lease.get("saved") is None else int(lease["saved"]),
            devices={name: int(device["until"]) for name, device in _table(lease["devices"]).items()},
            sessions={name: _session(session) for name, session in _table(lease["sessions"]).items()},
            returned=lease.get("back") is not None,
            overdraft="+" in _table(lease.get("charges")).values(),
        )

    @property
    def nodes(self) -> frozenset[str]:
        """The names of the nodes on which its sessions live."""
        return frozenset(member.partition("#")[0] for member in self.sessions)

    def device_deadlines(self, now: int) -> dict[str, int | None]:
        """Return the devices that the lease is on at ``now``, each with its deadline; None while a session uses it."""
        in_use = {session.device for session in self.sessions.values()}
        return {
            device: None if device in in_use else until
            for device, until in self.devices.items()
            if device in in_use or until > now
        }

    def claim(
        self, session: str, *, user: str, device: str, fence: int, hold_until: int | None, over: bool
    ) -> dict[str, object]:
        """Return a session of this lease as ``restore.lua`` takes it.

        ``session`` is ``node#incarnation/session``, ``user`` the user index. ``over``: the session ended with its
        node's boot, so that it is a last contact and no more. Start, seat and hold are the store's own where the
        document has the session. A session that a receipt let in is in no document: the script chooses its seat.
        """
        written = self.sessions.get(session)
        claim: dict[str, object] = {"device": device, "fence": fence}
        if written is None:
            claim["started"] = self.contact_at
        else:
            claim |= {"started": written.started_at, "seat": written.seat or user}
            hold_until = written.hold_until if hold_until is None else hold_until
        if hold_until is not None:
            claim["hold"] = hold_until
        if over:
            claim["over"] = 1
        return claim


def _table(value: Any) -> dict[str, Any]:  # noqa: ANN401 - any part of a document
    """Return a Lua table as a mapping: cjson writes an empty one as ``{}`` or ``[]``."""
    return dict(value or {})


def _session(entry: dict[str, Any]) -> SessionEntry:
    return SessionEntry(
        device=entry["device"],
        started_at=int(entry["started"]),
        fence=int(entry["fence"]),
        seat=entry.get("seat"),
        hold_until=int(entry["hold"]) if entry.get("hold") else None,
    )
