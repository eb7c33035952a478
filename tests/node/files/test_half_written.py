"""Half-written files: an empty or cut-off one never replaces a good one, and the versions before are kept."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farmlease.crypto.seal import RecordBinding
from farmlease.domain.model import Reason
from farmlease.domain.record import is_half_written
from farmlease.errors import FileRefused
from farmlease.node.journal.evidence import USER_BYTES
from farmlease.node.journal.versions import KeptVersions
from tests.support.nodes import JOHN, Host, Site
from tests.support.servers import missing

GOOD = b"user=john machine=ctx time=1795294078\n" * 8


async def moved(host: Host, content: bytes) -> None:
    """Let john have a session that leaves ``content`` in his file."""
    await host.granted(JOHN)
    host.write(content)
    await host.end()


def told(host: Host) -> str:
    """What health tells of the files."""
    host.node.monitor.look()
    return next(check.output for check in host.node.monitor.health.checks if check.name == "files")


@pytest.mark.parametrize(
    ("content", "half"),
    [
        (b"", True),
        (b"\0" * 300, True),
        (GOOD[:1], True),
        (GOOD[:-1], True),
        (GOOD[:100] + b"\0" * 204, True),
        (GOOD, False),
        (GOOD + b"\0", False),
        (GOOD + b"more", False),
        (b"X" + GOOD[1:100], False),
        (b"something new", False),
    ],
)
def test_what_counts_as_half_written(content: bytes, *, half: bool) -> None:
    """Nothing, zeros, or a beginning of the version before; a shorter file with anything else in it may be whole."""
    assert half is is_half_written(content, GOOD)


def test_a_first_file_is_whole_unless_it_is_empty() -> None:
    """Without a version before, there is nothing that it could be a beginning of."""
    assert (True, True, False) == (is_half_written(b"", b""), is_half_written(b"\0\0", b""), is_half_written(b"x", b""))


@pytest.mark.parametrize("content", [b"", b"\0" * len(GOOD), GOOD[:200], GOOD[:200] + b"\0" * 104])
async def test_a_half_written_file_never_replaces_a_good_one(site: Site, content: bytes) -> None:
    """The record keeps what it had, the next session gets it, and nothing is left on this host."""
    host = site.host()
    await moved(host, GOOD)
    await moved(host, content)
    assert (2, None, [], []) == (await site.record_version(), host.read(), host.kept, host.superseded)
    await host.granted(JOHN)
    assert GOOD == host.read()
    host.write(content)
    saved = await host.save()
    assert (False, 2) == (saved.changed, await site.record_version())


async def test_a_half_written_file_that_lies_there_is_replaced(site: Site) -> None:
    """A crash left half a file: the record's goes over it, and there is nothing in it worth keeping."""
    host = site.host()
    await moved(host, GOOD)
    host.write(GOOD[:100])
    await host.granted(JOHN)
    assert (GOOD, []) == (host.read(), host.kept)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who writes a file")
async def test_a_file_that_is_open_for_writing_is_waited_for(site: Site) -> None:
    """A program holds the file open at the end, half of a new one written: it is saved once it is closed."""
    host = site.host()
    await moved(host, GOOD)
    await host.granted(JOHN)
    with host.file().open("wb") as file:
        file.write(b"half of")
        file.flush()
        with pytest.raises(FileRefused, match="open in a program that writes it"):
            await host.save()
        await host.end()
        await host.node.loops.clear_leftovers()
        assert (2, b"half of") == (await site.record_version(), host.read())
        assert "open in a program that writes it" in told(host)
        file.write(b" a new one")
    host.restart()
    host.mount()
    await host.node.loops.clear_leftovers()
    await host.beat()
    assert (3, None, "in order") == (await site.record_version(), host.read(), told(host))
    await host.granted(JOHN)
    assert b"half of a new one" == host.read()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who writes a file")
@pytest.mark.parametrize(
    ("kind", "remote"),
    [("nfs", True), ("nfs4", True), ("cifs", True), ("smb3", True), ("ext4", False), ("nsfs", False), ("", False)],
)
def test_a_file_of_another_machine_is_known_by_its_mount(tmp_path: Path, kind: str, *, remote: bool) -> None:
    """NFS and SMB refuse a lease on a file that nobody has open: what the kernel says of such a file tells nothing."""
    from farmlease.node.files import folder_posix  # noqa: PLC0415 - not for Windows

    seen, mounts = tmp_path.stat().st_dev, tmp_path / "mountinfo"
    lines = ["22 27 0:4095 / /other rw shared:2 - nfs4 server:/other rw", "broken"]
    if kind:
        lines.append(f"36 35 {os.major(seen)}:{os.minor(seen)} / /home rw,noatime shared:1 - {kind} server:/home rw")
    mounts.write_text("\n".join(lines))
    with (tmp_path / "file").open("wb") as file:
        assert remote is folder_posix._is_remote(file.fileno(), mounts)
        assert folder_posix._is_remote(file.fileno(), tmp_path / "none")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who writes a file")
async def test_a_file_on_a_share_is_saved_though_it_has_no_lease(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says "try again" of every file there: it is taken at the session's end all the same."""
    from farmlease.node.files import folder_posix  # noqa: PLC0415 - not for Windows

    host = site.host()
    with monkeypatch.context() as patch:
        patch.setattr(folder_posix, "_is_remote", lambda _: True)
        await host.granted(JOHN)
        with host.file().open("wb") as file:
            file.write(GOOD)
            file.flush()
            await host.end()
    assert (2, None) == (await site.record_version(), host.read())


async def test_a_file_that_never_rests_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look finds another content: none of them is a version."""
    host = site.host()
    await moved(host, GOOD)
    await host.granted(JOHN)
    host.write(b"0")
    written = []

    async def sleep(_: float) -> None:
        written.append(b"x")
        host.write(b"".join(written))

    with monkeypatch.context() as patch:
        patch.setattr(host.clock, "sleep", sleep)
        with pytest.raises(FileRefused, match="being written all the time"):
            await host.save()
    assert 2 == await site.record_version()
    await host.end()
    assert (3, None) == (await site.record_version(), host.read())


# --- the versions before --------------------------------------------------------------------------------------------------


async def test_the_last_three_superseded_versions_are_kept(site: Site) -> None:
    """Each save keeps the version before it, of each user and pool three at most: the oldest goes first."""
    host = site.host()
    for number in range(6):
        await moved(host, b"version %d" % number)
        site.timed.clock.advance(1000)
    assert [("4", [b"version 2"]), ("5", [b"version 3"]), ("6", [b"version 4"])] == host.superseded
    assert (7, []) == (await site.record_version(), host.kept)


def test_a_user_of_many_pools_keeps_as_much_as_any(tmp_path: Path) -> None:
    """Of all pools together 20 versions and 8 MiB: the oldest goes first, whatever its pool; others keep theirs."""
    versions = KeptVersions(tmp_path / "kept" / "versions")

    def keep(pool: int, version: int, user: str = "john", size: int = 10) -> None:
        binding = RecordBinding(pool=f"pool {pool}", user_index=user, lease_id="lease", version=version)
        versions.keep(binding, b"%5d %4d" % (pool, version) + bytes(size - 10), 1_000_000 * pool + version)

    def kept(user: str = "john") -> list[tuple[str, int]]:
        return [(each.binding.pool, each.binding.version) for each in versions.all() if each.binding.user_index == user]

    keep(0, 1, "mary")
    for pool in range(8):
        for version in (1, 2, 3):
            keep(pool, version)
    expected = {(f"pool {pool}", version) for pool in range(8) for version in (1, 2, 3)}
    assert expected - {("pool 0", 1), ("pool 0", 2), ("pool 0", 3), ("pool 1", 1)} == set(kept())
    keep(9, 1, size=USER_BYTES - 35)
    assert {("pool 7", 1), ("pool 7", 2), ("pool 7", 3), ("pool 9", 1)} >= set(kept())
    assert ("pool 9", 1) in kept()
    assert [("pool 0", 1)] == kept("mary")


async def test_a_kept_version_is_sealed_and_private(site: Site) -> None:
    """L10: nothing of a kept version can be read, and only the agent's user reaches it."""
    host = site.host()
    await moved(host, b"canary-one")
    await moved(host, b"canary-two")
    folder = host.folder / "state" / "kept" / "versions"
    (path,) = (each for each in folder.rglob("*") if each.is_file())
    assert b"canary" not in path.read_bytes()
    assert "john" not in str(path.relative_to(folder)) + path.read_text(errors="replace")
    assert [0o700, 0o700, 0o600] == [each.stat().st_mode & 0o777 for each in (folder, path.parent, path)]


async def test_a_disk_that_keeps_no_version_stops_no_save(site: Site) -> None:
    """The newer version is what counts: it is stored, though the one before cannot be kept."""
    host = site.host()
    await moved(host, b"one")
    (host.folder / "state" / "kept").write_bytes(b"a file where the folder should be")
    await moved(host, b"two")
    assert 3 == await site.record_version()


# --- where a file cannot be put in place ----------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a disk of 16 KiB over a folder."""
    options = ["-t", "tmpfs", "-o", "size=16k,mode=0755", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        missing("the right to mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is Linux's")
async def test_a_full_disk_is_told(site: Site) -> None:
    """The home is full, for real: the denial says that, and not that a record could not be trusted."""
    host = site.host()
    await moved(host, b"x" * 8192)
    home = host.file().parent
    with small_disk(home):
        (home / "films").write_bytes(b"x" * 12288)
        denial = await host.denied(JOHN)
        assert "(No space left on device): the disk is full: make room there" in denial.detail
        assert "opened" not in denial.detail
        assert Reason.RECORD_REJECTED is denial.reason
        (home / "films").unlink()
        await host.granted(JOHN)
        assert b"x" * 8192 == host.read()
        await host.end()


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EDQUOT, "the user's quota is used up, or that of the folder: make room there"),
        (errno.ESTALE, "the share was taken away: mount it again"),
        (errno.EROFS, "what is mounted there is read-only: mount it for writing"),
        (errno.EACCES, "let the agent in: a share of NFS may keep root out, see no_root_squash"),
    ],
)
async def test_a_denial_says_what_is_wrong_with_the_folder(
    site: Site, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    """The user and the administrator read which problem it is and what to do, with the path as the policy writes it."""
    host = site.host()
    await moved(host, GOOD)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(host.file()))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        denial = await host.denied(JOHN)
    assert f"the file {site.disk}/{{user}}/cal.pgo cannot be used on this node" in denial.detail
    assert told in denial.detail
    assert f"{site.disk}/john" not in denial.detail
