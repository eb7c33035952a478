"""What a node must still know after ``kill -9``: its identity, its sessions and receipts, and messages to the store.

Guaranteed: what was written before an answer was given is there after the agent was killed. Not guaranteed: the last
moments before the *host* lost power (write-ahead log, synchronised at checkpoints); a reboot ends all sessions anyway.
A journal that is not the one this node left here is never used: ``integrity.py`` checks that. That its files stay where
they belong, ``state_folder.py`` sees to.

Bodies are opaque here: the tables above seal them before writing and open them after reading. A journal is one file in
the state folder, for its owner only, and belongs to one agent at a time.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from farmlease.errors import JournalFailed
from farmlease.node.host_identity import HostIdentity, boot_marker, machine_marker, new_incarnation, same_boot
from farmlease.node.journal.evidence import Evidence
from farmlease.node.journal.integrity import (
    KIND,
    JournalCheck,
    Mark,
    ReportedMark,
    check_journal,
    folder_marker,
    move_to_evidence,
)
from farmlease.node.journal.state_folder import StateFolder

__all__ = ["Journal", "OutboxRow", "UseRow"]

#: Tables with bodies that the agent sealed.
_SEALED = ("use", "receipt", "owed", "document", "tombstone")
#: Earlier incarnations that are remembered: an older copy of the store's data may have sessions of them.
_LIVES_KEPT = 16


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
        folder: StateFolder,
        here: HostIdentity,
        checked: JournalCheck,
        evidence: Evidence,
    ) -> None:
        #: Whether the last statement worked, or the last attempt to write since then.
        self.works = True
        self._connection = connection
        self._folder = folder
        self._here = here
        self._refused = evidence.list(KIND)
        self._generation = checked.generation
        known = dict(self._rows("SELECT name, value FROM node"))
        self.former = _former_names(known, checked.former, here.node)
        self.sealed_for: str = known.get("sealed_for") or known.get("node") or here.node
        self.incarnation, self.previous = self._identify(known, checked)
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
        taken = StateFolder(folder, evidence)
        try:
            here = HostIdentity(node=node, machine=machine_marker(), boot=boot_marker())
            mark = taken.read_mark()
            checked = check_journal(taken.journal, here, mark, now_ms, reported)
            if checked.fault is not None:
                move_to_evidence(taken.journal, checked, mark, evidence, now_ms)
            connection = taken.open()
            try:
                journal = cls(connection, taken, here, checked, evidence)
            except BaseException:
                connection.close()
                raise
        except BaseException:
            taken.release()
            raise
        return journal

    def close(self) -> None:
        """Close the file and release the folder."""
        self.writes()  # so that a copy made since the last heartbeat is older than the file left here
        self._connection.close()
        self._folder.release()

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
        return self._folder.displaced

    @property
    def put_back(self) -> str | None:
        """Which file was removed or replaced, and written anew since."""
        return self._folder.put_back

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
            self._connection = self._folder.replace_missing(self._connection, self._generation)
            self._rows("REPLACE INTO node VALUES ('generation', ?)", str(self._generation + 1))
        except JournalFailed:
            self.works = False
            return False
        self.works = True
        self._generation += 1
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
            "folder": folder_marker(self._folder.journal.parent),
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
        self._folder.leave_mark(Mark(**asdict(self._here), incarnation=incarnation, generation=self._generation))


def _former_names(known: Mapping[str, str], former: str, node: str) -> tuple[str, ...]:
    """Return the names that the node had in this life, the last one last."""
    names = dict.fromkeys([*json.loads(known.get("former", "[]")), former])
    return tuple(name for name in names if name and name != node)[-_LIVES_KEPT:]
