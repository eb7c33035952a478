"""Markers that distinguish this host, this boot and a process from others.

An agent that restarts within the same boot is the same incarnation and adopts its sessions. After a reboot it is a new
one, because the sessions of the old life are gone whatever the journal says. The marker of a boot is the system's; the
name of an incarnation is random, so that two clones of a golden image are two incarnations.

A marker must never call a restart a reboot, nor this host another one: every session of the node would end. So only
facts count that cannot change while a system runs; addresses of network cards, which come and go, do not.

Process ids are used again, so a process is known by its pid and its start, by a clock that is never set where the
system has one: a host whose clock is corrected must not lose its sessions.

Not visible is not gone. Where /proc hides a process (``hidepid``), the kernel still says whether its pid is in use. One
that is hidden is an error here, PermissionError, and never an answer.
"""

import errno
import hashlib
import os
import re
import secrets
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import psutil

__all__ = [
    "HostIdentity",
    "Sight",
    "boot_marker",
    "is_incarnation",
    "lives",
    "machine_marker",
    "new_incarnation",
    "owner",
    "same_boot",
    "sight_of",
    "started_at",
]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")
#: Exists if the machine id was made for this boot alone (a host without a disk of its own); then it identifies nothing.
_PASSING_MACHINE_ID = Path("/run/machine-id")
#: Seconds two readings of the same boot time may differ where it is computed from a clock that is being corrected.
_TOLERANCE = 120
_INCARNATION = re.compile(r"[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostIdentity:
    """The host of an agent: its node's name, the system (``''``: not known), and the boot."""

    node: str
    machine: str
    boot: str

    @property
    def digest(self) -> str:
        """Return a text that no other host has, nor this one after its next boot; empty if that is not known."""
        if not self.machine and self.boot.startswith("booted:"):
            return ""
        return hashlib.sha256(f"farmlease {self.machine} {self.boot}".encode()).hexdigest()[:16]

    def is_host_of(self, node: str, machine: str) -> bool:
        """Whether this node and machine are this host's; an unknown one counts as this host's."""
        return node in {"", self.node} and (not machine or not self.machine or machine == self.machine)


class Sight(Enum):
    """Whether this agent could tell when a process ends; where it could not, why, for whoever named the process."""

    CLEAR = ""
    NOBODY = (
        "is no process that runs here, as the agent sees it: it has ended, or the number is of another PID namespace "
        "(a container); leave it out, or send the number that the agent's host has for it"
    )
    HIDDEN = (
        "is a process that the agent may not look at, so it would not see it end; let the agent see all of /proc (is "
        "it mounted with hidepid?), or leave it out and end the session yourself"
    )
    ELSEWHERE = (
        "has another number for the agent: the caller is in another PID namespace (a container); leave it out and end "
        "the session yourself, or start it from the agent's host"
    )


def new_incarnation() -> str:
    """Return a name that no other incarnation of any node has: 12 hexadecimal digits."""
    return secrets.token_hex(6)


def is_incarnation(name: str) -> bool:
    """Whether this has the form of ``new_incarnation``."""
    return _INCARNATION.fullmatch(name) is not None


def boot_marker() -> str:
    """Return a text that is another one after each boot."""
    if sys.platform == "linux" and _BOOT_ID.exists():
        return _BOOT_ID.read_text(encoding="ascii").strip()
    return f"booted:{psutil.boot_time():.0f}"


def same_boot(one: str, other: str) -> bool:
    """Whether two markers are of the same boot."""
    kind, _, first = one.partition(":")
    other_kind, _, second = other.partition(":")
    if kind == other_kind == "booted" and first.isdecimal() and second.isdecimal():
        return abs(int(first) - int(second)) < _TOLERANCE
    return one == other


def machine_marker() -> str:
    """Return a text that is this installed system's own, the same after each boot; ``''`` if there is none.

    A digest, so that the system's own id stays private. A copy of a disk has the id of the original until the image is
    prepared for cloning; the boot distinguishes the two.
    """
    found = _machine_id()
    return hashlib.sha256(f"farmlease {found}".encode()).hexdigest()[:16] if found else ""


def sight_of(pid: int, asked_by: int | None = None) -> Sight:
    """Return whether the agent could watch this process.

    ``asked_by``: pid of the process that names it, as the kernel gives it; 0: it has none here; None: not known.
    """
    if asked_by is not None and _counts_otherwise(asked_by):
        return Sight.ELSEWHERE
    try:
        started = started_at(pid)
        return Sight.CLEAR if started is not None and lives(pid, started) else Sight.NOBODY
    except (OSError, psutil.Error):
        return Sight.HIDDEN


def owner(pid: int) -> int | None:
    """Return the uid of whoever started this process, whatever rights it has now; None if that cannot be said.

    What is said is true of one process: if the pid went over to another one meanwhile, nothing is.
    """
    try:
        before = started_at(pid)
        uid = _real_uid(pid)
        return uid if before is not None and started_at(pid) == before else None
    except (OSError, psutil.Error):
        return None


def _machine_id() -> str:
    try:
        if sys.platform == "win32":
            import winreg  # noqa: PLC0415 - exists on Windows only

            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Cryptography") as key:
                return str(winreg.QueryValueEx(key, "MachineGuid")[0]).strip()
        else:
            found = "" if _PASSING_MACHINE_ID.exists() else _MACHINE_ID.read_text(encoding="ascii").strip()
            return "" if found == "uninitialized" else found
    except (OSError, ValueError):
        return ""


if sys.platform == "linux":

    def started_at(pid: int) -> float | None:
        """When this process started, in clock ticks since the host's boot; None if there is no such process.

        PermissionError if there is one that this process may not look at.
        """
        found = _stat(pid)
        return None if found is None else found[1]

    def lives(pid: int, started: float) -> bool:
        """Whether the process that had this pid then is still running; one that only waits to be reaped is not.

        PermissionError if the process that has it now may not be looked at.
        """
        found = _stat(pid)
        return found is not None and found[0] not in {"Z", "X"} and found[1] == started

    def _stat(pid: int) -> tuple[str, float] | None:
        """Return a process's state and start. Its name, which it chooses itself, ends at the last parenthesis."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            if _is_in_use(pid):  # /proc is mounted so that it hides the processes of others, or is not there at all
                raise PermissionError(errno.EPERM, "there is such a process, and /proc does not show it") from None
            return None
        return fields[0], float(fields[19])

    def _is_in_use(pid: int) -> bool:
        """Whether there is a process, by the one question that the kernel answers about those that are hidden too."""
        try:
            os.kill(pid, 0)  # sends nothing
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def _counts_otherwise(caller: int) -> bool:
        """Whether processes have other numbers for a caller: the kernel has none to name it by, or more than for us."""
        if caller == 0:
            return True
        theirs, ours = _numbers_of(str(caller)), _numbers_of("self")
        return theirs != ours and 0 not in {theirs, ours}

    def _numbers_of(process: str) -> int:
        """Return how many numbers a process has, one for each PID namespace that it is in; 0: that cannot be read."""
        try:
            status = Path(f"/proc/{process}/status").read_text(errors="replace")
        except OSError:
            return 0
        found = re.search(r"^NSpid:((?:[ \t]+\d+)+)$", status, re.MULTILINE)
        return len(found[1].split()) if found else 0

else:

    def started_at(pid: int) -> float | None:
        """When this process started, in seconds since 1970 by the host's clock; None if there is no such process."""
        try:
            return float(psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None
        except psutil.AccessDenied as error:
            raise PermissionError(errno.EPERM, str(error)) from None

    def lives(pid: int, started: float) -> bool:
        """Whether the process that had this pid then is still running; one that only waits to be reaped is not."""
        try:
            process = psutil.Process(pid)
            return bool(process.create_time() == started and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied as error:
            raise PermissionError(errno.EPERM, str(error)) from None

    def _counts_otherwise(caller: int) -> bool:
        return caller == 0


if sys.platform == "win32":

    def _real_uid(pid: int) -> int | None:  # noqa: ARG001 - a process has no uid here
        return None

else:

    def _real_uid(pid: int) -> int | None:
        return int(psutil.Process(pid).uids().real)
