"""Whether the files that an open journal writes to are still those in its state folder.

A file that was removed or replaced while it is open is written to all the same, by a system that says nothing; what was
written would be lost with the agent. Only names are compared here, so a look costs little and never waits.
"""

import stat
from pathlib import Path

from farmlease.node.journal.sqlite import files_of

__all__ = ["FolderWatch"]


class FolderWatch:
    """The watch over the files of one open journal, as they are when it begins."""

    def __init__(self, journal: Path, lock: Path) -> None:
        found = {path: _identity(path) for path in (*files_of(journal)[:2], lock)}
        self._seen = {path: identity for path, identity in found.items() if identity is not None}

    def missing(self) -> Path | None:
        """Return a file that is not there any more, or not the same one; None if all are."""
        return next((path for path, seen in self._seen.items() if _identity(path) != seen), None)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a regular file from every other; an open one keeps it. None if there is none."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None
