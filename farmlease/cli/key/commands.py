"""``farmlease key …``: the keys that seal the farm's records. No secret is ever printed."""

import click

from farmlease.cli import example, print_line, print_stderr
from farmlease.cli.client.farm import configuration
from farmlease.cli.key.rotation import KeysClient, opened_keys, reseal, retire, rotate
from farmlease.cli.output.format import Column, Format, day_and_time, emit, output_option
from farmlease.clock import SystemClock
from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.domain.json_documents import timestamp
from farmlease.domain.key_rotation import KeyReport, KeyUses
from farmlease.errors import FarmleaseError

__all__ = ["key"]

COLUMNS = ("id", "state", "created_at", "records", "names", "notes", "policy", "nodes")
TABLE = (
    "id", "state", Column("created (UTC)", lambda row: day_and_time(row["created_at"])),
    "records", "names", "notes", "policy", "nodes",
)  # fmt: skip
#: State of a key that seals something in the store and is not in the ring.
MISSING = "missing"


@click.group()
def key() -> None:
    """Make, list and change the keys that seal the farm's records.

    Change the key in four steps: `rotate` adds a new one; copy the ring to every node. `rotate --activate` seals with
    it from then on; copy the ring again. `reseal` replaces the seals of the old key. `retire` removes the old key; copy
    the ring a last time. Restart an agent that systemd gave a copy of the ring (LoadCredential) after each copy.
    """


@key.command(epilog=example("farmlease key generate"))
def generate() -> None:
    """Make the key ring of a new farm. Do it once, and copy the ring to all nodes.

    The file is the one of [keys] file in the configuration. It is never overwritten.
    """
    path = configuration().keys.file
    ring = KeyRing.generate(SystemClock().now_ms())
    keyring_file.create(path, ring)
    print_line(f"made {path} with key {ring.primary}; copy it to every node of the farm and keep it secret")


@key.command("list", epilog=example("farmlease key list", "farmlease key list -o json"))
@output_option
def list_(fmt: Format) -> None:
    """List the keys of this node's ring. Shown are not their secrets, but what each one seals in the store.

    NOTES are administrators' names and words in the audit; NODES are the living nodes that reported they have the key.
    While the store is unavailable these are unknown.
    """
    ring = keyring_file.load(configuration().keys.file)
    uses: dict[str, KeyUses] | None = None
    reports: list[KeyReport] = []
    try:
        with opened_keys() as keys:
            uses, reports = _counted(keys)
    except FarmleaseError as error:
        print_stderr(f"cannot count what the keys seal: {error}")
    emit(
        [_row(ring, each, uses, reports, fmt) for each in (*ring.ids, *_missing(ring, uses))], COLUMNS, fmt, table=TABLE
    )


key.add_command(rotate)
key.add_command(reseal)
key.add_command(retire)


def _counted(keys: KeysClient) -> tuple[dict[str, KeyUses], list[KeyReport]]:
    return keys.uses(), keys.nodes()[0]


def _missing(ring: KeyRing, uses: dict[str, KeyUses] | None) -> list[str]:
    """Return the keys that seal something needed and are not in the ring. A key that seals only notes is not needed."""
    return sorted(key_id for key_id, found in (uses or {}).items() if found.needed and key_id not in ring.ids)


def _row(
    ring: KeyRing, key_id: str, uses: dict[str, KeyUses] | None, reports: list[KeyReport], fmt: Format
) -> dict[str, object]:
    created = next((timestamp(each.created_at) for each in ring.keys if each.id == key_id), None)
    row: dict[str, object] = {
        "id": key_id,
        "state": ring.state(key_id).value if created else MISSING,
        "primary": key_id == ring.primary,
        "created_at": created,
    }
    if uses is None:
        return row | dict.fromkeys(("records", "names", "notes", "policy", "nodes"), "?" if fmt == "table" else None)
    found = uses.get(key_id, KeyUses())
    return row | {
        "records": found.records,
        "names": found.names,
        "notes": found.notes,
        "policy": bool(found.policy or found.former),
        "nodes": sum(each.alive and key_id in each.opens for each in reports),
    }
