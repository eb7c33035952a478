"""One life of a node between boots.

An agent that restarts within the same boot is the same incarnation and adopts its sessions; after a reboot it is a new
one, because the sessions of the old life are gone whatever the journal says. The marker is the system's, the name of
the incarnation is random, so that two clones of a golden image are two incarnations.
"""

import secrets
import sys
from pathlib import Path

import psutil

__all__ = ["boot_marker", "new_incarnation", "same_boot"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: Seconds two readings of the same boot time may differ where it is computed from a clock that is being corrected.
_TOLERANCE = 120


def new_incarnation() -> str:
    """Return a name no other life of any node has: 12 hexadecimal digits."""
    return secrets.token_hex(6)


def boot_marker() -> str:
    """Return what tells this boot from the one before."""
    if sys.platform == "linux" and _BOOT_ID.exists():
        return _BOOT_ID.read_text(encoding="ascii").strip()
    return f"booted:{psutil.boot_time():.0f}"


def same_boot(one: str, other: str) -> bool:
    """Whether two markers are of the same boot."""
    kind, _, first = one.partition(":")
    other_kind, _, second = other.partition(":")
    if kind == other_kind == "booted":
        return abs(int(first) - int(second)) < _TOLERANCE
    return one == other
