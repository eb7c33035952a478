"""``farmlease lease …``: who holds which licence of the farm.

Reads the store with the farm's keys; it needs no agent. It must change nothing.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import click

from farmlease.cli import example
from farmlease.cli.farm_client import FarmClient, opened_farm
from farmlease.cli.output import Format, emit, output_option
from farmlease.domain import explain
from farmlease.domain.identity import check_token
from farmlease.domain.model import LeaseState, LeaseView
from farmlease.domain.wire import lease_document
from farmlease.errors import FarmleaseError

__all__ = ["lease", "of_pools", "of_user", "since", "story"]

INVALID = 3

COLUMNS = ("user", "pool", "kind", "state", "devices", "sessions", "issued_at", "expires_at", "fence")

pool_option = click.option("--pool", metavar="P", help="Pool to look at (default: all).")


@click.group()
def lease() -> None:
    """See who holds which licence of the farm.

    Exit status: 0 done or valid, 1 no such lease or pool, 3 invalid, 4 the store is unavailable, 5 a record was
    refused as damaged.
    """


@lease.command(
    "list", epilog=example("farmlease lease list", "farmlease lease list --pool qlikview --state idle -o csv")
)
@pool_option
@click.option("--user", metavar="U", help="Only this user's, in any spelling.")
@click.option("--state", type=click.Choice([state.value for state in LeaseState]), help="Only those in this state.")
@output_option
def list_(pool: str | None, user: str | None, state: str | None, fmt: Format) -> None:
    """List the leases of the farm."""
    with opened_farm() as client:
        views = of_user(client, user, pool) if user is not None else of_pools(client, pool)
        emit((lease_document(view) for view in views if state in {None, view.state}), COLUMNS, fmt)


@lease.command(epilog=example("farmlease lease show 'CORP\\john'", "farmlease lease show 'CORP\\john' -o json"))
@click.argument("user")
@pool_option
@output_option
def show(user: str, pool: str | None, fmt: Format) -> None:
    """Show what USER holds: seats, devices, sessions, and until when."""
    with opened_farm() as client:
        views = list(of_user(client, user, pool))
    if not views:
        raise FarmleaseError("the user holds no lease" + (f" in pool {pool}" if pool else ""))
    if fmt == "table":
        click.echo("\n\n".join(story(view) for view in views))
    else:
        emit(map(lease_document, views), COLUMNS, fmt)


@lease.command(
    epilog=example(
        "farmlease lease check 'CORP\\john' --pool qlikview",
        "farmlease lease check 'CORP\\john' --pool qlikview --device NB-0042",
    )
)
@click.argument("user")
@click.option("--pool", metavar="P", help="Pool to look at (default: the only one).")
@click.option("--device", metavar="D", help="Machine outside the farm (default: the farm).")
def check(user: str, pool: str | None, device: str | None) -> None:
    """Say whether USER holds a valid lease on a device: its record is there and opens.

    Prints VALID, or INVALID and why with exit status 3. A record that does not open is exit status 5.
    """
    with opened_farm() as client:
        who = client.config.identities.user(user)
        where = client.config.farm if device is None else check_token("device", device)
        why = client.wait(client.farm.fault(client.one_pool(pool), who, where))
    click.echo("VALID" if why is None else f"INVALID: {why}")
    if why is not None:
        click.get_current_context().exit(INVALID)


def of_pools(client: FarmClient, pool: str | None) -> Iterator[LeaseView]:
    """Yield the leases of a pool, or of all, as they come."""
    for each in client.pools(pool):
        yield from client.each(client.farm.leases(each))


def of_user(client: FarmClient, user: str, pool: str | None) -> Iterator[LeaseView]:
    """Yield one user's leases."""
    who = client.config.identities.user(user)
    for each in client.pools(pool):
        view = client.wait(client.farm.lease(each, who))
        if view is not None:
            yield view


def story(view: LeaseView) -> str:
    """Return a lease in words, a few lines."""
    devices = [
        f"{claim.device} ({'in use now' if claim.until is None else f'until {explain.moment(claim.until)}'})"
        for claim in view.devices
    ]
    sessions = [f"{claim.session} on {claim.node} since {since(claim.started_at)}" for claim in view.sessions]
    later = ", and later while a session lasts" if view.sessions else ""
    lines = (
        f"{view.user} holds a {view.kind} seat of pool {view.pool}, {view.state}",
        f"  lease     {view.lease.id} since {since(view.lease.issued_at)}",
        f"  expires   {explain.moment(view.lease.expires_at)}{later}",
        f"  devices   {', '.join(devices) or 'none'}",
        f"  sessions  {', '.join(sessions) or f'none; last contact {since(view.last_contact_at)}'}",
    )
    return "\n".join(lines)


def since(at_ms: int) -> str:
    """Return a past instant as a person reads it, rounded down to the minute."""
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%d %H:%M UTC}"
