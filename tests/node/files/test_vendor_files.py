"""The vendor's files on a node: put in place, taken back, removed, and never a way out of the user's own folder."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from farmlease.domain.record import VendorFile
from farmlease.errors import FileRefused, PolicyError
from farmlease.node.files import vendor_files as files_module
from farmlease.node.files.folder import LEFTOVER, by_path
from farmlease.node.files.folder_posix import DescriptorFolder
from farmlease.node.files.vendor_files import VendorFiles
from farmlease.node.journal.receipts import FileOwner

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="plants links, FIFOs and owners that Windows has not")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to somebody else")

NOBODY = 65534  #: on Debian and most others an account called nobody
STRANGER = 54321  #: an account that this host does not know
LIMIT = 1000


@dataclass(frozen=True)
class Ground:
    """A farm's home folder with one user in it, and a folder outside that must never change."""

    homes: Path
    outside: Path
    user: FileOwner

    @property
    def home(self) -> Path:
        """The user's topmost folder."""
        return self.homes / self.user.name

    @property
    def folder(self) -> Path:
        """Where the vendor's program looks."""
        return self.home / ".vendor"

    @property
    def path(self) -> Path:
        """The vendor's file."""
        return self.folder / "cal.pgo"

    @property
    def template(self) -> str:
        """The vendor's file as the policy writes it."""
        return f"{self.homes}/{{user}}/.vendor/cal.pgo"

    @property
    def files(self) -> VendorFiles:
        """What is tested."""
        return VendorFiles((self.template,), LIMIT)

    def file(self, content: bytes, mode: int = 0o600) -> VendorFile:
        """Make the record's file."""
        return VendorFile(name=self.template, mode=mode, content=content)

    def leftovers(self) -> list[str]:
        """Names of ours that are anywhere in the farm's homes."""
        return sorted(path.name for path in self.homes.rglob(f"{LEFTOVER}*"))


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Give the user a home of the agent's own, and put a file of somebody else's outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "cal.pgo").write_bytes(b"somebody else's")
    ground = Ground(tmp_path / "homes", outside, FileOwner("zelda-canary"))
    ground.folder.mkdir(parents=True)
    return ground


@pytest.fixture(params=["descriptor", "path"])
def walk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with both walks: the one used here, and the one used on Windows."""
    if request.param == "path":
        monkeypatch.setattr(files_module, "opened", by_path)
    return str(request.param)


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    """Owner, group and permission bits."""
    seen = path.lstat()
    return seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode)


def no_name_in(refusal: BaseException | None) -> None:
    """Assert that neither the error nor what it came from holds the user's name."""
    while refusal is not None:
        assert "zelda-canary" not in repr(refusal)
        refusal = refusal.__cause__ or refusal.__context__


# What may be planted where the file should be.


def plant_symlink(ground: Ground) -> None:
    """Link to somebody else's file."""
    ground.path.symlink_to(ground.outside / "cal.pgo")


def plant_dangling_symlink(ground: Ground) -> None:
    """Link to where a file shall appear."""
    ground.path.symlink_to(ground.outside / "new")


def plant_hard_link(ground: Ground) -> None:
    """Give somebody else's file a second name."""
    ground.path.hardlink_to(ground.outside / "cal.pgo")


def plant_fifo(ground: Ground) -> None:
    """Leave something whose opening waits for a writer."""
    os.mkfifo(ground.path)


def plant_directory(ground: Ground) -> None:
    """Leave a folder, which a rename could not replace."""
    ground.path.mkdir()


PLANTS = [plant_symlink, plant_dangling_symlink, plant_hard_link, plant_fifo, plant_directory]


@pytest.fixture(params=PLANTS)
def planted(request: pytest.FixtureRequest, ground: Ground) -> Ground:
    """Return the ground with one of the plants in it."""
    request.param(ground)
    return ground


def unharmed(ground: Ground) -> bool:
    """Whether nothing outside changed and nothing of ours lies about."""
    names = sorted(path.name for path in ground.outside.iterdir())
    return names == ["cal.pgo"] and (ground.outside / "cal.pgo").read_bytes() == b"somebody else's"


# The plain road.


def test_there_and_back(ground: Ground, walk: str) -> None:
    """What was put in place is what is taken back."""
    ground.files.place(ground.user, [ground.file(b"\x00opaque\xff")])
    assert b"\x00opaque\xff" == ground.path.read_bytes()
    assert (ground.file(b"\x00opaque\xff"),) == ground.files.take(ground.user)


def test_missing_is_not_returned(ground: Ground, walk: str) -> None:
    """A missing file, folder or home is no error when taking or removing."""
    nobody_yet = FileOwner("nobody-yet")
    assert () == ground.files.take(ground.user)
    assert () == ground.files.take(nobody_yet)
    assert () == VendorFiles((f"{ground.homes}/missing/{{user}}/cal.pgo",)).take(ground.user)
    ground.files.remove(ground.user)
    ground.files.remove(nobody_yet)
    assert not (ground.homes / "nobody-yet").exists()


def test_empty_file_is_a_file(ground: Ground, walk: str) -> None:
    """An empty file is taken as one and not as missing."""
    ground.files.place(ground.user, [ground.file(b"")])
    assert (ground.file(b""),) == ground.files.take(ground.user)


def test_remove(ground: Ground, walk: str) -> None:
    """Removing takes the file and nothing else; once more is no error."""
    (ground.folder / "other").write_bytes(b"the user's")
    ground.files.place(ground.user, [ground.file(b"x")])
    ground.files.remove(ground.user)
    ground.files.remove(ground.user)
    assert ["other"] == [path.name for path in ground.folder.iterdir()]


def test_missing_folders_are_made(ground: Ground, walk: str) -> None:
    """Missing folders of the user's are made 0700, whatever the umask."""
    template = f"{ground.homes}/{{user}}/a/b/cal.pgo"
    before = os.umask(0)
    try:
        VendorFiles((template,)).place(ground.user, [VendorFile(name=template, mode=0o644, content=b"x")])
    finally:
        os.umask(before)
    mine = (os.geteuid(), os.getegid())
    assert (*mine, 0o700) == owner_and_mode(ground.home / "a")
    assert (*mine, 0o700) == owner_and_mode(ground.home / "a" / "b")
    assert (*mine, 0o600) == owner_and_mode(ground.home / "a" / "b" / "cal.pgo")


@as_root
def test_narrow_umask(ground: Ground) -> None:
    """A umask that forbids everything changes neither folders nor file."""
    ground.folder.rmdir()
    before = os.umask(0o777)
    try:
        ground.files.place(ground.user, [ground.file(b"x")])
    finally:
        os.umask(before)
    assert (0, 0, 0o700) == owner_and_mode(ground.folder)
    assert (0, 0, 0o600) == owner_and_mode(ground.path)


def test_user_in_the_file_name(tmp_path: Path, walk: str) -> None:
    """With {user} in the last component, only that component is the user's; the rest may be links."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    templates = (f"{tmp_path}/link/{{user}}.pgo", f"{tmp_path}/link/of-{{user}}")
    files = VendorFiles(templates)
    files.place(FileOwner("zelda"), [VendorFile(name=name, mode=0o600, content=name.encode()) for name in templates])
    assert ["of-zelda", "zelda.pgo"] == sorted(path.name for path in (tmp_path / "real").iterdir())
    assert templates == tuple(file.name for file in files.take(FileOwner("zelda")))


def test_only_what_the_policy_names(ground: Ground, walk: str) -> None:
    """A record cannot bring a file of another name, and brings none if one of its names is foreign."""
    foreign = VendorFile(name=str(ground.outside / "cal.pgo"), mode=0o600, content=b"x")
    with pytest.raises(FileRefused, match="does not name"):
        ground.files.place(ground.user, [ground.file(b"x"), foreign])
    assert not ground.path.exists()
    assert unharmed(ground)


def test_limit(ground: Ground, walk: str) -> None:
    """A file of the limit travels; one byte more does in neither direction."""
    ground.files.place(ground.user, [ground.file(b"x" * LIMIT)])
    assert (ground.file(b"x" * LIMIT),) == ground.files.take(ground.user)
    with pytest.raises(FileRefused, match="larger than 1000 bytes"):
        ground.files.place(ground.user, [ground.file(b"x" * (LIMIT + 1))])
    assert b"x" * LIMIT == ground.path.read_bytes()
    with ground.path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(FileRefused, match="larger than 1000 bytes"):
        ground.files.take(ground.user)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../outside", "a\\b", "a\0b"])
def test_a_name_is_no_path(ground: Ground, name: str, walk: str) -> None:
    """A name that would lead elsewhere is refused here again, should it ever get past the parsing of names."""
    user = FileOwner(name)
    for act in (lambda: ground.files.place(user, [ground.file(b"x")]), lambda: ground.files.take(user)):
        with pytest.raises(FileRefused, match="name cannot be"):
            act()
    with pytest.raises(FileRefused, match="name cannot be"):
        ground.files.remove(user)


@pytest.mark.parametrize("name", ["alicel~1", "alice.", "alice ", "con", "NUL.x", "a:b", "a*"])
def test_aliases_on_windows(name: str) -> None:
    """Windows takes such names for other ones; plain ones pass."""
    assert files_module._ALIAS_ON_WINDOWS.match(name)
    assert not files_module._ALIAS_ON_WINDOWS.match("al.ice-conrad_1")


@pytest.mark.parametrize(
    "template",
    ["", "cal.pgo", "{user}/cal.pgo", "/", "/home/{user}/../x", "/home/{usr}/x", "/home/{user}/{pool}", "/home/a\0b"],
)
def test_templates_are_checked(template: str) -> None:
    """A template that is no absolute path, climbs, or has a foreign placeholder is refused at once."""
    with pytest.raises(PolicyError, match="files: "):
        VendorFiles((template,))


# The hostile user.


def test_plants_are_refused(planted: Ground, walk: str) -> None:
    """What is no regular file with one name is neither replaced, read nor removed, and keeps nobody waiting."""
    before = planted.path.lstat()
    for act in (
        lambda: planted.files.place(planted.user, [planted.file(b"x")]),
        lambda: planted.files.take(planted.user),
        lambda: planted.files.remove(planted.user),
    ):
        with pytest.raises(FileRefused) as refusal:
            act()
        assert planted.template in str(refusal.value)
        no_name_in(refusal.value)
    assert before.st_ino == planted.path.lstat().st_ino
    assert unharmed(planted)
    assert [] == planted.leftovers()


def test_plants_after_the_look(planted: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same plants put there between looking and using: nothing is read, and nothing outside changes."""
    monkeypatch.setattr(DescriptorFolder, "_look", lambda _self: planted.outside.stat())
    with pytest.raises(FileRefused) as refusal:
        planted.files.take(planted.user)
    no_name_in(refusal.value)
    try:
        planted.files.place(planted.user, [planted.file(b"x")])
    except FileRefused:
        assert planted.path.is_dir()
    else:
        assert b"x" == planted.path.read_bytes()
        assert not planted.path.is_symlink()
    assert unharmed(planted)
    assert [] == planted.leftovers()


@pytest.mark.parametrize("which", ["home", "folder"])
def test_linked_folder(ground: Ground, which: str, walk: str) -> None:
    """A link instead of any folder from the user's on is not followed, even if all behind it looks right."""
    (ground.outside / ".vendor").mkdir()
    (ground.outside / ".vendor" / "cal.pgo").write_bytes(b"somebody else's")
    ground.folder.rmdir()
    if which == "home":
        ground.home.rmdir()
        ground.home.symlink_to(ground.outside)
    else:
        ground.folder.symlink_to(ground.outside / ".vendor")
    for act in (
        lambda: ground.files.place(ground.user, [ground.file(b"x")]),
        lambda: ground.files.take(ground.user),
        lambda: ground.files.remove(ground.user),
    ):
        with pytest.raises(FileRefused, match="where a folder should be") as refusal:
            act()
        no_name_in(refusal.value)
    assert ["cal.pgo"] == [path.name for path in (ground.outside / ".vendor").iterdir()]
    assert b"somebody else's" == (ground.outside / ".vendor" / "cal.pgo").read_bytes()


def test_file_instead_of_a_folder(ground: Ground, walk: str) -> None:
    """A file where a folder should be is refused."""
    ground.folder.rmdir()
    ground.folder.write_bytes(b"")
    with pytest.raises(FileRefused, match="where a folder should be"):
        ground.files.place(ground.user, [ground.file(b"x")])


def test_one_refusal_does_not_save_the_others(ground: Ground, walk: str) -> None:
    """Removing goes on after a refusal and raises it at the end."""
    second = f"{ground.homes}/{{user}}/.vendor/second"
    plant_symlink(ground)
    (ground.folder / "second").write_bytes(b"x")
    with pytest.raises(FileRefused, match="link"):
        VendorFiles((ground.template, second)).remove(ground.user)
    assert not (ground.folder / "second").exists()


#: Swap the user's folder for a link to the outside and back, without a moment in which there is neither.
FLIP_FOLDER = """
import ctypes, os, sys
home, outside = os.fsencode(sys.argv[1]), sys.argv[2]
os.chdir(home)
os.symlink(outside, "decoy")
rename = ctypes.CDLL(None, use_errno=True).renameat2
print("ready", flush=True)
while True:
    rename(-100, b".vendor", -100, b"decoy", 2)
"""

#: Swap the file for a link to somebody else's file, and that for nothing.
FLIP_FILE = """
import contextlib, os, sys
os.chdir(sys.argv[1] + "/.vendor")
print("ready", flush=True)
while True:
    with contextlib.suppress(OSError):
        os.symlink(sys.argv[2] + "/cal.pgo", "trap")
        os.replace("trap", "cal.pgo")
        os.unlink("cal.pgo")
"""


@pytest.mark.parametrize("script", [FLIP_FOLDER, FLIP_FILE], ids=["folder", "file"])
def test_race(ground: Ground, script: str) -> None:
    """However fast the user swaps folder or file for links, nothing outside changes and nothing of it is read."""
    arguments = [sys.executable, "-c", script, str(ground.home), str(ground.outside)]
    placed = refused = 0
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as user:
        try:
            assert user.stdout is not None
            assert b"ready\n" == user.stdout.readline()
            for _ in range(20_000):
                try:
                    ground.files.place(ground.user, [ground.file(b"the user's")])
                    placed += 1
                    assert ground.files.take(ground.user) in {(), (ground.file(b"the user's"),)}
                    ground.files.remove(ground.user)
                except FileRefused:
                    refused += 1
                assert unharmed(ground)
                if placed > 300 and refused > 300:
                    break
        finally:
            user.kill()
    assert placed > 0
    assert refused > 0


# Whose the files are.


@pytest.fixture
def stranger(ground: Ground) -> Ground:
    """Give the home to a user whose name this host does not know."""
    os.chown(ground.home, STRANGER, STRANGER)
    os.chown(ground.folder, STRANGER, STRANGER)
    return ground


@as_root
def test_owner_of_the_topmost_folder(stranger: Ground) -> None:
    """Without an account of the name, what is made belongs to the owner of the user's topmost folder."""
    stranger.folder.rmdir()
    stranger.files.place(stranger.user, [stranger.file(b"x", 0o666)])
    assert (STRANGER, STRANGER, 0o700) == owner_and_mode(stranger.folder)
    assert (STRANGER, STRANGER, 0o600) == owner_and_mode(stranger.path)
    assert (stranger.file(b"x"),) == stranger.files.take(stranger.user)


@as_root
def test_owner_by_account(ground: Ground) -> None:
    """An account of the user's name owns what is made, the home included."""
    account = FileOwner("nobody", "nobody", str(NOBODY), "/nonexistent")
    home = ground.homes / "nobody"
    ground.files.place(account, [ground.file(b"x")])
    assert NOBODY == home.stat().st_uid
    assert (NOBODY, home.stat().st_gid, 0o700) == owner_and_mode(home / ".vendor")
    assert (NOBODY, home.stat().st_gid, 0o600) == owner_and_mode(home / ".vendor" / "cal.pgo")


@as_root
def test_neither_account_nor_folder(ground: Ground) -> None:
    """Root makes no home that would be root's own: nobody could use it, nor make the right one later."""
    with pytest.raises(FileRefused, match="without account or folder") as refusal:
        ground.files.place(FileOwner("not-zelda-canary"), [ground.file(b"x")])
    no_name_in(refusal.value)
    assert [ground.home] == list(ground.homes.iterdir())


@as_root
def test_files_of_others(stranger: Ground) -> None:
    """A file of somebody else's that the user moved here is not read, even if it is root's."""
    for owner in (0, NOBODY):
        stranger.path.write_bytes(b"somebody else's")
        os.chown(stranger.path, owner, owner)
        for act in (stranger.files.take, stranger.files.remove):
            with pytest.raises(FileRefused, match="does not belong to the user"):
                act(stranger.user)
        assert b"somebody else's" == stranger.path.read_bytes()


@as_root
def test_folders_of_others(stranger: Ground) -> None:
    """A folder of a third person that the user moved into his own is not written to."""
    os.chown(stranger.folder, NOBODY, NOBODY)
    with pytest.raises(FileRefused, match="folder of another user"):
        stranger.files.place(stranger.user, [stranger.file(b"x")])
    assert [] == list(stranger.folder.iterdir())


@as_root
def test_folder_not_handed_over(stranger: Ground) -> None:
    """An empty folder that a killed agent did not hand over becomes the user's; a filled one of root's never."""
    os.chown(stranger.folder, 0, 0)
    stranger.folder.chmod(0o700)
    (stranger.folder / "of-root").touch()
    stranger.files.place(stranger.user, [stranger.file(b"x")])
    assert (0, 0, 0o700) == owner_and_mode(stranger.folder)
    stranger.path.unlink()
    (stranger.folder / "of-root").unlink()
    stranger.files.place(stranger.user, [stranger.file(b"x")])
    assert (STRANGER, STRANGER, 0o700) == owner_and_mode(stranger.folder)


@as_root
def test_device(ground: Ground) -> None:
    """A device is not opened."""
    try:
        os.mknod(ground.path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this container may not make devices")
    with pytest.raises(FileRefused, match="not a regular file"):
        ground.files.take(ground.user)


@as_root
def test_agent_without_root() -> None:
    """An agent that is not root leaves the ownership as it comes, and says so when the system refuses it."""
    with tempfile.TemporaryDirectory(prefix="fl-files-") as name:
        ground = Ground(Path(name) / "homes", Path(name), FileOwner("zelda-canary"))
        ground.folder.mkdir(parents=True)
        Path(name).chmod(0o755)
        os.chown(ground.folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            ground.files.place(ground.user, [ground.file(b"x")])
            taken = ground.files.take(ground.user)
            elsewhere = f"{ground.homes}/{{user}}/not-mine/cal.pgo"
            with pytest.raises(FileRefused, match="Permission denied") as refusal:
                VendorFiles((elsewhere,)).place(ground.user, [VendorFile(name=elsewhere, mode=0o600, content=b"x")])
        finally:
            os.seteuid(0)
        assert (ground.file(b"x"),) == taken
        assert NOBODY == ground.path.stat().st_uid
        no_name_in(refusal.value)


# Whole or not at all.


def test_readers_see_old_or_new(ground: Ground, walk: str) -> None:
    """Whoever reads while a file is put in place sees the old or the new one, whole."""
    contents = [b"a" * LIMIT, b"b" * LIMIT]
    ground.files.place(ground.user, [ground.file(contents[0])])
    done = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(ground.path.read_bytes())
            if walk == "descriptor":  # the other one may say that the file was swapped
                seen.update(file.content for file in ground.files.take(ground.user))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for round_ in range(1000):
            ground.files.place(ground.user, [ground.file(contents[round_ % 2])])
    finally:
        done.set()
        reader.join()
    assert set(contents) == seen


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_failure_leaves_nothing(ground: Ground, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure on the way keeps the old file and leaves nothing of the new one."""
    ground.files.place(ground.user, [ground.file(b"old")])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(ground.path))

    monkeypatch.setattr(os, broken, full)
    with pytest.raises(FileRefused, match="No space left on device") as refusal:
        ground.files.place(ground.user, [ground.file(b"new")])
    no_name_in(refusal.value)
    assert ["cal.pgo"] == [path.name for path in ground.folder.iterdir()]
    assert b"old" == ground.path.read_bytes()


KILLED = """
import os, signal, sys
from farmlease.domain.record import VendorFile
from farmlease.node.files.vendor_files import VendorFiles
from farmlease.node.journal.receipts import FileOwner
os.replace = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
VendorFiles((sys.argv[1],)).place(FileOwner(sys.argv[2]), [VendorFile(name=sys.argv[1], mode=0o600, content=b"new")])
"""


@pytest.mark.parametrize("act", ["place", "remove"])
def test_killed_on_the_way(ground: Ground, act: str) -> None:
    """What kill -9 leaves counts as nothing and goes with the next placing or removing; names that are alike stay."""
    ground.files.place(ground.user, [ground.file(b"old")])
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, ground.template, ground.user.name],
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert -signal.SIGKILL == killed.returncode
    assert 1 == len(ground.leftovers())
    assert (ground.file(b"old"),) == ground.files.take(ground.user)
    (ground.folder / f"{LEFTOVER}folder").mkdir()
    (ground.folder / f"{LEFTOVER}link").symlink_to(ground.outside / "cal.pgo")
    os.mkfifo(ground.folder / f"{LEFTOVER}fifo")
    if act == "place":
        ground.files.place(ground.user, [ground.file(b"new")])
    else:
        ground.files.remove(ground.user)
    assert [f"{LEFTOVER}{kind}" for kind in ("fifo", "folder", "link")] == ground.leftovers()
    assert unharmed(ground)


def test_another_agents_file_is_no_leftover(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is just being written is not swept away by somebody else's placing or removing."""
    replace = os.replace

    def meanwhile(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        ground.files.remove(ground.user)
        replace(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "replace", meanwhile)
    ground.files.place(ground.user, [ground.file(b"x")])
    assert b"x" == ground.path.read_bytes()


def test_swept_all_the_same(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the new file vanishes before it is in place, it is written again; if it always does, that is said."""
    replace = os.replace
    vanished: list[str] = []

    def vanishing(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if len(vanished) < times:
            vanished.append(source)
            os.unlink(source, dir_fd=src_dir_fd)
        replace(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "replace", vanishing)
    times = 2
    ground.files.place(ground.user, [ground.file(b"x")])
    assert b"x" == ground.path.read_bytes()
    times = 100
    with pytest.raises(FileRefused, match="changes all the time"):
        ground.files.place(ground.user, [ground.file(b"y")])
    assert b"x" == ground.path.read_bytes()


def test_a_half_written_file_does_not_travel(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes while it is read is read again; if it never rests, it is refused."""
    ground.path.write_bytes(b"half")
    fstat = os.fstat
    calls = 0

    def writing(descriptor: int) -> os.stat_result:
        nonlocal calls
        seen = fstat(descriptor)
        if stat.S_ISREG(seen.st_mode):
            calls += 1
            if calls <= changes:
                os.utime(ground.path, ns=(calls, calls))
        return seen

    monkeypatch.setattr(os, "fstat", writing)
    changes = 1
    assert [b"half"] == [file.content for file in ground.files.take(ground.user)]
    assert calls > 2
    changes = 100
    with pytest.raises(FileRefused, match="being written all the time"):
        ground.files.take(ground.user)


def test_gone_after_the_look(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that goes between looking and opening is a missing one."""
    look = DescriptorFolder._look

    def and_gone(folder: DescriptorFolder) -> os.stat_result | None:
        seen = look(folder)
        ground.path.unlink(missing_ok=True)
        return seen

    ground.path.write_bytes(b"x")
    monkeypatch.setattr(DescriptorFolder, "_look", and_gone)
    assert ground.files.take(ground.user) == ()


def test_no_descriptor_is_left_open(planted: Ground) -> None:
    """A hundred refusals leave as many open files as none."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        with pytest.raises(FileRefused):
            planted.files.place(planted.user, [planted.file(b"x")])
        with pytest.raises(FileRefused):
            planted.files.take(planted.user)
    assert before == len(list(Path("/proc/self/fd").iterdir()))
