"""What was taken back from one user in one pool, and what a node's receipt of the lease is worth since.

A *grave* is the fence by which a claim was taken, and until when anybody may still know of the claim (ms by the store's
clock). It beats what was granted before that fence; what was granted later is another claim. The claims have the names
that ``store/lua/lib/tombstones.lua`` lists, and the same form is kept by the store and by each node.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from farmlease.domain.model import LossReason

__all__ = ["Grave", "Graves", "granted_with"]

#: The claim of the user's name.
_NAME = ""
#: That of a user who is kept out.
_BAR = "/"


@dataclass(frozen=True, slots=True)
class Grave:
    """One claim that was taken. ``moved_to``: the user index under which the lease goes on; empty if it does not."""

    fence: int
    until: int
    moved_to: str = ""


@dataclass(frozen=True, slots=True)
class Graves:
    """All that was taken back from one user in one pool, by claim."""

    claims: Mapping[str, Grave]

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """From the form of the store. ValueError or TypeError if it is none."""
        return cls({claim: Grave(int(words[0]), int(words[1]), *words[2:]) for claim, words in _table(body).items()})

    def dump(self) -> bytes:
        """Return them in the form of the store."""
        form = {
            claim: [grave.fence, grave.until, *filter(None, [grave.moved_to])] for claim, grave in self.claims.items()
        }
        return json.dumps(form, separators=(",", ":")).encode()

    def joined(self, other: "Graves", now: int) -> "Graves":
        """Return these and others that are not over by ``now``; of two graves of a claim, the later."""
        found = dict[str, Grave]()
        for claim, grave in (*self.claims.items(), *other.claims.items()):
            if grave.until > now and (claim not in found or found[claim].fence < grave.fence):
                found[claim] = grave
        return Graves(found)

    def lacks(self, other: "Graves", now: int) -> bool:
        """Whether ``other`` has a grave, not over by ``now``, that is not among these, or is later than here."""
        return any(
            grave.until > now and (claim not in self.claims or self.claims[claim].fence < grave.fence)
            for claim, grave in other.claims.items()
        )

    def of_lease(self, document: bytes) -> Grave | None:
        """Return the grave of a lease as a node knows it; None if it goes on."""
        lease: dict[str, Any] = json.loads(document)
        grave = self.claims.get(lease["id"])
        return grave if grave is not None and _fence(lease) <= grave.fence else None

    def why_lost(self, lease_id: str, fence: int) -> LossReason | None:
        """Return why a session of a lease, granted with this fence, has no seat any more; None if it was not taken."""
        grave = self.claims.get(lease_id)
        if grave is None or grave.moved_to or grave.fence < fence:
            return None
        bar = self.claims.get(_BAR)
        return LossReason.REVOKED if bar is not None and bar.fence == grave.fence else LossReason.RETURNED

    def takes_name(self, document: bytes) -> bool:
        """Whether the user's name was erased, and no seat was granted since; ``document``: of the last lease."""
        grave = self.claims.get(_NAME)
        return grave is not None and (not document or _fence(json.loads(document)) <= grave.fence)

    def left_of(self, document: bytes, quarantine_ms: int) -> bytes:
        """Return a lease document without the device slots that were taken; the same bytes if none was."""
        lease: dict[str, Any] = json.loads(document)
        devices = dict(lease["devices"] or {})
        for device, slot in list(devices.items()):
            place, known = f"{lease['id']}/{device}", slot.get("fence", slot["seen"])
            if self._took(place, known):
                del devices[device]
            elif self._took(f"{place}/", known):
                last_use = min(slot["seen"], self.claims[f"{place}/"].fence)  # ended by then, whoever counted it
                until = 0 if slot.get("unused") else min(slot["until"], last_use + quarantine_ms)
                devices[device] = {**slot, "until": until}
        return document if devices == (lease["devices"] or {}) else json.dumps({**lease, "devices": devices}).encode()

    def _took(self, claim: str, known: int) -> bool:
        grave = self.claims.get(claim)
        return grave is not None and known <= grave.fence


def granted_with(document: bytes, fence: int) -> bytes:
    """Return a lease document as if its last grant had this fence."""
    return json.dumps({**json.loads(document), "fence": fence}).encode()


def _table(body: bytes) -> dict[str, Any]:
    """Return a Lua table as a mapping: cjson writes an empty one as ``{}`` or ``[]``."""
    return dict(json.loads(body) or {})


def _fence(lease: Mapping[str, Any]) -> int:
    """Return the fence of a lease's last grant; of one from before leases had one, the time of its last contact."""
    sessions = dict(lease["sessions"] or {}).values()
    return int(max([lease.get("fence", lease["contact"]), *(session["fence"] for session in sessions)]))
