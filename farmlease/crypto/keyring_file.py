"""The key ring's file: read, made, and replaced under a lock, so that no administrator undoes what another does.

The lock is a file beside it. It excludes others who change the same file, not those who change another node's copy:
the nodes' reports show which copy is the newest (``domain/key_rotation.py``). This module must never overwrite a key
ring but by a later state of the same one.
"""

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from farmlease import private_file
from farmlease.crypto.keyring import KeyRing
from farmlease.errors import FarmleaseError, KeyRingRejected
from farmlease.private_file import Flaw, NotPrivate

__all__ = ["change", "create", "load", "replace"]

_LIMIT = 1 << 18  #: bytes; thousands of keys
_BEYOND_0600 = 0o7777 & ~0o600


def load(path: Path) -> KeyRing:
    """Read a ring file.

    Raises ``KeyRingRejected`` when it is missing, unreadable, a link, not a regular file, open to others than its
    owner, owned by neither root nor us, or not a key ring. On Windows the folder's access list is what protects
    it, and neither mode nor owner is checked.
    """
    ring = KeyRing.parse(_read(path))
    # Raised here, outside the handler: the parser's exception holds the text, and with it the secrets.
    if isinstance(ring, str):
        raise KeyRingRejected(f"{path}: {ring}")
    return ring


def create(path: Path, ring: KeyRing) -> None:
    """Write a ring to a new file of mode 0600, whole or not at all; an absent folder is made with 0700.

    Raises ``FarmleaseError`` when something stands there already (it is left as it is) or it cannot be written.
    """
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, parents=True)
        made = private_file.create([path], ring.to_json())
    except OSError as error:
        raise FarmleaseError(f"cannot write the key ring {path}: {error.strerror}; check its folder") from error
    if made is None:
        raise FarmleaseError(f"{path} already exists and is never overwritten: to begin anew, move it away")


def replace(path: Path, ring: KeyRing) -> None:
    """Put a later state of a ring in the place of the one there, whole or not at all; the file keeps its owner.

    Callers hold the ring's lock. Raises ``FarmleaseError`` when it cannot be written.
    """
    try:
        # An agent with a user of its own must be able to read it: it keeps its owner.
        private_file.replace(path, ring.to_json(), like=path.lstat())
    except OSError as error:
        raise FarmleaseError(f"cannot write the key ring {path}: {error.strerror}; run as its owner or root") from error


def change(path: Path, seen: KeyRing, to: Callable[[KeyRing], KeyRing]) -> KeyRing:
    """Replace the ring of a file by what ``to`` makes of it, and return that.

    FarmleaseError if it is not the ring that was ``seen`` any more, or another process is changing it, or it cannot be
    written; KeyRingRejected as ``load``.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), mode=0o600)
    try:
        with lock.acquire(blocking=False):
            ring = load(path)
            if ring != seen:
                raise FarmleaseError(f"{path} was changed meanwhile; look at it (key list), then ask again")
            changed = to(ring)
            replace(path, changed)
            return changed
    except Timeout:
        raise FarmleaseError(f"another process is changing {path} just now; try again in a moment") from None
    except OSError as error:
        raise FarmleaseError(f"cannot lock the key ring {path}: {error.strerror}; run as its owner or root") from error


def _read(path: Path) -> bytes:
    """Return the bytes of a file that only its owner can read or change."""
    try:
        text = private_file.read(path, _LIMIT + 1, forbidden=_BEYOND_0600)
    except NotPrivate as error:
        raise KeyRingRejected(_refusal(path, error)) from None
    except FileNotFoundError:
        absent = f"there is no key ring {path}: copy the one of another node, or run `farmlease key generate`"
        raise KeyRingRejected(absent) from None
    except OSError as error:
        raise KeyRingRejected(f"cannot read the key ring {path}: {error.strerror}; run as its owner or root") from error
    if len(text) > _LIMIT:
        raise KeyRingRejected(f"{path} is larger than any key ring: check [keys] file in farmlease.toml")
    return text


def _refusal(path: Path, error: NotPrivate) -> str:
    match error.flaw:
        case Flaw.LINK:
            return f"{path} is a link: put the key ring itself there"
        case Flaw.NOT_REGULAR:
            return f"{path} is not a regular file: check [keys] file in farmlease.toml"
        case Flaw.OWNER:
            return f"{path} belongs to another user: see who made it, then `chown root {path}`"
        case Flaw.MODE:
            return f"{path} has mode {error.mode:04o}, 0600 is needed: `chmod 600 {path}`"
