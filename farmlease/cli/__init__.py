"""The command ``farmlease``: the group, where its commands live, and how every failure ends.

A command's module is imported when that command is used, so that a logon pays for ``session start`` and for nothing
else. This module must import nothing heavy (no redis, cryptography, pydantic, rich, asyncio) and must not decide
anything: commands call down and print what comes back.
"""

import errno
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import click

from farmlease import __version__
from farmlease.errors import FarmleaseError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from typing_extensions import override
else:
    # typing has it from Python 3.12 on, and typing_extensions would cost every logon milliseconds.
    def override(method):  # noqa: ANN001, ANN202 -- typed above
        """Mark a method that replaces click's."""
        return method


__all__ = [
    "COMMANDS",
    "LazyCommand",
    "LazyGroup",
    "complain",
    "config_file",
    "example",
    "farmlease",
    "main",
    "where_to_look",
]

#: Exit status of a command the user interrupted: 128 + SIGINT, as shells count.
INTERRUPTED = 130
#: A file that the output goes to takes no more.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class LazyCommand(NamedTuple):
    """Where a command lives and what ``farmlease --help`` says of it without importing it."""

    target: str  #: "module:attribute"
    help: str


#: In the order of ``farmlease --help``.
COMMANDS: Mapping[str, LazyCommand] = {
    "demo": LazyCommand("farmlease.cli.demo.commands:demo", "See the whole story on this machine; needs no set-up."),
    "agent": LazyCommand("farmlease.cli.agent:agent", "Run this node's agent in the foreground."),
    "run": LazyCommand("farmlease.cli.run:run", "Hold a seat while a program runs."),
    "session": LazyCommand("farmlease.cli.session:session", "Start, keep and end sessions on this node."),
    "lease": LazyCommand(
        "farmlease.cli.lease.commands:lease", "See who holds which licence of the farm, and take it back."
    ),
    "device": LazyCommand("farmlease.cli.device:device", "See, free and replace the devices of a user."),
    "pool": LazyCommand("farmlease.cli.pool.commands:pool", "Apply the farm's policy and see how full its pools are."),
    "node": LazyCommand("farmlease.cli.node.commands:node", "See the nodes of the farm, and empty one for an update."),
    "usage": LazyCommand("farmlease.cli.usage.commands:usage", "See how the seats were used, hour by hour."),
    "audit": LazyCommand("farmlease.cli.audit:audit", "See every decision: when, what, about whom, where and why."),
    "key": LazyCommand(
        "farmlease.cli.key.commands:key", "Make, list and change the keys that seal the farm's records."
    ),
    "health": LazyCommand("farmlease.cli.health:health", "Ask a node whether it can serve a logon."),
    "doctor": LazyCommand(
        "farmlease.cli.doctor.commands:doctor", "Examine this node and the store, and say what to do."
    ),
    "bench": LazyCommand(
        "farmlease.cli.bench.commands:bench", "Try the store, and say how large a farm it would carry."
    ),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name, and ends each failure in one line and an exit status."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's interface
        """Return the names in the order of the table."""
        return list(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 -- click's interface
        """Import and return the command; None if there is none of that name."""
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        module, _, attribute = lazy.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 -- click's interface
        """Write the table's help, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in COMMANDS.items()])

    @override
    def shell_complete(self, ctx: click.Context, incomplete: str) -> list["CompletionItem"]:
        """Complete a command's name from the table, importing none; click completes the options."""
        from click.shell_completion import CompletionItem  # only when a shell asks

        names = [CompletionItem(n, help=lazy.help) for n, lazy in COMMANDS.items() if n.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    @override
    def invoke(self, ctx: click.Context) -> None:
        """Run the command; whatever it raises becomes one line on stderr and an exit status.

        What click itself ends a command with (usage errors, exits, interrupts, a closed pipe) passes through.
        """
        try:
            super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except FarmleaseError as error:
            complain(str(error), debug=ctx.params["debug"])
            ctx.exit(error.exit_status)
        except Exception as error:
            if isinstance(error, EOFError) or (isinstance(error, OSError) and error.errno == errno.EPIPE):
                raise
            debug = ctx.params["debug"]
            if unwritten := _unwritten(error):
                complain(unwritten, debug=debug)
                ctx.exit(1)
            advice = "" if debug else " (farmlease --debug … shows where)"
            complain(f"{type(error).__name__}: {error}{advice}", debug=debug)
            ctx.exit(1)


def _unwritten(error: Exception) -> str:
    """Return what to say of an answer that cannot be printed; "" for an error that is something else."""
    if isinstance(error, OSError) and error.filename is None and error.errno in _FULL:
        return f"the answer cannot be printed ({error.strerror}); mend where the output goes"
    return ""


def complain(text: str, *, debug: bool = False) -> None:
    """Write one line to stderr, after the traceback of the current exception if ``debug``."""
    if debug:
        import traceback  # only when asked for

        traceback.print_exc()
    click.echo(f"farmlease: {' '.join(text.split())}", err=True)


def config_file() -> str | None:
    """Return the FILE of ``farmlease --config FILE``, inside a running command; None if it was not given."""
    value = click.get_current_context().find_root().params.get("config")
    return None if value is None else str(value)


def example(*lines: str) -> str:
    """Return the epilog of a command's help: its examples, line by line as they are typed."""
    return "\n".join(("\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=example("farmlease demo", "farmlease session start 'CORP\\john' --session 7", "farmlease health"),
)
@click.option("--config", metavar="FILE", help="Configuration of the node (default: $FARMLEASE_CONFIG, then /etc).")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="farmlease", message="%(prog)s %(version)s")
def farmlease(config: str | None, debug: bool) -> None:  # noqa: FBT001 -- read from the context by who needs them
    """Borrowed licences that follow their user across a load-balanced farm.

    Exit status: 0 done or granted, 1 failed, 2 wrong usage, 3 denied, 4 agent or store unavailable,
    5 a record, key or journal was refused as damaged.
    """


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line ``args`` (default: the process's own) and exit with its status."""
    if getattr(sys, "stdout", None) is None:  # closed, or a program without a console
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 -- pathlib is heavy; until the process ends
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        # A user name the terminal's code page cannot show must not turn a grant into a failed logon.
        reconfigure(errors="backslashreplace")
    try:
        # Unexpanded on Windows: "%", "$" and "*" in a user name or a pattern are meant as typed.
        status = farmlease.main(args, prog_name="farmlease", standalone_mode=False, windows_expand_args=False)
    except click.exceptions.NoArgsIsHelpError as nothing:
        nothing.show()
        sys.exit(nothing.exit_code)
    except click.ClickException as error:
        complain(error.format_message().rstrip(".") + where_to_look(error))
        sys.exit(error.exit_code)
    except click.Abort as abort:
        # What was behind it: a question of click's hides its own cause.
        sys.exit(INTERRUPTED if isinstance(abort.__cause__ or abort.__context__, KeyboardInterrupt) else 1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:  # of the help or the version, which click prints before there is a command
        if not (unwritten := _unwritten(error)):
            raise
        complain(unwritten)
        sys.exit(1)
    sys.exit(status)


def where_to_look(error: click.ClickException) -> str:
    """Return the hint that ends a usage error's line."""
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    return f"; see '{ctx.command_path} --help'" if ctx is not None else ""
