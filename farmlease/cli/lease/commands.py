"""``farmlease lease …``: list, show and check the leases of the farm, and take them back.

Works on the store with the farm's keys; it needs no agent. Only ``return``, ``revoke``, ``readmit``,
``rename``, ``repair``, ``import`` and ``forget`` change anything; all but ``readmit`` and ``import`` ask first.
"""

import sys
from collections.abc import Iterator

import click

from farmlease.admin.nodes import NodeAdmin
from farmlease.admin.revocations import Revocation
from farmlease.cli import example, print_line
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.confirm import ask_first, reason_option, yes_option
from farmlease.cli.device import session_list
from farmlease.cli.lease.files import files, restore_file
from farmlease.cli.lease.forget import forget
from farmlease.cli.lease.import_csv import import_
from farmlease.cli.lease.readmit import readmit
from farmlease.cli.lease.rename import rename
from farmlease.cli.lease.repair import repair
from farmlease.cli.lease.summary import SUMMARY_INDENT, lease_summary
from farmlease.cli.output.format import (
    Column,
    Format,
    Row,
    day_and_time,
    emit,
    follow_option,
    output_option,
    print_folded,
)
from farmlease.cli.output.progress import progress
from farmlease.domain import wording
from farmlease.domain.identity import check_id
from farmlease.domain.json_documents import lease_document, timestamp
from farmlease.domain.model import LeaseState, LeaseView, Withdrawal
from farmlease.errors import EXIT_DENIED, FarmleaseError
from farmlease.store.answers.admin import Withdrawn

__all__ = ["lease"]

#: Exit status of ``check`` for a lease that is not valid: as for a denial.
INVALID = EXIT_DENIED
#: Leases between two updates of the progress bar.
_STEP = 100

COLUMNS = ("user", "pool", "kind", "state", "devices", "sessions", "issued_at", "expires_at", "fence", "overdraft")

TABLE = (
    "user", "pool", Column("state", lambda row: f"{row['state']}{', overdraft' * bool(row['overdraft'])}"),
    Column("devices", lambda row: ", ".join(_device_names(row["devices"]))),
    Column("sessions", lambda row: session_list(row["sessions"])),
    Column("expires (UTC)", lambda row: day_and_time(row["expires_at"])),
)  # fmt: skip

pool_option = click.option("--pool", metavar="P", help="Pool to look at (default: all).")
from_pool_option = click.option("--pool", metavar="P", required=True, help="Pool whose seat is taken back.")


@click.group()
def lease() -> None:
    """See who holds which licence of the farm, and take it back.

    Exit status: 0 done or valid, 1 no such lease or pool, 3 invalid, 4 the store is unavailable, 5 a record was
    refused as damaged.
    """


@lease.command(
    "list",
    epilog=example(
        "farmlease lease list",
        "farmlease lease list --pool qlikview --state idle -o csv > idle.csv",
        "farmlease lease list --user 'CORP\\john' --follow",
    ),
)
@pool_option
@click.option("--user", metavar="U", help="Only this user's, in any spelling.")
@click.option("--state", type=click.Choice([state.value for state in LeaseState]), help="Only those in this state.")
@output_option
@follow_option
def list_(*, pool: str | None, user: str | None, state: str | None, fmt: Format, watch: bool) -> None:
    """List the leases of the farm as they are read. A list of any length is never held in memory.

    A table shows the usual columns; JSON and CSV have all. With the list redirected into a file, the terminal shows a
    progress bar. Leases of a pool that was removed are listed until they end.
    """
    with opened_farm() as client:

        def views() -> Iterator[LeaseView]:
            found = _leases_of_user(client, user, pool) if user is not None else _leases_of_pools(client, pool)
            return (view for view in found if state in {None, view.state})

        if watch:
            from farmlease.cli.output.watch import WatchedList, watch_list

            rows = lambda: map(lease_document, views())  # noqa: E731 - as long as its only use
            watch_list(WatchedList(rows=rows, key=("user", "pool"), table=TABLE, volatile=_volatile), fmt)
        counted = views() if user is not None else _with_progress(client, pool, views())
        emit(map(lease_document, counted), COLUMNS, fmt, table=TABLE)


@lease.command(epilog=example("farmlease lease show 'CORP\\john'", "farmlease lease show 'CORP\\john' -o json"))
@click.argument("user")
@pool_option
@output_option
def show(user: str, pool: str | None, fmt: Format) -> None:
    """Show what USER holds and what happens next. Seats, devices and sessions are shown with their times.

    A revocation that keeps USER out is shown with who revoked the seat, why, and until when.

    A name exactly as a list prints it means the lease of that name, whatever [identity] says; any other spelling means
    the person. If that person holds a second lease under another name, this says so, and how to mend it.
    """
    with opened_farm() as client:
        whom = client.addressee(user)
        pools = {each.name: each for each in client.lease_pools(pool)}
        found = [[view for _, view in client.leases_of(each, whom)] for each in pools.values()]
        views = [first for first, *_ in filter(None, found)]
        others = {first.pool: rest for first, *rest in filter(None, found)}
        revoked = {each.name: client.revocation(each, whom) for each in pools.values()}
        hosts = {host.node: host for host in client.wait(NodeAdmin(client.farm).all())} if fmt == "table" else {}
    held = {view.pool for view in views}
    without = [each for each in revoked.values() if each is not None and each.pool not in held]
    if not views and not without:
        raise FarmleaseError("the user holds no lease" + (f" in pool {pool}" if pool else ""))
    if fmt == "table":
        texts = [
            lease_summary(view, pools[view.pool], hosts, others[view.pool], revoked[view.pool]) for view in views
        ] + [f"{each.user} holds no lease in pool {each.pool}: {each.text}" for each in without]
        for line in "\n\n".join(texts).split("\n"):
            print_folded(line, SUMMARY_INDENT)
    else:
        rows = [{**lease_document(view), **_revocation(revoked[view.pool])} for view in views]
        rows += [{"user": each.user, "pool": each.pool, **_revocation(each)} for each in without]
        emit(rows, (*COLUMNS, "revoked"), fmt)


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
    """Check whether USER holds a valid lease on a device. It is valid if its record exists and opens.

    Prints VALID, or INVALID with the reason and exit status 3. If the record does not open: exit status 5.
    """
    with opened_farm() as client:
        where = client.config.farm if device is None else check_id("device", device)
        chosen = client.one_pool(pool)
        whom = client.addressee(user)
        why = client.wait(client.lease_admin.fault(chosen, client.holder(chosen, whom), where))
        revocation = None if why is None else client.revocation(chosen, whom)
        if revocation is not None:
            why = f"the lease in pool {chosen.name} was {revocation.text}"
    print_line("VALID" if why is None else f"INVALID: {why}")
    if why is not None:
        click.get_current_context().exit(INVALID)


@lease.command("return", epilog=example("farmlease lease return 'CORP\\john' --pool qlikview --yes"))
@click.argument("user")
@from_pool_option
@yes_option
def return_(user: str, pool: str, *, yes: bool) -> None:
    """Give back what USER holds in a pool. It has the same effect as if the user did it.

    A named seat that was used stays quarantined until its last use is long enough ago; any other is free at once.
    Sessions end. The user may take a seat again at any time.
    """
    with opened_farm() as client:
        (chosen,) = client.lease_pools(pool)
        who = client.holder(chosen, client.addressee(user))
        view = client.held_lease(chosen, who)
        if view.state is LeaseState.QUARANTINED:
            until = wording.moment(view.lease.expires_at)
            print_line(f"{view.user} already gave the seat of pool {view.pool} back; it is quarantined until {until}")
            return
        ask_first(f"this takes {_seat_text(view)}", yes=yes)
        withdrawn = client.wait(client.lease_admin.withdraw(chosen, who, Withdrawal.RETURNED))
    _print_withdrawal(view, "returned", withdrawn)


@lease.command(epilog=example("farmlease lease revoke 'CORP\\john' --pool qlikview --reason 'left us' --yes"))
@click.argument("user")
@from_pool_option
@reason_option
@yes_option
def revoke(user: str, pool: str, reason: str, *, yes: bool) -> None:
    """Take back what USER holds in a pool. The user is kept out for the time of the pool's quarantine.

    Otherwise as ``return``. ``readmit`` lets the user in again before that. To keep a user out for good, write a rule
    with access = "denied".
    """
    with opened_farm() as client:
        (chosen,) = client.lease_pools(pool)
        who = client.holder(chosen, client.addressee(user))
        view = client.held_lease(chosen, who)
        ask_first(f"this takes {_seat_text(view)} and keeps the user out for a while", yes=yes)
        withdrawn = client.wait(client.lease_admin.withdraw(chosen, who, Withdrawal.REVOKED, reason))
    _print_withdrawal(view, "revoked", withdrawn)


lease.add_command(import_)
lease.add_command(forget)
lease.add_command(readmit)
lease.add_command(rename)
lease.add_command(files)
lease.add_command(restore_file)
lease.add_command(repair)


def _revocation(revocation: Revocation | None) -> Row:
    """Return what keeps a user out, as a further field of ``show -o json``; no field where nothing does."""
    if revocation is None:
        return {}
    document = {
        "by": revocation.by or None,
        "why": revocation.why or None,
        "at": timestamp(revocation.at),
        "until": timestamp(revocation.until),
    }
    return {"revoked": document}


def _leases_of_pools(client: FarmClient, pool: str | None) -> Iterator[LeaseView]:
    """Yield the leases of a pool, or of all pools, as they are read."""
    for each in client.lease_pools(pool):
        yield from client.each(client.lease_admin.leases(each))


def _leases_of_user(client: FarmClient, user: str, pool: str | None) -> Iterator[LeaseView]:
    """Yield one user's leases, one under a former name too."""
    whom = client.addressee(user)
    for each in client.lease_pools(pool):
        yield from (view for _, view in client.leases_of(each, whom))


def _with_progress(client: FarmClient, pool: str | None, views: Iterator[LeaseView]) -> Iterator[LeaseView]:
    """Yield the same leases; show a progress bar on the terminal if only stdout is redirected."""
    if sys.stdout.isatty() or not sys.stderr.isatty():
        yield from views
        return
    with progress("leases", sum(client.seats_held(each) for each in client.lease_pools(pool))) as advance:
        for passed, view in enumerate(views, 1):
            yield view
            if passed % _STEP == 0:
                advance(_STEP)


def _device_names(devices: object) -> list[str]:
    """Return the device names of a lease document."""
    return [each["device"] for each in devices] if isinstance(devices, list) else []


def _volatile(row: Row) -> tuple[str, ...]:
    """Return the keys that change with the clock alone: the expiry of a lease in use."""
    return ("expires_at",) if row["state"] == LeaseState.ACTIVE else ()


def _seat_text(view: LeaseView) -> str:
    """Return what would be taken, for a question."""
    sessions = f" and ends {wording.counted(len(view.sessions), 'session')}" if view.sessions else ""
    return f"the {view.kind} seat of {view.user} in pool {view.pool}{sessions}"


def _print_withdrawal(view: LeaseView, verb: str, withdrawn: Withdrawn | None) -> None:
    """Print the result of a return or revocation; FarmleaseError if the lease ended meanwhile."""
    if withdrawn is None:
        raise FarmleaseError(f"the user holds no lease in pool {view.pool} any more: it has just ended")
    seat = f"the {view.kind} seat of {view.user} in pool {view.pool}"
    print_line(f"{verb} {seat}" if withdrawn.changed else f"{seat} was already {verb}; nothing has changed")
    if withdrawn.quarantined_until is None:
        print_line("it is free for others now")
    else:
        print_line(f"it is quarantined until {wording.moment(withdrawn.quarantined_until)}")
    if withdrawn.barred_until is not None:
        print_line(f"the user is kept out until {wording.moment(withdrawn.barred_until)}")
    if view.sessions:
        print_line(f"{wording.counted(len(view.sessions), 'session')} will end at the next heartbeat of each host")
