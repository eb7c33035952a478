"""Which key is of another type than farmlease gave it: a script's own error names none."""

from collections.abc import Sequence

from redis.exceptions import ResponseError

from farmlease.errors import KeyDamaged
from farmlease.store.connection.socket import Channel
from farmlease.store.keys import kind_of

__all__ = ["WrongType", "key_damaged", "wrong_types"]

#: A key, the type that it has, and the type that farmlease gave it.
WrongType = tuple[str, str, str]


async def wrong_types(channel: Channel, keys: Sequence[str]) -> list[WrongType]:
    """Return those of some keys that are of another type; none where the server does not let us ask."""
    found: list[WrongType] = []
    for key in keys:
        try:
            kind: bytes = await channel.execute("TYPE", key)
        except ResponseError:
            return []
        if kind.decode() not in {kind_of(key), "none"}:
            found.append((key, kind.decode(), kind_of(key)))
    return found


def key_damaged(store: str, wrong: Sequence[WrongType]) -> KeyDamaged:
    """Return the error that names these keys and says what to do."""
    key, found, kind = wrong[0]
    others = f" (and {', '.join(each for each, *_ in wrong[1:])})" if wrong[1:] else ""
    return KeyDamaged(
        f"the store {store} has a {found} in key {key}{others}, where farmlease has a {kind}: something else wrote it. "
        f"Move it away with `redis-cli RENAME '{key}' '{key}.other'`, and the nodes restore what they have"
    )
