"""A small file beside the journal that says how far the journal had got, so that an older copy put back is noticed.

The journal counts its states, one for each start and each heartbeat, and says so here after each. It is therefore never
behind this mark within one boot: a journal that is, is not the one that was last here. After the host lost its power it
may be behind (the last moments need not have reached the disk), so a mark of another boot accuses nobody. A mark that
cannot be read or written accuses nobody either: it must never make a right journal look wrong.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from farmlease.node.incarnation import is_incarnation

__all__ = ["Mark"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The journal as last seen: whose it was, in which boot, and its state's number."""

    node: str
    machine: str
    boot: str
    incarnation: str
    generation: int

    @classmethod
    def read(cls, path: Path) -> "Mark | None":
        """Return the mark in a file; None if there is none that can be read."""
        try:
            found = json.loads(path.read_bytes())
            mark = cls(**found)
        except (OSError, ValueError, TypeError):
            return None
        texts = (mark.node, mark.machine, mark.boot, mark.incarnation)
        sound = all(isinstance(text, str) for text in texts) and type(mark.generation) is int
        return mark if sound and is_incarnation(mark.incarnation) else None

    def write(self, path: Path) -> None:
        """Put this mark in place of the one before, whole or not at all. OSError where the disk does not let us."""
        unfinished = path.with_name(f"{path.name}.new")
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                json.dump(asdict(self), file)
            unfinished.replace(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
