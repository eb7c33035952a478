"""``farmlease lease rename``: move what one user holds to another name, by hand.

It asks before it moves anything. All pools are looked at first: where one lease cannot move, none does.
"""

import shlex
from collections.abc import Iterator

import click

from farmlease.admin.renaming import DueRename, LeaseRenamer
from farmlease.cli import example, print_line
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.confirm import ask_first, yes_option
from farmlease.domain import wording
from farmlease.domain.identity import User
from farmlease.domain.policy import Pool
from farmlease.errors import FarmleaseError
from farmlease.store.name_store import Rename

__all__ = ["rename"]


@click.command(
    "rename",
    epilog=example(
        "farmlease lease rename 'CORP\\miller' 'CORP\\smith' --dry-run", "farmlease lease rename alice 'CORP\\alice'"
    ),
)
@click.argument("old")
@click.argument("new")
@click.option("--pool", metavar="P", help="Only in this pool (default: in all).")
@click.option("--dry-run", is_flag=True, help="Only print what would move.")
@yes_option
def rename(*, old: str, new: str, pool: str | None, dry_run: bool, yes: bool) -> None:
    """Move what OLD holds to the name NEW. Nothing ends.

    Seats, devices, quarantine, the saved files and a revocation move as they stand.

    OLD is a name exactly as a list prints it, or any spelling; NEW is read by the policy's [identity], as at a logon.
    Refused while OLD has a session, and where NEW holds a lease of its own: two leases are never joined.

    Exit status: 0 done, 1 refused, or OLD holds nothing.
    """
    with opened_farm() as client:
        user = client.user(new)
        due = [each for chosen in client.pools(pool) for each in _held(client, chosen, old, user)]
        if not due:
            raise FarmleaseError(_nothing(client, old, user, pool))
        for each in due:
            _refuse_if_fixed(each)
        if dry_run:
            for each in due:
                print_line(f"would rename {each.name} -> {user.canonical} in pool {each.pool}")
            print_line("dry run: nothing was renamed")
            return
        what = wording.counted(len(due), "lease")
        ask_first(f"this moves {what} of {due[0].name} to the name {user.canonical}", yes=yes)
        for each in due:
            outcome = client.wait(LeaseRenamer(client.farm).move(each))
            if outcome is not Rename.RENAMED:
                raise FarmleaseError(_refusal(each, outcome))
            print_line(f"renamed {each.name} -> {user.canonical} in pool {each.pool}")


def _held(client: FarmClient, pool: Pool, old: str, user: User) -> Iterator[DueRename]:
    """Yield the lease in a pool that ``old`` means and that does not stand under the name of ``user`` yet."""
    index = client.farm.sealer.user_index(user)
    for stored in client.wait(LeaseRenamer(client.farm).standing(pool, client.addressee(old).indexes)):
        if stored.user != index:
            taken = client.wait(client.lease_admin.lease(pool, user)) is not None
            name = client.lease_admin.name_of(stored)
            yield DueRename(
                pool=pool.name, index=stored.user, name=name, user=user, sessions=len(stored.sessions), taken=taken
            )
            return


def _nothing(client: FarmClient, old: str, user: User, pool: str | None) -> str:
    """Return why there is nothing to rename."""
    held = [each for each in client.pools(pool) if client.leases_of(each, client.addressee(old))]
    where = f" in pool {pool}" if pool else ""
    if held:
        return f"what the user holds{where} stands under the name {user.canonical} already; nothing was changed"
    return f"{old} holds no lease{where}; see `farmlease lease list`"


def _refuse_if_fixed(due: DueRename) -> None:
    """Raise FarmleaseError if a lease cannot move now, with what to do."""
    if due.taken:
        raise FarmleaseError(_refusal(due, Rename.TAKEN))
    if due.sessions:
        raise FarmleaseError(_refusal(due, Rename.IN_USE))


def _refusal(due: DueRename, outcome: Rename) -> str:
    """Return why a lease was not moved and what to do, as one sentence."""
    old, new = due.name, due.user.canonical
    match outcome:
        case Rename.IN_USE:
            sessions = wording.counted(max(due.sessions, 1), "session")
            return f"{old} has {sessions} in pool {due.pool}; nothing was changed; rename again when that is over"
        case Rename.TAKEN:
            return (
                f"{new} holds a lease of its own in pool {due.pool}, and two are never joined; give one back with "
                f"`farmlease lease return {shlex.quote(old)} --pool {due.pool}` or "
                f"`farmlease lease return {shlex.quote(new)} --pool {due.pool}`"
            )
        case Rename.RECOVERING:
            return f"pool {due.pool} is recovering; rename again in a minute"
        case Rename.DAMAGED:
            return (
                f"the record of {old} in pool {due.pool} does not open; look at it with "
                f"`farmlease lease check {shlex.quote(old)} --pool {due.pool}`"
            )
    return f"the lease of {old} in pool {due.pool} has just changed or ended; look at it, then rename again"
