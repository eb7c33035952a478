"""Whether the journal in the state folder is the one this node left there, and what is done if it is not.

A journal that is damaged, of another host, older than the last one seen, gone, or open to others is not gone by: it is
moved, as it is, to what is kept for inspection, and the agent begins a new one as a new life of its node. Believing it
could end sessions of another host, deliver an end twice to a session that has the same id by now, or bring back a
session that is over. It must never be overwritten or deleted, and a journal that is right must never be refused.

What the old life held is ended at once by the new life's first heartbeat where the old life's name is known (from the
journal, or from the mark beside it), else at its node's deadline. Sessions that still run on the host have to ask
again: nobody here knows of them, and seats counted for both lives would be counted twice. A life that another host may
be living is left alone.
"""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import structlog

from farmlease import private_file
from farmlease.errors import FileRefused, JournalFailed
from farmlease.node.host_identity import Whereabouts, is_incarnation, same_boot
from farmlease.node.journal.evidence import Evidence
from farmlease.node.journal.sqlite import Glance, files_of, glance_at

__all__ = ["KIND", "Fault", "Finding", "Mark", "examine", "set_aside"]

_log = structlog.get_logger(__name__)

#: Of what is kept: a journal.
KIND = "journal"


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
        # Written at each heartbeat, and not believed after a loss of power: that is another boot.
        private_file.replace(path, json.dumps(asdict(self)).encode("ascii"), durable=False)


class Fault(StrEnum):
    """Why a journal is refused; part of the name it is kept under."""

    DAMAGED = "damaged"
    MISSING = "missing"
    FOREIGN = "foreign"
    OLDER = "older"
    EXPOSED = "exposed"


_WHY = {
    Fault.DAMAGED: "it is damaged; look at the disk of state_dir",
    Fault.MISSING: "it is gone or emptied; find out who did that",
    Fault.FOREIGN: "it is of another node or host; was state_dir copied, or the node renamed?",
    Fault.OLDER: "it is older than the last one seen; was a backup put back?",
    Fault.EXPOSED: "others could read it; find out who changed its rights",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What an inspection found: what is wrong, if anything; lives of this node, this one perhaps among them.

    ``generation``: the number of the journal's next state, above all that was seen of it.
    """

    fault: Fault | None
    lives: tuple[str, ...]
    generation: int


def examine(path: Path, here: Whereabouts, mark: Mark | None, now_ms: int) -> Finding:
    """Inspect a journal. ``now_ms``: by this host, keeps numbers apart that have no journal in common.

    JournalRejected if a later version wrote it, JournalFailed if it cannot be looked at.
    """
    glance = glance_at(path)
    mine = mark if mark is not None and here.is_host_of(mark.node, mark.machine) else None
    node = glance.node if glance is not None else {}
    ours = here.is_host_of(node.get("node", ""), node.get("machine", ""))
    lives = [*node.get("previous", "").split(), node.get("incarnation", "")] if ours else []
    if mine is not None:
        lives.append(mine.incarnation)
    known = dict.fromkeys(life for life in lives if is_incarnation(life))
    last = max(mine.generation if mine else 0, _generation(node) if ours else 0)
    return Finding(_fault(path, glance, here, mine), tuple(known), max(last + 1, now_ms))


def set_aside(path: Path, finding: Finding, mark: Mark | None, evidence: Evidence, now_ms: int) -> None:
    """Move a refused journal to what is kept, and say so in the log. JournalFailed if that cannot be."""
    assert finding.fault is not None  # noqa: S101 - the caller's own condition, for mypy
    notes = {} if mark is None else {"last-seen": "".join(f"{k} = {v}\n" for k, v in asdict(mark).items()).encode()}
    try:
        # The file first: what is left of it without the file is found to be no journal, should we be killed here.
        place = evidence.move(KIND, finding.fault, [part for part in files_of(path) if part.exists()], notes, now_ms)
    except FileRefused as error:
        raise JournalFailed(f"the journal is refused ({_WHY[finding.fault]}), and it {error}") from error
    _log.error("journal.refused", why=_WHY[finding.fault], kept=str(place), lives_ended=len(finding.lives))


def _fault(path: Path, glance: Glance | None, here: Whereabouts, mine: Mark | None) -> Fault | None:
    if any(private_file.is_open_to_others(part.lstat()) for part in files_of(path) if part.exists()):
        return Fault.EXPOSED
    if glance is None or not path.exists():
        return None if glance is None and mine is None else Fault.MISSING
    if not glance.sound or not _is_complete(glance.node):
        return Fault.DAMAGED
    if not here.is_host_of(glance.node.get("node", ""), glance.node.get("machine", "")):
        return Fault.FOREIGN
    if mine is not None and same_boot(mine.boot, here.boot) and _is_behind(glance.node, mine):
        return Fault.OLDER
    return None


def _is_complete(node: dict[str, str]) -> bool:
    """Whether a journal says which life it is of. One that was killed before it could say holds nothing else either."""
    return not node or ("boot" in node and is_incarnation(node.get("incarnation", "")))


def _is_behind(node: dict[str, str], mine: Mark) -> bool:
    """Whether the journal had got further than this; of two lives with the same number the mark's is the right one."""
    generation = _generation(node)
    same_life = node.get("incarnation") == mine.incarnation
    return generation < mine.generation or (generation == mine.generation and not same_life)


def _generation(node: dict[str, str]) -> int:
    text = node.get("generation", "")
    return int(text) if text.isascii() and text.isdecimal() else 0
