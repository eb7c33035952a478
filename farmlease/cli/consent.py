"""Asking before something is destroyed. A command must come through here before it does, and never after."""

import sys

import click

from farmlease.errors import FarmleaseError

__all__ = ["ask_first", "yes_option"]

#: Gives a command ``--yes``, handed to it as ``yes``.
yes_option = click.option("--yes", is_flag=True, help="Do not ask first.")


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
