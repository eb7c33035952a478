"""``farmlease key …``: the keys that seal the farm's records. No secret is ever printed."""

import click

from farmlease.cli import example
from farmlease.cli.farm_client import configuration
from farmlease.cli.output import Format, emit, output_option
from farmlease.clock import SystemClock
from farmlease.domain.wire import timestamp
from farmlease.keyring import KeyRing

__all__ = ["key"]

COLUMNS = ("id", "primary", "created_at")


@click.group()
def key() -> None:
    """Make and list the keys that seal the farm's records."""


@key.command(epilog=example("farmlease key generate"))
def generate() -> None:
    """Make the key ring of a new farm, once, and copy it to all its nodes.

    The file is the one of [keys] file in the configuration. It is never overwritten.
    """
    path = configuration().keys.file
    ring = KeyRing.generate(SystemClock().now_ms())
    ring.create_file(path)
    click.echo(f"made {path} with key {ring.primary}; copy it to every node of the farm and keep it from all others")


@key.command("list", epilog=example("farmlease key list", "farmlease key list -o json"))
@output_option
def list_(fmt: Format) -> None:
    """List the keys of this node's ring, without their secrets."""
    ring = KeyRing.load(configuration().keys.file)
    rows = (
        {"id": key.id, "primary": key.id == ring.primary, "created_at": timestamp(key.created_at)} for key in ring.keys
    )
    emit(rows, COLUMNS, fmt)
