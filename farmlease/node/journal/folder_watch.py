"""Whether the files that an open journal writes to are still those in its state folder, and a copy where they are not.

A file that was removed or replaced while it is open is written to all the same, by a system that says nothing; what was
written would be lost with the agent. Only names and sizes are compared here, so a look costs little and never waits.
"""

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

from farmlease.node.journal.integrity import folder_marker
from farmlease.node.journal.sqlite import files_of
from farmlease.private_file import UNFINISHED

__all__ = ["FolderWatch", "write_copy"]


class FolderWatch:
    """The watch over the files of one open journal, as they are when it begins."""

    def __init__(self, journal: Path, lock: Path) -> None:
        self._lock = lock
        found = {path: _identity(path) for path in (*files_of(journal)[:2], lock)}
        self._seen = {path: identity for path, identity in found.items() if identity is not None}
        #: Bytes of each: what an open journal is written to only grows, so a shorter one was cut by somebody else.
        self._sizes = dict.fromkeys(self._seen, 0)

    def missing(self) -> Path | None:
        """Return a file that is not there any more, not the same one, or shorter than it was; None if all are whole."""
        return next((path for path in self._seen if not self._has(path)), None)

    @property
    def has_lock(self) -> bool:
        """Whether the lock is the one that this agent took: else another agent may have the folder."""
        return self._lock not in self._seen or self._has(self._lock)

    @property
    def has_journal(self) -> bool:
        """Whether all parts of the journal are there."""
        return all(self._has(path) for path in self._seen if path != self._lock)

    def _has(self, path: Path) -> bool:
        if _identity(path) != self._seen[path]:
            return False
        size = 0 if path == self._lock else path.lstat().st_size
        if size < self._sizes[path]:
            return False
        self._sizes[path] = size
        return True


def write_copy(connection: sqlite3.Connection, path: Path) -> Path:
    """Write all that an open journal holds into a file beside ``path``, whatever became of its own; return that file.

    The copy names the folder that it lies in. Raises ``OSError`` and ``sqlite3.Error``.
    """
    copy = path.with_name(f"{UNFINISHED}{path.name}")
    for part in files_of(copy):
        part.unlink(missing_ok=True)
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    with closing(sqlite3.connect(copy, isolation_level=None)) as target:
        connection.backup(target)
        target.execute("REPLACE INTO node VALUES ('folder', ?)", (folder_marker(path.parent),))
    return copy


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a regular file from every other; an open one keeps it. None if none can be seen there."""
    try:
        status = path.lstat()
    except OSError:  # a disk that fails looks the same: what is then tried fails in its own words
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None
