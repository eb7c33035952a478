"""``farmlease lease import``: take over the leases recorded by the vendor.

Row by row, each an atomic decision of the store, so that a second run finishes what a first one left and changes
nothing else. A row that cannot be imported is reported and never stops the rows after it.
"""

from collections import Counter
from pathlib import Path

import click

from farmlease import plain_file
from farmlease.admin.leases import Pseudonym
from farmlease.cli import example, print_line, print_stderr
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.output.progress import progress
from farmlease.domain import wording
from farmlease.domain.identity import User, check_id
from farmlease.domain.model import Reason
from farmlease.domain.policy import Pool
from farmlease.domain.pool import MOST_DEVICES
from farmlease.domain.vendor_csv import LicenceRow, RejectedRow, read_vendor_csv
from farmlease.errors import EXIT_FAILED, FarmleaseError, InvalidInput, InvalidName
from farmlease.store.answers.admin import Import, ImportOutcome
from farmlease.store.answers.session import Behind

__all__ = ["Importer", "import_"]

#: Changes of the policy during the import of one row, before it fails.
_MOST_CHANGES = 5
_BAD = "bad"


@click.command("import", epilog=example("farmlease lease import BorrowedCalData.csv --pool qlikview"))
@click.argument("file", metavar="FILE.csv", type=click.Path(path_type=Path))
@click.option("--pool", metavar="P", required=True, help="Named pool whose seats the leases take.")
def import_(file: Path, pool: str) -> None:
    """Take over the leases in FILE. It has UserName, MachineId and UtcBorrowTime, a row for each device of a user.

    Columns are found by their names; others are ignored. An empty time is a licence assigned but never used. Write
    the farm's name as MachineId where the machine is one of its hosts. Running it again changes nothing.

    Exit status: 0 every row is in, 1 some rows were bad; they are listed with their line, and the others are in.
    """
    content = _read_file(file)
    try:
        rows = list(read_vendor_csv(content))
    except InvalidInput as error:
        raise InvalidInput(f"{file}: {error}") from None
    with opened_farm() as client:
        importer = Importer(client, client.named_pool(pool))
        counts = Counter[str]()
        try:
            with progress("rows", len(rows)) as advance:
                for row in rows:
                    outcome, why = importer.import_row(row)
                    counts[outcome] += 1
                    if why:
                        print_stderr(f"{file}: line {row.line}: {why}")
                    advance(1)
        except (FarmleaseError, KeyboardInterrupt):
            print_line(f"stopped: {_tally(counts)}; run it again to go on", err=True)
            raise
    print_line(_tally(counts))
    if counts[_BAD]:
        click.get_current_context().exit(EXIT_FAILED)


def _tally(counts: Counter[str]) -> str:
    return f"imported {counts[Import.IMPORTED]}, known before {counts[Import.KNOWN]}, bad {counts[_BAD]}"


def _read_file(file: Path) -> bytes:
    """Return a file's bytes; InvalidInput if it cannot be read."""
    try:
        return plain_file.read(file, pipe=True)
    except OSError as error:
        raise InvalidInput(f"{file}: cannot be read: {error.strerror}") from error


class Importer:
    """Imports rows into a pool, by the policy in force."""

    def __init__(self, client: FarmClient, pool: Pool) -> None:
        self._client = client
        self._pool = pool
        self._in_force = client.in_force()

    def import_row(self, row: LicenceRow | RejectedRow) -> tuple[str, str]:
        """Import a row; return the outcome and, if the row is bad, the reason."""
        if isinstance(row, RejectedRow):
            return _BAD, row.why
        try:
            outcome = self._import(row)
        except InvalidName as error:
            return _BAD, str(error)
        if outcome.outcome in {Import.IMPORTED, Import.KNOWN}:
            return outcome.outcome, ""
        return _BAD, self._reason(outcome)

    def _import(self, row: LicenceRow) -> ImportOutcome:
        machine = check_id("machine id", row.machine)
        for _ in range(_MOST_CHANGES):
            version, user = self._in_force.version, self._user(row.user)
            importing = self._client.lease_admin.import_lease(self._pool, version, user, machine, row.borrowed_at)
            outcome = self._client.wait(importing)
            if not isinstance(outcome, Behind):
                return outcome
            self._in_force = self._client.in_force()
            self._pool = self._client.named_pool(self._pool.name)
        raise FarmleaseError("the policy keeps changing; is a script applying policies in a loop?")

    def _user(self, name: str) -> User:
        """Return the person of a row, under a former name if a lease stands under that."""
        identity = self._in_force.identity
        user = identity.user(name)
        if identity.refuses(user):
            raise InvalidName("the user's domain is none that [identity] lists, and unknown ones are refused")
        if self._in_force.former_names:
            for who, view in self._client.leases_of(self._pool, self._client.addressee(user.canonical)):
                found = User(view.user)
                if who == Pseudonym(self._client.farm.sealer.user_index(found)):
                    return found
        return user

    def _reason(self, outcome: ImportOutcome) -> str:
        """Return why the store refused a row."""
        pool = self._pool
        if outcome.outcome is Import.FUTURE:
            return "the time is in the future by the store's clock; is it in UTC?"
        if outcome.ended_at is not None:
            return f"the lease would have ended at {wording.moment(outcome.ended_at)}"
        reasons = {
            Reason.CAPACITY: f"all seats of pool {pool.name} are taken, {pool.capacity} of {pool.capacity}",
            Reason.RESERVED: f"the free seats of pool {pool.name} are reserved for others",
            Reason.DEVICE_LIMIT: f"the user is on as many devices as the pool allows: {pool.devices_per_user}",
            Reason.USER_LIMIT: f"the user is on as many devices as anybody may be: {MOST_DEVICES}",
            Reason.QUARANTINED: "the user's seat was given back and is quarantined",
            Reason.REVOKED: "the user's seat was revoked, and the user is kept out for now",
            Reason.RECOVERING: "the store lost data or changed its master; run it again in a minute",
        }
        return reasons.get(outcome.reason or Reason.CAPACITY, f"refused: {outcome.reason}")
