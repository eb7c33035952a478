"""Sealing: what leaves a node is encrypted and opens only for whom it was sealed. The only user of ``cryptography``.

Guaranteed: sealed bytes open only with a key of the ring, for the same purpose, farm, subject and context; anything
else is refused with one and the same error, which tells nothing about why. Two sealings of one text differ.
Not guaranteed: that sealed bytes are the latest ones. Whoever can write to the store can put back an older version
that was sealed for the same context; the record version in the binding and the store's own checks are for that.
A root user of a node can read the key ring, and with it everything.

Sealed bytes::

    1    format version, now 1
    4    id of the key
    12   nonce, random
    …    AES-256-GCM ciphertext and its tag of 16 bytes

The associated data are format version, key id, purpose, farm, subject and context, each with its length before it. Each
pair of purpose and subject has its own sub-key (HKDF-SHA256), so the number of random nonces per key stays small.

This module must never write a secret to a log, an error text or a ``repr``, and never overwrite a key ring.
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
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from farmlease.domain.identity import User
from farmlease.errors import FarmleaseError, KeyRingRejected, RecordRejected

__all__ = ["Key", "KeyRing", "Purpose", "RecordBinding", "Sealer", "key_id_of"]

#: Sub-keys a sealer keeps ready. Deriving one anew costs a little more than a sealing, so more would gain little.
SUB_KEYS_CACHED = 256

_RING_FORMAT = 1
_RING_LIMIT = 1 << 18  #: bytes; thousands of keys
_RING_MODE = 0o600
_SECRET_BYTES = 32
_KEY_ID_BYTES = 4
_SEAL_FORMAT = 1
_NONCE_BYTES = 12
_TAG_BYTES = 16
_NONCE_AT = 1 + _KEY_ID_BYTES
_CIPHERTEXT_AT = _NONCE_AT + _NONCE_BYTES
_USER_INDEX_BYTES = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_REJECTED = "sealed data was refused as damaged or not meant for here: keep the bytes and ask the farm's administrator"


class Purpose(StrEnum):
    """What is sealed; each purpose has its own keys."""

    RECORD = "record"
    NAME = "name"
    RECEIPT = "receipt"
    NOTE = "note"
    POLICY = "policy"
    API = "api"


# --- the key ring --------------------------------------------------------------------------------------------------


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
        if any(len(secret) != _SECRET_BYTES for secret in (self.index, *(key.secret for key in self.keys))):
            raise KeyRingRejected(f"a secret is not {_SECRET_BYTES} bytes: restore the key ring from another node")

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, in the ring's order."""
        return tuple(key.id for key in self.keys)

    @classmethod
    def generate(cls, now_ms: int) -> "KeyRing":
        """Return a new ring of one random key, made at ``now_ms`` (milliseconds since 1970 UTC)."""
        key = Key(id=secrets.token_hex(_KEY_ID_BYTES), created_at=now_ms, secret=secrets.token_bytes(_SECRET_BYTES))
        return cls(primary=key.id, keys=(key,), index=secrets.token_bytes(_SECRET_BYTES))

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


def _is_key_id(text: str) -> bool:
    return len(text) == 2 * _KEY_ID_BYTES and set(text) <= set("0123456789abcdef")


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


def _write_private(path: Path, text: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _RING_MODE), "wb") as file:
        if sys.platform != "win32":
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
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except FileExistsError:
        return False
    return True


@contextmanager
def _removed_at_the_end(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


# --- the seal --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordBinding:
    """What a sealed record belongs to; it opens for nothing else."""

    pool: str
    user_index: str
    lease_id: str
    version: int  #: of the record, grows with each save


class Sealer:
    """Seals and unseals for one farm. Cheap to call at every logon; may be shared between threads."""

    def __init__(self, ring: KeyRing, farm: str) -> None:
        self._farm = farm
        self._primary = ring.primary
        self._secrets = {key.id: key.secret for key in ring.keys}
        self._index_key = _derived(ring.index, "user index")
        self._cipher = lru_cache(maxsize=SUB_KEYS_CACHED)(self._make_cipher)

    def user_index(self, user: User) -> str:
        """Return the user's pseudonym, 22 characters of base64url: the same on every node and after key rotation."""
        digest = hmac.digest(self._index_key, _utf8(user.canonical), "sha256")
        return base64.urlsafe_b64encode(digest[:_USER_INDEX_BYTES]).rstrip(b"=").decode("ascii")

    def seal(self, purpose: Purpose, subject: str, context: tuple[str, ...], plaintext: bytes) -> bytes:
        """Return the plaintext sealed with the primary key; only the same purpose, subject and context open it."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        cipher = self._cipher(self._primary, purpose, subject)
        sealed = cipher.encrypt(nonce, plaintext, self._associated(self._primary, purpose, subject, context))
        return b"".join((bytes([_SEAL_FORMAT]), bytes.fromhex(self._primary), nonce, sealed))

    def unseal(self, purpose: Purpose, subject: str, context: tuple[str, ...], sealed: bytes) -> bytes:
        """Return what was sealed. Raises ``RecordRejected``, always with the same words, when it does not open."""
        plaintext = self._opened(purpose, subject, context, sealed)
        # Raised here, outside the handler, so that the error has no cause that would tell one reason from another.
        if plaintext is None:
            raise RecordRejected(_REJECTED)
        return plaintext

    def seal_record(self, binding: RecordBinding, data: bytes) -> bytes:
        """Seal an encoded record."""
        return self.seal(Purpose.RECORD, binding.user_index, _record_context(binding), data)

    def unseal_record(self, binding: RecordBinding, sealed: bytes) -> bytes:
        """Return the encoded record. Raises ``RecordRejected`` when it was sealed for anything but this binding."""
        return self.unseal(Purpose.RECORD, binding.user_index, _record_context(binding), sealed)

    def seal_name(self, user_index: str, name: str) -> bytes:
        """Seal a user's name for lists and audit."""
        return self.seal(Purpose.NAME, user_index, (), _utf8(name))

    def unseal_name(self, user_index: str, sealed: bytes) -> str:
        """Return a user's name. Raises ``RecordRejected`` when it was sealed for another user index."""
        return self.unseal(Purpose.NAME, user_index, (), sealed).decode("utf-8", "surrogatepass")

    def _opened(self, purpose: Purpose, subject: str, context: tuple[str, ...], sealed: bytes) -> bytes | None:
        key_id = key_id_of(sealed)
        if key_id is None or key_id not in self._secrets:
            return None
        associated = self._associated(key_id, purpose, subject, context)
        try:
            cipher = self._cipher(key_id, purpose, subject)
            return cipher.decrypt(sealed[_NONCE_AT:_CIPHERTEXT_AT], sealed[_CIPHERTEXT_AT:], associated)
        except InvalidTag:
            return None

    def _associated(self, key_id: str, purpose: Purpose, subject: str, context: tuple[str, ...]) -> bytes:
        return _fields(str(_SEAL_FORMAT), key_id, purpose, self._farm, subject, *context)

    def _make_cipher(self, key_id: str, purpose: Purpose, subject: str) -> AESGCM:
        return AESGCM(_derived(self._secrets[key_id], "seal", purpose, self._farm, subject))


def key_id_of(sealed: bytes) -> str | None:
    """Return the id of the key these bytes claim to be sealed with, unverified; None when they are not sealed."""
    if len(sealed) < _CIPHERTEXT_AT + _TAG_BYTES or sealed[0] != _SEAL_FORMAT:
        return None
    return sealed[1:_NONCE_AT].hex()


def _record_context(binding: RecordBinding) -> tuple[str, ...]:
    return (binding.pool, binding.lease_id, str(binding.version))


def _derived(secret: bytes, *label: str) -> bytes:
    """Return a 32-byte sub-key; different labels give unrelated keys."""
    return HKDF(algorithm=SHA256(), length=_SECRET_BYTES, salt=None, info=_fields("farmlease 1", *label)).derive(secret)


def _fields(*texts: str) -> bytes:
    """Join texts so that no two different lists give the same bytes: each has its length before it."""
    return b"".join(len(field).to_bytes(4) + field for field in map(_utf8, texts))


def _utf8(text: str) -> bytes:
    # Half a surrogate pair is no reason to fail, and its exception would quote the name.
    return text.encode("utf-8", "surrogatepass")
