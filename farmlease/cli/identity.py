"""``farmlease identity …``: who is who on the farm, by ``[identity]`` of the policy.

It reads the store and changes nothing; it needs no agent.
"""

from collections.abc import Iterator

import click

from farmlease.cli import example
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.output.format import Format, emit, output_option
from farmlease.domain.identity_check import Suspicion, suspicions
from farmlease.errors import EXIT_FAILED

__all__ = ["identity"]

COLUMNS = ("finding", "pool", "user", "other", "mend")


@click.group()
def identity() -> None:
    """See whether the names of the farm's users are read as they should be."""


@identity.command(epilog=example("farmlease identity check", "farmlease identity check -o json"))
@output_option
def check(fmt: Format) -> None:
    """List names of leases that may be one person twice, or two as one. Each has the line that would mend it.

    The line belongs into [identity] of the policy, or is a command. What is right as it is needs no mending: two
    people may have one name in two domains.

    Exit status: 0 nothing was found, 1 something was.
    """
    with opened_farm() as client:
        found = sorted(_suspicions(client), key=lambda each: (each.kind.value, each.pool, each.one, each.other))
    rows = (
        {"finding": each.kind.value, "pool": each.pool, "user": each.one, "other": each.other, "mend": each.mend}
        for each in found
    )
    emit(rows, COLUMNS, fmt)
    if found:
        click.get_current_context().exit(EXIT_FAILED)


def _suspicions(client: FarmClient) -> Iterator[Suspicion]:
    """Read the names of all leases, and yield what is suspicious about them."""
    client.policy()  # FarmleaseError without one
    in_force = client.in_force()
    names = {pool.name: [view.user for view in client.each(client.lease_admin.leases(pool))] for pool in in_force.pools}
    yield from suspicions(names, in_force.identity, in_force.pools)
