"""The key ring: the farm's secrets, in one file that only its owner can read (``keyring_file.py``), alike on each node.

It holds several keys, in the order in which they were made, so that a new one can be readable everywhere before it is
used: those behind the primary are *pending*, those before it are *old*. And it holds one secret that never changes,
from which users' pseudonyms are made. This module must never write a secret to a log, an error text or a ``repr``.
"""

import base64
import hmac
import json
import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from farmlease.errors import KeyRingRejected

__all__ = ["KEY_ID_BYTES", "SECRET_BYTES", "Key", "KeyRing", "KeyState"]

SECRET_BYTES = 32
KEY_ID_BYTES = 4

_RING_FORMAT = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class KeyState(StrEnum):
    """The use of a key."""

    PRIMARY = "primary"  #: seals, and opens
    PENDING = "pending"  #: opens; becomes the primary once every node has it
    OLD = "old"  #: opens what was sealed with it before


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of the ring."""

    id: str  #: eight hexadecimal digits, random
    created_at: int  #: milliseconds since 1970 UTC by the clock of the host that made it
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """The farm's keys: seal with the primary, unseal with any. All nodes of a farm have the same ring.

    ``index`` never changes when keys are rotated: with another one every user would look like a new user.
    Raises ``KeyRingRejected`` when the parts do not make a ring.
    """

    primary: str
    keys: tuple[Key, ...]
    index: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if self.primary not in self.ids:
            raise KeyRingRejected("the key ring does not hold its own primary key: restore it from another node")
        if len(set(self.ids)) != len(self.keys):
            raise KeyRingRejected("the key ring holds two keys of the same id: restore it from another node")
        if not all(_is_key_id(key.id) for key in self.keys):
            raise KeyRingRejected("a key id is not eight hexadecimal digits: restore the key ring from another node")
        if any(len(secret) != SECRET_BYTES for secret in (self.index, *(key.secret for key in self.keys))):
            raise KeyRingRejected(f"a secret is not {SECRET_BYTES} bytes: restore the key ring from another node")

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, in the ring's order."""
        return tuple(key.id for key in self.keys)

    @property
    def pending(self) -> str | None:
        """The key that is to be the primary once every node has it, if there is one."""
        return self.ids[-1] if self.ids[-1] != self.primary else None

    def state(self, key_id: str) -> KeyState:
        """Return the use of a key of the ring."""
        distance = self.ids.index(key_id) - self.ids.index(self.primary)
        return KeyState.PRIMARY if distance == 0 else KeyState.PENDING if distance > 0 else KeyState.OLD

    def is_of_the_farm(self, other: "KeyRing") -> bool:
        """Whether another ring gives users the same pseudonyms: only then is it a state of this one."""
        return hmac.compare_digest(self.index, other.index)

    def grown(self, now_ms: int) -> "KeyRing":
        """Return the ring with one more key, pending, made at ``now_ms`` but later than any other."""
        made_at = max(now_ms, *(key.created_at + 1 for key in self.keys))
        return replace(self, keys=(*self.keys, _random_key(made_at)))

    def activated(self) -> "KeyRing":
        """Return the ring with its newest key as the primary."""
        return replace(self, primary=self.ids[-1])

    def without(self, key_id: str) -> "KeyRing":
        """Return the ring without a key that is not the primary."""
        return replace(self, keys=tuple(key for key in self.keys if key.id != key_id))

    def with_keys_of(self, other: "KeyRing") -> "KeyRing":
        """Return the ring with the keys of another that it lacks, as old ones."""
        return replace(self, keys=(*(key for key in other.keys if key.id not in self.ids), *self.keys))

    @classmethod
    def generate(cls, now_ms: int) -> "KeyRing":
        """Return a new ring of one random key, made at ``now_ms`` (milliseconds since 1970 UTC)."""
        key = _random_key(now_ms)
        return cls(primary=key.id, keys=(key,), index=secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def parse(cls, text: bytes) -> "KeyRing | str":
        """Return the ring of a file's text, or what is wrong with it, without a quotation."""
        return _parsed_ring(text)

    def to_json(self) -> bytes:
        """Return the text of the ring's file, secrets included."""
        keys = [
            {"id": k.id, "created_at": _to_rfc3339(k.created_at), "secret": _to_base64(k.secret)} for k in self.keys
        ]
        ring = {"format": _RING_FORMAT, "primary": self.primary, "index": _to_base64(self.index), "keys": keys}
        return json.dumps(ring, indent=2).encode("ascii") + b"\n"


def _parsed_ring(text: bytes) -> KeyRing | str:
    """Return the ring of a file's text, or what is wrong with it in words that quote nothing of it."""
    try:
        ring = json.loads(text)
        if ring["format"] != _RING_FORMAT:
            return f"unknown key ring format, this farmlease knows {_RING_FORMAT}: update this node"
        if ring.keys() != {"format", "primary", "index", "keys"}:
            return "a key ring has exactly format, primary, index and keys: restore it from another node"
        if any(key.keys() != {"id", "created_at", "secret"} for key in ring["keys"]):
            return "a key has exactly id, created_at and secret: restore the key ring from another node"
        keys = tuple(
            Key(id=key["id"], created_at=_from_rfc3339(key["created_at"]), secret=_from_base64(key["secret"]))
            for key in ring["keys"]
        )
        return KeyRing(primary=ring["primary"], keys=keys, index=_from_base64(ring["index"]))
    except KeyRingRejected as error:
        return str(error)
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError):
        return "not a key ring: restore it from another node, or move it away and run `farmlease key generate`"


def _random_key(now_ms: int) -> Key:
    return Key(id=secrets.token_hex(KEY_ID_BYTES), created_at=now_ms, secret=secrets.token_bytes(SECRET_BYTES))


def _is_key_id(text: str) -> bool:
    return len(text) == 2 * KEY_ID_BYTES and set(text) <= set("0123456789abcdef")


def _to_base64(secret: bytes) -> str:
    return base64.b64encode(secret).decode("ascii")


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _to_rfc3339(at_ms: int) -> str:
    return (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _from_rfc3339(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)
