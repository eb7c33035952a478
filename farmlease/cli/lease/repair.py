"""``farmlease lease repair``: mend a pool whose data in the store were damaged."""

import click

from farmlease.admin.repair import PoolRepair, Repaired
from farmlease.cli import example, print_line
from farmlease.cli.client.farm import opened_farm
from farmlease.cli.confirm import ask_first, yes_option
from farmlease.domain import wording

__all__ = ["repair"]

#: Set-aside documents that are printed; the number of all is printed in any case.
_MOST_SHOWN = 50


@click.command("repair", epilog=example("farmlease lease repair --pool qlikview --yes"))
@click.option("--pool", metavar="P", required=True, help="Pool to repair.")
@yes_option
def repair(pool: str, *, yes: bool) -> None:
    """Mend a pool whose data were damaged or lost.

    Run it when `farmlease doctor` or a node's health says so, after the nodes have put back what they have. Seats,
    sessions and holds are made anew from the leases; those of no lease are set aside. A lease whose record is lost gets
    back the one that was set aside, or an empty one, unless its user has a session. What did not decode stays in the
    store, in the pool's key `damaged`, and is printed here; from now on health counts it as seen.

    Exit status: 0 done, 1 the pool is recovering, 4 the store is unavailable, 5 a key is of another type.
    """
    with opened_farm() as client:
        (chosen,) = client.pools(pool)
        ask_first(f"this removes seats and sessions of pool {pool} that belong to no lease", yes=yes)
        _print(client.wait(PoolRepair(client.farm).repair(chosen)))


def _print(repaired: Repaired) -> None:
    """Print what was done."""
    if repaired.missing:
        print_line(f"the pool lacked: {', '.join(repaired.missing)}")
    back, gone = repaired.rebuilt.put_back, repaired.rebuilt.removed
    print_line(f"{wording.counted(back, 'claim')} of leases put back, {gone} of no lease set aside")
    if repaired.returned:
        leases = wording.counted(repaired.returned, "lease")
        print_line(f"{leases} had lost the record and got back the one that was set aside")
    if repaired.emptied:
        leases = wording.counted(repaired.emptied, "lease")
        print_line(f"{leases} had lost the record and got an empty one; see `farmlease lease files` for kept versions")
    if repaired.unrecorded:
        leases = wording.counted(repaired.unrecorded, "lease")
        print_line(f"{leases} in use without a record: repair again when these sessions have ended")
    for each in repaired.set_aside[:_MOST_SHOWN]:
        print_line(f"set aside: {each.what} {each.whose}, {wording.counted(each.size, 'byte')}")
    if len(repaired.set_aside) > _MOST_SHOWN:
        print_line(f"set aside: {len(repaired.set_aside)} in all")
