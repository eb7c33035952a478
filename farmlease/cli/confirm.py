"""Asking before something is destroyed. A command must come through here before it does, and never after."""

import sys

import click

from farmlease.errors import FarmleaseError

__all__ = ["ask_first", "reason_option", "yes_option"]

#: Gives a command ``--yes``, handed to it as ``yes``.
yes_option = click.option("--yes", is_flag=True, help="Do not ask first.")

#: Characters of an administrator's reason: it is kept with the audit, which is no place for letters.
_LONGEST_REASON = 500


def _checked_reason(_: click.Context, __: click.Parameter, text: str) -> str:
    """Return a reason that says something and stays on one line."""
    words = text.strip()
    if not words or not words.isprintable() or len(words) > _LONGEST_REASON:
        raise click.BadParameter(f"write one line of 1 to {_LONGEST_REASON} characters.")
    return words


#: Gives a command ``--reason R``, handed to it as ``reason``.
reason_option = click.option(
    "--reason", metavar="R", required=True, callback=_checked_reason, help="Why, in your words, for the audit."
)


def ask_first(what: str, *, yes: bool) -> None:
    """Return if the user wants it; ``what`` is a sentence without its stop. FarmleaseError if not.

    On a terminal the user is asked; elsewhere nobody could answer, and only ``--yes`` will do.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise FarmleaseError(f"{what}; nothing was changed, give --yes if you mean it")
    if not click.confirm(f"{what}. Go on?", err=True):
        raise FarmleaseError("nothing was changed")
