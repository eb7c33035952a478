"""``farmlease lease files`` and ``restore-file``: the versions of a user's vendor files, and the way back to one.

The version that counts is the store's. Those that were superseded lie, sealed, in ``kept/versions/`` of the host on
which that happened, three of each user and pool: so these commands are for a host of the farm, run by who may read its
``state_dir``. They need no agent.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import click

from farmlease.admin.records import CurrentRecord, RecordAdmin
from farmlease.cli import example, print_line
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.confirm import ask_first, yes_option
from farmlease.cli.output.format import Column, Format, Row, day_and_time, emit, output_option
from farmlease.domain.json_documents import timestamp
from farmlease.domain.record import BorrowedRecord
from farmlease.errors import FarmleaseError, RecordRejected
from farmlease.node.journal.evidence import VERSIONS
from farmlease.node.journal.versions import KeptVersion, KeptVersions
from farmlease.store.answers.admin import RecordReplacement

__all__ = ["files", "restore_file"]

COLUMNS = ("version", "state", "at", "node", "bytes", "files")
TABLE = (
    "version", "state", Column("since (UTC)", lambda row: day_and_time(row["at"])), "node", "bytes",
    Column("files", lambda row: ", ".join(f"{each['file']} ({each['bytes']})" for each in _listed(row["files"]))),
)  # fmt: skip

_WHY_NOT = {
    RecordReplacement.CONFLICT: "a session has just saved another version: look again with `farmlease lease files`",
    RecordReplacement.USED: (
        "the user has a session, which would save its own file over this one: end it first, then restore the file"
    ),
    RecordReplacement.GONE: "the user's lease has just ended: restore the file once the user has a session again",
}

pool_option = click.option("--pool", metavar="P", required=True, help="Pool whose files are meant.")


@click.command(
    epilog=example(
        "farmlease lease files 'CORP\\john' --pool qlikview",
        "farmlease lease files 'CORP\\john' --pool qlikview -o json",
    )
)
@click.argument("user")
@pool_option
@output_option
def files(user: str, pool: str, fmt: Format) -> None:
    """List the versions of USER's vendor files.

    They are the one that counts, and those that this host has kept. Run it as root on the host on which the user
    worked: a version is kept by the host that saved the one after it.
    """
    with opened_farm() as client:
        current, kept = _versions(client, user, pool)
        rows = [*_rows(client, current, kept)]
    emit(rows, COLUMNS, fmt, table=TABLE)


@click.command(
    "restore-file",
    epilog=example("farmlease lease restore-file 'CORP\\john' --pool qlikview 3 --yes"),
)
@click.argument("user")
@click.argument("version")
@pool_option
@yes_option
def restore_file(user: str, version: str, pool: str, *, yes: bool) -> None:
    """Bring back a VERSION of USER's vendor files.

    It is one that this host has kept, as `farmlease lease files` lists it. It becomes the record's newest version, and
    is put in place at the user's next session, wherever that is. Refused while the user has a session: its end would
    save over it. The version that counted until now is kept here.
    """
    with opened_farm() as client:
        current, kept = _versions(client, user, pool)
        chosen = next((each for each in kept if each.label == version), None)
        if chosen is None:
            raise FarmleaseError(f"this host keeps no version {version} of these files: {_those(kept)}")
        record = RecordAdmin(client.farm).opened(chosen.binding, chosen.sealed)
        if record.files == current.record.files:
            raise FarmleaseError(f"version {version} is what counts already, to the byte: nothing was changed")
        size = sum(len(file.content) for file in record.files)
        ask_first(f"this puts version {version} ({size} bytes) in place of version {current.binding.version}", yes=yes)
        outcome = client.wait(RecordAdmin(client.farm).restore(current, record.files))
        if outcome is not RecordReplacement.SAVED:
            raise FarmleaseError(_WHY_NOT[outcome])
        if current.record.files:
            _kept_here(client).keep(current.binding, current.sealed, time.time_ns() // 1_000_000)
    print_line(f"restored version {version} as version {current.binding.version + 1}; the next session gets it")


def _versions(client: FarmClient, user: str, pool: str) -> tuple[CurrentRecord, list[KeptVersion]]:
    """Return the version that counts, and those that this host keeps; FarmleaseError without a lease."""
    (chosen,) = client.pools(pool)
    whom = client.addressee(user)
    index = client.lease_admin.index_of(client.holder(chosen, whom))
    current = client.wait(RecordAdmin(client.farm).current(chosen, index))
    if current is None:
        raise FarmleaseError(f"the user holds no lease in pool {pool}, so there is no record to put a file into")
    try:
        kept = _kept_here(client)  # versions from before a change of names lie under the former ones
        return current, [each for known in whom.indexes for each in kept.list(pool, known)]
    except OSError as error:
        place = client.config.agent.state_dir
        raise FarmleaseError(f"cannot read {place}/kept ({error.strerror}): run this as root on that host") from None


def _kept_here(client: FarmClient) -> KeptVersions:
    return KeptVersions(client.config.agent.state_dir / "kept" / VERSIONS)


def _rows(client: FarmClient, current: CurrentRecord, kept: list[KeptVersion]) -> Iterator[Row]:
    at = None if current.saved_at is None else timestamp(current.saved_at)
    yield _row(str(current.binding.version), "current", at, "(store)", current.record)
    for each in reversed(kept):
        try:
            record = RecordAdmin(client.farm).opened(each.binding, each.sealed)
        except RecordRejected:
            yield _row(each.label, "rejected", _moment(each.superseded), client.config.node, None)
        else:
            yield _row(each.label, "superseded", _moment(each.superseded), client.config.node, record)


def _row(version: str, state: str, at: str | None, node: str, record: BorrowedRecord | None) -> Row:
    found = () if record is None else record.files
    return {
        "version": version,
        "state": state,
        "at": at,
        "node": node,
        "bytes": sum(len(file.content) for file in found),
        "files": [{"file": file.name, "bytes": len(file.content)} for file in found],
    }


def _listed(found: object) -> list[dict[str, object]]:
    return found if isinstance(found, list) else []


def _moment(stamp: str) -> str | None:
    """Return the moment in the name of a kept version as JSON has it."""
    at = datetime.strptime(stamp, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    return timestamp(int(at.timestamp() * 1000))


def _those(kept: list[KeptVersion]) -> str:
    if not kept:
        return "it keeps none; `farmlease audit --user USER` shows on which hosts versions were saved"
    return f"it keeps {', '.join(each.label for each in kept)}; another host may keep others"
