"""What a node must still know after ``kill -9``: its identity, its sessions and receipts, and messages to the store.

Guaranteed: what was written before an answer was given is there after the agent was killed. Not guaranteed: the last
moments before the *host* lost power (write-ahead log, synchronised at checkpoints); a reboot ends all sessions anyway.
A journal that is not the one this node left here is never used: ``integrity.py`` checks that.

Bodies are opaque here: the tables above seal them before writing and open them after reading. A journal is one file in
the state folder, for its owner only, and belongs to one agent at a time.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog
from filelock import FileLock, Timeout

from farmlease.errors import AlreadyRunning, FileRefused, JournalFailed
from farmlease.node.host_identity import HostIdentity, boot_marker, machine_marker, new_incarnation, same_boot
from farmlease.node.journal.evidence import Evidence
from farmlease.node.journal.folder_watch import FolderWatch, write_copy
from farmlease.node.journal.integrity import (
    KIND,
    Fault,
    JournalCheck,
    Mark,
    ReportedMark,
    check_journal,
    folder_marker,
    move_to_evidence,
)
from farmlease.node.journal.sqlite import open_file, parts_of

__all__ = ["FILE", "MARK", "Journal", "OutboxRow", "UseRow"]

FILE = "journal.sqlite"  #: in the state folder
MARK = "journal.mark"  #: beside it: which one it is

#: Tables with bodies that the agent sealed.
_SEALED = ("use", "receipt", "owed", "document", "tombstone")


#: Earlier incarnations that are remembered: an older copy of the store's data may have sessions of them.
_LIVES_KEPT = 16
#: Kind of evidence: what was found in the place of an open journal.
_STRANGER = "strange-journal"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UseRow:
    """What an open session does with one pool: its state by name, and its sealed body.

    ``pool`` is empty in a row that 0.1.0 wrote: then it stands in the body alone.
    """

    session: str
    pool: str
    state: str
    body: bytes


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A message that the store has yet to take; messages are sent in the order of ``number``. The body is sealed."""

    number: int
    session: str
    pool: str  #: empty where 0.1.0 wrote it: then it stands in the body alone
    body: bytes


class Journal:
    """An open journal. ``incarnation``: this life of the node; ``previous``: the last ones before it, ended by reboots.

    ``former``: other names of the node in this life, for its host may be renamed. ``sealed_for``: the name for which
    bodies are sealed; it stays.

    Every method that reads or writes raises JournalFailed if the disk refuses.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        lock: FileLock,
        mark: Path,
        here: HostIdentity,
        checked: JournalCheck,
        evidence: Evidence,
    ) -> None:
        #: Whether the last statement worked, or the last attempt to write since then.
        self.works = True
        self._connection = connection
        self._lock = lock
        self._mark = mark
        self._here = here
        self._evidence = evidence
        self._refused = evidence.list(KIND)
        #: The mark as this agent left it last; None: it could not.
        self._left: Mark | None = None
        self._turned_back = False
        self._is_in_place = False  # what was removed lies there again, and could not be opened yet
        self._is_open = True
        #: Which file was removed or replaced, and written anew since.
        self.put_back: str | None = None
        self._generation = checked.generation
        known = dict(self._rows("SELECT name, value FROM node"))
        self.former = _former_names(known, checked.former, here.node)
        self.sealed_for: str = known.get("sealed_for") or known.get("node") or here.node
        self.incarnation, self.previous = self._identify(known, checked)
        self._watch = FolderWatch(mark.with_name(FILE), Path(lock.lock_file))
        #: Whether the node takes no new users.
        self.draining = bool(self._rows("SELECT 1 FROM node WHERE name = 'draining'"))

    @classmethod
    def open(
        cls, folder: Path, *, node: str, evidence: Evidence, now_ms: int, reported: Sequence[ReportedMark] = ()
    ) -> "Journal":
        """Open the journal of a state folder, making both if need be; the folder is its owner's alone from then on.

        A journal that is not the one this node left there is moved to ``evidence``, and a new one begins. ``now_ms``:
        this host's time. ``reported``: what the store remembers of the farm's nodes. AlreadyRunning if an agent has the
        folder; JournalRejected if a later version of farmlease wrote the journal: it is left as it is; JournalFailed if
        the disk refuses.
        """
        lock = _locked(folder)
        try:
            here = HostIdentity(node=node, machine=machine_marker(), boot=boot_marker())
            path, mark = folder / FILE, folder / MARK
            seen = Mark.read(mark)
            checked = check_journal(path, here, seen, now_ms, reported)
            if checked.fault is not None:
                move_to_evidence(path, checked, seen, evidence, now_ms)
            connection = open_file(path)
            try:
                journal = cls(connection, lock, mark, here, checked, evidence)
            except BaseException:
                connection.close()
                raise
        except BaseException:
            lock.release()
            raise
        return journal

    def close(self) -> None:
        """Close the file and release the folder."""
        self.writes()  # so that a copy made since the last heartbeat is older than the file left here
        self._is_open = False
        self._connection.close()
        self._lock.release()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make all writes inside one transaction: all of them last, or none."""
        self._rows("BEGIN IMMEDIATE")
        try:
            yield
            self._rows("COMMIT")
        except BaseException:
            # A failed write may have ended the transaction; one left open would hold back all later writes.
            if self._connection.in_transaction:
                self._rows("ROLLBACK")
            raise

    @property
    def host(self) -> str:
        """What tells this host, as it is booted now, from every other; empty if that is not known."""
        return self._here.digest

    @property
    def generation(self) -> int:
        """The number of the journal's state."""
        return self._generation

    @property
    def displaced(self) -> str | None:
        """Which file of the open journal was removed, replaced or turned back: what is written now may be lost."""
        missing = self._watch.missing()
        return missing.name if missing is not None else MARK if self._turned_back else None

    @property
    def refused(self) -> str | None:
        """Where a refused journal is kept, below the state folder; None once an administrator has moved it away."""
        found = next((path for path in self._refused if path.exists()), None)
        return None if found is None else f"{found.parent.name}/{found.name}"

    def drain(self, *, on: bool) -> None:
        """Remember that the node takes no new users, or that it takes them again."""
        self._rows("REPLACE INTO node VALUES ('draining', '')" if on else "DELETE FROM node WHERE name = 'draining'")
        self.draining = on

    def writes(self) -> bool:
        """Return whether the journal can be written now, by a small write that gives its state the next number.

        Where its files were removed or replaced, it is written into its place anew first.
        """
        try:
            self._put_back()
            self._rows("REPLACE INTO node VALUES ('generation', ?)", str(self._generation + 1))
        except JournalFailed:
            return False
        self.works = True
        self._generation += 1
        found = Mark.read(self._mark)
        if None not in {found, self._left} and found != self._left and not self._turned_back:
            _log.error("journal.turned_back", mark=str(self._mark))
            self._turned_back = True
        self._leave_mark(self.incarnation)
        return True

    def document(self, name: str) -> bytes | None:
        """Return the document of this name."""
        return self._body("SELECT body FROM document WHERE name = ?", name)

    def write_document(self, name: str, body: bytes) -> None:
        """Write a document, over the older one of the same name."""
        self._rows("REPLACE INTO document VALUES (?, ?)", name, body)

    def uses(self) -> list[UseRow]:
        """Every use of every open session."""
        return [UseRow(*row) for row in self._rows("SELECT session, pool, state, body FROM use")]

    def write_use(self, entry: UseRow) -> None:
        """Write a use, over the older one of the same session and pool."""
        self._rows("REPLACE INTO use VALUES (?, ?, ?, ?)", entry.session, entry.pool, entry.state, entry.body)

    def remove_use(self, session: str, pool: str) -> None:
        """Remove a use."""
        self._rows("DELETE FROM use WHERE session = ? AND pool = ?", session, pool)

    def receipt(self, user: str, pool: str) -> bytes | None:
        """Return the receipt of a user (by index) in a pool."""
        return self._body("SELECT body FROM receipt WHERE user = ? AND pool = ?", user, pool)

    def write_receipt(self, user: str, pool: str, body: bytes) -> None:
        """Write a receipt, over the older one of the same user and pool."""
        self._rows("REPLACE INTO receipt VALUES (?, ?, ?)", user, pool, body)

    def remove_receipt(self, user: str, pool: str) -> None:
        """Remove a receipt."""
        self._rows("DELETE FROM receipt WHERE user = ? AND pool = ?", user, pool)

    def receipts(self, pool: str) -> list[str]:
        """The user indexes of a pool's receipts."""
        return [user for (user,) in self._rows("SELECT user FROM receipt WHERE pool = ? ORDER BY user", pool)]

    def all_receipts(self) -> list[tuple[str, str]]:
        """User index and pool of every receipt."""
        return [(user, pool) for user, pool in self._rows("SELECT user, pool FROM receipt ORDER BY user, pool")]

    def tombstones(self) -> list[tuple[str, str, bytes]]:
        """Pool, user index and body of what is known to have been taken back."""
        rows = self._rows("SELECT pool, user, body FROM tombstone")
        return [(pool, user, bytes(body)) for pool, user, body in rows]

    def write_tombstones(self, pool: str, user: str, body: bytes) -> None:
        """Write what was taken back from a user (by index) in a pool, over what was known before."""
        self._rows("REPLACE INTO tombstone VALUES (?, ?, ?)", pool, user, body)

    def remove_tombstones(self, pool: str, user: str) -> None:
        """Remove what was taken back from a user in a pool."""
        self._rows("DELETE FROM tombstone WHERE pool = ? AND user = ?", pool, user)

    def sealed_with(self) -> dict[str, int]:
        """Count the bodies sealed with each key, by the key id in bytes 2 to 5; a body in clear has none."""
        bodies = " UNION ALL ".join(f"SELECT body FROM {table}" for table in _SEALED)  # noqa: S608 - names of ours
        sealed = f"SELECT hex(substr(body, 2, 4)) AS key FROM ({bodies}) WHERE substr(body, 1, 1) = x'01'"  # noqa: S608
        found = self._rows(f"SELECT key, count(*) FROM ({sealed}) GROUP BY key")  # noqa: S608 - the same
        return {key.lower(): int(count) for key, count in found}

    def add_message(self, session: str, pool: str, body: bytes) -> None:
        """Write a message for the store."""
        self._rows("INSERT INTO owed (session, pool, body) VALUES (?, ?, ?)", session, pool, body)

    def next_message(self, after: int) -> OutboxRow | None:
        """Return the oldest message with a number above ``after``."""
        rows = self._rows(
            "SELECT number, session, pool, body FROM owed WHERE number > ? ORDER BY number LIMIT 1", after
        )
        return OutboxRow(*rows[0]) if rows else None

    def message_count(self, session: str | None = None, pool: str | None = None) -> int:
        """Count the messages for the store: those about one session's use of a pool, about the session, or all."""
        if session is None:
            ((count,),) = self._rows("SELECT count(*) FROM owed")
        elif pool is None:
            ((count,),) = self._rows("SELECT count(*) FROM owed WHERE session = ?", session)
        else:
            ((count,),) = self._rows("SELECT count(*) FROM owed WHERE session = ? AND pool IN (?, '')", session, pool)
        return int(count)

    def replace_message(self, number: int, body: bytes) -> None:
        """Write another body for a message."""
        self._rows("UPDATE owed SET body = ? WHERE number = ?", body, number)

    def remove_message(self, number: int) -> None:
        """Remove a message that the store has taken."""
        self._rows("DELETE FROM owed WHERE number = ?", number)

    def _body(self, question: str, *values: str) -> bytes | None:
        rows = self._rows(question, *values)
        return bytes(rows[0][0]) if rows else None

    def _rows(self, statement: str, *values: object) -> list[Any]:
        """Execute one statement and return its rows."""
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self.works = False
            raise JournalFailed(f"the journal does not work ({error}); look at the disk of state_dir") from error

    def _identify(self, known: Mapping[str, str], checked: JournalCheck) -> tuple[str, tuple[str, ...]]:
        """Return this incarnation and the earlier ones, written down before they are used."""
        adopted = "incarnation" in known and same_boot(known["boot"], self._here.boot)
        incarnation = known["incarnation"] if adopted else new_incarnation()
        previous = tuple(life for life in checked.lives if life != incarnation)[-_LIVES_KEPT:]
        rows = {
            **asdict(self._here),
            "incarnation": incarnation,
            "previous": " ".join(previous),
            "generation": str(self._generation),
            "folder": folder_marker(self._mark.parent),
        }
        if self.former:
            rows |= {"former": json.dumps(self.former), "sealed_for": self.sealed_for}
        try:
            with self.together():
                for row in rows.items():
                    self._rows("REPLACE INTO node VALUES (?, ?)", *row)
                if not adopted:
                    # Those sessions died with the boot, but their files may still be on the disk: the agent ends
                    # each session in the usual way.
                    self._rows("UPDATE use SET state = 'ending'")
        except JournalFailed:
            if not adopted:
                raise
            # The disk is full: the sessions live by this agent's heartbeat, and the journal has them already.
        else:
            self._leave_mark(incarnation)
        return incarnation, previous

    def _leave_mark(self, incarnation: str) -> None:
        # Ahead of a journal that was turned back under this agent: the next one is not to believe it.
        generation = self._generation + self._turned_back
        mark = Mark(**asdict(self._here), incarnation=incarnation, generation=generation)
        with suppress(OSError):  # a mark that lags behind refuses no journal
            mark.write(self._mark)
            self._left = mark

    def _put_back(self) -> None:
        """Write the journal into its place anew, if its files are not there any more; what is there instead is kept."""
        missing = self._watch.missing() if self._is_open else None
        if missing is None:
            return
        path = self._mark.with_name(FILE)
        try:
            if not self._watch.has_lock:
                lock = _locked(path.parent)
                self._lock.release()
                self._lock = lock
            if not self._watch.has_journal:
                if not self._is_in_place:
                    copy = write_copy(self._connection, path)
                    if found := parts_of(path):
                        self._evidence.move(_STRANGER, Fault.REPLACED, found, {}, self._generation)  # begins as a time
                    copy.replace(path)
                    self._connection.close()  # before the other is opened: this removes a log by its name
                    self._is_in_place = True
                self._connection = open_file(path)
                self._is_in_place = False
                self._rows("REPLACE INTO node VALUES ('folder', ?)", folder_marker(path.parent))
        except (AlreadyRunning, FileRefused, OSError, sqlite3.Error) as error:
            self.works = False
            raise JournalFailed(f"{missing.name} was removed or replaced, and cannot be put back ({error})") from error
        self._watch = FolderWatch(path, Path(self._lock.lock_file))
        self.put_back = missing.name
        _log.error("journal.put_back", was=missing.name)


def _former_names(known: Mapping[str, str], former: str, node: str) -> tuple[str, ...]:
    """Return the names that the node had in this life, the last one last."""
    names = dict.fromkeys([*json.loads(known.get("former", "[]")), former])
    return tuple(name for name in names if name and name != node)[-_LIVES_KEPT:]


def _locked(folder: Path) -> FileLock:
    """Make the state folder, for its owner only, and return its lock, taken."""
    lock = FileLock(folder / "agent.lock", mode=0o600)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        lock.acquire(blocking=False)
    except Timeout:
        raise AlreadyRunning(f"another agent runs on {folder}; stop it, or give this one its own state_dir") from None
    except OSError as error:
        raise JournalFailed(f"cannot use state_dir {folder} ({error.strerror}); correct it or its rights") from error
    return lock
