"""Files that somebody else wrote: configuration, policies, passwords, certificates. No reader waits for one for ever.

A link is followed; a pipe or a device in the place of a file is refused, and so is a file that is too large to be one.
Where a pipe may be meant, as in ``farmlease pool apply <(…)``, it is read as long as somebody writes to it.
"""

import errno
import os
import select
import stat
import sys
from pathlib import Path

__all__ = ["check", "read"]

#: Bytes beyond which a file is none of those that are read here.
_LARGEST = 64 << 20
_CHUNK = 1 << 16
#: Seconds to wait for the next bytes of a pipe.
_PATIENCE = 30.0


def read(path: Path, *, pipe: bool = False) -> bytes:
    """Return a file's bytes. OSError, whose ``strerror`` says why, if it cannot be read.

    ``pipe``: or what somebody writes to a pipe.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        if pipe and stat.S_ISFIFO(status.st_mode) and sys.platform != "win32":
            return _of_pipe(descriptor)
        _check(status)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return _not_larger(file.read(_LARGEST + 1))
    finally:
        os.close(descriptor)


def check(path: Path) -> None:
    """Raise OSError if ``path`` is no file that can be opened without waiting, as it is before a library opens it."""
    _check(path.stat())


def _check(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no file, but a pipe or a device; something else is in its place")
    if status.st_size > _LARGEST:
        _not_larger(b"", status.st_size)


def _not_larger(content: bytes, size: int = 0) -> bytes:
    if max(size, len(content)) > _LARGEST:
        raise OSError(errno.EFBIG, f"it is larger than {_LARGEST >> 20} MiB; something else is in its place")
    return content


def _of_pipe(descriptor: int) -> bytes:
    content = bytearray()
    while len(content) <= _LARGEST:
        ready, _, _ = select.select([descriptor], [], [], _PATIENCE)
        if not ready:
            raise OSError(errno.ETIMEDOUT, "it is a pipe to which nobody writes")
        if not (chunk := os.read(descriptor, _CHUNK)):
            break
        content += chunk
    if not content:
        raise OSError(errno.EINVAL, "it is a pipe to which nobody writes")
    return _not_larger(bytes(content))
