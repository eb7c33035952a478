"""The journal's file as SQLite sees it: its tables, how it is opened, and how it is inspected without a change.

An inspection must never change the file: what turns out to be damaged is evidence.
"""

import os
import sqlite3
import stat
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from farmlease.errors import JournalFailed, JournalRejected

__all__ = ["FileState", "files_of", "inspect_file", "open_file", "parts_of"]

#: 2: a session has one row for each pool it uses, and what was taken back is kept. Format 1 (0.1.0) had one row for
#: each session.
_FORMAT = 2
#: Seconds to wait for another process that writes to the file (none should): the whole agent waits with it.
_PATIENCE = 0.5
#: By format: each table with its columns that hold text; the content of a row is in ``body``.
_SAME = {"node": ("name", "value"), "document": ("name",), "receipt": ("user", "pool")}
_TEXTS = {
    1: _SAME | {"session": ("id", "state"), "owed": ("session",)},
    _FORMAT: _SAME | {"use": ("session", "pool", "state"), "owed": ("session", "pool"), "tombstone": ("pool", "user")},
}
_USE = """\
CREATE TABLE use (
    session TEXT, pool TEXT, state TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (session, pool)
) WITHOUT ROWID;
"""
_TOMBSTONE = """\
CREATE TABLE tombstone (pool TEXT, user TEXT, body BLOB NOT NULL, PRIMARY KEY (pool, user)) WITHOUT ROWID;
"""
_TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE node (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE document (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
{_USE}
{_TOMBSTONE}
CREATE TABLE receipt (user TEXT, pool TEXT, body BLOB NOT NULL, PRIMARY KEY (user, pool)) WITHOUT ROWID;
CREATE TABLE owed (
    number INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL, body BLOB NOT NULL, pool TEXT NOT NULL DEFAULT ''
);
CREATE INDEX owed_of ON owed (session);
PRAGMA user_version = {_FORMAT};
COMMIT;
"""
#: Makes format 2 of format 1. The pool of an old row stands in its body, which only the tables above can open: ''.
_FROM_1 = f"""
BEGIN IMMEDIATE;
{_USE}
{_TOMBSTONE}
INSERT INTO use SELECT id, '', state, body FROM session;
DROP TABLE session;
ALTER TABLE owed ADD COLUMN pool TEXT NOT NULL DEFAULT '';
PRAGMA user_version = {_FORMAT};
COMMIT;
"""  # noqa: S608 - names of ours
#: SQLite's errors for which not the file is at fault but the disk, its rights, or another process that has it open.
_NOT_THE_FILE = frozenset(
    {
        sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_AUTH,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FileState:
    """What an inspection found: whether the file is a whole journal, and what could be read of its node.

    ``replaced``: a folder, a pipe, a link or a device is where a file belongs; it was not opened.
    """

    sound: bool
    node: dict[str, str] = field(default_factory=dict)
    replaced: bool = False


def open_file(path: Path) -> sqlite3.Connection:
    """Open a journal file, made if need be and brought to the present format. JournalFailed if the disk refuses.

    Statements are carried out at once (autocommit), unless the caller begins a transaction.
    """
    try:
        # Made with its final rights before SQLite fills it, so that others can read it at no moment.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE)
    except OSError as error:
        raise JournalFailed(f"cannot open {path} ({error.strerror}); correct its rights") from error
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        match _version(connection):
            case 0:
                connection.executescript(_TABLES)
            case 1:
                connection.executescript(_FROM_1)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise JournalFailed(f"cannot open {path} ({error}); look at its disk") from error
        raise
    return connection


def files_of(path: Path) -> tuple[Path, ...]:
    """Return where the parts of a journal lie: the file, and what SQLite keeps beside it while it is open."""
    return (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm"))


def parts_of(path: Path) -> tuple[Path, ...]:
    """Return the parts of a journal that are there, whatever they are."""
    return tuple(part for part in files_of(path) if part.is_symlink() or part.exists())


def inspect_file(path: Path) -> FileState | None:
    """Read a journal without changing it; None if nothing was ever written to it.

    JournalRejected if a later version of farmlease wrote it, JournalFailed if the disk does not let us read it.
    """
    if not all(stat.S_ISREG(part.lstat().st_mode) for part in parts_of(path)):  # a pipe would make us wait for ever
        return FileState(sound=False, replaced=True)
    if not any(part.exists() and part.stat().st_size for part in files_of(path)[:2]):
        return None
    if not path.exists():
        return FileState(sound=False)
    try:
        with closing(sqlite3.connect(_read_only(path), uri=True, timeout=_PATIENCE)) as connection:
            return _inspected(path, connection)
    except sqlite3.Error as error:
        if _is_damage(error):
            return FileState(sound=False)
        raise JournalFailed(f"cannot look at {path} ({error}); look at its disk and its rights") from error


def _inspected(path: Path, connection: sqlite3.Connection) -> FileState | None:
    version = _version(connection)
    if version > _FORMAT:
        raise JournalRejected(
            f"{path} was written by a later version of farmlease (format {version}); run that version"
        )
    if version == 0 and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return None
    node = _node(connection)
    try:
        sound = version in _TEXTS and _is_whole(connection, _TEXTS[version])
    except sqlite3.Error as error:
        if not _is_damage(error):
            raise
        sound = False
    return FileState(sound, node)


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is at fault. An error without a code is Python's, which could not make text of what it read."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _NOT_THE_FILE


def _read_only(path: Path) -> str:
    """Return the URI by which SQLite reads a file and leaves nothing beside it."""
    # Without a log there is no process that writes, and the file can be read as one that never changes.
    still = "" if files_of(path)[1].exists() else "&immutable=1"
    return f"{path.resolve().as_uri()}?mode=ro{still}"


def _node(connection: sqlite3.Connection) -> dict[str, str]:
    """Return what a journal says of its node, as far as that can be read."""
    with suppress(sqlite3.DatabaseError):
        return {str(name): str(value) for name, value in connection.execute("SELECT name, value FROM node")}
    return {}


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _is_whole(connection: sqlite3.Connection, tables: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether every page and every row can be read as what it should be."""
    if connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
        return False
    for table, columns in tables.items():
        for row in connection.execute(f"SELECT {', '.join(columns)} FROM {table}"):  # noqa: S608 - names of ours
            if not all(isinstance(value, str) for value in row):
                return False
    bodies = (table for table in tables if table != "node")
    wrong = (f"SELECT 1 FROM {table} WHERE typeof(body) != 'blob'" for table in bodies)  # noqa: S608 - names of ours
    return connection.execute(" UNION ALL ".join(wrong)).fetchone() is None
