"""The administrator's programs that run when a session is ``granted``, has ``ended`` or is ``lost``.

Two more run when the node begins to drain and when it takes new users again: ``drained`` and ``undrained``.

A hook is run without a shell. Its placeholders are filled one by one and never split, and names that could pass for an
option are refused before (``domain/identity.py``). It may take ten seconds. Its result changes no lease, and its output
goes to the log at debug level, as it may hold names.

Of those about sessions at most ``AT_ONCE`` run at the same time, so that a thousand sessions that end together do not
fill the host with processes. The others wait, in the order in which they were due, and each is run. One about the node
does not wait for them.
"""

import asyncio
import itertools
import os
import re
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum

import structlog

from farmlease.node.concurrency import BackgroundTasks
from farmlease.node.journal.sessions import NodeSession

__all__ = ["AT_ONCE", "Hook", "Hooks"]

_log = structlog.get_logger(__name__)

#: Hooks about sessions that run at the same time.
AT_ONCE = 32
#: Seconds a hook may take before it is killed.
_LIMIT = 10.0
_LONGEST_OUTPUT = 4096  #: bytes of a hook's output that reach the log
_PLACEHOLDER = re.compile(r"\{(user|session|reason|pool|node)\}")


class Hook(StrEnum):
    """When a hook is run."""

    GRANTED = "granted"
    ENDED = "ended"
    LOST = "lost"
    DRAINED = "drained"
    UNDRAINED = "undrained"


class Hooks:
    """The hooks of one node; an event without a command runs nothing.

    ``ran`` is called with each hook that was run, by name, and its result: ok, failed or timeout.
    """

    def __init__(
        self, commands: Mapping[Hook, tuple[str, ...]], tasks: BackgroundTasks, ran: Callable[[str, str], None]
    ) -> None:
        self._commands = commands
        self._tasks = tasks
        self._ran = ran
        self._numbers = itertools.count()
        self._places = asyncio.Semaphore(AT_ONCE)  # lets in who came first

    @property
    def tell_of_drain(self) -> bool:
        """Whether anybody is to be told that the node drains, or drains no longer."""
        return any(self._commands.get(hook) for hook in (Hook.DRAINED, Hook.UNDRAINED))

    def run(self, hook: Hook, session: NodeSession, reason: str = "") -> None:
        """Run a hook about a session in the background."""
        command = self._commands.get(hook, ())
        if command:
            values = {"user": session.user.canonical, "session": session.id, "pool": session.pool, "reason": reason}
            filled = [_filled(part, values) for part in command]
            # Hosts reuse session ids: the hook of the next session must not be taken for this one's.
            self._tasks.run(f"hook {next(self._numbers)}", lambda: self._in_turn(hook, {"session": session.id}, filled))

    async def run_for_node(self, hook: Hook, node: str) -> None:
        """Run a hook about the node, and return when it has ended or was killed."""
        command = self._commands.get(hook, ())
        if command:
            await self._run(hook, {"node": node}, [_filled(part, {"node": node}) for part in command])

    async def _in_turn(self, hook: Hook, about: Mapping[str, str], command: list[str]) -> None:
        async with self._places:
            await self._run(hook, about, command)

    async def _run(self, hook: Hook, about: Mapping[str, str], command: list[str]) -> None:
        self._ran(hook.value, await _run(hook, about, command))


def _filled(part: str, values: Mapping[str, str]) -> str:
    """Replace the placeholders in one go, so that a value that looks like one stays what it is."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), part)


async def _run(hook: Hook, about: Mapping[str, str], command: list[str]) -> str:
    """Run a command; return its result: ok, failed or timeout. ``about``: what the log says of it."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
    except OSError as error:
        _log.error("hook.failed", hook=hook.value, **about, why=error.strerror)
        return "failed"
    try:
        async with asyncio.timeout(_LIMIT):
            output, printed = await _output(process)
            status = await process.wait()
    except TimeoutError:
        _kill(process)
        await process.wait()
        _log.error("hook.failed", hook=hook.value, **about, why=f"took longer than {_LIMIT:.0f} s")
        return "timeout"
    _log.debug("hook.output", hook=hook.value, **about, output=output.decode(errors="replace"))
    level = _log.info if status == 0 else _log.error
    level("hook.ran", hook=hook.value, **about, status=status, printed=printed)
    return "ok" if status == 0 else "failed"


async def _output(process: Process) -> tuple[bytes, int]:
    """Return the beginning of a hook's output, and the number of bytes of all of it."""
    kept, printed = b"", 0
    while process.stdout is not None and (chunk := await process.stdout.read(65_536)):
        kept += chunk[: _LONGEST_OUTPUT - len(kept)]
        printed += len(chunk)
    return kept, printed


if sys.platform == "win32":

    def _kill(process: Process) -> None:
        """End a hook."""
        with suppress(ProcessLookupError):
            process.kill()

else:

    def _kill(process: Process) -> None:
        """End a hook and all it started, so that nothing of it is left holding its output."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
