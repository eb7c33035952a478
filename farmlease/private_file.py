"""Files that only their owner may read: how they are written, and whether one still is private.

Guaranteed: a reader finds the file as it was before a write or the whole new one, also after ``kill -9`` in the middle
and, where the write is durable, after a loss of power. No other user can read a new file at any moment.
Not guaranteed: privacy on Windows. The folder's access list protects a file there, and its mode and owner mean nothing.
This module must never follow a link, and never overwrite a file but by ``replace``.
"""

import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path

__all__ = ["UNFINISHED", "Flaw", "NotPrivate", "create", "is_open_to_others", "read", "replace", "sync_folder"]

#: How the name of a file begins that is still being written. A process that was killed leaves it behind.
UNFINISHED = ".unfinished-"

_MODE = 0o600
_OTHERS = 0o077


class Flaw(Enum):
    """Why a file is not private."""

    LINK = auto()
    NOT_REGULAR = auto()  #: a folder, a pipe or a device
    OWNER = auto()  #: belongs to neither root nor this process's user
    MODE = auto()


class NotPrivate(Exception):
    """A file was not read because others may have changed it or may read it. ``mode``: its permission bits."""

    def __init__(self, flaw: Flaw, mode: int = 0) -> None:
        super().__init__(flaw.name)
        self.flaw = flaw
        self.mode = mode


def read(path: Path, limit: int, *, forbidden: int = _OTHERS) -> bytes:
    """Return at most ``limit`` bytes of a private file: one without any of the ``forbidden`` permission bits.

    Raises ``NotPrivate``, and ``OSError`` for what the system refuses.
    """
    if path.is_symlink():
        raise NotPrivate(Flaw.LINK)
    # Checked on the open file, so that what was checked is what is read.
    descriptor = os.open(path, _reading())
    try:
        _check(os.fstat(descriptor), forbidden)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


def is_open_to_others(status: os.stat_result) -> bool:
    """Whether users other than the owner have any right to a file or folder."""
    return sys.platform != "win32" and bool(status.st_mode & _OTHERS)


def create(paths: Iterable[Path], content: bytes) -> Path | None:
    """Write a new file, durably, under the first of ``paths`` that is free, all in one folder; None if none is."""
    candidates = iter(paths)
    path = next(candidates, None)
    if path is None:
        return None
    with _written(path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}"), content) as unfinished:
        while path is not None and not _placed(unfinished, path):
            path = next(candidates, None)
    return path


def replace(
    path: Path,
    content: bytes,
    *,
    like: os.stat_result | None = None,
    durable: bool = True,
    unfinished: Path | None = None,
) -> None:
    """Write a file in the place of the one there, if any. One process at a time may do that.

    ``like``: whose owner it gets. ``durable``: the new file outlives a loss of power that comes after this call.
    ``unfinished``: where it lies until it is whole.
    """
    unfinished = unfinished or path.with_name(f"{UNFINISHED}{path.name}")
    unfinished.unlink(missing_ok=True)
    with _written(unfinished, content, like=like, durable=durable):
        unfinished.replace(path)
        if durable:
            sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk. Windows writes them through by itself."""
    if sys.platform != "win32":
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _reading() -> int:
    if sys.platform == "win32":
        return os.O_RDONLY | os.O_BINARY
    else:  # noqa: RET505 - mypy judges each platform by its branch
        return os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe must not make us wait for a writer


def _check(status: os.stat_result, forbidden: int) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise NotPrivate(Flaw.NOT_REGULAR, mode)
    if sys.platform != "win32":
        if status.st_uid not in {0, os.geteuid()}:
            raise NotPrivate(Flaw.OWNER, mode)
        if mode & forbidden:
            raise NotPrivate(Flaw.MODE, mode)


@contextmanager
def _written(path: Path, content: bytes, *, like: os.stat_result | None = None, durable: bool = True) -> Iterator[Path]:
    """Write a new file, and remove its name at the end if it still has it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)  # binary exists on Windows only
    try:
        with os.fdopen(os.open(path, flags, _MODE), "wb") as file:
            if sys.platform != "win32":
                if like is not None and (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), like.st_uid, like.st_gid)
                os.fchmod(file.fileno(), _MODE)  # a strange umask may have taken bits away
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


def _placed(unfinished: Path, path: Path) -> bool:
    """Give a finished file its name, unless the name is taken."""
    try:
        if sys.platform == "win32":
            unfinished.rename(path)  # never replaces on Windows
        else:
            os.link(unfinished, path)  # refuses a name that is taken, which a rename would overwrite
            sync_folder(path.parent)
    except FileExistsError:
        return False
    return True
