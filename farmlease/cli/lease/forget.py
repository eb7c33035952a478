"""``farmlease lease forget``: erase a person's name from the farm's store, and leave the pseudonymous trail.

It asks before it erases anything; what is erased cannot be brought back.
"""

import click

from farmlease.admin.audit import History
from farmlease.cli import example
from farmlease.cli.audit import known_pools
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.confirm import ask_first, yes_option
from farmlease.domain import wording
from farmlease.domain.identity import User
from farmlease.errors import FarmleaseError
from farmlease.store.audit_store import Erasure, NameInUse

__all__ = ["erase", "forget", "refuse_held"]


@click.command("forget", epilog=example("farmlease lease forget 'CORP\\john' --yes"))
@click.argument("user")
@yes_option
def forget(user: str, *, yes: bool) -> None:
    """Erase USER's name from the store. It goes from every pool, with the administrators' words about them.

    Refused while the user holds a lease, a quarantined one included: `lease return` it first. What stays: decisions
    with time, host, device and a pseudonym in place of the name, and an entry that says who erased it and when. Who has
    the farm's keys and knows the name can still compute the pseudonym, so `audit --user` goes on finding them; nobody
    can get the name from it. Who comes back is known by name again. Device names and session ids are not touched, nor
    are files that farmlease kept on hosts, backups, logs, and the vendor's books.
    """
    with opened_farm() as client:
        who, history = client.config.identities.user(user), History(client.farm)
        refuse_held(client, who)
        ask_first("this erases the user's name from every pool and from the audit, for good", yes=yes)
        erased = [erase(client, history, each, who) for each in (*known_pools(client, history), "")]
    if not any(each.name or each.words for each in erased):
        raise FarmleaseError("the store knows no name of this user; nothing was changed")
    pools = sum(each.name or each.words for each in erased[:-1])
    click.echo(f"erased the user's name in {wording.counted(pools, 'pool')}; the audit shows a pseudonym from now on")


def refuse_held(client: FarmClient, user: User) -> None:
    """Raise FarmleaseError if the user holds a lease: what is in use is needed, and nothing is to be half erased."""
    for pool in client.in_force().pools:
        view = client.wait(client.farm.lease(pool, user))
        if view is not None:
            raise FarmleaseError(
                f"the user holds a lease in pool {pool.name} until {wording.moment(view.lease.expires_at)}; nothing was"
                " changed: end it with `farmlease lease return`, and ask again when its quarantine is over"
            )


def erase(client: FarmClient, history: History, pool: str, user: User) -> Erasure:
    """Erase a name in one pool; FarmleaseError if it came to be needed meanwhile."""
    erased = client.wait(history.forget(pool, user))
    if isinstance(erased, NameInUse):
        why = "the pool is recovering" if erased.recovering else "the user holds a lease there"
        when = "when its sessions have ended" if erased.until is None else f"after {wording.moment(erased.until)}"
        raise FarmleaseError(f"pool {pool}: {why}; the name is still in use there, ask again {when}")
    return erased
