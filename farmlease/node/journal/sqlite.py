"""The journal's file as SQLite sees it: opened, looked at without touching it, and its errors in our own words.

The only user of SQLite. A look must never change the file: what turns out to be damaged is evidence.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farmlease.errors import JournalFailed, JournalRejected

__all__ = ["Database", "Glance", "files_of", "glance_at"]

_FORMAT = 1
#: Seconds to wait for somebody else who writes to the file (nobody should): the whole agent waits with it.
_PATIENCE = 0.5
#: Table, then its columns that hold text; what a row is about stands in ``body``.
_TEXTS = {
    "node": ("name", "value"),
    "document": ("name",),
    "session": ("id", "state"),
    "receipt": ("user", "pool"),
    "owed": ("session",),
}
_TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE node (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE document (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE session (id TEXT PRIMARY KEY, state TEXT NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE receipt (user TEXT, pool TEXT, body BLOB NOT NULL, PRIMARY KEY (user, pool)) WITHOUT ROWID;
CREATE TABLE owed (number INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX owed_of ON owed (session);
PRAGMA user_version = {_FORMAT};
COMMIT;
"""
#: What SQLite says where not the file is at fault but the disk, its rights, or somebody else who has it open.
_NOT_THE_FILE = frozenset(
    {
        sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_AUTH,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Glance:
    """What a look found: whether the file is a whole journal, and what it says of its node as far as that opens."""

    sound: bool
    node: dict[str, str] = field(default_factory=dict)


class Database:
    """An open journal file, made if there was none. JournalFailed if the disk refuses, now or later."""

    def __init__(self, path: Path) -> None:
        #: False from the first statement that fails until whoever tries anew says otherwise.
        self.works = True
        try:
            # Made with its final rights before SQLite fills it: never readable by others, not even for a moment.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE)
        except OSError as error:
            raise JournalFailed(f"cannot open {path} ({error.strerror}); correct its rights") from error
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            if _version(self._connection) == 0:
                self._connection.executescript(_TABLES)
        except BaseException as error:
            self._connection.close()
            if isinstance(error, sqlite3.Error):
                raise JournalFailed(f"cannot open {path} ({error}); look at its disk") from error
            raise

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write everything inside or nothing of it."""
        self.rows("BEGIN IMMEDIATE")
        try:
            yield
            self.rows("COMMIT")
        except BaseException:
            # A failed write may have ended the transaction; one left open would swallow all that is written later.
            if self._connection.in_transaction:
                self.rows("ROLLBACK")
            raise

    def rows(self, statement: str, *values: object) -> list[Any]:
        """Carry out one statement and return what it finds."""
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self.works = False
            raise JournalFailed(f"the journal does not work ({error}); look at the disk of state_dir") from error


def files_of(path: Path) -> tuple[Path, ...]:
    """Return where the parts of a journal lie: the file, and what SQLite keeps beside it while it is open."""
    return (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm"))


def glance_at(path: Path) -> Glance | None:
    """Look at a journal without changing it; None if nothing was ever written to it.

    JournalRejected if a later version of farmlease wrote it, JournalFailed if the disk does not let us look.
    """
    if not any(part.exists() and part.stat().st_size for part in files_of(path)[:2]):
        return None
    if not path.exists():
        return Glance(sound=False)
    node: dict[str, str] = {}
    # Without a log there is nobody who writes, and a look as at any other file leaves none behind.
    still = "" if files_of(path)[1].exists() else "&immutable=1"
    where = f"{path.resolve().as_uri()}?mode=ro{still}"
    try:
        with closing(sqlite3.connect(where, uri=True, timeout=_PATIENCE)) as connection:
            version = _version(connection)
            if version > _FORMAT:
                raise JournalRejected(
                    f"{path} was written by a later version of farmlease (format {version}); run that version"
                )
            if version == 0 and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return None
            with suppress(sqlite3.DatabaseError):
                node = {str(name): str(value) for name, value in connection.execute("SELECT name, value FROM node")}
            return Glance(version == _FORMAT and _is_whole(connection), node)
    except sqlite3.Error as error:
        # Without a code it was Python that could not make text of what it read.
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _NOT_THE_FILE:
            raise JournalFailed(f"cannot look at {path} ({error}); look at its disk and its rights") from error
        return Glance(sound=False, node=node)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _is_whole(connection: sqlite3.Connection) -> bool:
    """Whether every page and every row can be read as what it should be."""
    if connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
        return False
    for table, columns in _TEXTS.items():
        for row in connection.execute(f"SELECT {', '.join(columns)} FROM {table}"):  # noqa: S608 - names of ours
            if not all(isinstance(value, str) for value in row):
                return False
    bodies = (table for table in _TEXTS if table != "node")
    wrong = (f"SELECT 1 FROM {table} WHERE typeof(body) != 'blob'" for table in bodies)  # noqa: S608 - names of ours
    return connection.execute(" UNION ALL ".join(wrong)).fetchone() is None
