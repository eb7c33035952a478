"""Changing the key ring's file: read and replaced under a lock, so that no administrator undoes what another does.

The lock is a file beside it. It keeps out who changes the same file, not who changes another node's copy: whether that
is the newest, the nodes say (``domain/key_rotation.py``).
"""

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from farmlease.crypto.keyring import KeyRing
from farmlease.errors import FarmleaseError

__all__ = ["change"]


def change(path: Path, seen: KeyRing, to: Callable[[KeyRing], KeyRing]) -> KeyRing:
    """Replace the ring of a file by what ``to`` makes of it, and return that.

    FarmleaseError if it is not the ring that was ``seen`` any more, or somebody is changing it, or it cannot be
    written; KeyRingRejected as ``KeyRing.load``.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), mode=0o600)
    try:
        with lock.acquire(blocking=False):
            ring = KeyRing.load(path)
            if ring != seen:
                raise FarmleaseError(f"{path} was changed meanwhile; look at it (key list), then ask again")
            changed = to(ring)
            changed.replace_file(path)
            return changed
    except Timeout:
        raise FarmleaseError(f"somebody else is changing {path} just now; try again in a moment") from None
    except OSError as error:
        raise FarmleaseError(f"cannot lock the key ring {path}: {error.strerror}; run as its owner or root") from error
