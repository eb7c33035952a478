"""What was lost or set aside in the store, and what is put back: without it the rest of a pool goes on, and does.

Guaranteed: repeating a call changes nothing; what is set aside is kept until an administrator removes it from the
store. Names and records are sealed bytes here, as everywhere in this room.
"""

from dataclasses import dataclass

from farmlease.store.answers.session import Claim, Known
from farmlease.store.keys import Shard
from farmlease.store.lease_store import ScriptRunner, swept
from farmlease.store.script import Argument, Script

__all__ = ["DamageStore", "Rebuilt", "SetAside"]

ASIDE = Script.load("aside")
DAMAGED = Script.load("damaged")
MISSING = Script.load("missing")
PUT_BACK_RECORD = Script.load("put_back_record")
REBUILD = Script.load("rebuild")

#: Leases, claims or entries to a page: each takes some 30 µs, for which all other calls of the store wait.
_PAGE = 100


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was mended in the sets that are made of the leases' documents."""

    put_back: int  #: claims of leases that the sets lacked
    removed: int  #: claims that no lease has


@dataclass(frozen=True, slots=True)
class SetAside:
    """Something that did not decode, or had lost its lease."""

    what: str  #: lease, record, or the set that it was in
    whose: str  #: user index, or the member of the set
    size: int  #: bytes


class DamageStore:
    """The damage in one farm's store."""

    def __init__(self, connection: ScriptRunner, farm: str) -> None:
        self._connection = connection
        self._farm = farm

    async def rebuild(self, pool: str, by: bytes = b"") -> Rebuilt:
        """Put back what the sets of a pool lack of what its leases' documents claim.

        ``by``: the administrator who repairs the pool, sealed: then claims that no lease has are removed, too.
        """
        cursor, back, gone = "leases 0", 0, 0
        while cursor:
            arguments = REBUILD.ordered({"cursor": cursor, "count": _PAGE, "by": by})
            answer = await swept(self._connection, REBUILD, Shard(self._farm, pool), arguments)
            if answer[0] == b"none":
                break
            _, following, put_back, removed = answer
            cursor = following.decode()
            back, gone = back + int(put_back), gone + int(removed)
        return Rebuilt(put_back=back, removed=gone)

    async def missing(self, pool: str) -> tuple[str, ...]:
        """Return what a pool lacks, as a heartbeat tells it."""
        _, words, _ = await self._run(MISSING, pool)
        return tuple(words.decode().split())

    async def is_recovering(self, pool: str) -> bool:
        """Whether the nodes are putting back what a pool had."""
        _, _, recovering = await self._run(MISSING, pool)
        return recovering == b"1"

    async def set_aside(self, pool: str) -> list[SetAside]:
        """Return what was set aside in a pool."""
        found: dict[bytes, int] = {}
        cursor = b"0"
        while True:
            _, cursor, *words = await self._run(DAMAGED, pool, cursor=cursor, count=_PAGE)
            found |= {field: int(size) for field, size in zip(words[::2], words[1::2], strict=True)}
            if cursor == b"0":
                break
        fields = {field.decode("utf-8", "backslashreplace").partition("/"): size for field, size in found.items()}
        return [SetAside(what, whose, size) for (what, _, whose), size in sorted(fields.items())]

    async def records_set_aside(self, pool: str, user: str) -> list[bytes]:
        """Return the sealed records of a user that were set aside, the one set aside last first."""
        fields = [each for each in await self.set_aside(pool) if each.what == "record"]
        whose = [each.whose for each in fields if each.whose.partition("/")[0] == user]
        # The last one stands under the user's index alone; those before have the moment behind it.
        whose.sort(key=lambda each: int(each.partition("/")[2] or 2**53), reverse=True)
        answers = [await self._run(ASIDE, pool, field=f"record/{each}") for each in whose]
        return [answer[1] for answer in answers if answer[1]]

    async def put_back_record(
        self, pool: str, claim: Claim, lease_id: str, version: int, record: bytes, known: Known
    ) -> bool:
        """Put a record back over one that is older, or that does not open; return whether that was done."""
        arguments = PUT_BACK_RECORD.ordered({
            "user": claim.user, "node": claim.node, "lease": lease_id, "version": version, "record": record,
            **known.arguments(),
        })  # fmt: skip
        answer = await swept(self._connection, PUT_BACK_RECORD, Shard(self._farm, pool), arguments)
        return bool(answer[0] == b"put")

    async def _run(self, script: Script, pool: str, **arguments: Argument) -> list[bytes]:
        return await self._connection.call(script, Shard(self._farm, pool).keys(), script.ordered(arguments))
