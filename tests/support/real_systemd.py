"""A real systemd as the first process of namespaces of its own: what it makes of a unit is not emulated.

It has a /run, a /var/lib and a control group of its own, the host's network, and of the host's files what lies in /opt
and /etc besides. Nothing of it outlives it.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.patience import within
from tests.support.servers import missing, require

__all__ = ["RealSystemd", "real_systemd"]

_SYSTEMD = Path("/usr/lib/systemd/systemd")
_SAID = "/run/said.log"
_CODE = Path(__file__).parents[2]
#: Targets that units name by default; the system's own would start half of a system.
_TARGETS = ("sysinit", "basic", "shutdown", "multi-user", "network")
#: Makes the rooms. $1: a folder with etc, units and mounts; $2: a name for the control group; $3: options of /proc.
_OUTER = """\
mount --make-rprivate / && mount -t cgroup2 none /sys/fs/cgroup && mkdir /sys/fs/cgroup/$2 &&
echo $$ > /sys/fs/cgroup/$2/cgroup.procs &&
exec unshare --mount --pid --cgroup --uts --ipc --fork --kill-child sh -c "$4" sh "$@"
"""
_INNER = """\
umount /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/systemd /run/upper /run/work &&
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc && cp -a "$1/etc/." /etc/ &&
mount -t tmpfs -o mode=755 tmpfs /var/lib && mount -t tmpfs -o mode=755 tmpfs /opt &&
mkdir -p /opt/venv /opt/code /opt/farmlease/bin && mount --bind "$5" /opt/venv && mount --bind "$6" /opt/code &&
cp "$1/farmlease" /opt/farmlease/bin/farmlease && cp -a "$1/units" /run/units && mount -t proc -o "$3" proc /proc &&
mount --make-rshared / && export container=tests SYSTEMD_UNIT_PATH=/run/units && unset NOTIFY_SOCKET &&
exec /usr/lib/systemd/systemd --system --unit=basic.target --log-target=console --show-status=no
"""
_GONE = 'mount --make-rprivate / && mount -t cgroup2 none /sys/fs/cgroup && find /sys/fs/cgroup/"$1" -depth -type d -exec rmdir {} +'


class RealSystemd:
    """A running one. ``pid``: as the host numbers it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside it, as root."""
        inside = [
            "nsenter",
            "--target",
            str(self.pid),
            "--mount",
            "--pid",
            "--cgroup",
            "--uts",
            "--ipc",
            "--",
            *command,
        ]
        return subprocess.run(inside, check=False, capture_output=True, text=True, timeout=within(60))

    def farmlease(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run our own command, as it is installed there."""
        return self.run("/opt/farmlease/bin/farmlease", *words)

    def said(self) -> str:
        """Return what the units have written to their standard error."""
        return self.run("cat", _SAID).stdout

    def show(self, unit: str, name: str) -> str:
        """Return what systemd has for a property of a unit."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).stdout.strip()


@contextmanager
def real_systemd(folder: Path, units: Sequence[Path], *, proc: str) -> Iterator[RealSystemd]:
    """Run systemd with these units, and farmlease in /opt. ``folder``/etc is laid over /etc; ``proc``: options of /proc."""
    if os.geteuid() != 0 or not _SYSTEMD.exists():
        missing("systemd, or the right to run it in namespaces,")
    for program in ("unshare", "nsenter"):
        require(program)
    _furnish(folder, units)
    name = f"farmlease-test-{os.getpid()}-{time.time_ns()}"
    words = [str(folder), name, proc, _INNER, sys.prefix, str(_CODE)]
    with (folder / "systemd.log").open("wb") as log:
        outer = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _OUTER, "sh", *words],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield RealSystemd(_first_process(outer, folder / "systemd.log"))
    finally:
        outer.send_signal(signal.SIGKILL)  # and with it all that is in there
        outer.wait(within(20))
        _forget(name)


def _furnish(folder: Path, units: Sequence[Path]) -> None:
    place = folder / "units"
    place.mkdir()
    for target in _TARGETS:
        wants = "".join(f"Wants={unit.name}\n" for unit in units) if target == "basic" else ""
        (place / f"{target}.target").write_text(f"[Unit]\nDefaultDependencies=no\n{wants}")
    for unit in units:
        (place / unit.name).write_text(unit.read_text())
        (place / f"{unit.name}.d").mkdir()  # what it says goes where no journal is needed
        (place / f"{unit.name}.d" / "log.conf").write_text(f"[Service]\nStandardError=append:{_SAID}\n")
    script = folder / "farmlease"
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH=/opt/code exec /opt/venv/bin/{shlex.quote(Path(sys.executable).name)} -m farmlease "$@"\n'
    )
    script.chmod(0o755)


def _first_process(outer: "subprocess.Popen[bytes]", log: Path) -> int:
    """Return the number of systemd's own process, once it answers."""
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    deadline = time.monotonic() + within(30)
    while time.monotonic() < deadline and outer.poll() is None:
        for pid in map(int, children.read_text().split()):
            running = RealSystemd(pid)
            if running.run("systemctl", "is-active", "basic.target").stdout.strip() == "active":
                return pid
        time.sleep(0.1)
    missing(f"a kernel that runs systemd in namespaces ({log.read_text(errors='replace')[-500:]})")
    raise AssertionError


def _forget(name: str) -> None:
    """Remove the control groups that it left behind, as soon as its processes have ended."""
    deadline = time.monotonic() + within(10)
    while time.monotonic() < deadline:
        if not subprocess.run(
            ["unshare", "--mount", "sh", "-c", _GONE, "sh", name], check=False, capture_output=True
        ).returncode:
            return
        time.sleep(0.1)
