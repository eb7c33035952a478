"""Sealing: everything that leaves a node is encrypted, and opens only for what it was sealed for.

Guaranteed: sealed bytes open only with a key of the ring, for the same purpose, farm, subject and context; anything
else is refused with one and the same error, which does not tell the reason. Two sealings of one text differ.
Not guaranteed: that sealed bytes are the latest ones. Anyone who can write to the store can put back an older version
that was sealed for the same context; the record version in the binding and the store's own checks are for that.
A root user of a node can read the key ring, and with it everything.

Sealed bytes::

    1    format version, now 1
    4    id of the key
    12   nonce, random
    …    AES-256-GCM ciphertext and its tag of 16 bytes

The associated data are format version, key id, purpose, farm, subject and context, each with its length before it. Each
pair of purpose and subject has its own sub-key (HKDF-SHA256), so the number of random nonces per key stays small: the
largest is that of a node for its own journal, with some millions a year where 2**32 are safe.

This module must never write a secret to a log, an error text or a ``repr``.
"""

import base64
import hmac
import secrets
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from farmlease.crypto.keyring import KEY_ID_BYTES, SECRET_BYTES, KeyRing
from farmlease.domain.identity import User
from farmlease.domain.record import BorrowedRecord, encode
from farmlease.errors import KeyRingRejected, RecordRejected

__all__ = ["NodeSealer", "Purpose", "RecordBinding", "Sealer", "key_id_of"]

#: Sub-keys a sealer keeps ready. Deriving one anew costs a little more than a sealing, so more would gain little.
SUB_KEYS_CACHED = 256

_SEAL_FORMAT = 1
_NONCE_BYTES = 12
_TAG_BYTES = 16
_NONCE_AT = 1 + KEY_ID_BYTES
_CIPHERTEXT_AT = _NONCE_AT + _NONCE_BYTES
_USER_INDEX_BYTES = 16
_AUTHOR = ("by",)  #: context of an author: keeps it apart from notes about a user

_REJECTED = "sealed data was refused as damaged or not meant for here: keep the bytes and ask the farm's administrator"


class Purpose(StrEnum):
    """Kinds of sealed data; each has its own keys."""

    RECORD = "record"
    NAME = "name"
    RECEIPT = "receipt"
    NOTE = "note"
    POLICY = "policy"
    API = "api"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordBinding:
    """The context of a sealed record; it opens with no other."""

    pool: str
    user_index: str
    lease_id: str
    version: int  #: of the record, grows with each save


class _SubKey(NamedTuple):
    """The key of one purpose and subject, and the first part of the associated data of everything it seals."""

    cipher: AESGCM
    associated: bytes


class Sealer:
    """Seals and unseals for one farm. Cheap to call at every logon; may be shared between threads."""

    def __init__(self, ring: KeyRing, farm: str) -> None:
        self._farm = farm
        self._ring = ring
        self._secrets = {key.id: key.secret for key in ring.keys}
        self._index_key = _derived(ring.index, "user index")
        self._sub_key = lru_cache(maxsize=SUB_KEYS_CACHED)(self._make_sub_key)
        self._index = lru_cache(maxsize=SUB_KEYS_CACHED)(self._make_index)

    @property
    def farm(self) -> str:
        """The farm that it seals for."""
        return self._farm

    @property
    def ring(self) -> KeyRing:
        """The keys in use."""
        return self._ring

    def adopt(self, ring: KeyRing) -> None:
        """Use a later state of the same ring; no other thread may be sealing. KeyRingRejected if it is another farm's.

        Its secret for pseudonyms must be the same: with another one every user would look like a new user.
        """
        if not self._ring.is_of_the_farm(ring):
            raise KeyRingRejected("the key ring is another farm's: take the one of a node of this farm")
        self._secrets = {key.id: key.secret for key in ring.keys}
        self._ring = ring
        self._sub_key.cache_clear()

    def is_fresh(self, sealed: bytes) -> bool:
        """Whether bytes claim to be sealed with the primary, or are not sealed at all."""
        return key_id_of(sealed) in {None, self._ring.primary}

    def user_index(self, user: User) -> str:
        """Return the user's pseudonym, 22 characters of base64url: the same on every node and after key rotation."""
        return self._index(user.canonical)

    def seal(self, purpose: Purpose, subject: str, context: tuple[str, ...], plaintext: bytes) -> bytes:
        """Return the plaintext sealed with the primary key; only the same purpose, subject and context open it."""
        nonce, primary = secrets.token_bytes(_NONCE_BYTES), self._ring.primary
        key = self._sub_key(primary, purpose, subject)
        sealed = key.cipher.encrypt(nonce, plaintext, key.associated + _fields(*context))
        return b"".join((bytes([_SEAL_FORMAT]), bytes.fromhex(primary), nonce, sealed))

    def unseal(self, purpose: Purpose, subject: str, context: tuple[str, ...], sealed: bytes) -> bytes:
        """Return what was sealed. Raises ``RecordRejected``, always with the same words, when it does not open."""
        plaintext = self._opened(purpose, subject, context, sealed)
        # Raised here, outside the handler, so that the error has no cause that would tell one reason from another.
        if plaintext is None:
            raise RecordRejected(_REJECTED)
        return plaintext

    def reseal(self, purpose: Purpose, subject: str, context: tuple[str, ...], sealed: bytes) -> bytes:
        """Return the same content sealed with the primary; what is already, as it is. RecordRejected as ``unseal``."""
        if self.is_fresh(sealed):
            return sealed
        return self.seal(purpose, subject, context, self.unseal(purpose, subject, context, sealed))

    def seal_record(self, binding: RecordBinding, data: bytes) -> bytes:
        """Seal an encoded record."""
        return self.seal(Purpose.RECORD, binding.user_index, _record_context(binding), data)

    def seal_first_record(self, pool: str, user: User, *, device: str, lease_id: str, borrowed_at: int) -> bytes:
        """Seal the first record, without files, of a new lease. ``borrowed_at``: ms since 1970 UTC."""
        index = self.user_index(user)
        record = BorrowedRecord(
            user=user.canonical, pool=pool, seat=index, device=device, borrowed_at=borrowed_at, files=()
        )
        return self.seal_record(
            RecordBinding(pool=pool, user_index=index, lease_id=lease_id, version=1), encode(record)
        )

    def unseal_record(self, binding: RecordBinding, sealed: bytes) -> bytes:
        """Return the encoded record. Raises ``RecordRejected`` when it was sealed for anything but this binding."""
        return self.unseal(Purpose.RECORD, binding.user_index, _record_context(binding), sealed)

    def reseal_record(self, binding: RecordBinding, sealed: bytes) -> bytes:
        """Return a record sealed with the primary, for the same binding. RecordRejected as ``unseal_record``."""
        return self.reseal(Purpose.RECORD, binding.user_index, _record_context(binding), sealed)

    def is_same_record(self, binding: RecordBinding, one: bytes, other: bytes) -> bool:
        """Whether two sealings for one binding have the same content. RecordRejected if either does not open."""
        return hmac.compare_digest(self.unseal_record(binding, one), self.unseal_record(binding, other))

    def seal_name(self, user_index: str, name: str) -> bytes:
        """Seal a user's name for lists and audit."""
        return self.seal(Purpose.NAME, user_index, (), _utf8(name))

    def unseal_name(self, user_index: str, sealed: bytes) -> str:
        """Return a user's name. Raises ``RecordRejected`` when it was sealed for another user index."""
        return self.unseal(Purpose.NAME, user_index, (), sealed).decode("utf-8", "surrogatepass")

    def reseal_name(self, user_index: str, sealed: bytes) -> bytes:
        """Return a user's name sealed with the primary. RecordRejected as ``unseal_name``."""
        return self.reseal(Purpose.NAME, user_index, (), sealed)

    def seal_author(self, author: str) -> bytes:
        """Seal the author of a decision for the audit: an administrator's name as the system has it."""
        return self.seal(Purpose.NOTE, "", _AUTHOR, _utf8(author))

    def unseal_author(self, sealed: bytes) -> str:
        """Return the author. RecordRejected as ``unseal``."""
        return self.unseal(Purpose.NOTE, "", _AUTHOR, sealed).decode("utf-8", "surrogatepass")

    def reseal_author(self, sealed: bytes) -> bytes:
        """Return the author, sealed with the primary. RecordRejected as ``unseal``."""
        return self.reseal(Purpose.NOTE, "", _AUTHOR, sealed)

    def _opened(self, purpose: Purpose, subject: str, context: tuple[str, ...], sealed: bytes) -> bytes | None:
        key_id = key_id_of(sealed)
        if key_id is None or key_id not in self._secrets:
            return None
        key = self._sub_key(key_id, purpose, subject)
        associated = key.associated + _fields(*context)
        try:
            return key.cipher.decrypt(sealed[_NONCE_AT:_CIPHERTEXT_AT], sealed[_CIPHERTEXT_AT:], associated)
        except InvalidTag:
            return None

    def _make_index(self, canonical: str) -> str:
        digest = hmac.digest(self._index_key, _utf8(canonical), "sha256")
        return base64.urlsafe_b64encode(digest[:_USER_INDEX_BYTES]).rstrip(b"=").decode("ascii")

    def _make_sub_key(self, key_id: str, purpose: Purpose, subject: str) -> _SubKey:
        cipher = AESGCM(_derived(self._secrets[key_id], "seal", purpose, self._farm, subject))
        return _SubKey(cipher, _fields(str(_SEAL_FORMAT), key_id, purpose, self._farm, subject))


class NodeSealer:
    """Seals what lies in the journal of one node: a journal that is copied to another node does not open there.

    ``farm``: the sealer of what goes into the store.
    """

    def __init__(self, farm: Sealer, node: str) -> None:
        self.farm = farm
        self._node = node

    def seal(self, parts: tuple[str, ...], plain: bytes) -> bytes:
        """Seal ``plain`` under a name of several parts."""
        return self.farm.seal(Purpose.RECEIPT, self._node, parts, plain)

    def unseal(self, parts: tuple[str, ...], body: bytes) -> bytes:
        """Return what was sealed under this name. RecordRejected if it does not open."""
        return self.farm.unseal(Purpose.RECEIPT, self._node, parts, body)

    def are_fresh(self, *bodies: bytes) -> bool:
        """Whether the primary key sealed all of these."""
        return all(map(self.farm.is_fresh, bodies))


def key_id_of(sealed: bytes) -> str | None:
    """Return the id of the key these bytes claim to be sealed with, unverified; None when they are not sealed."""
    if len(sealed) < _CIPHERTEXT_AT + _TAG_BYTES or sealed[0] != _SEAL_FORMAT:
        return None
    return sealed[1:_NONCE_AT].hex()


def _record_context(binding: RecordBinding) -> tuple[str, ...]:
    return (binding.pool, binding.lease_id, str(binding.version))


def _derived(secret: bytes, *label: str) -> bytes:
    """Return a 32-byte sub-key; different labels give unrelated keys."""
    return HKDF(algorithm=SHA256(), length=SECRET_BYTES, salt=None, info=_fields("farmlease 1", *label)).derive(secret)


def _fields(*texts: str) -> bytes:
    """Join texts so that no two different lists give the same bytes: each has its length before it."""
    return b"".join([len(field).to_bytes(4) + field for field in map(_utf8, texts)])


def _utf8(text: str) -> bytes:
    # Half a surrogate pair is no reason to fail, and its exception would quote the name.
    return text.encode("utf-8", "surrogatepass")
