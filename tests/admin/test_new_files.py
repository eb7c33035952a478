"""All files of a set-up are written, or none: no existing one is touched, and signals wait."""

import errno
import os
import signal
import stat
import sys
from pathlib import Path

import pytest

from farmlease import private_file
from farmlease.admin.new_files import READABLE, NewFile, Owner, owner_of, write_all
from farmlease.errors import FarmleaseError, InvalidInput

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes and signals of POSIX")


def three(folder: Path) -> list[NewFile]:
    """Return three files, two of them in folders that are not there."""
    return [
        NewFile(path=folder / "made" / "keys", content=b"secret"),
        NewFile(path=folder / "made" / "deep" / "one", content=b"1"),
        NewFile(path=folder / "made" / "config", content=b"public", mode=READABLE),
    ]


def everything(folder: Path) -> list[str]:
    """Return all that is below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def mode(path: Path) -> int:
    """Return the mode of a file."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_modes_are_right_under_any_umask(tmp_path: Path, umask: int) -> None:
    """Secrets are their owner's only, the rest and the folders can be read by each logon."""
    before = os.umask(umask)
    try:
        write_all(three(tmp_path))
    finally:
        os.umask(before)
    made = tmp_path / "made"
    assert [0o600, 0o600, 0o644, 0o755, 0o755] == [
        mode(path) for path in (made / "keys", made / "deep" / "one", made / "config", made, made / "deep")
    ]
    assert b"secret" == (made / "keys").read_bytes()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_is_there_stays_and_nothing_else_is_written(tmp_path: Path, which: int) -> None:
    """One file in the way is enough; a link that leads to nothing is in the way too."""
    files = three(tmp_path)
    taken = files[which].path
    taken.parent.mkdir(parents=True)
    taken.symlink_to(tmp_path / "nowhere")
    before = everything(tmp_path)
    with pytest.raises(FarmleaseError, match="never overwritten"):
        write_all(files)
    assert before == everything(tmp_path)


@pytest.mark.parametrize("which", [1, 2, 3])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EDQUOT])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int, code: int) -> None:
    """Whichever file does not fit: those before it are gone, and so are their folders."""
    calls = 0
    real = private_file.create

    def create(paths: list[Path], content: bytes) -> Path | None:
        nonlocal calls
        calls += 1
        if calls == which:
            raise OSError(code, os.strerror(code))
        return real(paths, content)

    monkeypatch.setattr(private_file, "create", create)
    with pytest.raises(FarmleaseError, match=f"{os.strerror(code)}; nothing was written"):
        write_all(three(tmp_path))
    assert [] == everything(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Whoever interrupts in the middle finds everything, and the signal is not lost."""
    heard = []
    before = signal.signal(number, lambda *_: heard.append(number))
    real = private_file.create

    def create(paths: list[Path], content: bytes) -> Path | None:
        os.kill(os.getpid(), number)
        assert [] == heard
        return real(paths, content)

    monkeypatch.setattr(private_file, "create", create)
    try:
        write_all(three(tmp_path))
    finally:
        signal.signal(number, before)
    assert [number] == heard
    assert 5 == len(everything(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_gets_the_files(tmp_path: Path) -> None:
    """An agent with an account of its own can read them."""
    write_all(three(tmp_path), Owner(65534, 65534))
    assert {65534} == {each.path.stat().st_uid for each in three(tmp_path)}
    assert 0o600 == mode(tmp_path / "made" / "keys")


def test_an_account_that_is_not_there_is_named() -> None:
    """Before anything is written."""
    assert Owner(0, 0) == owner_of("root")
    with pytest.raises(InvalidInput, match="no account nobody-of-this-name"):
        owner_of("nobody-of-this-name")
