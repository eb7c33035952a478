"""What lies in farmlease's keys that farmlease did not write: told by the key's name, and never changed here."""

from collections.abc import Sequence
from contextlib import suppress

from farmlease.domain.store_damage import Foreign
from farmlease.errors import KeyDamaged
from farmlease.store.keys import kind_of
from farmlease.store.lease_store import ScriptRunner
from farmlease.store.script import Script

__all__ = ["FIRST", "foreign_members", "foreign_page"]

FOREIGN = Script.load("foreign")

#: The cursor of a key's first page, and of none after the last.
FIRST = "0"
#: Members to a page; fewer where each is a document: all other calls of the store wait meanwhile, some 200 µs.
_PAGE = 200
_PAGE_OF = {"leases": 50, "records": 20, "over": 50}


async def foreign_page(connection: ScriptRunner, key: str, cursor: str) -> tuple[str, Foreign]:
    """Look at a page of a key's members; return the next page's cursor, and which of them are foreign.

    StoreError if the store does not answer, KeyDamaged if the key is of another type.
    """
    tag, _, name = key.rpartition(":")
    arguments = FOREIGN.ordered(
        {
            "name": name if "/" in tag else f"farm_{name}",
            "kind": kind_of(key),
            "cursor": cursor,
            "count": _PAGE_OF.get(name, _PAGE),
        }
    )
    _, following, number, first = await connection.call(FOREIGN, (key,), arguments)
    return following.decode(), Foreign(key, int(number), first.decode("utf-8", "backslashreplace"))


async def foreign_members(connection: ScriptRunner, keys: Sequence[str]) -> list[Foreign]:
    """Return which of these keys have foreign members, after a look at all; those of another type are passed over."""
    found: list[Foreign] = []
    for key in keys:
        in_key, cursor = Foreign(key), FIRST
        with suppress(KeyDamaged):
            while True:
                cursor, page = await foreign_page(connection, key, cursor)
                in_key = in_key.plus(page)
                if cursor == FIRST:
                    break
        if in_key.number:
            found.append(in_key)
    return found
