"""``farmlease device …``: list a user's device slots, free one, move one to another machine.

Works on the store with the farm's keys; it needs no agent. Devices are counted in named pools only.
"""

from collections.abc import Iterator
from typing import NoReturn

import click

from farmlease.admin.addressing import Addressee
from farmlease.cli import example, print_line
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.confirm import ask_first, reason_option, yes_option
from farmlease.cli.output.format import Column, Format, Row, day_and_time, emit, output_option
from farmlease.domain import wording
from farmlease.domain.identity import check_id
from farmlease.domain.json_documents import timestamp
from farmlease.domain.model import Kind, LeaseView
from farmlease.domain.policy import Pool
from farmlease.errors import EXIT_DENIED, FarmleaseError, InvalidInput
from farmlease.store.answers.admin import DeviceReplacement, Release, Replacement

__all__ = ["device", "session_list"]

COLUMNS = ("user", "pool", "device", "until", "sessions")

TABLE = (
    "user", "pool", "device",
    Column("until (UTC)", lambda row: day_and_time(row["until"]) or "in use"),
    Column("sessions", lambda row: session_list(row["sessions"])),
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
    """List the devices USER's licences are on. A device without a session is shown with its deadline."""
    with opened_farm() as client:
        who = client.addressee(user)
        chosen = [client.named_pool(pool)] if pool is not None else client.pools(None)
        emit(_device_rows(client, who, [each for each in chosen if each.kind is Kind.NAMED]), COLUMNS, fmt, table=TABLE)


@device.command(epilog=example("farmlease device release 'CORP\\john' NB-0042"))
@click.argument("user")
@click.argument("name", metavar="DEVICE")
@pool_option
def release(user: str, name: str, pool: str | None) -> None:
    """Free USER's slot of DEVICE. A used one stays taken until the quarantine after its last use is over.

    No session ends: a device with sessions is refused.
    """
    with opened_farm() as client:
        where, chosen = _device(client, name), client.named_pool(pool)
        who = client.holder(chosen, client.addressee(user))
        released = client.wait(client.lease_admin.release_device(chosen, who, where))
    if released.outcome is Release.NONE:
        _raise_unknown(chosen, where)
    if released.outcome is Release.IN_USE:
        raise FarmleaseError(f"sessions of the user run on device {where}; end them first")
    if released.taken_until is None:
        print_line(f"released device {where}; its slot is free now")
    else:
        print_line(f"released device {where}; its slot stays taken until {wording.moment(released.taken_until)}")


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
    """Move USER's slot of device OLD to device NEW at once. Meant for a broken or lost machine.

    Sessions on OLD end; if there are any, it asks first. Exit status 3 if the pool's replacements in 30 days are used
    up.
    """
    with opened_farm() as client:
        before, after = _device(client, old), _device(client, new)
        if before == after:
            raise InvalidInput("the two devices are the same; name the machine that replaces the old one")
        chosen = client.named_pool(pool)
        who = client.holder(chosen, client.addressee(user))
        view = client.held_lease(chosen, who)
        ending = sum(session.device == before for session in view.sessions)
        if ending:
            ask_first(f"this ends {wording.counted(ending, 'session')} of {view.user} on device {before}", yes=yes)
        moving = client.lease_admin.replace_device(chosen, who, before, after, note=reason, override=override)
        answer = client.wait(moving)
    _print_replacement(answer, chosen, before, after)


def _device(client: FarmClient, text: str) -> str:
    """Return the name of a device of any spelling; InvalidName if it can be none."""
    return client.farm.device(check_id("device", text))


def _print_replacement(answer: DeviceReplacement, pool: Pool, before: str, after: str) -> None:
    """Print the result of a replacement; FarmleaseError if there was no device to replace."""
    match answer.outcome:
        case Replacement.NONE:
            _raise_unknown(pool, before)
        case Replacement.KNOWN:
            raise FarmleaseError(f"the lease is on device {after} already; free the other slot with `device release`")
        case Replacement.LIMIT:
            print_line(_denial_line(answer, pool))
            click.get_current_context().exit(EXIT_DENIED)
        case Replacement.REPLACED:
            print_line(f"replaced device {before} by {after}")


def _denial_line(answer: DeviceReplacement, pool: Pool) -> str:
    """Return why a replacement is denied and what to do."""
    allowed = f"pool {pool.name} allows {wording.counted(pool.replacements, 'replacement')} in 30 days"
    when = f"the next one at {wording.moment(answer.next_at)}" if answer.next_at is not None else "none ever"
    return f"denied: {allowed}, {when}; --override replaces it nevertheless and is audited"


def _device_rows(client: FarmClient, whom: Addressee, pools: list[Pool]) -> Iterator[Row]:
    """Yield each device of a user's leases, of one under a former name too."""
    for pool in pools:
        for _, view in client.leases_of(pool, whom):
            yield from _rows_of_lease(view)


def _rows_of_lease(view: LeaseView) -> Iterator[Row]:
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


def session_list(sessions: object) -> str:
    """Return the sessions of a document as "7 on ctx-01, 8 on ctx-02"."""
    listed = sessions if isinstance(sessions, list) else []
    return ", ".join(f"{each['session']} on {each['node']}" for each in listed)


def _raise_unknown(pool: Pool, name: str) -> NoReturn:
    """Raise FarmleaseError: the lease is not on a device."""
    raise FarmleaseError(f"the user has no device {name} in pool {pool.name}; see `farmlease device list`")
