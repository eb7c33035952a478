"""A journal on its bad days: what is not the one this node left here is kept as it is, and the agent starts anyway."""

import json
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from farmlease.domain.health import Status, health
from farmlease.errors import JournalFailed, JournalRejected
from farmlease.node.host_identity import HostIdentity, boot_marker, machine_marker
from farmlease.node.journal import sqlite
from farmlease.node.journal.integrity import Mark, ReportedMark
from farmlease.node.journal.journal import Journal
from farmlease.node.journal.state_folder import FILE
from tests.support.journals import NODE, ROOT, opened
from tests.support.nodes import JOHN, Site, booted
from tests.support.stores import HOUR

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 and modes are POSIX's")
pytestmark = POSIX

PARTS = ("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm")
KILLED = """
import os, signal, sys
from pathlib import Path
from farmlease.node.journal.journal import UseRow
from tests.support.journals import opened
journal = opened(Path(sys.argv[1]))
for number in range(300):
    journal.write_use(UseRow(str(number), "named", "active", bytes(500)))
    journal.add_message(str(number), "named", b"debt")
    journal.write_receipt(f"user {number}", "qlikview", bytes(100))
    if number % 100 == 99:
        journal.writes()
print(journal.incarnation)
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A state folder as a killed agent leaves it, its last writes still in the write-ahead log, and the agent's life."""
    folder = tmp_path_factory.mktemp("killed") / "state"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert -signal.SIGKILL == killed.returncode, killed.stderr
    return folder, killed.stdout.strip()


@pytest.fixture
def folder(left: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of that folder, for this test to damage."""
    return shutil.copytree(left[0], tmp_path / "state")


@pytest.fixture
def life(left: tuple[Path, str]) -> str:
    """The killed agent's life."""
    return left[1]


def contents(folder: Path) -> dict[str, bytes]:
    """The parts of a journal that hold something, byte for byte."""
    parts = (folder / part for part in PARTS[:2])
    return {part.name: part.read_bytes() for part in parts if part.exists() and part.stat().st_size}


def only_kept(folder: Path) -> Path:
    """The one thing that is kept."""
    (kept,) = (folder / "kept").iterdir()
    return kept


def fault(folder: Path) -> str:
    """Why the journal was refused; '' if it was not."""
    return only_kept(folder).name.partition("Z-journal-")[2] if (folder / "kept").exists() else ""


def edit(folder: Path, **rows: str) -> None:
    """Change what a journal says of its node, leaving no write-ahead log behind."""
    with closing(sqlite3.connect(folder / "journal.sqlite", isolation_level=None)) as connection:
        for row in rows.items():
            connection.execute("REPLACE INTO node VALUES (?, ?)", row)


def look(journal: Journal) -> tuple[str, tuple[str, ...], int, int]:
    """The life of an open journal, those that are over, and how much it holds; closes it."""
    found = journal.incarnation, journal.previous, len(journal.uses()), journal.message_count()
    journal.close()
    return found


# --- a right one is never refused -----------------------------------------------------------------------------------------


def test_what_a_killed_agent_left_is_adopted(folder: Path, life: str) -> None:
    """L7: with its last writes still in the log, and though the folder was moved to another disk."""
    assert (folder / "journal.sqlite-wal").stat().st_size
    assert (life, (), 300, 300) == look(opened(folder))
    assert "" == fault(folder)


@pytest.mark.parametrize("mark", [None, b"", b"{", b"[]", b"{}", b"\xff", b'{"node": 1}'])
def test_a_mark_that_says_nothing_accuses_nobody(folder: Path, life: str, mark: bytes | None) -> None:
    """The mark beside the journal may be missing, torn or anything: the journal is right all the same."""
    (folder / "journal.mark").unlink()
    if mark is not None:
        (folder / "journal.mark").write_bytes(mark)
    assert (life, ()) == look(opened(folder))[:2]
    assert Mark.read(folder / "journal.mark") is not None


@pytest.mark.parametrize("lag", [0, 1, 1_000_000])
def test_killed_between_journal_and_mark(folder: Path, life: str, lag: int) -> None:
    """The journal is written first: a mark that lags behind, by one state or by many, is no reason to refuse it."""
    mark = Mark.read(folder / "journal.mark")
    assert mark is not None
    replace(mark, generation=mark.generation - lag).write(folder / "journal.mark")
    assert (life, ()) == look(opened(folder))[:2]


@pytest.mark.parametrize(
    ("place", "call"),
    [
        ("Evidence.move", 1),
        *(("Path.rename", part) for part in (1, 2, 3)),
        *(("Journal._rows", number) for number in range(1, 12)),
        *(("Mark.write", number) for number in (1, 2)),
    ],
)
def test_killed_while_it_is_opened(folder: Path, life: str, place: str, call: int) -> None:
    """A start, also one that sets a journal aside, killed anywhere: the next one works and knows of the old life."""
    (folder / "journal.sqlite").write_bytes(b"garbage" * 5000)
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom itertools import count\n"
        "from farmlease.node.journal.journal import Journal\nfrom farmlease.node.journal.evidence import Evidence\n"
        "from farmlease.node.journal.integrity import Mark\nfrom tests.support.journals import opened\n"
        f"calls, real = count(1), {place}\n"
        "def deadly(*args, **more):\n"
        f"    if next(calls) == {call}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*args, **more)\n"
        f"{place} = deadly\nopened(Path(sys.argv[1])).close()\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(folder)], check=False, cwd=ROOT)
    assert -signal.SIGKILL == killed.returncode
    journal = opened(folder)
    assert life in journal.previous
    assert life != journal.incarnation
    first = journal.incarnation
    journal.close()
    assert first == look(opened(folder))[0]
    assert any(b"garbage" in path.read_bytes() for path in (folder / "kept").glob("*/journal.sqlite"))


def test_a_host_that_lost_its_power(folder: Path, life: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut the journal may be behind its mark: that is another boot, and accuses nobody."""
    with booted(monkeypatch):
        (folder / "journal.sqlite-wal").unlink()
        (folder / "journal.sqlite-shm").unlink()
        assert (life,) == look(opened(folder))[1]
    assert "" == fault(folder)


# --- damaged --------------------------------------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    """Cut it in the middle of a page."""
    os.truncate(path, path.stat().st_size // 2 + 100)


def overwritten(path: Path) -> None:
    """Write over some pages in the middle."""
    data = bytearray(path.read_bytes())
    data[8192:20480] = random.Random(1).randbytes(12288)  # noqa: S311 - damage, not secrets
    path.write_bytes(data)


def zeroed(path: Path) -> None:
    """Write zeros over the header."""
    data = path.read_bytes()
    path.write_bytes(bytes(4096) + data[4096:])


def garbage(path: Path) -> None:
    """Put anything in its place."""
    path.write_bytes(random.Random(2).randbytes(50_000))  # noqa: S311 - damage, not secrets


def header_only(path: Path) -> None:
    """Leave the first 16 bytes."""
    os.truncate(path, 16)


def another_program(path: Path) -> None:
    """Put another program's database in its place."""
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
        connection.commit()
    path.chmod(0o600)


@pytest.mark.parametrize("damage", [truncated, overwritten, zeroed, garbage, header_only, another_program])
def test_a_damaged_one_is_kept_and_the_agent_starts(folder: Path, life: str, damage: Callable[[Path], None]) -> None:
    """A new life begins on an empty journal, the old one is to be ended at once, and the evidence is as it was."""
    look(opened(folder))  # its log goes into the file
    damage(folder / "journal.sqlite")
    before = contents(folder)
    with capture_logs() as logs:
        new, previous, entries, owed = look(opened(folder))
    assert ((life,), 0, 0) == (previous, entries, owed)
    assert new != life
    kept = only_kept(folder)
    assert ("damaged", before) == (fault(folder), contents(kept))
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert [("journal.refused", "error", str(kept))] == [(one["event"], one["log_level"], one["kept"]) for one in logs]
    assert (new, 1) == (look(opened(folder))[0], len(list((folder / "kept").iterdir())))


@pytest.mark.parametrize("damage", [truncated, overwritten, zeroed, garbage, header_only])
def test_damage_under_a_log(folder: Path, damage: Callable[[Path], None]) -> None:
    """A damaged file with a log beside it is looked at without changing either, and both are kept together."""
    damage(folder / "journal.sqlite")
    before = contents(folder)
    journal = opened(folder)
    if fault(folder):  # else the log had every page that was damaged
        assert before == contents(only_kept(folder))
    assert journal.writes()
    journal.close()


@pytest.mark.parametrize("seed", range(60))
def test_any_damage_at_all(folder: Path, seed: int) -> None:
    """Whatever is written over or cut off anywhere: the agent starts, and what it starts with works."""
    chance = random.Random(seed)  # noqa: S311 - damage, not secrets
    path = folder / chance.choice(PARTS[:2])
    data = bytearray(path.read_bytes())
    if chance.random() < 0.3:
        del data[chance.randrange(len(data)) :]
    else:
        for _ in range(chance.choice([1, 8, 64])):
            at = chance.randrange(chance.choice([100, 4096, len(data)]))
            data[at : at + 8] = chance.randbytes(8)
    path.write_bytes(data)
    journal = opened(folder)
    with journal.together():
        journal.add_message("new", "named", b"debt")
        journal.write_document("policy", b"text")
    assert (True, b"text") == (journal.writes(), journal.document("policy"))
    assert all(isinstance(entry.body, bytes) for entry in journal.uses())
    journal.close()
    opened(folder).close()


@pytest.mark.parametrize("cut", [1, 100, 4096, 40_000])
def test_a_torn_log(folder: Path, life: str, cut: int) -> None:
    """SQLite itself drops the torn end of its log. If a heartbeat was in it, the journal is older than the last one seen."""
    log = folder / "journal.sqlite-wal"
    os.truncate(log, log.stat().st_size - cut)
    new, previous, _, _ = look(opened(folder))
    assert (life, (), "") == (new, previous, fault(folder)) or ((life,), "older") == (previous, fault(folder))


def test_rows_that_are_not_ours(folder: Path, life: str) -> None:
    """A file that is a sound database but whose rows are of another form is damaged, not a crash of the agent."""
    look(opened(folder))
    with closing(sqlite3.connect(folder / "journal.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE use SET body = 'text' WHERE session = '7'")
    assert ((life,), "damaged") == (look(opened(folder))[1], fault(folder))


@pytest.mark.parametrize("text", ["CAST(X'ff' AS TEXT)", "5.5", "X'00'"])
def test_text_that_is_none(folder: Path, text: str) -> None:
    """A name that is no text is damage as well."""
    look(opened(folder))
    with closing(sqlite3.connect(folder / "journal.sqlite", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE other (session, pool, state TEXT NOT NULL, body BLOB NOT NULL)")
        connection.execute(f"INSERT INTO other VALUES ({text}, 'named', 'active', X'00')")  # noqa: S608 - of this test
        connection.execute("DROP TABLE use")
        connection.execute("ALTER TABLE other RENAME TO use")
    look(opened(folder))
    assert "damaged" == fault(folder)


def test_a_disk_that_does_not_let_us_look(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk is no damage of the file: the journal stays where it is."""

    def fails(*_: object, **__: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(sqlite.sqlite3, "connect", fails)
        with pytest.raises(JournalFailed, match="look at its disk"):
            opened(folder)
    assert ("", 300) == (fault(folder), look(opened(folder))[2])


def test_one_of_a_later_version_stays(folder: Path) -> None:
    """Going back to an older farmlease is not damage: the agent refuses to start, and the journal is left as it is."""
    with closing(sqlite3.connect(folder / "journal.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 3")
    before = contents(folder)
    with pytest.raises(JournalRejected, match="run that version"):
        opened(folder)
    assert ("", before) == (fault(folder), contents(folder))


# --- something else in its place --------------------------------------------------------------------------------------------


def put(what: str, path: Path) -> None:
    """Put something that is no file in the place of one."""
    path.unlink(missing_ok=True)
    match what:
        case "pipe":
            os.mkfifo(path, 0o600)
        case "folder":
            path.mkdir(0o700)
        case "link":
            path.symlink_to(path.with_name("elsewhere"))


@pytest.fixture
def impatient() -> Iterator[None]:
    """A test that fails after some seconds, where it would wait for ever."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("what", ["pipe", "folder", "link"])
def test_what_is_no_file_is_moved_away(folder: Path, life: str, part: str, what: str) -> None:
    """Nobody waits for a writer that never comes, and nothing is written elsewhere by way of a link."""
    put(what, folder / part)
    state = sqlite.inspect_file(folder / FILE)
    assert state == sqlite.FileState(sound=False, replaced=True)
    assert ((life,), "replaced") == (look(opened(folder))[1], fault(folder))
    assert not (folder / "elsewhere").exists()
    assert (only_kept(folder) / part).is_symlink() or not (only_kept(folder) / part).is_file()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("what", ["pipe", "link"])
def test_a_mark_that_is_no_file(folder: Path, life: str, what: str) -> None:
    """It says nothing, and the next one takes its place."""
    put(what, folder / "journal.mark")
    assert life == look(opened(folder))[0]
    assert Mark.read(folder / "journal.mark") is not None
    assert not (folder / "elsewhere").exists()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("what", ["pipe", "link"])
def test_a_first_start_with_something_in_the_place(tmp_path: Path, what: str) -> None:
    """Also where no agent was before."""
    (tmp_path / "state").mkdir(0o700)
    put(what, tmp_path / "state" / FILE)
    opened(tmp_path / "state").close()
    assert "replaced" == fault(tmp_path / "state")


@pytest.mark.usefixtures("impatient")
def test_a_state_folder_that_is_none(tmp_path: Path) -> None:
    """The agent does not start, and says why."""
    os.mkfifo(tmp_path / "state")
    with pytest.raises(JournalFailed, match="cannot use state_dir"):
        opened(tmp_path / "state")


# --- gone, open to others, of another host --------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [PARTS, PARTS[:1], "emptied"])
def test_one_that_is_gone(folder: Path, life: str, gone: tuple[str, ...] | str) -> None:
    """A journal that was removed or emptied is missed: the mark beside it tells the life that is to be ended."""
    for part in PARTS:
        if gone == "emptied":
            os.truncate(folder / part, 0)
        elif part in gone:
            (folder / part).unlink()
    assert ((life,), "missing") == (look(opened(folder))[1], fault(folder))
    assert life in (only_kept(folder) / "last-seen").read_text()


def test_a_new_folder_misses_nothing(tmp_path: Path) -> None:
    """A first start is no bad day, nor is one that was killed before it had written anything."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal.sqlite").touch(0o600)
    look(opened(tmp_path / "state"))
    look(opened(tmp_path / "other"))
    assert ("", "") == (fault(tmp_path / "state"), fault(tmp_path / "other"))


@pytest.mark.parametrize("part", PARTS[:2])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_one_that_is_open_to_others(folder: Path, life: str, part: str, mode: int) -> None:
    """A journal with rights for others was touched by somebody: kept with these rights, where nobody else gets to it."""
    (folder / part).chmod(mode)
    assert ((life,), "exposed") == (look(opened(folder))[1], fault(folder))
    assert (mode, 0o700) == tuple(stat.S_IMODE(path.stat().st_mode) for path in (only_kept(folder) / part, folder))
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("journal.*")}


def test_a_wide_folder_is_closed(folder: Path, life: str) -> None:
    """Rights of the folder itself are mended: the files in it were nobody else's."""
    folder.chmod(0o755)
    assert life == look(opened(folder))[0]
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)


def test_a_node_that_was_renamed(folder: Path, life: str) -> None:
    """Its host has another name, and all else is the same: it goes on, and remembers how it was called."""
    look(opened(folder))
    journal = opened(folder, "ctx-02")
    assert (("ctx-01",), "ctx-01") == (journal.former, journal.sealed_for)
    assert (life, (), 300, 300) == look(journal)
    again = opened(folder, "ctx-02")
    assert (("ctx-01",), "ctx-01") == (again.former, again.sealed_for)
    look(again)
    assert ((), "ctx-01") == ((back := opened(folder, "ctx-01")).former[1:], back.sealed_for)
    assert (life, "") == (look(back)[0], fault(folder))


def test_a_copy_of_the_folder_under_another_name(folder: Path, life: str, tmp_path: Path) -> None:
    """L4: beside the agent that it was copied from, another one has a life of its own, on the same host too."""
    look(opened(folder))
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert (life, "") == (look(opened(folder))[0], fault(folder))
    assert () == look(opened(copy, "ctx-02"))[1]
    assert "foreign" == fault(copy)


def test_a_folder_that_was_moved(folder: Path, life: str, tmp_path: Path) -> None:
    """It is the same folder, whatever its name."""
    look(opened(folder))
    folder.rename(tmp_path / "moved")
    assert (life, "") == (look(opened(tmp_path / "moved", "ctx-02"))[0], fault(tmp_path / "moved"))


def test_another_name_on_another_boot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a clone. The old name may be another host's by now: nothing of it is ended."""
    with booted(monkeypatch) as reboot:
        reboot()
        assert () == look(opened(folder, "ctx-02"))[1]
    assert "foreign" == fault(folder)


def test_another_hosts_folder(folder: Path) -> None:
    """L4: a state folder copied to a host of the same name must not end the sessions of the one it was copied from."""
    (folder / "journal.mark").unlink()
    edit(folder, machine="0123456789abcdef")
    assert () == look(opened(folder))[1]
    assert "foreign" == fault(folder)


def test_another_hosts_journal(folder: Path, life: str) -> None:
    """Only the file came from elsewhere: this host's own life is known from the mark, and ended."""
    edit(folder, node="ctx-09", incarnation="0123456789ab")
    assert ((life,), "foreign") == (look(opened(folder))[1], fault(folder))


@pytest.mark.parametrize("theirs", ["", "0123456789abcdef"])
def test_a_system_that_cannot_tell_itself(
    folder: Path, life: str, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    """What tells systems apart may come or go with an update: what is not known accuses nobody."""
    edit(folder, machine=theirs)
    monkeypatch.setattr("farmlease.node.journal.journal.machine_marker", lambda: machine_marker() if not theirs else "")
    assert life == look(opened(folder))[0]


def test_machine_markers() -> None:
    """The same for all of this host's life, and not the id itself, which is nobody else's business."""
    assert machine_marker() == machine_marker()
    one = HostIdentity(node=NODE, machine="a", boot="1")
    asked = [(NODE, "a"), (NODE, ""), ("", ""), (NODE, "b"), ("ctx-02", "a")]
    assert [True, True, True, False, False] == [one.is_host_of(*each) for each in asked]


# --- older than the last one seen -----------------------------------------------------------------------------------------


def test_an_older_copy_put_back(folder: Path, life: str, tmp_path: Path) -> None:
    """Sessions have begun and ended since: the copy is not believed, and all the life held is ended at once."""
    copy = shutil.copytree(folder, tmp_path / "backup")
    journal = opened(folder)
    assert journal.writes()
    journal.close()
    for part in PARTS:
        (folder / part).unlink(missing_ok=True)
    for part in contents(copy):
        shutil.copy2(copy / part, folder / part)
    assert ((life,), "older") == (look(opened(folder))[1], fault(folder))


def test_the_file_without_its_log(folder: Path, life: str) -> None:
    """A copy of the file alone lacks what is in the log: that is an older journal, too."""
    (folder / "journal.sqlite-wal").unlink()
    (folder / "journal.sqlite-shm").unlink()
    assert ((life,), 0, 0) == look(opened(folder))[1:]
    assert "older" == fault(folder)


def test_a_refused_one_put_back(folder: Path, tmp_path: Path) -> None:
    """What was refused once does not come back by hand: the life that began then is the last one seen."""
    (folder / "journal.sqlite").chmod(0o644)
    journal = opened(folder)
    journal.close()
    for part in contents(only_kept(folder)):
        shutil.copy2(only_kept(folder) / part, folder / part)
    (folder / "journal.sqlite").chmod(0o600)
    shutil.rmtree(folder / "kept")
    assert journal.incarnation in look(opened(folder))[1]
    assert "older" == fault(folder)


def test_a_copy_that_is_right_for_another_boot(
    folder: Path, life: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a reboot all lives before are over anyway: the later one, known from the mark, is ended as well."""
    copy = shutil.copytree(folder, tmp_path / "backup")
    with booted(monkeypatch) as reboot:
        later = look(opened(folder))[0]
        (folder / "journal.sqlite").unlink()
        for part in contents(copy):
            shutil.copy2(copy / part, folder / part)
        reboot()
        assert {life, later} == set(look(opened(folder))[1])
    assert "" == fault(folder)


@pytest.mark.parametrize(
    ("node", "host", "later", "refused"),
    [
        (NODE, None, 1, "older"),
        (NODE, None, 0, ""),
        (NODE, None, -1, ""),
        (NODE, "", 1, ""),
        (NODE, "another host's", 1, ""),
        ("ctx-02", None, 1, ""),
    ],
)
def test_a_folder_that_was_turned_back_as_a_whole(
    folder: Path, life: str, node: str, host: str | None, later: int, refused: str
) -> None:
    """Mark and journal agree, and the store has heard more: of this node, on this host, booted as it is now."""
    mark = Mark.read(folder / "journal.mark")
    assert mark is not None
    here = HostIdentity(node=NODE, machine=machine_marker(), boot=boot_marker())
    reported = ReportedMark(node, here.digest if host is None else host, life, mark.generation + later)
    found = opened(folder, reported=(reported,))
    assert found.generation > reported.generation or not refused
    assert (life in look(found)[1], fault(folder)) == (bool(refused), refused)


def test_a_folder_that_was_removed_while_nothing_ran(tmp_path: Path) -> None:
    """The store has heard of a journal on this host: it is missed, and the life that it was of is ended."""
    here = HostIdentity(node=NODE, machine=machine_marker(), boot=boot_marker())
    reported = ReportedMark(NODE, here.digest, "0123456789ab", 5)
    assert ("0123456789ab",) == look(opened(tmp_path / "state", reported=(reported,)))[1]
    assert "missing" == fault(tmp_path / "state")


def test_what_tells_a_host() -> None:
    """Another after each boot and on each machine; nothing where neither is known for sure."""
    one = HostIdentity(node=NODE, machine="a", boot="1")
    others = (replace(one, machine="b"), replace(one, boot="2"))
    assert 3 == len({one.digest, *(each.digest for each in others)})
    assert one.digest == replace(one, node="ctx-02").digest
    assert "" == replace(one, machine="", boot="booted:17").digest
    assert "" != replace(one, machine="").digest


# --- what the agent makes of it -------------------------------------------------------------------------------------------


def test_health_until_somebody_looked(folder: Path) -> None:
    """Health warns, over restarts, until what was kept has been moved away."""
    garbage(folder / "journal.sqlite")
    opened(folder).close()
    journal = opened(folder)
    assert f"kept/{only_kept(folder).name}" == journal.refused
    shutil.move(only_kept(folder), folder.parent)
    assert None is journal.refused
    journal.close()


def test_a_look_leaves_nothing_behind(tmp_path: Path) -> None:
    """Who examines a host whose agent is not running finds the folder as it was afterwards: SQLite would add a log."""
    folder = tmp_path / "state"
    opened(folder).close()
    before = sorted(folder.iterdir())
    state = sqlite.inspect_file(folder / FILE)
    assert (True, before) == (state is not None and state.sound, sorted(folder.iterdir()))


async def test_a_farm_with_a_damaged_journal(site: Site) -> None:
    """The agent starts, the lost life's sessions end at the first heartbeat, and the same user starts anew at once."""
    host = site.host()
    await host.granted(JOHN)
    host.kill()
    garbage(host.folder / "state" / "journal.sqlite")
    host.boot()
    found = health(host.agent.facts())
    (check,) = (check for check in found.checks if check.name == "journal")
    assert Status.WARN is check.status
    assert "move kept/" in check.output
    await host.beat()
    assert [] == await site.sessions()
    await host.granted(JOHN)
    assert [("ctx-01", "7")] == await site.sessions()


async def test_a_farm_with_an_older_journal(site: Site, tmp_path: Path) -> None:
    """L3, L4: put back, it would end the session that has the id by now and bring back the one that is over."""
    host = site.host()
    state = host.folder / "state"
    await host.granted(JOHN)
    host.line.cut.add("*")
    await host.end()
    host.kill()
    copy = shutil.copytree(state, tmp_path / "backup")
    host.line.cut.clear()
    host.boot()
    await host.beat()
    await host.granted(JOHN)
    host.kill()
    for part in PARTS:
        (state / part).unlink(missing_ok=True)
    shutil.copy2(copy / "journal.sqlite", state / "journal.sqlite")
    host.boot()
    assert ({}, 0) == (host.states, host.agent.facts().owed)
    site.timed.clock.advance(HOUR)
    await host.granted(JOHN)
    assert [("ctx-01", "7")] == await site.sessions()


def test_the_mark_says_nothing_secret(folder: Path) -> None:
    """The mark is the agent's alone, and names no user, session or system."""
    opened(folder).close()
    path = folder / "journal.mark"
    assert {"node", "machine", "boot", "incarnation", "generation"} == set(json.loads(path.read_bytes()))
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
