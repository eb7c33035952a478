"""The key ring: the farm's secrets, in one file that only its owner can read. The same file is on every node.

It holds several keys, in the order in which they were made, so that a new one can be readable everywhere before it is
used: those behind the primary are *pending*, those before it are *old*. And it holds one secret that never changes,
from which users' pseudonyms are made. This module must never write a secret to a log, an error text or a ``repr``, and
never overwrite a key ring but by a later state of the same one.
"""

import base64
import hmac
import json
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from farmlease.errors import FarmleaseError, KeyRingRejected

__all__ = ["KEY_ID_BYTES", "SECRET_BYTES", "Key", "KeyRing", "KeyState"]

SECRET_BYTES = 32
KEY_ID_BYTES = 4

_RING_FORMAT = 1
_RING_LIMIT = 1 << 18  #: bytes; thousands of keys
_RING_MODE = 0o600
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class KeyState(StrEnum):
    """What a key is for."""

    PRIMARY = "primary"  #: seals, and opens
    PENDING = "pending"  #: opens; is to be the primary once every node has it
    OLD = "old"  #: opens what was sealed before


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
        """Return what a key of the ring is for."""
        distance = self.ids.index(key_id) - self.ids.index(self.primary)
        return KeyState.PRIMARY if distance == 0 else KeyState.PENDING if distance > 0 else KeyState.OLD

    def is_of_the_farm(self, other: "KeyRing") -> bool:
        """Whether another ring gives users the same pseudonyms: only then it is a state of this one."""
        return hmac.compare_digest(self.index, other.index)

    def grown(self, now_ms: int) -> "KeyRing":
        """Return the ring with one more key, pending, made at ``now_ms``; but later than any, whatever clocks show."""
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
    def load(cls, path: Path) -> "KeyRing":
        """Read the ring file.

        Raises ``KeyRingRejected`` when it is missing, unreadable, a link, not a regular file, open to others than its
        owner, owned by neither root nor us, or not a key ring. On Windows the folder's access list is what protects
        it, and neither mode nor owner is checked.
        """
        text = _read_private(path)
        ring = _parsed_ring(text)
        # Raised here, outside the handler: the parser's exception holds the text, and with it the secrets.
        if isinstance(ring, str):
            raise KeyRingRejected(f"{path}: {ring}")
        return ring

    def create_file(self, path: Path) -> None:
        """Write the ring to a new file of mode 0600, whole or not at all; an absent folder is made with 0700.

        Raises ``FarmleaseError`` when something stands there already (it is left as it is) or it cannot be written.
        """
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(mode=0o700, parents=True)
            with _removed_at_the_end(temporary):
                _write_private(temporary, self._to_json())
                if not _placed(temporary, path):
                    raise FarmleaseError(f"{path} already exists and is never overwritten: to begin anew, move it away")
        except OSError as error:
            raise FarmleaseError(f"cannot write the key ring {path}: {error.strerror}; check its folder") from error

    def replace_file(self, path: Path) -> None:
        """Put this state of the ring in the place of the one there, whole or not at all; it keeps its owner.

        Callers hold the ring's lock (``keyring_file.py``). Raises ``FarmleaseError`` when it cannot be written.
        """
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with _removed_at_the_end(temporary):
                _write_private(temporary, self._to_json(), like=path.lstat())
                temporary.replace(path)
                _sync_folder(path.parent)
        except OSError as error:
            raise FarmleaseError(
                f"cannot write the key ring {path}: {error.strerror}; run as its owner or root"
            ) from error

    def _to_json(self) -> bytes:
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


# --- its file --------------------------------------------------------------------------------------------------------


def _read_private(path: Path) -> bytes:
    """Return the bytes of a file that nobody but its owner can read or change."""
    try:
        if path.is_symlink():
            raise KeyRingRejected(f"{path} is a link: put the key ring itself there")
        # Checked on the open file, so that what was checked is what is read.
        descriptor = os.open(path, _open_flags())
        try:
            _refuse_unless_private(path, os.fstat(descriptor))
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                text = file.read(_RING_LIMIT + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        absent = f"there is no key ring {path}: copy the one of another node, or run `farmlease key generate`"
        raise KeyRingRejected(absent) from None
    except OSError as error:
        raise KeyRingRejected(f"cannot read the key ring {path}: {error.strerror}; run as its owner or root") from error
    if len(text) > _RING_LIMIT:
        raise KeyRingRejected(f"{path} is larger than any key ring: check [keys] file in farmlease.toml")
    return text


def _open_flags() -> int:
    if sys.platform == "win32":
        return os.O_RDONLY | os.O_BINARY
    else:  # noqa: RET505 - mypy judges each platform by its branch
        return os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe must not make us wait for a writer


def _refuse_unless_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyRingRejected(f"{path} is not a regular file: check [keys] file in farmlease.toml")
    if sys.platform != "win32":
        if status.st_uid not in {0, os.geteuid()}:
            raise KeyRingRejected(f"{path} belongs to another user: see who made it, then `chown root {path}`")
        mode = stat.S_IMODE(status.st_mode)
        if mode & ~_RING_MODE:
            raise KeyRingRejected(f"{path} has mode {mode:04o}, 0600 is needed: `chmod 600 {path}`")


def _write_private(path: Path, text: bytes, like: os.stat_result | None = None) -> None:
    """Write a new file of mode 0600, with the owner of the one it is ``like``."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _RING_MODE), "wb") as file:
        if sys.platform != "win32":
            if like is not None and (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), like.st_uid, like.st_gid)  # an agent with a user of its own must read it
            os.fchmod(file.fileno(), _RING_MODE)  # a strange umask may have taken bits away
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _placed(temporary: Path, path: Path) -> bool:
    """Give a finished file its name, unless the name is taken."""
    try:
        if sys.platform == "win32":
            temporary.rename(path)  # never replaces on Windows
        else:
            path.hardlink_to(temporary)
            _sync_folder(path.parent)
    except FileExistsError:
        return False
    return True


def _sync_folder(path: Path) -> None:
    """Have a folder's names on the disk, where that can be asked for."""
    if sys.platform != "win32":
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def _removed_at_the_end(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
