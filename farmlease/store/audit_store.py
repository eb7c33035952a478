"""The audit and the hourly usage in the store, and how a name is erased from them.

Everything is read in pages, so that no list is ever held whole, here or in the server. Users are pseudonyms here, names
and comments are sealed bytes. An entry that farmlease did not write is returned as far as it can be read: one damaged
entry must not hide all the rest.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from farmlease.domain.stored_id import SHOWN
from farmlease.domain.usage import HOUR_MS, Hour, parse_tally
from farmlease.errors import Damaged, StoreRefused
from farmlease.store.keys import Shard, pools_key, trail_keys
from farmlease.store.lease_store import ScriptRunner
from farmlease.store.script import Argument, Script

__all__ = ["AuditCursor", "AuditEntry", "AuditExtent", "AuditStore", "Erasure", "NameInUse"]

EXTENT = Script.load("extent")
FORGET = Script.load("forget")
FORGET_NAME = Script.load("forget_name")
POOLS = Script.load("pools")
TRAIL = Script.load("trail")
USAGE = Script.load("usage")

#: Entries looked at in one call: some 10 ms of the server's time at most.
_PAGE = 1000
_MOST_ROUNDS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One decision. Fields that an event has no use for are empty."""

    id: str
    at: int  #: ms
    pool: str  #: "" for what concerns the whole farm
    event: str
    user: str  #: user index
    name: bytes  #: sealed; empty if it was forgotten
    node: str  #: node#incarnation
    session: str
    device: str
    detail: str
    fence: int
    by: bytes  #: the administrator, sealed
    note: bytes  #: an administrator's comment, sealed

    @property
    def order(self) -> tuple[int, int]:
        """Where it stands in its stream."""
        return _order(self.id)


@dataclass(slots=True)
class AuditCursor:
    """How far the audit of a pool ("": of the farm itself) has been read."""

    pool: str
    after: str = "-"  #: id of the last entry that was read; "-": none

    @staticmethod
    def at(pool: str, since: int) -> "AuditCursor":
        """Return a cursor before the first entry of ``since`` (ms) or later."""
        return AuditCursor(pool, f"{since - 1}-{2**64 - 1}" if since > 0 else "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditExtent:
    """How far back an audit goes."""

    entries: int
    cut: int  #: how many older ones were cut off
    oldest_at: int | None  #: ms


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased of a user in one pool."""

    name: bool
    words: bool


@dataclass(frozen=True, slots=True)
class NameInUse:
    """Nothing was erased: the user holds a lease, until ``until`` ms (None: while sessions last) or ``recovering``."""

    until: int | None
    recovering: bool = False


class AuditStore:
    """The audit and usage of one farm. ``pool`` is "" for the audit of the farm itself."""

    def __init__(self, connection: ScriptRunner, farm: str) -> None:
        self._connection = connection
        self._farm = farm

    async def pools(self) -> list[str]:
        """Return the name of every pool there ever was, in order."""
        _, *names = await self._connection.call(POOLS, (pools_key(self._farm),), [])
        return sorted(name.decode() for name in names)

    async def entries(self, cursor: AuditCursor, users: Sequence[str] = ()) -> AsyncIterator[AuditEntry]:
        """Yield the decisions from ``cursor`` on, up to the latest one, and move the cursor on past them.

        With ``users``, only those about these user indexes.
        """
        audit, names, _ = trail_keys(self._farm, cursor.pool)
        while True:
            arguments = TRAIL.ordered({"after": cursor.after, "user": " ".join(users), "count": _PAGE})
            _, last, *found = await self._connection.call(TRAIL, (audit, names), arguments)
            if not last:
                return
            cursor.after = last.decode()
            for key, name, words in zip(*(iter(found),) * 3, strict=True):
                yield _entry(cursor.pool, key, name, words)

    async def extent(self, pool: str) -> AuditExtent:
        """Return how far back the audit of a pool goes."""
        audit, _, counts = trail_keys(self._farm, pool)
        _, entries, ever, oldest = await self._connection.call(EXTENT, (audit, counts), [])
        return AuditExtent(
            entries=int(entries),
            cut=max(0, int(ever) - int(entries)),
            oldest_at=_order(oldest.decode())[0] if oldest else None,
        )

    async def usage(self, pool: str, since: int) -> tuple[int, list[Hour]]:
        """Return the store's time (ms) and the tallies of a pool from the hour of ``since`` (ms) on, the latest last.

        The first one may be of an earlier hour: its seats were still held then. A damaged one is left out.
        """
        found: list[Hour] = []
        passed, start = 0, since - since % HOUR_MS
        while True:
            answer = await self._run(USAGE, pool, start=start, passed=passed, count=_PAGE)
            _, now, over, *tallies = answer
            for words in tallies:
                try:
                    found.append(parse_tally(words))
                except Damaged:
                    continue
            passed += int(over)
            if int(over) < _PAGE:
                latest = {hour.begins_at: hour for hour in found}  # an hour is there twice after the clock was set back
                return int(now), [latest[begins] for begins in sorted(latest)]

    async def forget(self, pool: str, user: str, by: bytes) -> Erasure | NameInUse:
        """Erase a user's name and the administrators' comments on the user in one pool; the rest of the audit stays.

        Raises StoreRefused if the audit of the pool grows faster than it is read.
        """
        name = words = False
        after, last = "-", ""
        for _ in range(_MOST_ROUNDS):
            answer = await self._run(FORGET, pool, user=user, after=after, last=last, count=_PAGE, by=by)
            match answer[0]:
                case b"more":
                    continue
                case b"held":
                    return NameInUse(int(answer[1]) if answer[1] else None)
                case b"recovering":
                    return NameInUse(int(answer[1]), recovering=True)
            after, last = answer[1].decode(), answer[2].decode()
            name, words = name or answer[3] in {b"name", b"both"}, words or answer[3] in {b"words", b"both"}
            if not after:
                return Erasure(name, words)
        raise StoreRefused(f"pool {pool}: there is no end to its audit; look at the store with `farmlease doctor`")

    async def forget_name(self, user: str, by: bytes) -> Erasure:
        """Erase a user's name from what was decided about them without a seat."""
        audit, names, counts = trail_keys(self._farm, "")
        arguments = FORGET_NAME.ordered({"user": user, "by": by})
        _, erased = await self._connection.call(FORGET_NAME, (audit, counts, names), arguments)
        return Erasure(name=erased == b"1", words=False)

    async def _run(self, script: Script, pool: str, **arguments: Argument) -> list[bytes]:
        return await self._connection.call(script, Shard(self._farm, pool).keys(), script.ordered(arguments))


def _order(entry: str) -> tuple[int, int]:
    moment, _, number = entry.partition("-")
    return int(moment), int(number)


def _entry(pool: str, key: bytes, name: bytes, words: Sequence[bytes]) -> AuditEntry:
    """Read an entry of a stream, also one that farmlease did not write."""
    fields = dict(zip(words[::2], words[1::2], strict=False))

    def plain(field: str) -> str:
        return fields.get(field.encode(), b"").decode("utf-8", "backslashreplace")

    fence, stands_for = plain("fence"), plain("at")
    moment = stands_for.partition("-")[0]
    return AuditEntry(
        id=key.decode(),
        at=int(moment) if moment.isdecimal() else _order(key.decode())[0],
        pool=pool,
        event=plain("event") or "unknown",
        user=plain("user"),
        name=name,
        node=plain("node"),
        session=plain("session").translate(SHOWN),
        device=plain("device").translate(SHOWN),
        detail=plain("detail").translate(SHOWN),  # of a replacement it names the device before
        fence=int(fence) if fence.isdecimal() else 0,
        by=fields.get(b"by", b""),
        note=fields.get(b"note", b""),
    )
