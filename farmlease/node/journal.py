"""What a node must still know after ``kill -9``: who it is, its open sessions, receipts, and what it owes the store.

Guaranteed: what was written before an answer was given is there after the agent was killed. Not guaranteed: the last
moments before the *host* lost power (write-ahead log, synchronised at checkpoints); a reboot ends all sessions anyway.

Bodies are opaque here: the agent seals them before they come and opens them when it reads. A journal is one file in
the state folder, for its owner only, and belongs to one agent at a time.
"""

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from farmlease.errors import AlreadyRunning, JournalFailed, JournalRejected
from farmlease.node.incarnation import boot_marker, new_incarnation, same_boot

__all__ = ["Entry", "Journal", "Owed"]

_FORMAT = 1
#: Seconds to wait for somebody else who writes to the file (nobody should): the whole agent waits with it.
_PATIENCE = 0.5
_TABLES = """
CREATE TABLE IF NOT EXISTS node (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS document (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, state TEXT NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS receipt (user TEXT, pool TEXT, body BLOB NOT NULL, PRIMARY KEY (user, pool)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS owed (number INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS owed_of ON owed (session);
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """An open session: its id, its state by name, and its sealed body."""

    id: str
    state: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Owed:
    """Something the store has yet to be told, in order of ``number``; its sealed body says what."""

    number: int
    session: str
    body: bytes


class Journal:
    """An open journal. ``incarnation`` is this life of the node; ``previous`` are earlier ones, ended by reboots.

    Every method that reads or writes raises JournalFailed where that cannot be done now.
    """

    def __init__(self, database: sqlite3.Connection, lock: FileLock) -> None:
        self._database = database
        self._lock = lock
        self.incarnation, self.previous = self._identify()
        #: Whether the node was told to take no new users.
        self.draining = bool(self._rows("SELECT 1 FROM node WHERE name = 'draining'"))

    @classmethod
    def open(cls, folder: Path) -> "Journal":
        """Open the journal of a state folder, making both if need be; the folder is its owner's alone from then on.

        AlreadyRunning if an agent has it; JournalRejected if the file is damaged, readable by others, or of a format
        this version does not know; JournalFailed if the disk refuses. A refused file is left as it is.
        """
        lock = FileLock(folder / "agent.lock", mode=0o600)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            lock.acquire(blocking=False)
        except Timeout:
            raise AlreadyRunning(
                f"another agent runs on {folder}; stop it, or give this one its own state_dir"
            ) from None
        except OSError as error:
            raise JournalFailed(
                f"cannot use state_dir {folder} ({error.strerror}); correct it or its rights"
            ) from error
        try:
            database = _open_database(folder / "journal.sqlite")
            try:
                return cls(database, lock)
            except BaseException:
                database.close()
                raise
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Give the folder back."""
        self._database.close()
        self._lock.release()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write everything inside or nothing of it."""
        self._rows("BEGIN IMMEDIATE")
        try:
            yield
            self._rows("COMMIT")
        except BaseException:
            # A failed write may have ended the transaction; one left open would swallow all that is written later.
            if self._database.in_transaction:
                self._rows("ROLLBACK")
            raise

    def forget_previous(self) -> None:
        """Drop the lives before the last boot: the store has ended their sessions."""
        self._rows("DELETE FROM node WHERE name = 'previous'")
        self.previous = ()

    def drain(self, *, on: bool) -> None:
        """Remember that the node takes no new users, or that it takes them again."""
        self._rows("REPLACE INTO node VALUES ('draining', '')" if on else "DELETE FROM node WHERE name = 'draining'")
        self.draining = on

    def writes(self) -> bool:
        """Whether the journal can be written now: one small write tells."""
        try:
            self._rows("REPLACE INTO node VALUES ('written', '')")
        except JournalFailed:
            return False
        return True

    def document(self, name: str) -> bytes | None:
        """Return a document that was kept under this name."""
        return self._body("SELECT body FROM document WHERE name = ?", name)

    def write_document(self, name: str, body: bytes) -> None:
        """Keep a document, over the older one of the same name."""
        self._rows("REPLACE INTO document VALUES (?, ?)", name, body)

    def entries(self) -> list[Entry]:
        """Every open session."""
        return [Entry(*row) for row in self._rows("SELECT id, state, body FROM session")]

    def write_entry(self, entry: Entry) -> None:
        """Write a session, over an older entry of the same id."""
        self._rows("REPLACE INTO session VALUES (?, ?, ?)", entry.id, entry.state, entry.body)

    def remove_entry(self, session: str) -> None:
        """Forget a session."""
        self._rows("DELETE FROM session WHERE id = ?", session)

    def receipt(self, user: str, pool: str) -> bytes | None:
        """Return the receipt of a user (by index) in a pool."""
        return self._body("SELECT body FROM receipt WHERE user = ? AND pool = ?", user, pool)

    def write_receipt(self, user: str, pool: str, body: bytes) -> None:
        """Keep a receipt, over the older one of the same user and pool."""
        self._rows("REPLACE INTO receipt VALUES (?, ?, ?)", user, pool, body)

    def remove_receipt(self, user: str, pool: str) -> None:
        """Forget a receipt."""
        self._rows("DELETE FROM receipt WHERE user = ? AND pool = ?", user, pool)

    def receipts(self, pool: str) -> list[str]:
        """Whose receipts of a pool there are, by user index."""
        return [user for (user,) in self._rows("SELECT user FROM receipt WHERE pool = ? ORDER BY user", pool)]

    def owe(self, session: str, body: bytes) -> None:
        """Note something the store must be told."""
        self._rows("INSERT INTO owed (session, body) VALUES (?, ?)", session, body)

    def next_owed(self, after: int) -> Owed | None:
        """Return the oldest of what the store has yet to be told, behind number ``after``."""
        rows = self._rows("SELECT number, session, body FROM owed WHERE number > ? ORDER BY number LIMIT 1", after)
        return Owed(*rows[0]) if rows else None

    def owes(self, session: str | None = None) -> int:
        """How much the store has yet to be told: about one session, or in all."""
        if session is None:
            ((count,),) = self._rows("SELECT count(*) FROM owed")
        else:
            ((count,),) = self._rows("SELECT count(*) FROM owed WHERE session = ?", session)
        return int(count)

    def settle(self, number: int) -> None:
        """Strike off what has been told."""
        self._rows("DELETE FROM owed WHERE number = ?", number)

    def _body(self, question: str, *values: str) -> bytes | None:
        rows = self._rows(question, *values)
        return bytes(rows[0][0]) if rows else None

    def _rows(self, statement: str, *values: object) -> list[Any]:
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise JournalFailed(f"the journal does not work ({error}); look at the disk of state_dir") from error

    def _identify(self) -> tuple[str, tuple[str, ...]]:
        """Return this incarnation and those whose sessions a reboot ended, written down before anybody is told."""
        known = dict(self._rows("SELECT name, value FROM node"))
        marker = boot_marker()
        previous = tuple(known.get("previous", "").split())
        if "incarnation" in known and same_boot(known["boot"], marker):
            return known["incarnation"], previous
        incarnation = new_incarnation()
        if "incarnation" in known:
            previous = (*previous, known["incarnation"])
        with self.together():
            for row in {"incarnation": incarnation, "boot": marker, "previous": " ".join(previous)}.items():
                self._rows("REPLACE INTO node VALUES (?, ?)", *row)
            # Those sessions died with the boot, but their files may still lie here: the agent ends them in due form.
            self._rows("UPDATE session SET state = 'ending'")
        return incarnation, previous


def _open_database(path: Path) -> sqlite3.Connection:
    try:
        # Made with its final rights before SQLite fills it: never readable by others, not even for a moment.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        _refuse_wide(path)
        database = sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE)
    except OSError as error:
        raise JournalFailed(f"cannot open {path} ({error.strerror}); correct its rights") from error
    try:
        _prepare(path, database)
    except BaseException as error:
        database.close()
        if isinstance(error, sqlite3.OperationalError):  # the disk's fault, not the file's
            raise JournalFailed(f"cannot open {path} ({error}); look at its disk") from error
        if isinstance(error, sqlite3.DatabaseError):
            raise JournalRejected(_damaged(path)) from error
        raise
    return database


def _prepare(path: Path, database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    if database.execute("PRAGMA quick_check").fetchone() != ("ok",):
        raise JournalRejected(_damaged(path))
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version not in {0, _FORMAT}:
        raise JournalRejected(f"{path} was written by another version of farmlease (format {version}); use that one")
    if version == 0:
        database.executescript(_TABLES)
        database.execute(f"PRAGMA user_version = {_FORMAT}")


def _refuse_wide(path: Path) -> None:
    if sys.platform != "win32" and path.stat().st_mode & 0o077:
        raise JournalRejected(f"{path} can be read by others; find out who did that, then `chmod 600 {path}`")


def _damaged(path: Path) -> str:
    return f"{path} is damaged; keep a copy, move it away and start the agent again"
