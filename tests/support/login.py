"""Login sessions for tests: a ``loginctl`` that says what the test wants, and processes in scopes of their own.

``logind_on_a_bus`` is the real thing but for logind itself: a system bus by dbus-daemon, python-dbusmock's logind on
it, and systemd's own loginctl, which is told that systemd runs by a ``/run/systemd/system`` in a namespace of its own.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.agents import soon
from tests.support.patience import within
from tests.support.servers import missing, require

__all__ = ["FakeLoginctl", "MockedLogind", "fake_loginctl", "logind_on_a_bus", "scope", "scoped"]

LOGIND = "org.freedesktop.login1"
BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={folder}/bus</listen>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>
"""
#: Systemd's own program, on a host that systemd booted, as far as it can tell.
ON_SYSTEMD = """\
#!/bin/sh
export DBUS_SYSTEM_BUS_ADDRESS=unix:path={folder}/bus
exec unshare --mount sh -c 'mount -t tmpfs none /run/systemd && mkdir /run/systemd/system && exec {program} "$@"' sh "$@"
"""
#: Says of each name what stands in a file of this name, and stops where there is none, as the real one does.
FAKE = """\
#!/bin/sh
echo "$@" >> "{folder}/asked"
[ -e "{folder}/hangs" ] && exec sleep 60
[ -e "{folder}/away" ] && exit 1
[ "$1" = list-sessions ] && exit 0
kind=${{1#show-}}
while [ "$1" != -- ]; do shift; done
shift
for name in "$@"; do
    [ -e "{folder}/$kind.$name" ] || {{ echo "Failed to get $kind: none of this name" >&2; exit 1; }}
    echo "IdleHint=$(cat "{folder}/$kind.$name")"
    echo
done
"""


@dataclass(frozen=True, slots=True)
class FakeLoginctl:
    """A loginctl of the test's own. ``folder`` stands first on PATH."""

    folder: Path

    def say(self, name: str, *, idle: bool, kind: str = "session") -> None:
        """Have it know a session, or a user by uid."""
        (self.folder / f"{kind}.{name}").write_text("yes" if idle else "no")

    def forget(self, name: str) -> None:
        """Have it know a session no more."""
        (self.folder / f"session.{name}").unlink()

    def fail(self, *, how: str) -> None:
        """Have it hang, or find no logind (``away``)."""
        (self.folder / how).touch()

    @property
    def asked(self) -> list[str]:
        """Its command lines so far."""
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.exists() else []


def fake_loginctl(folder: Path) -> FakeLoginctl:
    """Write a loginctl into a folder."""
    folder.mkdir(exist_ok=True)
    program = folder / "loginctl"
    program.write_text(FAKE.format(folder=folder))
    program.chmod(0o755)
    return FakeLoginctl(folder)


@contextmanager
def scope(unit: str) -> Iterator[list[str]]:
    """Make a control group of the kernel's, ``unit`` in a slice, as systemd would; yields what runs a command in it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        missing("root on Linux, who may make control groups,")
    slice_ = f"fltest{os.getpid()}.slice"
    with _mounted_groups() as run:
        run(f"mkdir -p /mnt/{slice_}/{unit}")
        enter = (
            f'mount -t cgroup2 none /mnt && echo $$ > "/mnt/{slice_}/{unit}/cgroup.procs" && umount /mnt && exec "$@"'
        )
        try:
            yield ["unshare", "--mount", "sh", "-c", enter, "sh"]
        finally:
            with suppress(subprocess.CalledProcessError):  # another test of this process has a unit in the slice
                run(f"rmdir /mnt/{slice_}/{unit} /mnt/{slice_}")


@contextmanager
def scoped(unit: str, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program in a control group of its own."""
    with scope(unit) as enter:
        process = subprocess.Popen([*enter, *command], stdout=subprocess.PIPE, text=True)
        try:
            file = Path(f"/proc/{process.pid}/cgroup")
            soon(lambda: f".slice/{unit}" in file.read_text(), "the program does not get into its group")
            yield process
        finally:
            process.kill()
            process.communicate()


@contextmanager
def _mounted_groups() -> Iterator[Callable[[str], None]]:
    """Yield what runs a shell's line in a namespace where the control groups lie on /mnt."""
    require("unshare")

    def run(line: str) -> None:
        mounted = f"mount -t cgroup2 none /mnt && {line}"
        subprocess.run(["unshare", "--mount", "sh", "-c", mounted], check=True, capture_output=True, timeout=within(20))

    yield run


@dataclass(frozen=True, slots=True)
class MockedLogind:
    """A logind on a bus of its own. ``programs``: the folder with the loginctl that reaches it."""

    folder: Path

    @property
    def programs(self) -> Path:
        """The folder to put first on PATH."""
        return self.folder / "bin"

    def add(self, session: str, uid: int = 1000, user: str = "john") -> None:
        """Open a login session."""
        self._call("/org/freedesktop/login1", "org.freedesktop.DBus.Mock", "AddSession", "ssusb", session, "seat0", str(uid), user, "true")  # fmt: skip

    def idle(self, session: str, *, on: bool) -> None:
        """Let logind say of a session that it idles, or no longer."""
        path, hint = f"/org/freedesktop/login1/session/{session}", ("1", "IdleHint", "b", str(on).lower())
        self._call(path, "org.freedesktop.DBus.Mock", "UpdateProperties", "sa{sv}", f"{LOGIND}.Session", *hint)

    def _call(self, *words: str) -> None:
        address = f"unix:path={self.folder}/bus"
        subprocess.run(
            ["busctl", f"--address={address}", "call", LOGIND, *words],
            check=True,
            capture_output=True,
            timeout=within(20),
        )


@contextmanager
def logind_on_a_bus(folder: Path) -> Iterator[MockedLogind]:
    """Run a bus with a logind on it."""
    if os.geteuid() != 0:
        missing("root, who may have a namespace,")
    for program in ("dbus-daemon", "busctl", "loginctl", "unshare"):
        require(program)
    python = next((each for each in ("/usr/bin/python3", sys.executable) if _has_dbusmock(each)), None)
    if python is None:
        missing("python3-dbusmock")
    (folder / "bus.conf").write_text(BUS.format(folder=folder))
    (folder / "bin").mkdir()
    wrapper = folder / "bin" / "loginctl"
    wrapper.write_text(ON_SYSTEMD.format(folder=folder, program=shutil.which("loginctl")))
    wrapper.chmod(0o755)
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={folder}/bus"}
    with subprocess.Popen(["dbus-daemon", f"--config-file={folder}/bus.conf", "--nofork"]) as bus:
        try:
            soon((folder / "bus").exists, "the bus does not start")
            mock = [str(python), "-m", "dbusmock", "--system", "--template", "logind"]
            with subprocess.Popen(mock, env=environment, stdout=subprocess.DEVNULL) as logind:
                try:
                    soon(lambda: _is_there(folder), "logind does not get onto the bus")
                    yield MockedLogind(folder)
                finally:
                    logind.terminate()
        finally:
            bus.terminate()


def _has_dbusmock(python: str) -> bool:
    found = subprocess.run([python, "-c", "import dbusmock"], capture_output=True, check=False, timeout=within(30))
    return found.returncode == 0


def _is_there(folder: Path) -> bool:
    listed = subprocess.run(
        ["busctl", f"--address=unix:path={folder}/bus", "status", LOGIND],
        capture_output=True,
        check=False,
        timeout=within(20),
    )
    return listed.returncode == 0
