"""What the farm's own keys have lost, which ``pool apply`` writes again or counts as seen."""

from collections.abc import Sequence

from farmlease.cli.client.farm import FarmClient
from farmlease.domain.store_damage import is_written_by_apply
from farmlease.store.inspect.farm_keys import lost_farm_keys
from farmlease.store.inspect.foreign import foreign_members
from farmlease.store.keys import policy_key

__all__ = ["lost_keys", "written_again"]


def lost_keys(client: FarmClient) -> list[str]:
    """Return which of the farm's own keys are gone or have lost members, and its policy's if that does not decode."""
    lost = client.wait(lost_farm_keys(client.connection, client.farm.name))
    damaged = client.wait(foreign_members(client.connection, (policy_key(client.farm.name),)))
    return [*lost, *(each.key for each in damaged)]


def written_again(lost: Sequence[str], *, unchanged: bool, dry_run: bool = False) -> str:
    """Return what an apply does about each of these keys, or did."""
    again, seen = ("would write again", "would count as seen") if dry_run else ("wrote again", "counted as seen")
    parts = ["policy unchanged"] if unchanged else []
    if written := [key for key in lost if is_written_by_apply(key)]:
        parts.append(f"{again}: {', '.join(written)}")
    if left := [key for key in lost if not is_written_by_apply(key)]:
        parts.append(f"{seen}: what was lost of {', '.join(left)}")
    return "; ".join(parts)
