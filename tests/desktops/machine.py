"""Machines of the test's own: mounts, network, processes and host name are nobody else's, and end with the test.

A machine is a process namespace. Whoever kills its first process ends all of it, and the kernel takes mounts and network
away with the last process. The first process dies with the one that waits for it, and that one with the test: so nothing
is left, also after ``kill -9`` of the test. A machine inside another one ends with that one.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.patience import within
from tests.support.samples import ROOT

__all__ = ["Machine", "machine", "running"]

#: Seconds that any command on a machine may take where nothing else goes on.
PATIENCE = 30.0
#: Dies with its parent, whatever that one dies of.
WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
#: The first process: adopts what others leave behind, and has the kernel bury it.
FIRST = "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: signal.pause()"
#: What a machine has for itself lies in memory, and is no more than this.
ROOM = "size=512m,mode=755"


@dataclass(frozen=True, slots=True)
class Running:
    """A process on any machine, the real one among them: by its number and its user's there, and by its machine."""

    pid: int
    uid: int
    machine: str


def running(program: str) -> Iterator[Running]:
    """Yield the processes of a program. Those that have ended and wait to be buried do not run."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "comm").read_text().rstrip("\n") != program:
                continue
            facts = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            if facts["State"].split()[0] not in "ZX":
                inside = int(facts["NSpid"].split()[-1])
                yield Running(inside, int(facts["Uid"].split()[0]), str((folder / "ns" / "pid").readlink()))


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine. ``first`` is the process whose end is its end, as the test sees it."""

    name: str
    first: psutil.Process
    logs: Path
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def inside(self, path: str) -> Path:
        """Return where the test finds what the machine has at ``path``."""
        return Path(f"/proc/{self.first.pid}/root{path}")

    def running(self, program: str, uid: int) -> list[int]:
        """Return the numbers of a user's processes there that run a program."""
        own = str(Path(f"/proc/{self.first.pid}/ns/pid").readlink())
        return [each.pid for each in running(program) if (uid, own) == (each.uid, each.machine)]

    def command(self, *words: str | Path) -> tuple[str, ...]:
        """Return the words that run a command there."""
        spaces = ("--mount", "--net", "--pid", "--uts", "--ipc", "--wd=/")
        return ("nsenter", "--target", str(self.first.pid), *spaces, "--", *map(str, words))

    def run(self, *words: str | Path, said: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with ``said`` on its standard input; fail if it does, unless told not to."""
        done = subprocess.run(
            self.command(*WITH_PARENT, *words),
            input=said or "", capture_output=True, text=True, check=False, timeout=within(PATIENCE), start_new_session=True,
        )  # fmt: skip
        assert not check or 0 == done.returncode, f"{self.name}: {words}: {done.stdout}{done.stderr}"
        return done

    def start(self, log: str, *words: str | Path) -> subprocess.Popen[bytes]:
        """Start a program that goes on; it ends with the machine, with the test, and when its handle is killed."""
        with (self.logs / f"{self.name}.{log}.log").open("ab") as out:
            program = subprocess.Popen(
                self.command(*WITH_PARENT, *words),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        self.started.append(program)
        return program

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file there."""
        file = self.inside(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def kill(self) -> None:
        """End it as a loss of power would."""
        self.first.kill()
        psutil.wait_procs([self.first], within(PATIENCE))

    def log(self, name: str) -> str:
        """Return what a program that was started there has said."""
        return (self.logs / f"{self.name}.{name}.log").read_text(errors="replace")


@contextmanager
def machine(name: str, logs: Path, within_it: Machine | None = None, shared: Sequence[Path] = ()) -> Iterator[Machine]:
    """Make a machine, inside another one if that is given; ``shared`` folders are the test's own there too."""
    new = (*WITH_PARENT, "unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc", sys.executable, "-IS", "-c", FIRST, name)  # fmt: skip
    words = within_it.command(*new) if within_it else new
    started = [subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)]
    try:
        made = Machine(name, _first(started[0], name), logs, started)
        _furnish(made, shared)
        yield made
    finally:
        for each in reversed(started):
            each.kill()
        for each in started:
            each.wait(within(PATIENCE))


def _first(process: "subprocess.Popen[bytes]", name: str) -> psutil.Process:
    """Wait for the first process of a machine that is being made, and return it."""
    while process.poll() is None:
        for each in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if each.cmdline()[1:] == ["-IS", "-c", FIRST, name]:
                    return each
    raise AssertionError("no namespaces: see what unshare said")


def _furnish(made: Machine, shared: Sequence[Path]) -> None:
    """Give a machine its name, a network of one host, and folders of its own in memory."""
    needed = {ROOT, Path(sys.prefix), Path(sys.base_prefix), *shared}
    temporary = Path(tempfile.gettempdir())
    lines = [
        "set -e",
        f"hostname {made.name}",
        "ip link set lo up",
        f"mount -t tmpfs -o {ROOM} machine /run",
        f"mkdir -p /run/before && mount --rbind {temporary} /run/before",
        f"mount -t tmpfs -o {ROOM},mode=1777 machine {temporary}",
        "mkdir -p -m 1777 /tmp/.X11-unix",
        "mount -t tmpfs -o mode=1777 machine /dev/shm",
    ]
    for folder in sorted(each for each in needed if each.is_relative_to(temporary)):
        before = Path("/run/before") / folder.relative_to(temporary)
        lines += [f"mkdir -p {folder}", f"mount --rbind {before} {folder}"]
    made.run("sh", "-c", "\n".join(lines))
