"""The files of an open journal stay in its state folder, whatever becomes of them there."""

import shutil
import sys
from pathlib import Path

import pytest

from farmlease.node.journal.state_folder import FILE, MARK
from tests.support.journals import NODE, opened

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no file that is open")


def test_a_folder_that_was_removed_is_written_anew(tmp_path: Path) -> None:
    """All that the journal holds lies there again, as the journal of this folder: a renamed host goes on with it."""
    folder = tmp_path / "state"
    journal = opened(folder)
    journal.write_receipt("user", "pool", b"body")
    shutil.rmtree(folder)
    assert FILE == journal.displaced
    assert journal.writes()
    assert (None, FILE) == (journal.displaced, journal.put_back)
    journal.close()
    renamed = opened(folder, node="other")
    assert ((NODE,), journal.incarnation) == (renamed.former, renamed.incarnation)
    assert b"body" == renamed.receipt("user", "pool")
    renamed.close()


def test_what_lies_in_the_place_of_the_journal_is_kept(tmp_path: Path) -> None:
    """A stranger's file is moved to the evidence, unchanged."""
    folder = tmp_path / "state"
    journal = opened(folder)
    (folder / FILE).unlink()
    (folder / FILE).write_text("strange")
    assert journal.writes()
    (kept,) = folder.glob(f"kept/*strange-journal*/{FILE}")
    assert "strange" == kept.read_text()
    journal.close()


def test_a_folder_that_was_turned_back_is_noticed_by_its_mark(tmp_path: Path) -> None:
    """An older mark under an open journal: the next agent is not to believe what lies beside it."""
    folder = tmp_path / "state"
    journal = opened(folder)
    older = (folder / MARK).read_bytes()
    journal.writes()
    (folder / MARK).write_bytes(older)
    assert None is journal.displaced
    journal.writes()
    assert MARK == journal.displaced
    journal.close()
    assert journal.incarnation != opened(folder).incarnation
