"""Whether somebody works in a login session of this host, as its logind says.

Desktops and terminals tell logind that they idle (``IdleHint``). It is asked by its own program ``loginctl``, once for
all sessions: a library for D-Bus would be one more dependency of a process that runs as root. A host without logind (a
container, Windows) answers nothing, which is no error.

A process belongs to the login session whose scope it is in. Only scopes that stand directly below slices count: users
may make groups of any name inside of their own ``user@UID.service``.
"""

import asyncio
import re
import shutil
import subprocess
from asyncio.subprocess import Process
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

__all__ = ["LoginSession", "Logind", "is_answering", "login_session_of"]

_log = structlog.get_logger(__name__)

_PROGRAM = "loginctl"
_LIMIT = 2.0  #: seconds for which logind may keep the answer
#: How many sessions that logind no longer knows are passed over in one look; loginctl stops at each of them.
_MOST_UNKNOWN = 8
_SCOPE = re.compile(r"(?:/[^/]+\.slice)*/session-(?P<session>[A-Za-z0-9]+)\.scope(?:/.*)?", re.ASCII)
_MANAGER = re.compile(r"(?:/[^/]+\.slice)*/user@(?P<user>[0-9]+)\.service(?:/.*)?", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class LoginSession:
    """What logind knows by ``name``: one ``session``, or all sessions of one ``user`` (by uid).

    The programs of a desktop that runs them by the user's own service manager belong to the user and to no session.
    """

    kind: str
    name: str


def login_session_of(pid: int) -> LoginSession | None:
    """Return where a process belongs; None if it is gone, or a service's, or this host has no control groups."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in {"", "name=systemd"} and (found := _place(path)) is not None:
            return found
    return None


def _place(path: str) -> LoginSession | None:
    if scope := _SCOPE.fullmatch(path):
        return LoginSession("session", scope["session"])
    if manager := _MANAGER.fullmatch(path):
        return LoginSession("user", manager["user"])
    return None


def is_answering() -> bool:
    """Whether this host has a logind that answers. Waits for it."""
    program = shutil.which(_PROGRAM)
    if program is None:
        return False
    command = [program, "list-sessions", "--no-pager"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_LIMIT)  # noqa: S603 - no outsider's word
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


class Logind:
    """The logind of this host."""

    def __init__(self) -> None:
        self._failing = False

    async def idle(self, sessions: Collection[LoginSession]) -> Mapping[LoginSession, bool]:
        """Return of each session whether it idles; what logind does not know, or does not say now, is missing."""
        known: dict[LoginSession, bool] = {}
        for kind in ("session", "user"):
            names = sorted(each.name for each in sessions if each.kind == kind)
            known |= {LoginSession(kind, name): idle for name, idle in (await self._idle(kind, names)).items()}
        return known

    async def _idle(self, kind: str, names: list[str]) -> dict[str, bool]:
        """Ask for all at once. Where loginctl stops at one that is gone, go on with those after it."""
        known: dict[str, bool] = {}
        for _ in range(_MOST_UNKNOWN):
            if not names:
                break
            hints = await self._hints(kind, names)
            known |= dict(zip(names, hints, strict=False))
            names = names[len(hints) + 1 :]
        return known

    async def _hints(self, kind: str, names: list[str]) -> list[bool]:
        """Return the hints of the first of these, as many as loginctl tells."""
        program = shutil.which(_PROGRAM)
        if program is None:
            return []
        command = [program, f"show-{kind}", "--no-pager", "--property=IdleHint", "--", *names]
        try:
            output = await _output(command)
        except OSError as error:
            if not self._failing:
                _log.warning("logind.failed", why=str(error) or "it does not answer in time")
            self._failing = True
            return []
        self._failing = False
        return [line == "IdleHint=yes" for line in output.splitlines() if line.startswith("IdleHint=")]


async def _output(command: list[str]) -> str:
    """Return what a command prints; OSError (TimeoutError too) if it cannot be run, or takes too long."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(_LIMIT):
            output, _ = await process.communicate()
    finally:
        await _reap(process)
    return output.decode(errors="replace")


async def _reap(process: Process) -> None:
    """End a program that is still there, so that none is left when the agent ends."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
