"""Options and look-ups that ``audit`` and ``usage`` share: how far back, which pools there ever were, and no names."""

from collections.abc import Callable

import click

from farmlease.admin.audit import AuditLog
from farmlease.cli.client.farm import FarmClient
from farmlease.cli.output.format import Command
from farmlease.domain.duration import parse_duration
from farmlease.errors import FarmleaseError

__all__ = ["all_pools", "existing_pool", "pseudonyms_option", "since_ms", "since_option"]


def since_option(default: str) -> Callable[[Command], Command]:
    """Give a command ``--since``, handed to it as ``since``; ``default`` is the help's text for the default."""
    return click.option("--since", metavar="D", help=f"How far back, e.g. 24h or 30d (default: {default}).")


#: For who has no key ring, or is not to see names.
pseudonyms_option = click.option(
    "--pseudonyms", is_flag=True, help="Show pseudonyms in place of names; this needs no key ring."
)


def since_ms(client: FarmClient, log: AuditLog, since: str | None) -> int:
    """Return the time a duration ago by the store's clock, in ms; 0 without a duration."""
    return 0 if since is None else max(0, client.wait(log.now()) - parse_duration(since))


def all_pools(client: FarmClient, log: AuditLog) -> list[str]:
    """Return the name of every pool there ever was."""
    present = client.in_force().pools if client.has_keys else ()
    return sorted({*client.wait(log.pools()), *(each.name for each in present)})


def existing_pool(client: FarmClient, log: AuditLog, pool: str) -> str:
    """Return the name of a pool; FarmleaseError with the known names if there never was a pool of that name."""
    pools = all_pools(client, log)
    if pool not in pools:
        raise FarmleaseError(f"there never was a pool of this name; there are {', '.join(pools) or 'none'}")
    return pool
