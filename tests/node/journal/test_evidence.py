"""What is kept for inspection: never overwritten, never pushed out, never half."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from farmlease.errors import FileRefused, InvalidName
from farmlease.node.journal.evidence import USER_BYTES, USER_FILES, Evidence, as_label

NOW = 1_767_258_000_123  #: 2026-01-01 09:00:00.123 UTC


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Name a folder that does not exist yet."""
    return tmp_path / "state" / "kept"


@pytest.fixture
def kept(folder: Path) -> Evidence:
    """Keep things there."""
    return Evidence(folder)


def test_name_and_rights(kept: Evidence, folder: Path) -> None:
    """The name says when, why and of what; file and folder are the agent's alone, whatever the umask."""
    before = os.umask(0)
    try:
        path = kept.keep("rejected-record", "a1b2", b"\x00bytes", NOW)
    finally:
        os.umask(before)
    assert folder / "20260101T090000.123Z-rejected-record-a1b2" == path
    assert path.read_bytes() == b"\x00bytes"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert path.stat().st_nlink == 1


def test_a_wide_folder_is_narrowed(kept: Evidence, folder: Path) -> None:
    """A folder that others may list, as a restored backup leaves it, is closed before anything is written."""
    folder.mkdir(0o777, parents=True)
    folder.chmod(0o777)
    kept.keep("conflict", "x", b"1", NOW)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_never_overwrites(kept: Evidence) -> None:
    """Two different things of the same instant and name are two files."""
    paths = (kept.keep("conflict", "x", b"1", NOW), kept.keep("conflict", "x", b"2", NOW))
    assert [b"1", b"2"] == [path.read_bytes() for path in paths]
    assert paths == kept.list()


def test_the_same_is_kept_once(kept: Evidence) -> None:
    """The same bytes met again at every try do not fill the folder; of another label they are another thing."""
    first = kept.keep("conflict", "x", b"1", NOW)
    second = kept.keep("conflict", "x", b"2", NOW)
    assert first == kept.keep("conflict", "x", b"1", NOW + 60_000)
    assert second == kept.keep("conflict", "x", b"2", NOW + 60_000)
    assert first != kept.keep("conflict", "y", b"1", NOW)
    assert len(kept.list()) == 3


def test_list_is_oldest_first(kept: Evidence) -> None:
    """The list follows time, and is empty before anything was kept."""
    assert kept.list() == ()
    late = kept.keep("conflict", "x", b"1", NOW + 1)
    early = kept.keep("rejected", "x", b"1", NOW)
    assert (early, late) == kept.list()


@pytest.mark.parametrize(
    "label", ["", "..", ".x", "x.", "a/b", "a\\b", "a b", "a\n", "a:b", "ä", "x" * 101, "-x", "a~1"]
)
def test_labels_are_checked(kept: Evidence, folder: Path, label: str) -> None:
    """Neither kind nor label can lead out of the folder or become another name on Windows."""
    with pytest.raises(InvalidName):
        kept.keep("conflict", label, b"", NOW)
    with pytest.raises(InvalidName):
        kept.keep(label, "x", b"", NOW)
    assert not folder.exists()


@pytest.mark.parametrize("limits", [{"max_files": 2}, {"max_bytes": 2}])
def test_full(folder: Path, limits: dict[str, int]) -> None:
    """A full folder keeps what it has, takes nothing more, and says so in the log and to the caller."""
    kept = Evidence(folder, **limits)
    paths = (kept.keep("conflict", "x", b"1", NOW), kept.keep("conflict", "x", b"2", NOW))
    with capture_logs() as logs, pytest.raises(FileRefused, match="full"):
        kept.keep("conflict", "x", b"3", NOW)
    assert [("evidence.full", "error")] == [(line["event"], line["log_level"]) for line in logs]
    assert paths == kept.list()
    assert paths[0] == kept.keep("conflict", "x", b"1", NOW)
    paths[0].unlink()
    kept.keep("conflict", "x", b"3", NOW)
    assert len(kept.list()) == 2


@pytest.mark.parametrize(("files", "size"), [(USER_FILES, 1), (8, USER_BYTES // 8)])
def test_a_user_has_a_share(kept: Evidence, files: int, size: int) -> None:
    """20 files and 8 MiB: the next is refused and nothing goes; another user's, and nobody's, are kept as before."""
    index, other = "u-Zabcdefghijklmnopqrs", "u-Zabcdefghijklmnopqrt"
    for number in range(files):
        kept.keep("replaced", as_label(index, f"cal{number}.pgo"), b"%8d" % number * (size // 8 or 1), NOW, user=index)
    with capture_logs() as logs, pytest.raises(FileRefused, match="as much of this user as of any"):
        kept.keep("rejected-record", as_label(index), b"more", NOW, user=index)
    assert [("evidence.full", files)] == [(line["event"], line["files"]) for line in logs]
    first = kept.list()[0]
    assert first == kept.keep("replaced", as_label(index, "cal0.pgo"), first.read_bytes(), NOW + 1, user=index)
    kept.keep("replaced", as_label(other, "cal.pgo"), b"more", NOW, user=other)
    kept.keep("rejected-message", "7", b"more", NOW)
    first.unlink()
    kept.keep("rejected-record", as_label(index), b"more", NOW, user=index)
    assert files + 2 == len(kept.list())


def test_how_full_it_is(folder: Path) -> None:
    """By files or by bytes, whichever is more, also after an administrator has moved something away."""
    kept = Evidence(folder, max_files=10, max_bytes=1000)
    assert 0 == kept.percent_full
    for number in range(4):
        kept.keep("replaced", "x", b"%d" % number, NOW)
    assert 40 == kept.percent_full
    large = kept.keep("replaced", "x", bytes(800), NOW)
    assert 80 == kept.percent_full
    large.unlink()
    assert 40 == kept.percent_full


def test_moved_as_they_are(kept: Evidence, folder: Path) -> None:
    """Files go into a folder of their own, in their order and with their rights, and a note beside them."""
    folder.parent.mkdir()
    files = [folder.parent / "b", folder.parent / "a"]
    for file in files:
        file.write_bytes(file.name.encode())
        file.chmod(0o640)
    place = kept.move("journal", "torn", files, {"note": b"seen"}, NOW)
    assert folder / "20260101T090000.123Z-journal-torn" == place
    assert {"a": b"a", "b": b"b", "note": b"seen"} == {path.name: path.read_bytes() for path in place.iterdir()}
    assert (0o700, 0o640) == (stat.S_IMODE(place.stat().st_mode), stat.S_IMODE((place / "a").stat().st_mode))
    assert not any(file.exists() for file in files)


def test_a_move_never_overwrites(kept: Evidence, folder: Path) -> None:
    """Two moves of the same instant are two folders, and a full folder takes them: they cost no room."""
    full = Evidence(folder, max_files=1, max_bytes=1)
    places = []
    for content in (b"1", b"2"):
        (folder.parent).mkdir(exist_ok=True)
        (folder.parent / "a").write_bytes(content)
        places.append(full.move("journal", "torn", [folder.parent / "a"], {}, NOW))
    assert [b"1", b"2"] == [(place / "a").read_bytes() for place in places]
    assert tuple(places) == full.list("journal") == full.list()
    assert () == full.list("torn")


def test_what_cannot_be_moved_stays(kept: Evidence, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk refuses, the caller is told, and the file is where it was."""

    def refused(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    folder.parent.mkdir()
    (folder.parent / "a").write_bytes(b"1")
    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(FileRefused, match="Read-only file system"):
        kept.move("journal", "torn", [folder.parent / "a"], {}, NOW)
    assert b"1" == (folder.parent / "a").read_bytes()


def test_failure_leaves_nothing(kept: Evidence, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk refuses, the caller is told and no half of a file stays."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    kept.keep("conflict", "x", b"1", NOW)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileRefused, match="No space left on device"):
        kept.keep("conflict", "x", b"2", NOW)
    assert ["20260101T090000.123Z-conflict-x"] == [path.name for path in folder.iterdir()]


KILLED = """
import os, pathlib, signal, sys
from farmlease.node.journal.evidence import Evidence
os.link = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
Evidence(pathlib.Path(sys.argv[1])).keep("conflict", "x", b"half", 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_killed_on_the_way(kept: Evidence, folder: Path) -> None:
    """What kill -9 leaves is not listed, and goes when the next thing is kept."""
    arguments = [sys.executable, "-c", KILLED, str(folder)]
    killed = subprocess.run(arguments, check=False, cwd=Path(__file__).parents[2])
    assert -signal.SIGKILL == killed.returncode
    assert len(list(folder.iterdir())) == 1
    assert kept.list() == ()
    path = kept.keep("conflict", "x", b"1", NOW)
    assert [path] == list(folder.iterdir())
