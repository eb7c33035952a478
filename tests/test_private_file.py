"""Private files: whole or not there, for their owner only, and never written over by accident."""

import os
import stat
import sys
from pathlib import Path

import pytest

from farmlease import private_file
from farmlease.private_file import Flaw, NotPrivate

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes and links")


def names_in(folder: Path) -> list[str]:
    """Return the names of all that lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_takes_the_first_name_that_is_free(tmp_path: Path) -> None:
    """What has a name already stays as it is, and nothing is left beside it."""
    names = [tmp_path / name for name in ("a", "b")]
    assert names == [private_file.create(names, content) for content in (b"1", b"2")]
    assert private_file.create(names, b"3") is None
    assert [b"1", b"2"] == [path.read_bytes() for path in names]
    assert ["a", "b"] == names_in(tmp_path)


@pytest.mark.parametrize("durable", [True, False])
def test_a_replaced_file_is_another_one_under_the_same_name(tmp_path: Path, *, durable: bool) -> None:
    """Who has the old file open goes on reading that; what a killed process left unfinished is in nobody's way."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    (tmp_path / f"{private_file.UNFINISHED}a").write_bytes(b"half")
    with path.open("rb") as old:
        private_file.replace(path, b"new", durable=durable)
        assert (b"old", b"new") == (old.read(), path.read_bytes())
    assert ["a"] == names_in(tmp_path)


@posix
def test_a_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    """A umask can neither open a file nor lock its owner out."""
    before = os.umask(0)
    try:
        private_file.create([tmp_path / "a"], b"")
        os.umask(0o277)
        private_file.replace(tmp_path / "b", b"")
    finally:
        os.umask(before)
    assert [0o600, 0o600] == [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a new nor a replaced file is half there."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        private_file.replace(tmp_path / "a", b"new")
    with pytest.raises(OSError, match="No space left"):
        private_file.create([tmp_path / "b"], b"new")
    assert (b"old", ["a"]) == ((tmp_path / "a").read_bytes(), names_in(tmp_path))


@posix
def test_only_what_is_private_is_read(tmp_path: Path) -> None:
    """A file that others may read, a link, a folder and a pipe are refused, each for its own reason."""
    path = tmp_path / "a"
    private_file.create([path], b"secret")
    assert b"sec" == private_file.read(path, 3)
    path.chmod(0o700)
    assert b"secret" == private_file.read(path, 10)
    with pytest.raises(NotPrivate) as refused:
        private_file.read(path, 10, forbidden=0o177)
    assert (Flaw.MODE, 0o700) == (refused.value.flaw, refused.value.mode)
    path.chmod(0o604)
    assert private_file.is_open_to_others(path.stat())
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    flaws = {"a": Flaw.MODE, "link": Flaw.LINK, "pipe": Flaw.NOT_REGULAR, ".": Flaw.NOT_REGULAR}
    for name, flaw in flaws.items():
        with pytest.raises(NotPrivate) as refused:
            private_file.read(tmp_path / name, 10)
        assert flaw is refused.value.flaw
