"""The node's journal: nobody else's, never half, and honest about reboots."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmlease.errors import AlreadyRunning, JournalFailed, JournalRejected
from farmlease.node.host_identity import boot_marker, new_incarnation, same_boot
from farmlease.node.journal.journal import Journal, UseRow
from tests.support.journals import ROOT, opened
from tests.support.nodes import booted

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder that does not exist yet."""
    return tmp_path / "state"


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    """An open journal."""
    journal = opened(folder)
    yield journal
    journal.close()


@POSIX
def test_nobody_else_can_read_it(folder: Path) -> None:
    """The folder is 0700 and every file in it 0600, whatever the umask, and though the folder was there before."""
    folder.mkdir(0o777)
    folder.chmod(0o777)
    before = os.umask(0)
    try:
        journal = opened(folder)
    finally:
        os.umask(before)
    journal.write_document("policy", b"x")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    journal.close()
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert {"journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm", "journal.mark", "agent.lock"} == set(modes)
    assert {0o600} == set(modes.values())


def test_one_agent_at_a_time(folder: Path, journal: Journal) -> None:
    """A second agent on the same folder is refused, and can start when the first has ended."""
    with pytest.raises(AlreadyRunning, match="another agent runs on"):
        opened(folder)
    journal.close()
    opened(folder).close()


def test_a_killed_agent_leaves_no_lock(folder: Path) -> None:
    """The lock ends with its process, however that ends; what was written before is there."""
    script = (
        "import os, sys; from pathlib import Path; from tests.support.journals import opened\n"
        "journal = opened(Path(sys.argv[1])); journal.add_message('7', 'named', b'debt'); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(folder)], check=False, cwd=ROOT)
    assert -signal.SIGKILL == killed.returncode
    journal = opened(folder)
    owed = journal.next_message(0)
    assert owed is not None
    assert (b"debt", 1) == (owed.body, journal.message_count())
    journal.close()


def test_one_of_a_later_version_is_refused(folder: Path) -> None:
    """A journal of a format this version does not know is not written to."""
    opened(folder).close()
    with sqlite3.connect(folder / "journal.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(JournalRejected, match="written by a later version of farmlease"):
        opened(folder)


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    """A state_dir that is a file is one clear error."""
    (tmp_path / "state").write_text("")
    with pytest.raises(JournalFailed, match="cannot use state_dir"):
        opened(tmp_path / "state")


def test_all_or_nothing(journal: Journal) -> None:
    """What is written together is there together, or not at all."""
    with journal.together():
        journal.write_receipt("john", "qlikview", b"1")
        journal.add_message("7", "named", b"debt")

    def fails() -> None:
        with journal.together():
            journal.write_receipt("john", "qlikview", b"2")
            journal.remove_message(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert (b"1", 1) == (journal.receipt("john", "qlikview"), journal.message_count("7"))


def test_a_full_disk_fails_one_write_and_not_those_after_it(folder: Path, journal: Journal) -> None:
    """A write that fails is an error of ours; nothing is left open that would swallow what is written later."""
    journal._rows("PRAGMA max_page_count = 20")

    def fill() -> None:
        with journal.together():
            journal.write_document("large", bytes(200_000))

    with pytest.raises(JournalFailed, match="look at the disk of state_dir"):
        fill()
    assert journal.writes()
    journal.add_message("7", "named", b"debt")
    journal.close()
    again = opened(folder)
    assert (1, None) == (again.message_count(), again.document("large"))
    again.close()


def test_debts_in_order(journal: Journal) -> None:
    """Debts are found oldest first, one at a time, also those that were noted meanwhile."""
    journal.add_message("7", "named", b"1")
    journal.add_message("8", "named", b"2")
    first = journal.next_message(0)
    assert first is not None
    journal.remove_message(first.number)
    journal.add_message("7", "named", b"3")
    second = journal.next_message(first.number)
    assert second is not None
    third = journal.next_message(second.number)
    assert third is not None
    assert [b"1", b"2", b"3"] == [first.body, second.body, third.body]
    assert (2, 1, 0) == (journal.message_count(), journal.message_count("8"), journal.message_count("9"))
    assert journal.next_message(third.number) is None


def test_what_is_remembered(folder: Path) -> None:
    """Sessions, receipts, documents and draining outlive the agent."""
    journal = opened(folder)
    journal.write_use(UseRow("7", "named", "active", b"body"))
    journal.write_document("policy", b"text")
    journal.drain(on=True)
    journal.close()
    again = opened(folder)
    assert ([UseRow("7", "named", "active", b"body")], b"text", True) == (
        again.uses(), again.document("policy"), again.draining,
    )  # fmt: skip
    again.drain(on=False)
    again.remove_use("7", "named")
    again.close()
    last = opened(folder)
    assert ([], False) == (last.uses(), last.draining)
    last.close()


def test_a_life_and_the_ones_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart is the same life; each reboot begins another, and the sixteen before it are remembered."""

    def life() -> tuple[str, tuple[str, ...]]:
        journal = opened(folder)
        journal.close()
        return journal.incarnation, journal.previous

    with booted(monkeypatch) as reboot:
        first, _ = life()
        assert (first, ()) == life()
        reboot()
        second, before = life()
        assert ((first,), (second, (first,))) == (before, life())
        reboot()
        third, before = life()
        assert (first, second) == before
        lives = [first, second, third]
        for _ in range(20):
            reboot()
            lives.append(life()[0])
        assert (lives[-1], tuple(lives[-17:-1])) == life()


def test_a_reboot_ends_every_session(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the journal says, the sessions of the old life are over; their files may still lie here."""
    with booted(monkeypatch) as reboot:
        journal = opened(folder)
        journal.write_use(UseRow("7", "named", "active", b"body"))
        journal.close()
        reboot()
        again = opened(folder)
        assert [UseRow("7", "named", "ending", b"body")] == again.uses()
        again.close()


def test_boot_markers() -> None:
    """One boot has one marker; boot times that a clock was corrected by are the same, and two kinds never are."""
    assert same_boot(boot_marker(), boot_marker())
    assert same_boot("booted:1000", "booted:1119")
    assert not same_boot("booted:1000", "booted:1120")
    assert not same_boot("booted:1000", "8c1a8ab4-5d0a-4a4b-a0ef-1f6c0a9d8d0a")
    assert new_incarnation() != new_incarnation()
