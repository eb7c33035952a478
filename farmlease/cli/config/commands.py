"""``farmlease config …``: whether this node's configuration is valid, and where each value comes from."""

import os

import click

from farmlease.cli import config_file, example
from farmlease.cli.client.farm import warn_on_stderr
from farmlease.cli.config.check import findings, status_of
from farmlease.cli.config.values import values
from farmlease.cli.output.format import Format, emit, output_option
from farmlease.config.source import read
from farmlease.errors import ConfigError

__all__ = ["config"]

CHECK_COLUMNS = ("check", "verdict", "finding")
SHOW_COLUMNS = ("key", "value", "from")


@click.group()
def config() -> None:
    """Check this node's configuration, and see where each value comes from."""


@config.command(epilog=example("farmlease config check", "farmlease --config new.toml config check"))
@output_option
def check(fmt: Format) -> None:
    """Check everything that this node is configured with, all at once.

    Each key and value, the files, the key ring, the hooks, whether the store answers, and the farm's policy. Nothing is
    changed. Exit status: 0 valid (warnings do not count), 3 not valid, 4 valid, but the store does not answer.
    """
    warn_on_stderr()
    found = list(findings())
    emit(({"check": f.check, "verdict": f.verdict.value, "finding": f.text} for f in found), CHECK_COLUMNS, fmt)
    click.get_current_context().exit(status_of(found))


@config.command(epilog=example("farmlease config show", "farmlease config show -o json"))
@output_option
def show(fmt: Format) -> None:
    """List each value of the configuration, and where it comes from.

    That is a line of the file, a variable of the environment, or the default. No secret is shown.
    """
    given = read(config_file(), os.environ)
    if given.absence and not given.overrides:
        raise ConfigError(given.absence)
    emit(values(given), SHOW_COLUMNS, fmt)
