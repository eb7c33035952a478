"""Access to a vendor's file on POSIX systems, without a race that the user could win.

Each folder of the user's territory is opened from the one before it (``dir_fd``), never by a link, and kept open; the
file is then named only relative to the folder that was checked. So a folder swapped for a link a moment later changes
nothing. The type of a file is read from the open file, not by its name.

This module must never open, change owner of, or write to anything that is not inside the folder it holds open. Calls
to the system may block for as long as the file system does; they belong into a thread.
"""

import errno
import fcntl
import os
import pwd
import secrets
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from farmlease.errors import FileRefused
from farmlease.node.files.folder import ATTEMPTS, LEFTOVER, MAX_NAMES, FileBusy, Seen, VendorPath

__all__ = ["DescriptorFolder", "Owner", "by_descriptor"]

assert sys.platform != "win32"  # noqa: S101 - for mypy: the rest is not for Windows

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: Opening must not wait either: for the writer of a FIFO, or for a lease that the user took on the file.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: F_SETSIG of fcntl.h, which Python does not name: which signal tells that somebody else opens a leased file.
_SET_SIGNAL = 10
#: How the types of file systems begin that are another machine's: nfs, nfs4; cifs; smb3.
_REMOTE = (b"nfs", b"cifs", b"smb")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of new files, and the owners accepted for files found in the user's territory."""

    uid: int
    gid: int
    known: frozenset[int]

    def knows(self, seen: os.stat_result) -> bool:
        """Whether this belongs to the user, or to the owner of his topmost folder.

        A file of another user may have been moved here: in a folder of his own the user may rename any file.
        """
        return seen.st_uid in self.known

    def give(self, descriptor: int) -> None:
        """Change the owner of an open file or folder, made by the agent, to the user. Only root can."""
        if os.geteuid() == 0:
            os.fchown(descriptor, self.uid, self.gid)


class DescriptorFolder:
    """An open folder in the user's territory."""

    def __init__(self, place: VendorPath, descriptor: int, owner: Owner) -> None:
        self._place = place
        self._folder = descriptor
        self._owner = owner

    def read(self, limit: int) -> Seen | None:
        """See ``Folder``. A file that is being written is read again, so that no half of it travels."""
        for _ in range(ATTEMPTS):
            if self._look() is None:
                return None
            with suppress(FileNotFoundError):  # gone since it was looked at
                if found := self._read(limit):
                    return found
        raise FileBusy(f"the file {self._place.template} is being written all the time: end the program and save again")

    def _read(self, limit: int) -> Seen | None:
        """Return the file, or None if it was written meanwhile."""
        with os.fdopen(os.open(self._place.name, _FILE, dir_fd=self._folder), "rb") as file:
            before = self._checked(os.fstat(file.fileno()))
            content = file.read(limit + 1)
            after = os.fstat(file.fileno())
        if len(content) > limit:
            raise self._place.refused(f"is larger than {limit} bytes: it cannot travel with the user")
        whole = len(content) == after.st_size and before.st_mtime_ns == after.st_mtime_ns
        return Seen(after.st_mode & 0o777, content, after.st_mtime_ns) if whole else None

    def is_being_written(self) -> bool:
        """See ``Folder``. The kernel gives no read lease on a file that is open for writing; not every one can say."""
        with suppress(OSError), os.fdopen(os.open(self._place.name, _FILE, dir_fd=self._folder), "rb") as file:
            self._checked(os.fstat(file.fileno()))
            if sys.platform == "linux":
                return _has_writers(file.fileno())
        return False

    def write(self, content: bytes) -> None:
        """See ``Folder``. Tried again when a sweep of another agent took the new file for a leftover."""
        self._look()
        for _ in range(ATTEMPTS):
            with suppress(FileNotFoundError):
                self._write(content)
                return
        raise self._place.refused("cannot be put in place, its folder changes all the time: start the session again")

    def _write(self, content: bytes) -> None:
        temporary = f"{LEFTOVER}{secrets.token_hex(16)}"
        with os.fdopen(os.open(temporary, _NEW, 0o600, dir_fd=self._folder), "wb") as file:
            try:
                with suppress(OSError):  # a file system without locks; then no agent sweeps on it either
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o600)
                self._owner.give(file.fileno())  # last: until now the user could not open it
                os.fsync(file.fileno())
                os.replace(temporary, self._place.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=self._folder)
                raise
        os.fsync(self._folder)

    def remove(self) -> None:
        """See ``Folder``."""
        if self._look() is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._place.name, dir_fd=self._folder)

    def sweep(self) -> None:
        """See ``Folder``. A leftover is not locked; a file that another agent is still writing is."""
        with os.scandir(self._folder) as entries:
            names = [entry.name for entry in islice(entries, MAX_NAMES) if entry.name.startswith(LEFTOVER)]
        for name in names:
            with suppress(OSError):
                if stat.S_ISREG(os.stat(name, dir_fd=self._folder, follow_symlinks=False).st_mode):
                    self._sweep(name)

    def _sweep(self, name: str) -> None:
        with os.fdopen(os.open(name, _FILE, dir_fd=self._folder), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=self._folder)

    def _look(self) -> os.stat_result | None:
        """Return the file's status, or None. Read before opening it: a device may act on being opened."""
        try:
            return self._checked(os.stat(self._place.name, dir_fd=self._folder, follow_symlinks=False))
        except FileNotFoundError:
            return None

    def _checked(self, seen: os.stat_result) -> os.stat_result:
        if not stat.S_ISREG(seen.st_mode):
            raise self._place.refused("is a link or not a regular file: put a regular file there, or nothing")
        if seen.st_nlink > 1:  # none: replaced since it was opened, and still whole
            raise self._place.refused("has a second name (a hard link): remove one of the two")
        if not self._owner.knows(seen):
            raise self._place.refused("does not belong to the user: change its owner or remove it")
        return seen


@contextmanager
def by_descriptor(place: VendorPath, *, make: bool) -> Iterator[DescriptorFolder | None]:
    """Yield the file's open folder, or None if it is missing and is not to be made.

    New folders are 0700 and the user's. Raises ``FileRefused`` where a folder is a link, no folder, or another user's.
    """
    with ExitStack() as stack:
        try:
            folder = os.open(place.trusted, _FOLDER)
        except FileNotFoundError:
            if make and place.is_in_home:
                raise place.without_home() from None
            if make:
                raise place.refused(
                    "has no folder to start from: make the part of its path before the user's name"
                ) from None
            yield None
            return
        stack.callback(os.close, folder)
        if place.is_in_home:
            _check_home(place, folder)
        owner = _owner(place, folder)
        for depth in range(len(place.folders)):
            below = _descend(place, folder, depth, owner, make=make)
            if below is None:
                yield None
                return
            stack.callback(os.close, below)
            folder = below
        if owner is None:
            raise _stranger(place)
        yield DescriptorFolder(place, folder, owner)


def _descend(place: VendorPath, folder: int, depth: int, owner: Owner | None, *, make: bool) -> int | None:
    """Open the next of the user's folders in the open ``folder``, made if asked for; None if it is missing."""
    name, made = place.folders[depth], False
    below = _open_folder(place, folder, name)
    if below is None:
        if not make:
            return None
        place.check_makes(depth)
        if owner is None:
            raise _stranger(place)
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)
            made = True
        below = _open_folder(place, folder, name)
        if below is None:
            raise place.refused("cannot be put in place, its folder changes all the time: start the session again")
    try:
        if place.home and not place.is_in_home and not depth:
            _check_home(place, below)
        elif owner is not None:
            _settle(place, below, owner, made=made, make=make)
    except BaseException:
        os.close(below)
        raise
    return below


def _open_folder(place: VendorPath, folder: int, name: str) -> int | None:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
            raise
    raise place.refused("has a link or a file where a folder should be: write the real path in the policy")


def _settle(place: VendorPath, folder: int, owner: Owner, *, made: bool, make: bool) -> None:
    """Refuse a folder of another user; give the user the one that was made for him just now.

    An empty 0700 folder of root's was made by an agent that was killed before it could change the owner. The new folder
    must be empty too: its name may have been swapped for another folder of root's before it was opened.
    """
    seen = os.fstat(folder)
    ours = seen.st_uid == os.geteuid()
    if make and ours and (made or stat.S_IMODE(seen.st_mode) == stat.S_IRWXU) and not os.listdir(folder):
        os.fchmod(folder, 0o700)
        owner.give(folder)
    elif not ours and not owner.knows(seen):
        raise place.refused("has a folder of another user in its path: change its owner")


def _check_home(place: VendorPath, folder: int) -> None:
    """Refuse a home of another account: of root's, say, as an empty folder is on which a share should be mounted."""
    owner = os.fstat(folder).st_uid
    if place.uid is not None and owner != place.uid and os.geteuid() == 0:
        raise place.in_foreign_home()


def _owner(place: VendorPath, trusted: int) -> Owner | None:
    """Return the owner of new files: the user's account, else the owner of his topmost folder.

    The topmost, because he can neither rename it nor change its owner; below it he may move in folders of others. None
    if root finds neither. An agent that is not root makes files that are its own. Where the account is known, a folder
    of somebody else's is not the user's, whatever its name.
    """
    found: list[tuple[int, int]] = []
    if place.uid is not None:
        found.append((place.uid, _group_of(place.uid)))
    if place.uid is None or not (place.folders or place.is_in_home):
        with suppress(FileNotFoundError):
            top = (
                os.stat(place.folders[0], dir_fd=trusted, follow_symlinks=False) if place.folders else os.fstat(trusted)
            )
            found.append((top.st_uid, top.st_gid))
    if os.geteuid() != 0:
        found.insert(0, (os.geteuid(), os.getegid()))
    return Owner(*found[0], frozenset(uid for uid, _ in found)) if found else None


def _group_of(uid: int) -> int:
    """Return the group of an account; -1, which leaves the group as it is, if that is not known."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except (KeyError, OverflowError):
        return -1


def _has_writers(descriptor: int) -> bool:
    """Whether a file that is open for reading is open for writing too. It is not kept from anybody in between.

    Where the file system or the rights of the agent allow no leases, this is not known, and the answer is no. NFS and
    SMB refuse a lease for reasons of their own, with the same error.
    """
    try:
        fcntl.fcntl(descriptor, _SET_SIGNAL, signal.SIGURG)  # for who opens it now; the default would end the agent
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN and not _is_remote(descriptor)
    return False


def _is_remote(descriptor: int, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether an open file lies on another machine's disk, as the kernel's list of mounts says (proc(5)).

    Without the list this is not known, and the answer is yes.
    """
    seen = os.fstat(descriptor).st_dev
    device = f"{os.major(seen)}:{os.minor(seen)}".encode()
    try:
        lines = [line.split() for line in mounts.read_bytes().splitlines()]
    except OSError:
        return True
    kinds = [words[words.index(b"-") + 1] for words in lines if words[2:3] == [device] and b"-" in words[:-1]]
    return any(kind.startswith(_REMOTE) for kind in kinds)


def _stranger(place: VendorPath) -> FileRefused:
    return place.refused("is for a user without account or folder on this node: make the folder, owned by the user")
