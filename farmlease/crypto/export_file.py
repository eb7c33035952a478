"""A sealed export: what one host hands to the next, under a passphrase that a person knows.

Text, so that it survives any copy: a line with the format, a line of JSON with what the key is derived by, the sealed
content in base64, and a line with the digest of all before. The digest tells a damaged file from a wrong passphrase; it
protects nothing. This module must never write a passphrase or a content to an error text.
"""

import base64
import hashlib
import json
import secrets
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from farmlease.errors import ExportRejected, InvalidInput

__all__ = ["SHORTEST", "check_passphrase", "seal", "unseal"]

#: Characters that a passphrase has at least: whoever gets the file may try as many as he likes.
SHORTEST = 12

_FORMAT = 1
_WORDS = "farmlease export "
_SALT_BYTES = 16
_NONCE_BYTES = 12
#: scrypt's work: 128 MiB and some half a second for each passphrase that is tried.
_COST, _BLOCK, _PARALLEL = 1 << 17, 8, 1
#: A file that asks for more work than this is none of ours, and would take the host's memory.
_MOST_COST, _MOST_BLOCK, _MOST_PARALLEL = 1 << 20, 16, 4

_DAMAGED = "it is damaged or cut short: copy it again, or export once more"


class _Derivation(NamedTuple):
    """What the key is derived by, and the nonce."""

    n: int
    r: int
    p: int
    salt: bytes
    nonce: bytes

    def key(self, passphrase: str) -> bytes:
        """Return the key of a passphrase."""
        return Scrypt(salt=self.salt, length=32, n=self.n, r=self.r, p=self.p).derive(passphrase.encode())


def check_passphrase(passphrase: str) -> str:
    """Return a passphrase that is long enough; InvalidInput else."""
    if len(passphrase) < SHORTEST:
        raise InvalidInput(f"a passphrase has at least {SHORTEST} characters; some words in a row are good ones")
    return passphrase


def seal(content: bytes, passphrase: str) -> bytes:
    """Return the text of an export file that only this passphrase opens. InvalidInput if that is too short."""
    how = _Derivation(_COST, _BLOCK, _PARALLEL, secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES))
    head = f"{_WORDS}{_FORMAT}\n{_to_line(how)}\n".encode()
    sealed = AESGCM(how.key(check_passphrase(passphrase))).encrypt(how.nonce, content, head)
    body = head + base64.encodebytes(sealed)
    return body + b"sha256 " + hashlib.sha256(body).hexdigest().encode() + b"\n"


def unseal(text: bytes, passphrase: str) -> bytes:
    """Return the content of an export file.

    ExportRejected says whether it is none, of a later format, damaged, or sealed with another passphrase.
    """
    how, head, sealed = _parsed(text)
    try:
        return AESGCM(how.key(passphrase)).decrypt(how.nonce, sealed, head)
    except InvalidTag:
        raise ExportRejected("the passphrase is not the one it was exported with; nothing was written") from None


def _parsed(text: bytes) -> tuple[_Derivation, bytes, bytes]:
    """Return how the key is derived, the bytes that are authenticated in clear, and those that are sealed."""
    lines = text.replace(b"\r\n", b"\n").splitlines(keepends=True)  # a copy may have gone by way of Windows
    first = lines[0].decode("ascii", "replace").rstrip("\n") if lines else ""
    if not first.startswith(_WORDS):
        raise ExportRejected("it is no export of farmlease: make one with `farmlease init --export FILE`")
    if first != f"{_WORDS}{_FORMAT}":
        raise ExportRejected(f"it is of another format than this farmlease knows ({_FORMAT}): update this host")
    body, digest = b"".join(lines[:-1]), lines[-1].split()
    if digest != [b"sha256", hashlib.sha256(body).hexdigest().encode()]:
        raise ExportRejected(_DAMAGED)
    try:
        head, how = b"".join(lines[:2]), _from_line(lines[1])
        sealed = base64.b64decode(b"".join(line.strip() for line in lines[2:-1]), validate=True)
    except (ValueError, LookupError, TypeError):
        raise ExportRejected(_DAMAGED) from None
    return how, head, sealed


def _to_line(how: _Derivation) -> str:
    salt, nonce = (base64.b64encode(each).decode() for each in (how.salt, how.nonce))
    return json.dumps({"kdf": "scrypt", "n": how.n, "r": how.r, "p": how.p, "salt": salt, "nonce": nonce})


def _from_line(line: bytes) -> _Derivation:
    """Return what a file says of its key. ValueError, LookupError or TypeError if that is not ours."""
    given = json.loads(line)
    salt, nonce = (base64.b64decode(given[name], validate=True) for name in ("salt", "nonce"))
    how = _Derivation(int(given["n"]), int(given["r"]), int(given["p"]), salt, nonce)
    in_bounds = 1 < how.n <= _MOST_COST and 0 < how.r <= _MOST_BLOCK and 0 < how.p <= _MOST_PARALLEL
    if given["kdf"] != "scrypt" or not in_bounds or how.n & (how.n - 1) or len(nonce) != _NONCE_BYTES:
        raise ValueError("not of ours")
    return how
