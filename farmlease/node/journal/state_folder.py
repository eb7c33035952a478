"""The state folder of one agent: its lock, and the files of its open journal, kept where they belong.

Guaranteed: one agent at a time has the folder, and a journal that was removed or replaced under the agent lies there
again, whole, after the next look. What was found in its place is kept. Not guaranteed: what was written since the last
look, if the agent is killed before the next one.

The mark beside the journal says which state it had last. An older one that appears there means that the folder was
turned back under the agent; then the marks left here run ahead of that journal, so that the next agent refuses it.
"""

import sqlite3
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog
from filelock import FileLock, Timeout

from farmlease.errors import AlreadyRunning, FileRefused, JournalFailed
from farmlease.node.journal.evidence import Evidence
from farmlease.node.journal.folder_watch import FolderWatch, write_copy
from farmlease.node.journal.integrity import Fault, Mark
from farmlease.node.journal.sqlite import open_file, parts_of

__all__ = ["FILE", "MARK", "StateFolder"]

FILE = "journal.sqlite"  #: in the state folder
MARK = "journal.mark"  #: beside it: which one it is

#: Kind of evidence: what was found in the place of an open journal.
_STRANGER = "strange-journal"

_log = structlog.get_logger(__name__)


class StateFolder:
    """A state folder, made if need be, for its owner only, and taken until ``release``.

    AlreadyRunning if another agent has it; JournalFailed if the disk refuses.
    """

    def __init__(self, folder: Path, evidence: Evidence) -> None:
        self.journal = folder / FILE
        self._mark = folder / MARK
        self._evidence = evidence
        self._lock = _locked(folder)
        self._watch: FolderWatch | None = None  # from the journal's opening to the release
        self._is_in_place = False  # what was removed lies there again, and could not be opened yet
        self._left: Mark | None = None  # the mark as this agent left it last; None: it could not
        self._turned_back = False
        #: Which file was removed or replaced, and written anew since.
        self.put_back: str | None = None

    @property
    def displaced(self) -> str | None:
        """Which file was removed, replaced or turned back under the agent: what is written now may be lost."""
        missing = self._missing()
        return missing.name if missing is not None else MARK if self._turned_back else None

    def open(self) -> sqlite3.Connection:
        """Open the journal, made if need be, and watch its files from then on. JournalFailed if the disk refuses."""
        connection = open_file(self.journal)
        self._watch = self._new_watch()
        return connection

    def replace_missing(self, connection: sqlite3.Connection, generation: int) -> sqlite3.Connection:
        """Write the open journal into its place anew if its files are not there; return the connection to go on with.

        ``generation``: the journal's present one; it names what is found in its place. JournalFailed if that cannot be
        done now: it may be tried again with the same connection.
        """
        missing = self._missing()
        if missing is None or self._watch is None:
            return connection
        try:
            if not self._watch.has_lock:
                lock = _locked(self.journal.parent)
                self._lock.release()
                self._lock = lock
            if not self._watch.has_journal:
                if not self._is_in_place:
                    self._replace(connection, generation)
                connection = open_file(self.journal)
                self._is_in_place = False
        except (AlreadyRunning, FileRefused, OSError, sqlite3.Error) as error:
            raise JournalFailed(f"{missing.name} was removed or replaced, and cannot be put back ({error})") from error
        self._watch = self._new_watch()
        self.put_back = missing.name
        _log.error("journal.put_back", was=missing.name)
        return connection

    def read_mark(self) -> Mark | None:
        """Return the mark that lies beside the journal; None if there is none that can be read."""
        return Mark.read(self._mark)

    def leave_mark(self, mark: Mark) -> None:
        """Leave a mark beside the journal, and notice one that somebody has put there."""
        found = self.read_mark()
        if None not in {found, self._left} and found != self._left and not self._turned_back:
            _log.error("journal.turned_back", mark=str(self._mark))
            self._turned_back = True
        # Ahead of a journal that was turned back under this agent: the next one is not to believe it.
        mark = replace(mark, generation=mark.generation + self._turned_back)
        with suppress(OSError):  # a mark that lags behind refuses no journal
            mark.write(self._mark)
            self._left = mark

    def release(self) -> None:
        """Let another agent have the folder; nothing is put back from then on."""
        self._watch = None
        self._lock.release()

    def _missing(self) -> Path | None:
        return self._watch.missing() if self._watch is not None else None

    def _new_watch(self) -> FolderWatch:
        return FolderWatch(self.journal, Path(self._lock.lock_file))

    def _replace(self, connection: sqlite3.Connection, generation: int) -> None:
        """Put a copy of an open journal into its place, and close the original, whose files nobody finds any more."""
        copy = write_copy(connection, self.journal)
        if found := parts_of(self.journal):
            self._evidence.move(_STRANGER, Fault.REPLACED, found, {}, generation)  # begins as a time
        copy.replace(self.journal)
        connection.close()  # before the other is opened: this removes a log by its name
        self._is_in_place = True


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
