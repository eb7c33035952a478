"""What happened on a farm, in clear: the events of its audit, how its seats were used, and erasing a user's name.

For administrators' commands, which hold the farm's keys. Names and notes are unsealed where possible: for an erased
name, or one sealed with a key that is gone, the pseudonym is shown. No list is ever held whole, so that an audit of any
length passes through.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from farmlease.crypto.seal import Purpose
from farmlease.domain.usage import Hour, hours
from farmlease.errors import RecordRejected
from farmlease.farm import Farm
from farmlease.store.audit_store import AuditCursor, AuditEntry, AuditExtent, Erasure, NameInUse

__all__ = ["UNREADABLE", "AuditEvent", "AuditLog"]

#: Shown in place of what the keys of this ring do not open.
UNREADABLE = "(unreadable with these keys)"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One entry of the audit, unsealed. Fields that do not apply to an event are empty."""

    at: int  #: ms, by the store's clock
    pool: str  #: "" for what concerns the whole farm
    event: str
    user: str  #: the name, or the pseudonym if the name was erased
    index: str  #: the pseudonym
    node: str
    incarnation: str
    session: str
    device: str
    detail: str
    fence: int
    by: str  #: the administrator
    note: str  #: the administrator's reason
    id: str  #: of the entry in its stream


class AuditLog:
    """The audit and the usage counters of one farm."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    async def pools(self) -> list[str]:
        """Return the names of all pools there ever were."""
        return await self._farm.audit.pools()

    async def now(self) -> int:
        """Return the store's time, in ms."""
        return (await self._farm.leases.read_policy()).now

    async def events(self, places: Sequence[AuditCursor], users: Sequence[str] = ()) -> AsyncIterator[AuditEvent]:
        """Yield the events from each place on, merged by time, and move the places past them.

        With ``users``, only the events about these user indexes.
        """
        streams = [self._farm.audit.entries(place, users) for place in places]
        heads = {number: await anext(stream, None) for number, stream in enumerate(streams)}
        while waiting := [(head.order, number) for number, head in heads.items() if head is not None]:
            _, number = min(waiting)
            head = heads[number]
            if head is not None:
                yield self._unsealed(head)
            heads[number] = await anext(streams[number], None)

    async def extents(self, pools: Sequence[str]) -> Mapping[str, AuditExtent]:
        """Return how far back the audit of each pool goes ("": the farm's own)."""
        return {pool: await self._farm.audit.extent(pool) for pool in pools}

    async def usage(self, pool: str, since: int) -> list[Hour]:
        """Return every hour of a pool from ``since`` (ms) on; the last one is the current, unfinished hour."""
        now, tallies = await self._farm.audit.usage(pool, since)
        return list(hours(tallies, since=since, now=now))

    async def forget(self, pool: str, index: str) -> Erasure | NameInUse:
        """Erase the name of a user index and the notes about it in one pool ("": in the farm's own audit)."""
        if not pool:
            return await self._farm.audit.forget_name(index, self._farm.signature())
        return await self._farm.audit.forget(pool, index, self._farm.signature())

    def _unsealed(self, entry: AuditEntry) -> AuditEvent:
        node, _, incarnation = entry.node.partition("#")
        return AuditEvent(
            at=entry.at,
            pool=entry.pool,
            event=entry.event,
            user=self._name(entry),
            index=entry.user,
            node=node,
            incarnation=incarnation,
            session=entry.session,
            device=entry.device,
            detail=entry.detail,
            fence=entry.fence,
            by=self._author(entry.by),
            note=self._note(entry.user, entry.note),
            id=entry.id,
        )

    def _name(self, entry: AuditEntry) -> str:
        try:
            return self._farm.sealer.unseal_name(entry.user, entry.name) if entry.name else entry.user
        except RecordRejected:
            return entry.user

    def _author(self, sealed: bytes) -> str:
        try:
            return self._farm.sealer.unseal_author(sealed) if sealed else ""
        except RecordRejected:
            return UNREADABLE

    def _note(self, user: str, sealed: bytes) -> str:
        if not sealed:
            return ""
        try:
            return self._farm.sealer.unseal(Purpose.NOTE, user, (), sealed).decode("utf-8", "surrogatepass")
        except RecordRejected:
            return UNREADABLE
