"""``farmlease demo``: the whole story on this machine, played by real processes, in some seconds.

What it shows must have happened; a step that does not hold ends it with status 1. It leaves nothing behind.
"""

import asyncio
import contextlib
import logging
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from farmlease.cli import example
from farmlease.cli.signals import Interrupts

if TYPE_CHECKING:
    from farmlease.cli.demo.printer import Voice
    from farmlease.cli.demo.stage import Stage
    from farmlease.store.connection.embedded_binary import ServerProgram

__all__ = ["demo"]


@click.command(epilog=example("farmlease demo", "farmlease demo --keep"))
@click.option("--keep", is_flag=True, help="Leave store and agents running until Ctrl-C, and print what to try.")
def demo(keep: bool) -> None:  # noqa: FBT001 -- an option
    """See the whole story on this machine; needs no set-up.

    A store, two hosts with an agent each, and a user who moves between them: limits, what Redis holds, an outage.
    Exit status: 0 all of it held, 1 a step did not.
    """
    import structlog

    from farmlease.cli.demo.printer import Voice
    from farmlease.cli.demo.stage import needed_program

    # What the store's starter logs would stand between the lines; failures come as errors anyway.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    status = asyncio.run(_perform(Voice(), needed_program(), keep=keep))
    click.get_current_context().exit(status)


async def _perform(voice: "Voice", program: "ServerProgram", *, keep: bool) -> int:
    """Set the stage, tell the story, clear the stage; return the exit status."""
    from farmlease.cli.demo.stage import staged
    from farmlease.cli.demo.story import Story

    began = time.monotonic()
    interrupts = Interrupts()
    interrupts.listen()
    voice.title("farmlease demo: a borrowed licence follows its user across two hosts")
    told = False
    try:
        async with staged(program) as stage:
            try:
                interrupts.check()
                await Story(stage, voice).tell()
                interrupts.check()
                told = True
                if keep:
                    await _keep(stage, voice)
            finally:
                interrupts.ignore()
    except asyncio.CancelledError:
        if interrupts.signal is None:
            raise
        if not told:
            voice.closing("Interrupted. Processes have ended and the folder is removed.")
            return 128 + interrupts.signal
    ended = {host.name: host.process.returncode for host in stage.hosts.values() if host.process}
    if set(ended.values()) != {0} or stage.folder.exists():
        voice.closing(f"The stage was not left in order: agents ended with {ended}, folder {stage.folder}.")
        return 1
    voice.closing(
        f"All of it held. Both agents and the store have ended and {stage.folder} is removed; "
        f"{time.monotonic() - began:.1f} s in all."
    )
    return 0


async def _keep(stage: "Stage", voice: "Voice") -> None:
    """Print what to try and wait for Ctrl-C. FarmleaseError if an agent ends meanwhile."""
    voice.closing("Everything keeps running until Ctrl-C. Try, in another terminal:")
    for command in _commands(stage):
        voice.command(command)
    with contextlib.suppress(asyncio.CancelledError):
        raise await stage.an_agent_ended()


def _commands(stage: "Stage") -> list[str]:
    """Return commands that work now, in the order printed."""
    one, two = (shlex.join([*_program(), "--config", str(host.config)]) for host in stage.hosts.values())
    file = shlex.quote(str(stage.licence_file("john")))
    commands = [
        f"{one} session list",
        f"cat {file}",
        f"{one} session end 10",
        f"{two} session start 'CORP\\john' --session 11",
        f"cat {file}",
        f"{two} session save 11",
        f"{two} session show 11",
        f"{one} lease list",
        f"{one} lease show 'CORP\\john'",
        f"{one} lease check 'CORP\\john'",
        f"{one} pool show qlikview",
        f"{one} health",
    ]
    if shutil.which("redis-cli"):
        commands.append(f"redis-cli -s {shlex.quote(str(stage.server.socket))} keys '*'")
    return commands


def _program() -> list[str]:
    """Return how this program is called here."""
    called = sys.argv[0]
    if Path(called).name != "farmlease":
        return [sys.executable, "-m", "farmlease"]
    return ["farmlease"] if shutil.which("farmlease") == called else [called]
