"""The question before a destructive change. A command must never make such a change without it."""

import sys

import click

from farmlease.cli import printable
from farmlease.errors import FarmleaseError

__all__ = ["ask_first", "optional_reason_option", "reason_option", "yes_option"]

#: Gives a command ``--yes``, handed to it as ``yes``.
yes_option = click.option("--yes", is_flag=True, help="Do not ask first.")

#: Characters of an administrator's reason, which is kept in the audit.
_LONGEST_REASON = 500


def _checked_reason(_: click.Context, __: click.Parameter, text: str | None) -> str:
    """Return a reason that is not empty and fits on one line; empty where none was asked for and none is given."""
    if text is None:
        return ""
    reason = text.strip()
    if not reason or not reason.isprintable() or len(reason) > _LONGEST_REASON:
        raise click.BadParameter(f"write one line of 1 to {_LONGEST_REASON} characters.")
    return reason


#: Gives a command ``--reason R``, handed to it as ``reason``.
reason_option = click.option(
    "--reason", metavar="R", required=True, callback=_checked_reason, help="Reason, in your own words, for the audit."
)
#: The same where a reason need not be given.
optional_reason_option = click.option(
    "--reason", metavar="R", callback=_checked_reason, help="Reason, in your own words, for the audit."
)


def ask_first(what: str, *, yes: bool) -> None:
    """Return if the user confirms; ``what`` is a sentence without its full stop. FarmleaseError if not.

    On a terminal the question is asked; elsewhere there is no answer to read, and ``--yes`` is required.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise FarmleaseError(f"{what}; nothing was changed; confirm with --yes")
    if not click.confirm(printable(f"{what}. Go on?"), err=True):
        raise FarmleaseError("nothing was changed")
