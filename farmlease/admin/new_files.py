"""Files of a first set-up: all of them are written, or none.

An existing file is never overwritten. Where one cannot be written, because the disk is full or the folder is another's,
those before it are removed again, with the folders made for them. Signals to end wait until that is done. Not
guaranteed: ``kill -9`` or a loss of power between two files may leave the first of them.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from farmlease import private_file
from farmlease.errors import FarmleaseError, InvalidInput

__all__ = ["READABLE", "SECRET", "NewFile", "Owner", "check_absent", "owner_of", "write_all"]

SECRET = 0o600  #: of a file that only its owner may read
READABLE = 0o644  #: of one that each logon reads
_FOLDER = 0o755  #: of a folder that each logon passes


class Owner(NamedTuple):
    """An account of this host, by its numbers."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """One file to be written."""

    path: Path
    content: bytes = field(repr=False)
    mode: int = SECRET


def owner_of(name: str) -> Owner:
    """Return the account of this name; InvalidInput if this host has none."""
    if sys.platform == "win32":
        raise InvalidInput("on Windows the folder's access list says who may read it; leave --owner out")
    else:  # noqa: RET506 - mypy tells platforms apart by this shape
        import pwd  # noqa: PLC0415 -- Windows has none

        try:
            found = pwd.getpwnam(name)
        except KeyError:
            raise InvalidInput(f"this host has no account {name}") from None
        return Owner(found.pw_uid, found.pw_gid)


def check_absent(paths: Sequence[Path]) -> None:
    """Raise FarmleaseError, which names them, if anything stands at one of the paths."""
    there = [str(path) for path in paths if os.path.lexists(path)]
    if there:
        verb = "already exists and is" if len(there) == 1 else "already exist and are"
        raise FarmleaseError(f"{', '.join(there)} {verb} never overwritten; to begin anew, move away what is there")


def write_all(files: Sequence[NewFile], owner: Owner | None = None) -> None:
    """Write the files, each durably and with its mode. FarmleaseError, and none of them is there, if one cannot be.

    ``owner``: whose they become; None: this process's user.
    """
    with _undisturbed():
        check_absent([each.path for each in files])
        made: list[Path] = []
        try:
            for each in files:
                _write(each, owner, made)
        except BaseException:
            _remove(made)
            raise


def _write(file: NewFile, owner: Owner | None, made: list[Path]) -> None:
    """Write one file, and note it and each folder that is made for it."""
    try:
        for folder in reversed([each for each in file.path.parents if not each.exists()]):
            folder.mkdir(_FOLDER)
            made.append(folder)
            folder.chmod(_FOLDER)  # a strange umask may have taken bits away
        if private_file.create([file.path], file.content) is None:
            raise FarmleaseError(f"{file.path} already exists and is never overwritten; nothing was written")
        made.append(file.path)
        if sys.platform != "win32":
            if owner is not None and (owner.uid, owner.gid) != (os.geteuid(), os.getegid()):
                os.chown(file.path, owner.uid, owner.gid)
            file.path.chmod(file.mode)
    except OSError as error:
        raise FarmleaseError(
            f"cannot write {file.path}: {error.strerror}; nothing was written. {_advice(error)}"
        ) from error


def _advice(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "Run this as root, or choose another place with --config"
    return "See to the disk and its folder, then run this again"


def _remove(made: Sequence[Path]) -> None:
    """Remove files and folders, those made last first. A folder in which something else lies by now stays."""
    for path in reversed(made):
        with suppress(OSError):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let signals to end wait for the end of this. One that is ignored stays so."""
    heard: list[int] = []
    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows lacks the last
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) not in {signal.SIG_IGN, None}:
            before[number] = signal.signal(number, lambda each, _: heard.append(each))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(heard):
            signal.raise_signal(number)
