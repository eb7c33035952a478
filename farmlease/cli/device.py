"""``farmlease device …``: the device slots of a user: which there are, free one, move one to another machine.

Works on the store with the farm's keys; it needs no agent. Devices are counted in named pools only.
"""

from collections.abc import Iterator
from typing import NoReturn

import click

from farmlease.cli import example
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.confirm import ask_first, reason_option, yes_option
from farmlease.cli.output.format import Column, Format, Row, day_and_time, emit, output_option
from farmlease.domain import wording
from farmlease.domain.identity import User, check_token
from farmlease.domain.json_documents import timestamp
from farmlease.domain.model import Kind, LeaseView
from farmlease.domain.policy import Pool
from farmlease.errors import FarmleaseError, InvalidInput
from farmlease.store.answers.admin import DeviceReplacement, Release, Replacement

__all__ = ["denied", "device", "of_lease", "refuse_unknown", "rows", "tell", "used"]

DENIED = 3

COLUMNS = ("user", "pool", "device", "until", "sessions")

TABLE = (
    "user", "pool", "device",
    Column("until (UTC)", lambda row: day_and_time(row["until"]) or "in use"),
    Column("sessions", lambda row: used(row["sessions"])),
)  # fmt: skip

pool_option = click.option("--pool", metavar="P", help="Named pool of the slot (default: the only pool).")


@click.group()
def device() -> None:
    """See, free and replace the devices of a user. The whole farm counts as one device.

    Exit status: 0 done, 1 no such lease or device, 3 no replacement is left, 4 the store is unavailable.
    """


@device.command(
    "list", epilog=example("farmlease device list 'CORP\\john'", "farmlease device list 'CORP\\john' -o json")
)
@click.argument("user")
@click.option("--pool", metavar="P", help="Pool to look at (default: all named ones).")
@output_option
def list_(user: str, pool: str | None, fmt: Format) -> None:
    """List the devices USER's licences are on. Until when is told where no session is."""
    with opened_farm() as client:
        who = client.config.identities.user(user)
        chosen = [client.named_pool(pool)] if pool is not None else client.pools(None)
        emit(rows(client, who, [each for each in chosen if each.kind is Kind.NAMED]), COLUMNS, fmt, table=TABLE)


@device.command(epilog=example("farmlease device release 'CORP\\john' NB-0042"))
@click.argument("user")
@click.argument("name", metavar="DEVICE")
@pool_option
def release(user: str, name: str, pool: str | None) -> None:
    """Free USER's slot of DEVICE. One that was used stays taken until its last use is a quarantine ago.

    Nothing ends: a device with sessions is refused.
    """
    with opened_farm() as client:
        who, where = client.config.identities.user(user), check_token("device", name)
        chosen = client.named_pool(pool)
        released = client.wait(client.leases.release_device(chosen, who, where))
    if released.outcome is Release.NONE:
        refuse_unknown(chosen, where)
    if released.outcome is Release.IN_USE:
        raise FarmleaseError(f"sessions of the user run on device {where}; end them first")
    if released.taken_until is None:
        click.echo(f"released device {where}; its slot is free now")
    else:
        click.echo(f"released device {where}; its slot stays taken until {wording.moment(released.taken_until)}")


@device.command(
    epilog=example("farmlease device replace 'CORP\\john' NB-0042 NB-0077 --reason 'fell off a table, case 4711'")
)
@click.argument("user")
@click.argument("old")
@click.argument("new")
@reason_option
@click.option("--override", is_flag=True, help="Also beyond the replacements that the pool allows in 30 days.")
@pool_option
@yes_option
def replace(*, user: str, old: str, new: str, reason: str, override: bool, pool: str | None, yes: bool) -> None:
    """Move USER's slot of device OLD to device NEW at once. That is for the broken notebook.

    Sessions on OLD end; then it asks first. Exit status 3 if the pool's replacements in 30 days are used up.
    """
    before, after = check_token("device", old), check_token("device", new)
    if before == after:
        raise InvalidInput("the two devices are the same one; name the machine that takes its place")
    with opened_farm() as client:
        who, chosen = client.config.identities.user(user), client.named_pool(pool)
        view = client.held_lease(chosen, who)
        ending = sum(session.device == before for session in view.sessions)
        if ending:
            ask_first(f"this ends {wording.counted(ending, 'session')} of {view.user} on device {before}", yes=yes)
        moving = client.leases.replace_device(chosen, who, before, after, note=reason, override=override)
        answer = client.wait(moving)
    tell(answer, chosen, before, after)


def tell(answer: DeviceReplacement, pool: Pool, before: str, after: str) -> None:
    """Print what became of a replacement; FarmleaseError if there was nothing to replace."""
    match answer.outcome:
        case Replacement.NONE:
            refuse_unknown(pool, before)
        case Replacement.KNOWN:
            raise FarmleaseError(f"the lease is on device {after} already; free the other slot with `device release`")
        case Replacement.LIMIT:
            click.echo(denied(answer, pool))
            click.get_current_context().exit(DENIED)
        case Replacement.REPLACED:
            click.echo(f"replaced device {before} by {after}")


def denied(answer: DeviceReplacement, pool: Pool) -> str:
    """Return why a replacement is denied, and what may be done."""
    allowed = f"pool {pool.name} allows {wording.counted(pool.replacements, 'replacement')} in 30 days"
    when = f"the next one at {wording.moment(answer.next_at)}" if answer.next_at is not None else "none ever"
    return f"denied: {allowed}, {when}; --override replaces it all the same, and the audit says so"


def rows(client: FarmClient, user: User, pools: list[Pool]) -> Iterator[Row]:
    """Yield each device of a user's leases."""
    for pool in pools:
        view = client.wait(client.leases.lease(pool, user))
        if view is not None:
            yield from of_lease(view)


def of_lease(view: LeaseView) -> Iterator[Row]:
    """Yield each device of a lease."""
    for claim in view.devices:
        yield {
            "user": view.user,
            "pool": view.pool,
            "device": claim.device,
            "until": timestamp(claim.until),
            "sessions": [
                {"node": each.node, "session": each.session} for each in view.sessions if each.device == claim.device
            ],
        }


def used(sessions: object) -> str:
    """Return sessions of a document as "7 on ctx-01, 8 on ctx-02"."""
    listed = sessions if isinstance(sessions, list) else []
    return ", ".join(f"{each['session']} on {each['node']}" for each in listed)


def refuse_unknown(pool: Pool, name: str) -> NoReturn:
    """Say that a lease is not on a device."""
    raise FarmleaseError(f"the user has no device {name} in pool {pool.name}; see `farmlease device list`")
