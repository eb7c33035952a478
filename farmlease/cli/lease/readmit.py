"""``farmlease lease readmit``: a revocation ended before its time.

It gives no seat back and asks nothing first, for it takes nothing: the user may ask for a seat again, as anybody may.
"""

import click

from farmlease.admin.addressing import Addressee
from farmlease.admin.leases import Pseudonym
from farmlease.cli import example, print_line
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.confirm import optional_reason_option
from farmlease.domain import wording
from farmlease.domain.policy import Pool
from farmlease.errors import FarmleaseError
from farmlease.store.tombstone_store import Readmission

__all__ = ["readmit"]


@click.command(epilog=example("farmlease lease readmit 'CORP\\john' --pool qlikview"))
@click.argument("user")
@click.option("--pool", metavar="P", required=True, help="Pool that the user is kept out of.")
@optional_reason_option
def readmit(user: str, pool: str, reason: str) -> None:
    """Let USER in again before a revocation ends. It undoes ``revoke``, but for the seat that it took.

    The user may take a seat again at once, on any host; his own, while it is quarantined. Every host hears of it with
    its next heartbeat, so that no recovery of the store brings the revocation back.
    """
    with opened_farm() as client:
        (chosen,) = client.pools(pool)
        whom = client.addressee(user)
        ended = _readmissions(client, chosen, whom, reason)
    if not ended:
        raise FarmleaseError(f"no revocation keeps {whom.text} out of pool {chosen.name}")
    print_line(f"{whom.text} is let in again in pool {chosen.name}")
    if known := [each.kept_out_until for each in ended if each.kept_out_until is not None]:
        print_line(f"the revocation would have ended at {wording.moment(max(known))}")


def _readmissions(client: FarmClient, pool: Pool, whom: Addressee, reason: str) -> list[Readmission]:
    """End each revocation of a person, under whichever name it was made; the one of exactly this name first."""
    admin = client.lease_admin
    ended = (client.wait(admin.readmit(pool, Pseudonym(index), reason)) for index in whom.indexes)
    return [each for each in ended if each is not None]
