"""Revocations that keep a user out: until when, and from the audit by whom and why."""

from dataclasses import dataclass

from farmlease.admin.audit import AuditEvent, AuditLog
from farmlease.domain.model import Withdrawal
from farmlease.domain.policy import Pool
from farmlease.domain.wording import moment
from farmlease.farm import Farm
from farmlease.store.audit_store import AuditCursor

__all__ = ["Revocation", "Revocations"]

#: Milliseconds before the revocation from which on the audit is read: its entry is written at the same moment.
_BEFORE = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Who took a seat back and keeps its user out, and why. What the audit does not have (any more) is empty."""

    pool: str
    user: str  #: as the audit has the name
    until: int  #: ms
    at: int | None = None  #: ms
    by: str = ""
    why: str = ""

    @property
    def text(self) -> str:
        """It in one sentence."""
        by = f" by {self.by}" if self.by else ""
        at = "" if self.at is None else f" on {moment(self.at)}"
        why = f": {self.why}" if self.why else ""
        return f"revoked{by}{at}{why}; the user is kept out until {moment(self.until)}"


class Revocations:
    """The revocations of one farm that are in force."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    async def of(self, pool: Pool, index: str) -> Revocation | None:
        """Return the revocation that keeps a user index out of a pool; None if none does."""
        until = await self._farm.leases.barred_until(pool.name, index)
        if until is None:
            return None
        # A later policy may have another quarantine: then the whole audit is read.
        entry = await self._entry(pool.name, index, until - pool.quarantine_ms - _BEFORE)
        entry = entry or await self._entry(pool.name, index, 0)
        if entry is None:
            return Revocation(pool=pool.name, user=index, until=until)
        return Revocation(pool=pool.name, user=entry.user, until=until, at=entry.at, by=entry.by, why=entry.note)

    async def _entry(self, pool: str, index: str, since: int) -> AuditEvent | None:
        """Return the latest entry about it from a moment (ms) on."""
        latest = None
        async for event in AuditLog(self._farm).events([AuditCursor.at(pool, since)], [index]):
            if event.event == Withdrawal.REVOKED:
                latest = event
        return latest
