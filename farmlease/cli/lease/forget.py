"""``farmlease lease forget``: erase a user's name from the farm's store; the pseudonymous audit stays.

It asks before it erases anything. An erased name cannot be restored.
"""

import click

from farmlease.admin.addressing import Addressee
from farmlease.admin.audit import AuditLog
from farmlease.cli import example, print_line
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.client.history import all_pools
from farmlease.cli.confirm import ask_first, yes_option
from farmlease.domain import wording
from farmlease.errors import FarmleaseError
from farmlease.store.audit_store import NameInUse

__all__ = ["forget"]


@click.command("forget", epilog=example("farmlease lease forget 'CORP\\john' --yes"))
@click.argument("user")
@yes_option
def forget(user: str, *, yes: bool) -> None:
    """Erase USER's name from the store. It goes from every pool, with the administrators' words about them.

    Refused while the user holds a lease, a quarantined one included: `lease return` it first. What stays: decisions
    with time, host, device and a pseudonym in place of the name, and an entry with the administrator and the time. With
    the farm's keys and the name the pseudonym can still be computed, so `audit --user` still finds the decisions; the
    name cannot be computed from the pseudonym. A user who comes back is stored by name again. Not touched: device names
    and session ids, files that farmlease kept on hosts, backups, logs, and the vendor's books.
    """
    with opened_farm() as client:
        whom, log = client.addressee(user), AuditLog(client.farm)
        _refuse_if_held(client, whom)
        ask_first("this erases the user's name from every pool and from the audit, for good", yes=yes)
        erased = [_erase(client, log, each, whom) for each in (*all_pools(client, log), "")]
    if not any(erased):
        raise FarmleaseError("the store has no name of this user; nothing was changed")
    pools = sum(erased[:-1])
    print_line(f"erased the user's name in {wording.counted(pools, 'pool')}; the audit shows a pseudonym from now on")


def _refuse_if_held(client: FarmClient, whom: Addressee) -> None:
    """Raise FarmleaseError if the user holds a lease: its name is needed, and must not be erased in some pools only."""
    for pool in client.in_force().pools:
        for _, view in client.leases_of(pool, whom):
            raise FarmleaseError(
                f"the user holds a lease in pool {pool.name} until {wording.moment(view.lease.expires_at)}; nothing was"
                " changed: end it with `farmlease lease return`, and retry when its quarantine is over"
            )


def _erase(client: FarmClient, log: AuditLog, pool: str, whom: Addressee) -> bool:
    """Erase a user's names in one pool, former ones too; return whether there was anything to erase.

    FarmleaseError if the user took a lease there meanwhile.
    """
    found = False
    for index in whom.indexes:
        erased = client.wait(log.forget(pool, index))
        if isinstance(erased, NameInUse):
            why = "the pool is recovering" if erased.recovering else "the user holds a lease there"
            when = "when its sessions have ended" if erased.until is None else f"after {wording.moment(erased.until)}"
            raise FarmleaseError(f"pool {pool}: {why}; the name is still in use there; retry {when}")
        found = found or erased.name or erased.words
    return found
