"""``farmlease run``: run a program that holds a seat until it ends.

On POSIX this process *becomes* the program: signals and exit status are the program's own, and the agent notices the
end of the process, however it ends. On Windows the program is a child.
"""

import os
import secrets
import signal
import subprocess
import sys
from typing import NoReturn

import click

from farmlease.cli import example, print_stderr
from farmlease.cli.client.session import call_agent, session_path, start_session
from farmlease.errors import InvalidInput

if sys.platform != "win32":
    import pwd

__all__ = ["run"]

_NOT_FOUND = 127  #: exit statuses of shells
_NOT_EXECUTABLE = 126


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog=example(
        "farmlease run --app clearquest -- clearquest -login",
        "farmlease run --user 'CORP\\john' --pool clearquest -- clearquest -login",
    ),
)
@click.option("--user", metavar="U", help="User who runs it (default: the caller).")
@click.option("--app", metavar="A", help="Application that is started.")
@click.option("--pool", metavar="P", help="Pool to take a seat of (default: as the policy says).")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True, metavar="-- CMD …")
def run(user: str | None, app: str | None, pool: str | None, command: tuple[str, ...]) -> None:
    """Hold a seat while CMD runs, and exit with its status.

    The session is one of its own: programs that run side by side each hold what the policy gives them. Without a seat
    CMD is not started: exit status 3 (denied) or 4 (agent or store unavailable).
    """
    session = f"run-{os.getpid()}-{secrets.token_hex(4)}"
    request: dict[str, object] = {"user": user or _caller(), "session": session, "pid": os.getpid()}
    start_session(request | {name: value for name, value in (("app", app), ("pool", pool)) if value is not None})
    try:
        _become(command)
    except OSError as error:
        print_stderr(f"cannot run {command[0]}: {error.strerror}; is it on PATH?")
        call_agent("DELETE", session_path(session))
        status = _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
        click.get_current_context().exit(status)


if sys.platform == "win32":

    def _caller() -> str:
        """Return who runs this, as Windows names them; the agent looks whether it is true."""
        domain, name = os.environ.get("USERDOMAIN", ""), os.environ.get("USERNAME", "")
        return f"{domain}\\{name}" if domain else name

    def _become(command: tuple[str, ...]) -> NoReturn:
        """Run the program to its end and exit with its status; the agent ends the session with this process."""
        sys.exit(subprocess.run(command, check=False).returncode)  # noqa: S603 - the user's own command

else:

    def _caller() -> str:
        """Return who runs this, as the system names them."""
        try:
            return pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            raise InvalidInput("this system has no name for you; say who runs it with --user") from None

    def _become(command: tuple[str, ...]) -> NoReturn:
        """Turn this process into the program."""
        for each in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the program would inherit that
            signal.signal(each, signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606 - the user's own command, without a shell
