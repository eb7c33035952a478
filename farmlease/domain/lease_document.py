"""The lease document: one user's lease in one pool, in the form that the store's scripts keep it in.

The scripts write it; ``store/lua/leases.lua`` lists its fields. Python reads it in lists, to admit a session while the
store is away, and to hand the lease back to a store that lost it. It is one JSON object; all times are ms by the
store's clock. Ids of sessions and devices stand in it as ``domain/stored_id.py`` says, and are decoded here.
This module must never write a document: a field that it does not know would be lost.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from farmlease.domain.identity import device_name
from farmlease.domain.stored_id import SHOWN

__all__ = ["LeaseDocument", "SessionEntry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEntry:
    """A session of a lease."""

    device: str
    started_at: int
    fence: int
    #: As the store has it, undecoded. None: the seat named by the user index, as for every named lease.
    seat: str | None = None
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
    fence: int  #: of its last grant; of one from before leases had one, of the sessions that are left; 0: unknown

    @classmethod
    def parse(cls, document: bytes) -> Self:
        """Return the lease of a document that a script wrote. ValueError, KeyError or TypeError if it is none."""
        lease: dict[str, Any] = json.loads(document)
        sessions = {name.translate(SHOWN): _session(session) for name, session in _table(lease["sessions"]).items()}
        return cls(
            id=lease["id"],
            issued_at=int(lease["issued"]),
            contact_at=int(lease["contact"]),
            record_version=int(lease["version"]),
            devices={name.translate(SHOWN): int(device["until"]) for name, device in _table(lease["devices"]).items()},
            sessions=sessions,
            saved_at=None if lease.get("saved") is None else int(lease["saved"]),
            returned=lease.get("back") is not None,
            overdraft=any(charge.startswith("+") for charge in _table(lease.get("charges")).values()),
            fence=int(max([lease.get("fence", 0), *(each.fence for each in sessions.values())])),
        )

    def named(self, farm: str) -> Self:
        """Return the lease with each device under its name: farmlease 0.1.0 stored it in any spelling.

        Of two spellings of one device the later deadline stays, as in the store at the user's next contact.
        """
        devices = dict[str, int]()
        for spelling, until in self.devices.items():
            name = device_name(spelling, farm)
            devices[name] = max(until, devices.get(name, until))
        sessions = {
            name: replace(session, device=device_name(session.device, farm)) for name, session in self.sessions.items()
        }
        return replace(self, devices=devices, sessions=sessions)

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
        self, session: str, *, user: str, device: str, fence: int, hold_until: int | None, over_at: int | None
    ) -> dict[str, object]:
        """Return a session of this lease as ``restore.lua`` takes it, its device as given.

        ``session`` is ``node#incarnation/session``, ``user`` the user index. ``over_at``: the session ended with its
        node's boot, which was last heard of then (ms; 0: unknown), so that it is a last contact and no more. Start,
        seat and hold are the store's own where the document has the session. A session that a receipt let in is in no
        document: the script chooses its seat.
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
        if over_at is not None:
            claim["over"] = max(over_at, written.started_at if written else self.contact_at)
        return claim


def _table(value: Any) -> dict[str, Any]:  # noqa: ANN401 - any part of a document
    """Return a Lua table as a mapping: cjson writes an empty one as ``{}`` or ``[]``."""
    return dict(value or {})


def _session(entry: dict[str, Any]) -> SessionEntry:
    return SessionEntry(
        device=str(entry["device"]).translate(SHOWN),
        started_at=int(entry["started"]),
        fence=int(entry["fence"]),
        seat=entry.get("seat"),
        hold_until=int(entry["hold"]) if entry.get("hold") else None,
    )
