"""``farmlease init``: the first host of a farm and the next one, asked for or by options; all files are made, or none."""

import fcntl
import os
import pty
import resource
import select
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from farmlease.config.model import load_config
from farmlease.crypto import keyring_file
from farmlease.domain.policy import parse_policy
from tests.support.patience import within
from tests.support.servers import RedisServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="terminals and modes of POSIX")

PASSPHRASE = "correct horse battery"  # noqa: S105 - of a test
POOL = ("--pool", "qlikview", "--seats", "3")


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that is a host's, and the commands there."""

    folder: Path

    @property
    def config(self) -> Path:
        """The configuration, in a folder that ``init`` makes."""
        return self.folder / "etc" / "farmlease.toml"

    def command(self, *args: str) -> list[str]:
        """Return the words of a command."""
        return [sys.executable, "-m", "farmlease", "--config", str(self.config), *args]

    def run(self, *args: str, text: str = "", **options: object) -> subprocess.CompletedProcess[str]:
        """Run a command without a terminal."""
        return subprocess.run(  # type: ignore[call-overload,no-any-return]  # whatever a test adds
            self.command(*args), input=text, capture_output=True, text=True, check=False, timeout=within(60), **options
        )

    def init(self, *args: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Set up the first host, with nobody to be asked."""
        given = ("init", "--farm", "citrix-a", "--node", "ctx-01", *args)
        return self.run(*given, **options)

    def export(self) -> Path:
        """Return an export of this host."""
        target = self.folder / "next.export"
        done = self.run("init", "--export", str(target), "--passphrase-stdin", text=PASSPHRASE + "\n")
        assert (0, "") == (done.returncode, done.stderr)
        return target

    def everything(self) -> list[str]:
        """Return all that was made."""
        made = self.folder / "etc"
        return sorted(path.name for path in made.rglob("*")) if made.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A host without anything."""
    return Place(tmp_path)


def mode(path: Path) -> int:
    """Return the mode of a file."""
    return stat.S_IMODE(path.stat().st_mode)


class Terminal:
    """A command on a terminal, and a person who reads and types."""

    def __init__(self, words: Sequence[str], columns: int, term: str = "xterm-256color") -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        environ = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": term}
        self.process = subprocess.Popen(
            words, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no thread here
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""
        self._seen = 0

    def expect(self, question: str) -> None:
        """Read until the question is there, behind what was read before."""
        deadline = time.monotonic() + within(30)
        while question not in self.shown[self._seen :]:
            assert time.monotonic() < deadline, self.shown
            assert self._read(0.2), self.shown
        self._seen = self.shown.index(question, self._seen) + len(question)

    def answer(self, question: str, answer: str) -> None:
        """Type an answer to a question."""
        self.expect(question)
        os.write(self._ours, f"{answer}\n".encode())

    def answer_unseen(self, question: str, answer: str) -> None:
        """Type an answer that is not shown: what comes before the terminal keeps it to itself is thrown away."""
        self.expect(question)
        deadline = time.monotonic() + within(30)
        while termios.tcgetattr(self._ours)[3] & termios.ECHO:
            assert time.monotonic() < deadline, self.shown
            time.sleep(0.01)
        os.write(self._ours, f"{answer}\n".encode())

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self._ours, key)

    def end(self) -> int:
        """Read to the end; return the exit status."""
        deadline = time.monotonic() + within(60)
        while self._read(0.2):
            assert time.monotonic() < deadline, self.shown
        status = self.process.wait(within(30))
        os.close(self._ours)
        return status

    def _read(self, seconds: float) -> bool:
        """Read what is there; False once the command has ended and all was read."""
        if select.select([self._ours], [], [], seconds)[0]:
            try:
                chunk = os.read(self._ours, 1 << 16)
            except OSError:  # nobody is on the other side any more
                return False
            self.shown += chunk.decode().replace("\r\n", "\n")
            return bool(chunk)
        return self.process.poll() is None


# --- the first host ---------------------------------------------------------------------------------------------------


def test_options_alone_make_a_host(place: Place, server: RedisServer) -> None:
    """Configuration, key ring and policy are valid, private where they must be, and the next steps work as printed."""
    done = place.init("--store", server.url, "--state-dir", str(place.folder / "state"), *POOL,
                      "--domain", "CORP=corp.example.com,example.com", "--file", "{home}/.q/cal")  # fmt: skip
    assert (0, "") == (done.returncode, done.stderr)
    config = load_config(place.config, {})
    assert ("citrix-a", "ctx-01", server.url) == (config.farm, config.node, config.store.url.get_secret_value())
    ring = keyring_file.load(place.config.with_name("keyring.json"))
    pools = place.config.with_name("pools.toml")
    policy = parse_policy(pools.read_text(), "pools.toml")
    assert [("qlikview", 3, ("{home}/.q/cal",))] == [(p.name, p.capacity, tuple(p.files)) for p in policy.pools]
    assert [0o644, 0o600, 0o644, 0o755] == [
        mode(path) for path in (place.config, config.keys.file, pools, place.config.parent)
    ]
    assert f"made {config.keys.file} with key {ring.primary}" in done.stdout
    steps = done.stdout.partition("next:\n")[2].splitlines()
    assert ["check", "apply", "agent", "init"] == [
        next(w for w in ("check", "apply", "agent", "init") if w in s) for s in steps
    ]
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for step, told in zip(steps[:2], ("policy", "added pool qlikview"), strict=True):
        ran = subprocess.run(["sh", "-c", step], env=environ, capture_output=True, text=True, check=False)
        assert (0, "") == (ran.returncode, ran.stderr), step
        assert told in ran.stdout


@pytest.mark.parametrize("name", ["farmlease.toml", "keyring.json", "pools.toml"])
def test_nothing_is_overwritten(place: Place, name: str) -> None:
    """Whatever stands there stays, and nothing is written beside it."""
    place.config.parent.mkdir()
    (place.config.parent / name).write_text("mine")
    done = place.init(*POOL)
    assert (1, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert "never overwritten" in done.stderr
    assert [name] == place.everything()
    assert "mine" == (place.config.parent / name).read_text()


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--seats", "0"), "--seats"),
        (("--store", "http://x"), "--store: must begin with redis://"),
        (("--store", "redis://agent:secret@h/0"), "no place for a password"),
        (("--node", "a#b"), "--node: "),
        (("--farm", "a{b"), "--farm: "),
        (("--domain", "CORP"), "CORP=corp.example.com"),
        (("--listen", "0.0.0.0:1"), "agent.listen"),
        (("--health", "here"), "health.listen"),
        (("--pool", "a/b"), "pool"),
        (("--owner", "nobody-of-this-name"), "no account"),
    ],
)
def test_what_is_not_valid_is_told_before_anything_is_written(place: Place, args: tuple[str, ...], told: str) -> None:
    """By the rules of the files themselves, and a secret is not repeated."""
    done = place.init(*POOL, *args)
    assert (2, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n")), done
    assert told in done.stderr
    assert "secret" not in done.stderr
    assert [] == place.everything()


def test_who_cannot_be_asked_is_told_which_option(place: Place) -> None:
    """A farm and the seats of a pool have no default."""
    without = place.run("init")
    assert (2, True) == (without.returncode, "give --farm" in without.stderr)
    seats = place.init("--pool", "qlikview")
    assert (2, True) == (seats.returncode, "give --seats" in seats.stderr)
    assert [] == place.everything()


def test_without_a_pool_there_is_no_policy_yet(place: Place) -> None:
    """A host without a first product is one too."""
    done = place.init()
    assert 0 == done.returncode
    assert ["farmlease.toml", "keyring.json"] == place.everything()
    assert "pool apply pools.toml" in done.stdout


@pytest.mark.parametrize(("columns", "term"), [(80, "xterm-256color"), (120, "xterm-256color"), (80, "dumb")])
def test_it_asks_on_a_terminal(place: Place, columns: int, term: str) -> None:
    """Each question has its default; a wrong answer is asked again; a password is not shown and gets its own file."""
    terminal = Terminal(place.command("init", "--node", "ctx-01"), columns, term)
    terminal.answer("Name of the farm, the same on all its hosts:", "citrix/a")
    terminal.expect("Error: ")
    terminal.answer("Name of the farm, the same on all its hosts:", "citrix-a")
    terminal.answer("Where Redis is (embedded: keeps all on this host) [redis://127.0.0.1:6379/0]:", "")
    terminal.answer("User in Redis (empty: none):", "agent")
    terminal.answer_unseen("Password in Redis (empty: none):", "open sesame")
    terminal.answer("First pool: name of the product (empty: none yet):", "clearquest")
    terminal.answer("Its kind, named or floating [named]:", "floating")
    terminal.answer("How many seats you bought:", "many")
    terminal.expect("Error: write a number")
    terminal.answer("How many seats you bought:", "25")
    terminal.answer("Domain, as CORP=corp.example.com (empty: none):", "CORP=corp.example.com")
    assert 0 == terminal.end(), terminal.shown
    assert "open sesame" not in terminal.shown
    assert "\x1b[" not in terminal.shown
    assert all(len(line) <= columns for line in terminal.shown.splitlines() if line.endswith(": ")), terminal.shown
    config = load_config(place.config, {})
    password = place.config.with_name("store-password")
    assert ("agent", password, "citrix-a") == (config.store.username, config.store.password_file, config.farm)
    assert ("open sesame", 0o600) == (password.read_text(), mode(password))
    (pool,) = parse_policy(place.config.with_name("pools.toml").read_text(), "pools.toml").pools
    assert ("clearquest", "floating", 25) == (pool.name, pool.kind, pool.capacity)


@pytest.mark.parametrize(("key", "status"), [(b"\x03", 130), (b"\x04", 1)], ids=["Ctrl-C", "Ctrl-D"])
def test_an_interrupted_question_leaves_nothing(place: Place, key: bytes, status: int) -> None:
    """Whoever stops half-way has changed nothing."""
    terminal = Terminal(place.command("init"), 80)
    terminal.answer("Name of the farm", "citrix-a")
    terminal.expect("Name of this host")
    terminal.press(key)
    assert status == terminal.end()
    assert "Traceback" not in terminal.shown
    assert [] == place.everything()


def test_yes_asks_nothing_on_a_terminal(place: Place) -> None:
    """A script has the same on a terminal as elsewhere."""
    terminal = Terminal(place.command("init", "--yes", "--farm", "citrix-a"), 80)
    assert 0 == terminal.end(), terminal.shown
    assert ["farmlease.toml", "keyring.json"] == place.everything()


@pytest.mark.parametrize("limit", [0, 10, 262])
def test_a_full_disk_leaves_nothing(place: Place, limit: int) -> None:
    """Whatever does not fit: one line says so, and no file is left, whole or half."""

    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = place.init(*POOL, "--domain", "CORP=corp.example.com", preexec_fn=no_room,
                      env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})  # fmt: skip
    assert (1, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n")), done
    assert "nothing was written" in done.stderr
    assert [] == place.everything()
    assert not place.config.parent.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_who_is_not_root_is_told(place: Place) -> None:
    """A folder of another's is named with what to do, and a place of his own works."""
    # The interpreter may lie where only root gets to it: it is loaded before it becomes another.
    become = (
        "import os, queue, sys, farmlease.cli.init.commands, farmlease.domain.characters\nfrom farmlease.cli import main\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\nmain(sys.argv[1:])"
    )

    def as_nobody(config: Path, *args: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", become, "--config", str(config), "init", "--farm", "b", *args]
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    for folder in (place.folder, *place.folder.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    done = as_nobody(place.config, *POOL)
    assert (1, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n")), done
    assert "Permission denied; nothing was written. Run this as root, or choose another place" in done.stderr
    own = place.folder / "own"
    own.mkdir()
    os.chown(own, 65534, 65534)
    assert 1 == as_nobody(own / "a" / "f.toml", "--owner", "root").returncode
    assert not (own / "a").exists()
    done = as_nobody(own / "a" / "f.toml", *POOL)
    assert 0 == done.returncode, done
    assert [65534] * 3 == [path.stat().st_uid for path in (own / "a").iterdir()]


# --- the next host ----------------------------------------------------------------------------------------------------


@pytest.fixture
def first(tmp_path: Path, server: RedisServer) -> Place:
    """The first host, with a password and an authority for the store."""
    place = Place(tmp_path)
    (tmp_path / "password").write_text("open sesame")
    (tmp_path / "password").chmod(0o600)
    done = place.init("--store", server.url, "--store-user", "agent", "--health", "192.0.2.11:8732",
                      "--store-password-file", str(tmp_path / "password"), *POOL)  # fmt: skip
    assert 0 == done.returncode, done
    return place


def test_the_next_host_has_the_same_farm_and_its_own_name(first: Place) -> None:
    """Keys, configuration and the store's password arrive, private; what is the other host's own is told."""
    before = {name: (first.config.parent / name).read_bytes() for name in ("keyring.json", "farmlease.toml")}
    export = first.export()
    assert 0o600 == mode(export)
    for secret in (b"open sesame", before["keyring.json"][40:60]):
        assert secret not in export.read_bytes()
    (first.folder / "etc").rename(first.folder / "old")
    (first.folder / "password").unlink()
    done = first.run("init", "--from", str(export), "--node", "ctx-02", "--passphrase-stdin", text=PASSPHRASE + "\n")
    assert (0, "") == (done.returncode, done.stderr)
    assert ["farmlease.toml", "keyring.json"] == first.everything()
    assert before["keyring.json"] == (first.config.parent / "keyring.json").read_bytes()
    config = load_config(first.config, {})
    assert ("citrix-a", "ctx-02", "agent") == (config.farm, config.node, config.store.username)
    password = first.folder / "password"
    assert ("open sesame", 0o600) == (password.read_text(), mode(password))
    assert [0o600, 0o644] == [mode(config.keys.file), mode(first.config)]
    assert 'look at [health] listen = "192.0.2.11:8732"' in done.stdout
    assert "config check" in done.stdout


def test_an_export_never_overwrites_and_an_import_neither(first: Place) -> None:
    """Neither the file of an export, nor one of its files on the next host."""
    export = first.export()
    sealed = export.read_bytes()
    again = first.run("init", "--export", str(export), "--passphrase-stdin", text=PASSPHRASE + "\n")
    assert (1, sealed) == (again.returncode, export.read_bytes())
    first.config.unlink()
    onto = first.run("init", "--from", str(export), "--passphrase-stdin", text=PASSPHRASE + "\n")
    assert (1, "") == (onto.returncode, onto.stdout)
    assert f"{first.folder / 'password'}, {first.config.with_name('keyring.json')} already exist" in onto.stderr
    assert not first.config.exists()


def test_a_wrong_passphrase_and_a_damaged_file_are_told_apart(first: Place) -> None:
    """Exit status 5, one plain line, and nothing is written."""
    export = first.export()
    (first.folder / "etc").rename(first.folder / "old")
    wrong = first.run("init", "--from", str(export), "--passphrase-stdin", text="another passphrase\n")
    broken = bytearray(export.read_bytes())
    broken[200] ^= 1
    export.write_bytes(bytes(broken))
    damaged = first.run("init", "--from", str(export), "--passphrase-stdin", text=PASSPHRASE + "\n")
    export.write_text("hello\n")
    none = first.run("init", "--from", str(export), "--passphrase-stdin", text=PASSPHRASE + "\n")
    absent = first.run("init", "--from", str(export) + "x", "--passphrase-stdin", text=PASSPHRASE + "\n")
    assert [5, 5, 5, 2] == [each.returncode for each in (wrong, damaged, none, absent)]
    for each, told in (
        (wrong, "passphrase is not the one"),
        (damaged, "damaged or cut short"),
        (none, "no export of farmlease"),
        (absent, "no such file"),
    ):
        assert ("", 1) == (each.stdout, each.stderr.count("\n"))
        assert told in each.stderr
    assert [] == first.everything()


def test_a_passphrase_is_typed_twice_and_not_shown(first: Place) -> None:
    """Too short or not the same is asked again; the next host asks once."""
    export = first.folder / "typed.export"
    terminal = Terminal(first.command("init", "--export", str(export)), 80)
    terminal.answer_unseen("Passphrase for the export:", "short")
    terminal.expect("at least 12")
    terminal.answer_unseen("Passphrase for the export:", PASSPHRASE)
    terminal.answer_unseen("Once more:", PASSPHRASE + "?")
    terminal.expect("do not match")
    terminal.answer_unseen("Passphrase for the export:", PASSPHRASE)
    terminal.answer_unseen("Once more:", PASSPHRASE)
    assert 0 == terminal.end(), terminal.shown
    (first.folder / "etc").rename(first.folder / "old")
    (first.folder / "password").unlink()
    arriving = Terminal(first.command("init", "--from", str(export)), 120, "dumb")
    arriving.answer_unseen("Passphrase of the export:", PASSPHRASE)
    assert 0 == arriving.end(), arriving.shown
    assert PASSPHRASE not in terminal.shown + arriving.shown
    assert ["farmlease.toml", "keyring.json"] == first.everything()


@pytest.mark.parametrize("way", ["--export", "--from"])
def test_without_a_terminal_the_passphrase_is_given(first: Place, way: str) -> None:
    """Nobody can be asked: the options are named; a file is one of them, a short one is refused, two ways are."""
    file = first.folder / "p"
    file.write_text("short\n")
    target = first.folder / "x.export"
    if way == "--from":
        target = first.export()
        first.config.unlink()
    none = first.run("init", way, str(target))
    both = first.run("init", way, str(target), "--passphrase-file", str(file), "--passphrase-stdin")
    short = first.run("init", way, str(target), "--passphrase-file", str(file))
    assert [2, 2, 5 if way == "--from" else 2] == [each.returncode for each in (none, both, short)]
    assert "--passphrase-stdin or --passphrase-file" in none.stderr
    assert 1 == none.stderr.count("\n")


def test_what_the_export_says_is_no_option(first: Place) -> None:
    """The farm's own values come with the export, so that two hosts cannot differ in them."""
    done = first.run("init", "--from", "x", "--farm", "b")
    assert (2, True) == (done.returncode, "--farm is for the first host" in done.stderr)
    done = first.run("init", "--from", "x", "--export", "y")
    assert (2, True) == (done.returncode, "two commands" in done.stderr)


def test_an_embedded_store_is_no_farms(place: Place) -> None:
    """It can be exported, with a warning that no other host reaches it."""
    assert 0 == place.init("--store", "embedded:").returncode
    target = place.folder / "e"
    done = place.run("init", "--export", str(target), "--passphrase-stdin", text=PASSPHRASE + "\n")
    assert (0, True) == (done.returncode, "warning: the store is embedded" in done.stderr)
