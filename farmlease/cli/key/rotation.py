"""``farmlease key rotate``, ``reseal`` and ``retire``: put a new key into use, and take an old one out of use.

Each step is refused while it could lose data, with the reason. Only the key ring's file on this host and seals in the
store are changed; the administrator copies the file to the nodes.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import click

from farmlease.admin.audit import AuditLog
from farmlease.admin.reseal import Resealer
from farmlease.cli import example, print_line, print_stderr
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.confirm import ask_first, yes_option
from farmlease.cli.output.progress import progress
from farmlease.clock import SystemClock
from farmlease.crypto.keyring import KeyRing
from farmlease.crypto.keyring_file import change
from farmlease.domain.key_rotation import KeyReport, KeyUses, cannot_open, in_the_way, keys_elsewhere
from farmlease.errors import FarmleaseError, RecordRejected

__all__ = ["KeysClient", "opened_keys", "reseal", "retire", "rotate"]

T = TypeVar("T")

#: What to do after copying the ring, for agents that do not read the file itself.
_RESTART = "restart agents that systemd gave a copy of it (LoadCredential)"

force_option = click.option("--force", is_flag=True, help="Go on despite an objection; it is printed as a warning.")


@dataclass(frozen=True, slots=True)
class KeysClient:
    """An open farm, for the commands about its keys."""

    client: FarmClient
    pools: tuple[str, ...]  #: of the policy in force

    @property
    def ring(self) -> KeyRing:
        """The key ring as read."""
        return self.client.farm.sealer.ring

    @property
    def resealer(self) -> Resealer:
        """Counts the seals of the store and seals them anew."""
        farm = self.client.farm
        ever = self.client.wait(AuditLog(farm).pools())
        return Resealer(farm, sorted({*ever, *self.pools}))

    def uses(self) -> dict[str, KeyUses]:
        """Return how much each key seals in the store."""
        return self.client.wait(self.resealer.uses())

    def nodes(self) -> tuple[list[KeyReport], list[str]]:
        """Return what the nodes reported about their keys, and the nodes that the pools count as alive."""
        farm = self.client.farm
        members = [member for pool in self.pools for member in self.client.wait(farm.leases.nodes(pool))]
        return self.client.wait(farm.seals.rings()), sorted({member.partition("#")[0] for member in members})

    def batches(self, source: AsyncIterator[T]) -> Iterator[T]:
        """Yield the values of an asynchronous iterator, each as soon as it is there."""

        async def following_one() -> T | None:
            return await anext(source, None)

        while (value := self.client.wait(following_one())) is not None:
            yield value


@contextmanager
def opened_keys() -> Iterator[KeysClient]:
    """Open the farm of the configuration for work on its keys."""
    with opened_farm() as client:
        yield KeysClient(client, tuple(pool.name for pool in client.in_force().pools))


@click.command(epilog=example("farmlease key rotate", "farmlease key rotate --activate"))
@click.option("--activate", is_flag=True, help="Seal with the new key, once every node can open what it seals.")
@force_option
def rotate(*, activate: bool, force: bool) -> None:
    """Add a new key to this node's ring. With --activate, seal with it from then on.

    Copy the ring to every node after either step; agents reload it within seconds. Restart an agent that systemd gave
    a copy of the ring (LoadCredential). Refused: --activate while a living node does not have the new key, and either
    step with a ring that is not the newest.
    """
    with opened_keys() as keys:
        path, ring = keys.client.config.keys.file, keys.ring
        reports, alive = keys.nodes()
        if others := keys_elsewhere(reports, ring.ids):
            _refuse(
                f"{_listed(others)} have keys that are not in {path}: copy the newest ring to all nodes first", force
            )
        if not activate:
            _add(keys, cannot_open(reports, alive, ring.pending or ""))
            return
        if ring.pending is None:
            raise FarmleaseError(f"no key is waiting in {path}: add one with `farmlease key rotate`")
        if lacking := cannot_open(reports, alive, ring.pending):
            _refuse(f"key {ring.pending} does not open on {_listed(lacking)} yet: copy {path} there first", force)
        change(path, ring, KeyRing.activated)
        print_line(f"key {ring.pending} seals from now on; copy {path} to every node of the farm,")
        print_line(f"{_RESTART}, then run `farmlease key reseal`")


def _add(keys: KeysClient, lacking: list[str]) -> None:
    path, ring = keys.client.config.keys.file, keys.ring
    if ring.pending is not None:
        missing = f"copy {path} to {_listed(lacking)}, then" if lacking else "every node can open with it:"
        raise FarmleaseError(f"key {ring.pending} is waiting already; {missing} run `farmlease key rotate --activate`")
    grown = change(path, ring, lambda found: found.grown(SystemClock().now_ms()))
    print_line(f"added key {grown.pending}, which seals nothing yet; copy {path} to every node of the farm,")
    print_line(f"{_RESTART}, then run `farmlease key rotate --activate` here")


@click.command(epilog=example("farmlease key reseal"))
def reseal() -> None:
    """Seal everything in the store anew with the primary key. That is records, names and the policy.

    It may be interrupted at any time and run again: each seal is the old one or the new one, and what a node saves
    meanwhile is never overwritten. Administrators' names and words in the audit stay as they are: an audit is not
    rewritten. Nodes themselves seal the data on their own disks anew.
    """
    with opened_keys() as keys:
        primary = keys.ring.primary
        total = sum(_seal_count(uses) for key_id, uses in keys.uses().items() if key_id != primary)
        done = left = 0
        try:
            with progress("sealing anew", total) as advance:
                for batch in keys.batches(keys.resealer.reseal()):
                    done, left = done + batch.resealed, left + batch.left
                    advance(batch.resealed + batch.left)
        except KeyboardInterrupt:
            print_line(f"stopped: {done} of {total} sealed anew with key {primary}; run it again to go on", err=True)
            raise
        print_line(f"sealed {done} anew with key {primary}")
        if others := [each.node for each in keys.nodes()[0] if each.alive and each.primary != primary]:
            print_stderr(
                f"{_listed(others)} still seal with an older key: copy the ring there, {_RESTART}; then run this again"
            )
        if left:
            raise RecordRejected(f"{left} seals do not open with this ring and were left as they are; see key list")


@click.command(epilog=example("farmlease key retire 1f3a9c0d --yes"))
@click.argument("key_id", metavar="ID")
@yes_option
@force_option
def retire(key_id: str, *, yes: bool, force: bool) -> None:
    """Remove key ID from this node's ring. Copy the ring to every node afterwards.

    Refused while the store or a node's journal needs the key, with how much and where. Administrators' names and words
    in the audit that it sealed become unreadable for good; so does whatever else still needs the key with --force.
    """
    with opened_keys() as keys:
        path, ring = keys.client.config.keys.file, keys.ring
        if key_id not in ring.ids:
            raise FarmleaseError(f"there is no key of this id in {path}: see `farmlease key list`")
        if key_id == ring.primary:
            raise FarmleaseError(f"key {key_id} is the primary: bring another one into use first (key rotate)")
        reports, alive = keys.nodes()
        uses = keys.uses().get(key_id, KeyUses())  # after the nodes: a node without the key adds no more seals of it
        if blocked := in_the_way(reports, alive, key_id, uses):
            advice = "run `farmlease key reseal`, and see that every node has the newest ring"
            _refuse(f"key {key_id} is still needed by {'; '.join(blocked)}; {advice}", force)
        whose = f"{uses.notes} names and words of administrators in the audit"
        notes = f", and {whose} become unreadable" if uses.notes else ""
        ask_first(f"this removes key {key_id} from {path} for good{notes}", yes=yes)
        change(path, ring, lambda found: found.without(key_id))
        print_line(f"removed key {key_id} from {path}; copy the file to every node of the farm,")
        print_line(f"and {_RESTART}")


def _seal_count(uses: KeyUses) -> int:
    return uses.records + uses.names + uses.policy


def _refuse(objection: str, force: bool) -> None:  # noqa: FBT001 - the option as it was given
    """Raise FarmleaseError with an objection; with ``--force`` only print it."""
    if not force:
        raise FarmleaseError(f"{objection} (--force goes on nevertheless)")
    print_stderr(f"warning: {objection}")


def _listed(names: list[str]) -> str:
    return ", ".join(names)
