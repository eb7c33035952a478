"""The command ``farmlease``: the group, where its commands live, and how every failure ends.

A command's module is imported when that command is used, so that a logon pays for ``session start`` and for nothing
else. This module must import nothing heavy (no redis, cryptography, pydantic, rich, asyncio) and must never decide
anything: commands call lower rooms and print the result.
"""

import contextlib
import errno
import importlib
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

from farmlease import __version__
from farmlease.errors import EXIT_FAILED, FarmleaseError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from typing_extensions import override

    from farmlease.threads import Outlet
else:
    # typing has it from Python 3.12 on, and typing_extensions would cost every logon milliseconds.
    def override(method):  # noqa: ANN001, ANN202 -- typed above
        """Mark a method that replaces click's."""
        return method


__all__ = [
    "COMMANDS",
    "LazyCommand",
    "LazyGroup",
    "config_file",
    "example",
    "farmlease",
    "main",
    "print_line",
    "print_stderr",
    "printable",
]

#: Exit status of a command the user interrupted: 128 + SIGINT, as shells count.
INTERRUPTED = 130
_STDERR = 2
#: Errors of a write to a full disk or past a quota.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class LazyCommand(NamedTuple):
    """Where a command is defined, and its line in ``farmlease --help``, which imports none."""

    target: str  #: "module:attribute"
    help: str


#: In the order of ``farmlease --help``.
COMMANDS: Mapping[str, LazyCommand] = {
    "demo": LazyCommand("farmlease.cli.demo.commands:demo", "See the whole story on this machine; needs no set-up."),
    "init": LazyCommand(
        "farmlease.cli.init.commands:init", "Set up the first host of a farm, or carry it to the next."
    ),
    "config": LazyCommand("farmlease.cli.config.commands:config", "Check the configuration, and see where it is from."),
    "agent": LazyCommand("farmlease.cli.agent:agent", "Run this node's agent in the foreground."),
    "run": LazyCommand("farmlease.cli.run:run", "Hold a seat while a program runs."),
    "session": LazyCommand("farmlease.cli.session:session", "Start, keep and end sessions on this node."),
    "explain": LazyCommand("farmlease.cli.explain:explain", "Tell what a session start would get and why."),
    "lease": LazyCommand(
        "farmlease.cli.lease.commands:lease", "See who holds which licence of the farm, and take it back."
    ),
    "device": LazyCommand("farmlease.cli.device:device", "See, free and replace the devices of a user."),
    "identity": LazyCommand("farmlease.cli.identity:identity", "Find names that are one person twice, or two as one."),
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
    "status": LazyCommand("farmlease.cli.status.commands:status", "See on one screen how all is, or what changed."),
    "version": LazyCommand("farmlease.cli.version:version", "Print what runs here: farmlease, Python, libraries."),
    "bench": LazyCommand("farmlease.cli.bench.commands:bench", "Measure how large a farm this store can carry."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is used, and ends each failure with one line and an exit status."""

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
        """Run the command; turn an exception into one line on stderr and an exit status.

        The exceptions that click itself ends a command with (usage errors, exits, interrupts, a closed pipe) pass.
        """
        try:
            super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except FarmleaseError as error:
            _print_error(str(error), debug=ctx.params["debug"])
            ctx.exit(error.exit_status)
        except Exception as error:
            if isinstance(error, EOFError) or (isinstance(error, OSError) and error.errno == errno.EPIPE):
                raise
            debug = ctx.params["debug"]
            advice = "" if debug else " (farmlease --debug … shows where)"
            text = _write_failure(error) or f"{type(error).__name__}: {error}{advice}"
            _print_error(text, debug=debug)
            ctx.exit(EXIT_FAILED)


def _write_failure(error: BaseException) -> str:
    """Return the message for an answer that could not be written to a full disk; "" for any other error."""
    if isinstance(error, OSError) and error.filename is None and error.errno in _FULL:
        return f"cannot write the answer ({error.strerror}). Fix the output."
    return ""


def printable(text: str) -> str:
    """Return one line as a terminal may have it: what it could obey, or would not show, is escaped.

    Ids of sessions and devices are any that hosts and vendors give; they may turn the direction of a line.
    """
    if text.isascii() and text.isprintable():
        return text
    from farmlease.domain.characters import shown  # a logon rarely needs it

    return shown(text)


def print_line(text: str = "", *, err: bool = False) -> None:
    """Write one line to stdout, or to stderr. Answers go this way, or as lists by ``output/``: nothing is raw."""
    click.echo(printable(text), err=err)


def print_stderr(text: str) -> None:
    """Write ``farmlease: text`` to stderr as one line."""
    click.echo(printable(f"farmlease: {' '.join(text.split())}"), err=True)


def _print_error(text: str, *, debug: bool) -> None:
    """Write one line to stderr, after the traceback of the current exception if ``debug``."""
    if debug:
        import traceback  # only with --debug

        click.echo("\n".join(map(printable, traceback.format_exc().splitlines())), err=True)
    print_stderr(text)


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
    _open_closed_streams()
    _forgive_stderr()
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        # A user name the terminal's code page cannot show must not turn a grant into a failed logon.
        reconfigure(errors="backslashreplace")
    try:
        # Unexpanded on Windows: "%", "$" and "*" in a user name or a pattern are meant as typed.
        status = farmlease.main(args, prog_name="farmlease", standalone_mode=False, windows_expand_args=False)
    except BaseException as error:
        handler = next((handle for kind, handle in _FAILURES.items() if isinstance(error, kind)), None)
        ended = None if handler is None else handler(error)
        if ended is None:
            raise
        status = ended
    sys.exit(status)


class _Forgiving(io.FileIO):
    """Standard error that loses what cannot be written: what a command does and answers does not depend on it.

    But for a terminal, which a person may have stopped, what is not written within a second is lost too.
    """

    _outlet: "Outlet | None" = None

    def write(self, data: Any) -> int:  # type: ignore[explicit-override]  # noqa: ANN401 -- of any buffer; each logon pays
        """Write what can be written."""
        if self.isatty():
            with contextlib.suppress(OSError):  # it was closed
                super().write(data)
            return len(data)
        if self._outlet is None:
            from farmlease.threads import Outlet  # a logon rarely needs it

            self._outlet = Outlet(_STDERR, lambda *_: "")
        self._outlet.send(bytes(data))
        self._outlet.finish()
        return len(data)


def _forgive_stderr() -> None:
    """Have failed writes to the process's own standard error ignored, those at its end too."""
    stream = sys.stderr
    if os.name == "posix" and isinstance(stream, io.TextIOWrapper) and stream is sys.__stderr__:
        raw: Any = _Forgiving(_STDERR, "w", closefd=False)  # as Python's own, without a buffer
        sys.stderr = io.TextIOWrapper(raw, stream.encoding, errors="backslashreplace", write_through=True)


def _open_closed_streams() -> None:
    """Put a null device in the place of each standard stream that is closed, so that no other file gets its number."""
    if os.name == "posix" and None in {sys.stdin, sys.stdout, sys.stderr}:
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
            pass
        os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name, None) is None:  # closed, or a program without a console
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 -- pathlib is heavy; until the process ends


def _on_usage_error(error: Any) -> int:  # noqa: ANN401 -- of the type it is registered for in _FAILURES
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"; see '{ctx.command_path} --help'" if ctx is not None else ""
    print_stderr(error.format_message().rstrip(".") + hint)
    return int(error.exit_code)


def _on_no_arguments(error: Any) -> int:  # noqa: ANN401 -- likewise
    error.show()  # the command's help
    return int(error.exit_code)


def _on_abort(error: BaseException) -> int:
    cause = error.__cause__ or error.__context__  # a question of click's hides what interrupted it
    return INTERRUPTED if isinstance(cause, KeyboardInterrupt) else EXIT_FAILED


def _on_write_failure(error: BaseException) -> int | None:
    """Handle a failed write of the help or the version, which click prints before there is a command."""
    if text := _write_failure(error):
        print_stderr(text)
        return EXIT_FAILED
    return None


#: What ends a command besides its own result, the narrower kind first, and the function that returns the exit status;
#: None lets the exception pass.
_FAILURES: Mapping[type[BaseException], Callable[[Any], int | None]] = {
    click.exceptions.NoArgsIsHelpError: _on_no_arguments,
    click.ClickException: _on_usage_error,
    click.Abort: _on_abort,
    KeyboardInterrupt: lambda _: INTERRUPTED,
    OSError: _on_write_failure,
}
