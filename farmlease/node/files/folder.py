"""Access to a vendor's file in a folder that belongs to the user, who may be hostile while the agent is root.

A path has a trusted beginning, which the administrator wrote and which may hold links, and the user's territory behind
it, where no link is followed and only regular files with a single name are touched.

This module walks by path, for Windows. **It is racy:** a component is checked and then used by its name, and the user,
who may rename things in his own folder, can swap it for a junction in between. Windows offers Python no way to open a
file relative to an open folder. ``folder_posix`` has that way and is used everywhere else. This module runs there too,
so that its rules can be tested, but must never serve an agent there.
"""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from farmlease import private_file
from farmlease.domain.file_template import ACCOUNT, HOME, USER
from farmlease.errors import FileRefused

__all__ = ["ATTEMPTS", "LEFTOVER", "MAX_NAMES", "FileBusy", "Folder", "PathFolder", "Seen", "VendorPath", "by_path"]

#: Prefix of farmlease's own files that are still being written. One that stays was left by a killed agent.
LEFTOVER = ".farmlease-"
#: How many names of a folder are searched for leftovers: a user with millions of files must not delay the agent.
MAX_NAMES = 10_000
#: How often a file that another process is changing is tried before it is refused.
ATTEMPTS = 3


class FileBusy(FileRefused):
    """A vendor's file that a program is writing at this moment: it may be whole a little later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorPath:
    """The path of one vendor's file for one user."""

    template: str  #: as the policy writes it; the only part that may appear in an error
    account: str  #: the user's name on this node
    uid: int | None = None  #: the number of the user's account; None where it is not known
    trusted: Path  #: absolute; the folder the administrator, or the account database, vouches for
    folders: tuple[str, ...]  #: below it, the user's own territory
    name: str  #: of the file
    home: bool = False  #: the user's home: ``trusted``, if the template begins with it, else the first of ``folders``
    made: bool = True  #: whether the first of ``folders`` may be made where it is missing

    @property
    def top(self) -> "VendorPath":
        """The same path with only the topmost folder of the user's territory."""
        return replace(self, folders=self.folders[: 0 if self.is_in_home else 1])

    @property
    def is_in_home(self) -> bool:
        """Whether the user's territory begins inside his home."""
        return self.template.startswith(HOME)

    @property
    def path(self) -> str:
        """The whole path. It must not appear in an error: it has the user's name in it."""
        return str(self.trusted.joinpath(*self.folders, self.name))

    def refused(self, why: str) -> FileRefused:
        """Return the error: the template and ``why``, never the user's name."""
        return FileRefused(f"the file {self.template} {why}")

    def check_makes(self, depth: int) -> None:
        """Refuse to make a missing folder that is the home, or in which the user, spelt otherwise, would never look."""
        if depth or self.is_in_home:
            return
        if self.home:
            raise self.without_home()
        if not self.made:
            raise self.refused(
                f"has no folder of the user's on this host, whose name is spelt another way there: write {ACCOUNT} or "
                f"{HOME} instead of {USER}, or make the folder"
            )

    def without_home(self) -> FileRefused:
        """Return the error for a home that is missing."""
        return self.refused("has no home to lie in on this host: mount its share, or make the user's home")

    def in_foreign_home(self) -> FileRefused:
        """Return the error for a home that is not the user's."""
        return self.refused("would lie in a home that is not the user's: mount its share, or correct its owner")


class Seen(NamedTuple):
    """A file as it was read."""

    mode: int  #: permission bits
    content: bytes
    changed_at: int = 0  #: ns, by the file system's clock; another number means that it was written since


class Folder(Protocol):
    """The folder of a file, found without following a link of the user's.

    Every method raises ``FileRefused`` for what must not be touched, and ``OSError`` for what the system refuses.
    """

    def read(self, limit: int) -> Seen | None:
        """Return the file as it is, None if there is none; refused over ``limit`` bytes."""

    def is_being_written(self) -> bool:
        """Whether a program on this host has the file open for writing, as far as the system can tell."""

    def write(self, content: bytes) -> None:
        """Replace the file: readers see the old one or the whole new one, also after a loss of power."""

    def remove(self) -> None:
        """Remove the file if there is one."""

    def sweep(self) -> None:
        """Remove the unfinished files of a killed agent."""


class PathFolder:
    """A folder known by its path; see the module's warning."""

    def __init__(self, place: VendorPath, path: Path) -> None:
        self._place = place
        self._path = path
        self._file = path / place.name

    def read(self, limit: int) -> Seen | None:
        """See ``Folder``."""
        seen = self._look()
        if seen is None:
            return None
        with self._file.open("rb") as file:
            opened = os.fstat(file.fileno())
            if (opened.st_dev, opened.st_ino) != (seen.st_dev, seen.st_ino):
                raise self._place.refused("was swapped while it was opened: try again")
            content = file.read(limit + 1)
        if len(content) > limit:
            raise self._place.refused(f"is larger than {limit} bytes: it cannot travel with the user")
        return Seen(stat.S_IMODE(opened.st_mode) & 0o777, content, opened.st_mtime_ns)

    def is_being_written(self) -> bool:
        """See ``Folder``. Not to be learned by path."""
        return False

    def write(self, content: bytes) -> None:
        """See ``Folder``."""
        self._look()
        private_file.replace(self._file, content, unfinished=self._path / f"{LEFTOVER}{secrets.token_hex(16)}")

    def remove(self) -> None:
        """See ``Folder``."""
        if self._look() is not None:
            self._file.unlink(missing_ok=True)

    def sweep(self) -> None:
        """See ``Folder``. Windows itself protects a file that another agent is still writing: it is open there."""
        with os.scandir(self._path) as entries:
            for entry in islice(entries, MAX_NAMES):
                if entry.name.startswith(LEFTOVER) and entry.is_file(follow_symlinks=False):
                    with suppress(OSError):
                        Path(entry.path).unlink()

    def _look(self) -> os.stat_result | None:
        """Return the status of the file, links not followed; None if there is none."""
        try:
            seen = self._file.lstat()
        except FileNotFoundError:
            return None
        if _is_link(seen) or not stat.S_ISREG(seen.st_mode):
            raise self._place.refused("is a link or not a regular file: put a regular file there, or nothing")
        if seen.st_nlink != 1:
            raise self._place.refused("has a second name (a hard link): remove one of the two")
        return seen


@contextmanager
def by_path(place: VendorPath, *, make: bool) -> Iterator[PathFolder | None]:
    """Yield the file's folder, or None if it is missing and is not to be made.

    New folders and files get the access rights they inherit from the folder above.
    """
    path = place.trusted
    if not path.is_dir():
        if make and place.is_in_home:
            raise place.without_home()
        if make:
            raise place.refused("has no folder to start from: make the part of its path before the user's name")
        yield None
        return
    for depth, name in enumerate(place.folders):
        path /= name
        try:
            seen = path.lstat()
        except FileNotFoundError:
            if not make:
                yield None
                return
            place.check_makes(depth)
            path.mkdir(0o700)
            seen = path.lstat()
        if _is_link(seen) or not stat.S_ISDIR(seen.st_mode):
            raise place.refused("has a link or a file where a folder should be: write the real path in the policy")
    yield PathFolder(place, path)


def _is_link(seen: os.stat_result) -> bool:
    """Whether this is a symbolic link, a junction, or another reparse point of Windows."""
    reparse: int = getattr(seen, "st_file_attributes", 0) & stat.FILE_ATTRIBUTE_REPARSE_POINT
    return stat.S_ISLNK(seen.st_mode) or bool(reparse)
