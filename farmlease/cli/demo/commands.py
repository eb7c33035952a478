"""``farmlease demo``: the whole story on this machine, played by real processes, in some seconds.

Guaranteed: it shows only what happened, a step whose check fails ends it with status 1, and it leaves nothing behind.
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
    from farmlease.cli.demo.printer import DemoPrinter
    from farmlease.cli.demo.stage import DemoFarm
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

    from farmlease.cli.demo.printer import DemoPrinter
    from farmlease.cli.demo.stage import needed_program

    # Logs of the store's start would appear between the lines; failures are raised as errors anyway.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    status = asyncio.run(_perform(DemoPrinter(), needed_program(), keep=keep))
    click.get_current_context().exit(status)


async def _perform(printer: "DemoPrinter", program: "ServerProgram", *, keep: bool) -> int:
    """Start the farm, play the story, remove the farm; return the exit status."""
    from farmlease.cli.demo.stage import demo_farm
    from farmlease.cli.demo.story import Story

    began = time.monotonic()
    interrupts = Interrupts()
    interrupts.listen()
    printer.title("farmlease demo: a borrowed licence follows its user across two hosts")
    played = False
    try:
        async with demo_farm(program) as farm:
            try:
                interrupts.check()
                await Story(farm, printer).play()
                interrupts.check()
                played = True
                if keep:
                    await _keep(farm, printer)
            finally:
                interrupts.ignore()
    except asyncio.CancelledError:
        if interrupts.signal is None:
            raise
        if not played:
            printer.closing("Interrupted. Processes have ended and the folder is removed.")
            return 128 + interrupts.signal
    ended = {host.name: host.process.returncode for host in farm.hosts.values() if host.process}
    if set(ended.values()) != {0} or farm.folder.exists():
        printer.closing(f"The demo did not clean up: agents ended with {ended}, folder {farm.folder}.")
        return 1
    printer.closing(
        f"All of it held. Both agents and the store have ended and {farm.folder} is removed; "
        f"{time.monotonic() - began:.1f} s in all."
    )
    return 0


async def _keep(farm: "DemoFarm", printer: "DemoPrinter") -> None:
    """Print what to try and wait for Ctrl-C. FarmleaseError if an agent ends meanwhile."""
    printer.closing("Everything keeps running until Ctrl-C. Try, in another terminal:")
    for command in _commands(farm):
        printer.command(command)
    with contextlib.suppress(asyncio.CancelledError):
        raise await farm.agent_end()


def _commands(farm: "DemoFarm") -> list[str]:
    """Return commands to try, which work in the order printed."""
    one, two = (shlex.join([*_program(), "--config", str(host.config)]) for host in farm.hosts.values())
    file = shlex.quote(str(farm.licence_file("john")))
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
        commands.append(f"redis-cli -s {shlex.quote(str(farm.server.socket))} keys '*'")
    return commands


def _program() -> list[str]:
    """Return how this program was called."""
    called = sys.argv[0]
    if Path(called).name != "farmlease":
        return [sys.executable, "-m", "farmlease"]
    return ["farmlease"] if shutil.which("farmlease") == called else [called]
