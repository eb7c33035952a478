"""Whether the journal in the state folder is the one that this node left there, and what is done if it is not.

A journal that is damaged, of another host, older than the last one seen, missing, or open to others is not used: it is
moved, unchanged, to the evidence, and the agent begins a new one as a new incarnation of its node. Using it could end
sessions of another host, deliver an end twice to a session that has the same id by now, or bring back a session that is
over. This module must never overwrite or delete a journal, and must never refuse one that is right.

The new incarnation's first heartbeat ends the sessions of the old one if its name is known (from the journal, or from
the mark beside it); else they end at the old node's deadline. Sessions that still run on the host have to ask again:
the new journal does not have them, and seats counted for both incarnations would be counted twice. An incarnation that
another host may have is left alone.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

import structlog

from farmlease import private_file
from farmlease.errors import FileRefused, JournalFailed
from farmlease.node.host_identity import HostIdentity, is_incarnation, same_boot
from farmlease.node.journal.evidence import Evidence
from farmlease.node.journal.sqlite import FileState, inspect_file, parts_of

__all__ = [
    "KIND",
    "Fault",
    "JournalCheck",
    "Mark",
    "ReportedMark",
    "check_journal",
    "folder_marker",
    "move_to_evidence",
]

_log = structlog.get_logger(__name__)

#: Kind of evidence: a journal.
KIND = "journal"
_LONGEST_MARK = 10_000  #: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The journal as last seen: its host, its boot, and the number of its state. A mark of another boot is ignored."""

    node: str
    machine: str
    boot: str
    incarnation: str
    generation: int

    @classmethod
    def read(cls, path: Path) -> "Mark | None":
        """Return the mark in a file; None if there is none that can be read."""
        try:
            found = json.loads(private_file.read(path, _LONGEST_MARK, forbidden=0))
            mark = cls(**found)
        except (OSError, private_file.NotPrivate, ValueError, TypeError):
            return None
        texts = (mark.node, mark.machine, mark.boot, mark.incarnation)
        sound = all(isinstance(text, str) for text in texts) and type(mark.generation) is int
        return mark if sound and is_incarnation(mark.incarnation) else None

    def write(self, path: Path) -> None:
        """Put this mark in place of the one before, whole or not at all. OSError if the disk refuses."""
        # Written at each heartbeat, and ignored after a loss of power, which is another boot.
        private_file.replace(path, json.dumps(asdict(self)).encode("ascii"), durable=False)


class Fault(StrEnum):
    """Why a journal is refused; part of the name of the evidence."""

    DAMAGED = "damaged"
    REPLACED = "replaced"
    MISSING = "missing"
    FOREIGN = "foreign"
    OLDER = "older"
    EXPOSED = "exposed"


_WHY = {
    Fault.DAMAGED: "it is damaged; look at the disk of state_dir",
    Fault.REPLACED: "a folder, a pipe or a link is in its place; find out who put it there",
    Fault.MISSING: "it is missing or empty; find out who removed it",
    Fault.FOREIGN: "it is of another node or host; was state_dir copied, or the node renamed while it was off?",
    Fault.OLDER: "it is older than the last one seen; was a backup put back?",
    Fault.EXPOSED: "others could read it; find out who changed its rights",
}


@dataclass(frozen=True, slots=True)
class JournalCheck:
    """The result of a check: the fault, if any, and the known incarnations of this node, perhaps including this one.

    ``generation``: the number of the journal's next state, higher than any seen before. ``former``: the node's name
    when the journal was written, if its host was renamed since; else empty.
    """

    fault: Fault | None
    lives: tuple[str, ...]
    generation: int
    former: str = ""


@dataclass(frozen=True, slots=True)
class ReportedMark:
    """What a node last told the store of its journal: ``host`` is the digest of its host."""

    node: str
    host: str
    incarnation: str
    generation: int

    def of(self, here: HostIdentity) -> Mark:
        """Return it as a mark of this host, whose digest it is."""
        return Mark(**asdict(here), incarnation=self.incarnation, generation=self.generation)


def check_journal(
    path: Path, here: HostIdentity, mark: Mark | None, now_ms: int, reported: Sequence[ReportedMark] = ()
) -> JournalCheck:
    """Check a journal. ``now_ms``, by this host: keeps apart the numbers of two journals.

    ``reported``: what the store remembers of the farm's nodes; it tells a state folder that was turned back with its
    mark. JournalRejected if a later version wrote it, JournalFailed if it cannot be read.
    """
    state = inspect_file(path)
    former = _former_name(path, state, here, mark)
    if former:
        here = replace(here, node=former)
    marks = [mark] if mark is not None and here.is_host_of(mark.node, mark.machine) else []
    marks += [each.of(here) for each in reported if each.node == here.node and each.host == here.digest != ""]
    mine = max(marks, key=lambda each: each.generation, default=None)
    node = state.node if state is not None else {}
    ours = here.is_host_of(node.get("node", ""), node.get("machine", ""))
    lives = [*node.get("previous", "").split(), node.get("incarnation", "")] if ours else []
    if mine is not None:
        lives.append(mine.incarnation)
    known = dict.fromkeys(life for life in lives if is_incarnation(life))
    last = max(mine.generation if mine else 0, _generation(node) if ours else 0)
    return JournalCheck(_fault(path, state, here, mine), tuple(known), max(last + 1, now_ms), former)


def move_to_evidence(path: Path, checked: JournalCheck, mark: Mark | None, evidence: Evidence, now_ms: int) -> None:
    """Move a refused journal to the evidence and log it. JournalFailed if that is not possible."""
    assert checked.fault is not None  # noqa: S101 - the caller's own condition, for mypy
    notes = {} if mark is None else {"last-seen": "".join(f"{k} = {v}\n" for k, v in asdict(mark).items()).encode()}
    try:
        # The file first: if we are killed here, the parts that are left are no journal without it.
        place = evidence.move(KIND, checked.fault, parts_of(path), notes, now_ms)
    except FileRefused as error:
        raise JournalFailed(f"the journal is refused ({_WHY[checked.fault]}), and it {error}") from error
    _log.error("journal.refused", why=_WHY[checked.fault], kept=str(place), lives_ended=len(checked.lives))


def _fault(path: Path, state: FileState | None, here: HostIdentity, mine: Mark | None) -> Fault | None:
    replaced = state is not None and state.replaced
    if replaced or any(private_file.is_open_to_others(part.lstat()) for part in parts_of(path)):
        return Fault.REPLACED if replaced else Fault.EXPOSED
    if state is None or not path.exists():
        return None if state is None and mine is None else Fault.MISSING
    if not state.sound or not _is_complete(state.node):
        return Fault.DAMAGED
    if not here.is_host_of(state.node.get("node", ""), state.node.get("machine", "")):
        return Fault.FOREIGN
    if mine is not None and same_boot(mine.boot, here.boot) and _is_behind(state.node, mine):
        return Fault.OLDER
    return None


def folder_marker(folder: Path) -> str:
    """Return a text that no other folder of this host has, a copy of this one neither."""
    status = folder.stat()
    return f"{status.st_dev}:{status.st_ino}"


def _former_name(path: Path, state: FileState | None, here: HostIdentity, mark: Mark | None) -> str:
    """Return another name by which this same host, booted as it is now, has left the journal; '' if it did not.

    Only what is known counts: a clone of a host has another boot, and a copy of the folder, which another agent may use
    beside the one that it was copied from, is another folder. Where the mark already has the present name, the journal
    came from elsewhere.
    """
    if mark is not None and mark.node == here.node and same_boot(mark.boot, here.boot):
        return ""
    node = state.node if state is not None else {}
    is_here = here.machine and node.get("machine") == here.machine and same_boot(node.get("boot", ""), here.boot)
    is_here = is_here and node.get("folder") == folder_marker(path.parent)
    name = node.get("node", "")
    return name if is_here and name != here.node else ""


def _is_complete(node: dict[str, str]) -> bool:
    """Whether a journal names its incarnation. One whose agent was killed before that is empty, which is complete."""
    return not node or ("boot" in node and is_incarnation(node.get("incarnation", "")))


def _is_behind(node: dict[str, str], mine: Mark) -> bool:
    """Whether the mark is of a later state; of two incarnations with the same number the mark's is the right one."""
    generation = _generation(node)
    same_life = node.get("incarnation") == mine.incarnation
    return generation < mine.generation or (generation == mine.generation and not same_life)


def _generation(node: dict[str, str]) -> int:
    text = node.get("generation", "")
    return int(text) if text.isascii() and text.isdecimal() else 0
