"""The passphrase of an export: asked for on a terminal, where it is not shown, or read from where the caller says."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from farmlease import plain_file
from farmlease.crypto.export_file import check_passphrase
from farmlease.errors import InvalidInput

__all__ = ["chosen_passphrase", "given_passphrase", "passphrase_options"]

Command = TypeVar("Command", bound=Callable[..., object])


def passphrase_options(command: Command) -> Command:
    """Give a command the options that say where the passphrase is."""
    by_file = click.option(
        "--passphrase-file", metavar="FILE", type=click.Path(path_type=Path), help="Read the passphrase from FILE."
    )
    by_stdin = click.option("--passphrase-stdin", is_flag=True, help="Read the passphrase from standard input.")
    return by_stdin(by_file(command))


def chosen_passphrase(file: Path | None, *, stdin: bool) -> str:
    """Return a new passphrase, typed twice where it is asked for. InvalidInput if it is too short, or none is given."""
    if (given := _given(file, stdin=stdin)) is not None:
        return check_passphrase(given)
    return str(
        click.prompt(
            "Passphrase for the export", hide_input=True, confirmation_prompt="Once more", err=True, value_proc=_checked
        )
    )


def given_passphrase(file: Path | None, *, stdin: bool) -> str:
    """Return the passphrase of an export. InvalidInput if none is given."""
    if (given := _given(file, stdin=stdin)) is not None:
        return given
    return str(click.prompt("Passphrase of the export", hide_input=True, err=True))


def _given(file: Path | None, *, stdin: bool) -> str | None:
    """Return the passphrase of a file or of standard input; None if a person is to be asked."""
    if stdin and file is not None:
        raise InvalidInput("give the passphrase one way: --passphrase-stdin or --passphrase-file")
    if stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if file is not None:
        return _of_file(file)
    if not sys.stdin.isatty():
        raise InvalidInput(
            "no terminal to ask for the passphrase: give it with --passphrase-stdin or --passphrase-file"
        )
    return None


def _of_file(file: Path) -> str:
    try:
        text = plain_file.read(file, pipe=True).decode("utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"the passphrase file {file} cannot be read: {error.strerror}") from error
    except ValueError:
        raise InvalidInput(f"the passphrase file {file} is no text") from None
    return text.split("\n", 1)[0].rstrip("\r")


def _checked(text: str) -> str:
    try:
        return check_passphrase(text)
    except InvalidInput as error:
        raise click.BadParameter(str(error)) from None
