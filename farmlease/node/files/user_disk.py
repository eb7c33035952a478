"""Users' files on this host's disks: looked at, put in place and removed, in threads.

A disk may be seen by other hosts too, be it NFS or a profile share, and nobody says so. So a file under a session that
runs on another host is never replaced, unless this host left it there; and one is removed only as this host left it.
Nothing here looks into a file: whether one is half-written is told by its bytes and those of the version before.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath

import structlog

from farmlease.clock import Clock
from farmlease.domain.record import VendorFile, is_half_written
from farmlease.errors import FileRefused
from farmlease.node.files.folder import FileBusy
from farmlease.node.files.vendor_files import Found, VendorFiles
from farmlease.node.journal.evidence import Evidence, as_label
from farmlease.node.journal.receipts import FileOwner
from farmlease.threads import in_thread

__all__ = ["Placing", "UserDisk", "changed_files"]

_log = structlog.get_logger(__name__)

#: Seconds in which a changed file must not change again before it counts as whole, and how often that is tried.
_RESTS = 0.25
_LOOKS = 8


@dataclass(frozen=True, slots=True)
class Placing:
    """How files are put in place. ``owner``: whose they are on this host."""

    owner: FileOwner
    unused: bool  #: no session of the user here uses them already
    alone: bool  #: the store has just said that no session of the user in the pool lives on another host


class UserDisk:
    """The users' files on one host. ``evidence``: where a file goes that is in no record, before it is replaced."""

    def __init__(self, evidence: Evidence, clock: Clock) -> None:
        self._evidence = evidence
        self._clock = clock

    async def look(self, owner: FileOwner, templates: tuple[str, ...]) -> Found:
        """Return what is there."""
        files = VendorFiles(templates)
        return await in_thread(lambda: files.look(owner))

    async def read_changes(
        self, owner: FileOwner, templates: tuple[str, ...], recorded: Collection[VendorFile]
    ) -> Found:
        """Return what is there, each file that is not as ``recorded`` only once no program is writing it any more.

        One that does not come to rest is refused.
        """
        files = VendorFiles(templates)
        found = await self.look(owner, templates)
        for _ in range(_LOOKS):
            changed = changed_files(recorded, found.files.values())
            if not changed:
                return found
            await self._clock.sleep(_RESTS)
            names, before = {file.name for file in changed}, found
            found = await in_thread(lambda names=names: files.look(owner, closed=names))  # type: ignore[misc]
            busy = any(isinstance(refusal, FileBusy) for refusal in found.refused.values())
            if not busy and all(found.files.get(name) == before.files.get(name) for name in names):
                return found
        for file in changed_files(recorded, found.files.values()):
            refusal = FileBusy(f"the file {file.name} is being written all the time: end the program and save again")
            found.refused.setdefault(file.name, refusal)
            del found.files[file.name]
        return found

    async def place(
        self,
        index: str,
        placing: Placing,
        templates: tuple[str, ...],
        arriving: Iterable[VendorFile],
        known: Iterable[VendorFile],
    ) -> Found:
        """Place the ``arriving`` files and return what was there; ``known``: the files as this host left them."""
        files, ours = VendorFiles(templates), {(file.name, file.content) for file in known}
        return await in_thread(lambda: self._place(index, placing, files, arriving, ours))

    def _place(
        self,
        index: str,
        placing: Placing,
        files: VendorFiles,
        arriving: Iterable[VendorFile],
        ours: Collection[tuple[str, bytes]],
    ) -> Found:
        found = files.look(placing.owner).or_refused()
        for file in arriving:
            there = found.files.get(file.name)
            if there is not None:
                foreign = (file.name, there.content) not in ours
                same = there.content == file.content
                if not placing.alone and (foreign or same):
                    continue
                if foreign and not same and not is_half_written(there.content, file.content):
                    self.keep("replaced", index, there)
            # The same content is written anew: a host that had left this file sees by that not to remove it.
            files.place(placing.owner, [file])
        return found

    def keep(self, why: str, index: str, file: VendorFile) -> None:
        """Keep a file as evidence. FileRefused if that cannot be: then it must not be replaced."""
        label = as_label(index, PurePath(file.name.replace("\\", "/")).name)
        path = self._evidence.keep(why, label, file.content, self._clock.now_ms(), user=index)
        _log.warning("file.kept", why=why, user=index, kept=str(path))

    async def remove(
        self, owner: FileOwner, templates: Iterable[str], ours: Iterable[VendorFile], left: Mapping[str, int]
    ) -> tuple[set[str], dict[str, FileRefused]]:
        """Remove files that are as this host left them: with the content of ``ours``, last changed when they were left.

        Return those that were written since, to be looked at again, and the refused. One with other content stays.
        """
        return await in_thread(lambda: _remove(owner, templates, ours, left))


def changed_files(recorded: Iterable[VendorFile], found: Iterable[VendorFile]) -> list[VendorFile]:
    """Return the files whose content is not the record's. Their mode does not count: we set it."""
    contents = {file.name: file.content for file in recorded}
    return [file for file in found if contents.get(file.name) != file.content]


def _remove(
    owner: FileOwner, templates: Iterable[str], ours: Iterable[VendorFile], left: Mapping[str, int]
) -> tuple[set[str], dict[str, FileRefused]]:
    contents = {file.name: file.content for file in ours}
    again: set[str] = set()
    refused: dict[str, FileRefused] = {}
    for template in templates:
        files, mine = VendorFiles((template,)), contents.get(template, b"")
        try:
            found = files.look(owner).or_refused()
            there = found.files.get(template)
            if there is None:
                continue
            if found.changed_at[template] != left.get(template):
                again.add(template)
            elif there.content == mine or is_half_written(there.content, mine):
                files.remove(owner)
            else:
                _log.warning("file.left", file=template)
        except FileRefused as refusal:
            refused[template] = refusal
    return again, refused
