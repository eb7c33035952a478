"""A host's disk: the agent's state folder, real files on a tmpfs, and the users' files, in memory.

The agent's death never closes a file in order: what SQLite had written by then is what is left, and after a loss of
power even the last of that may be torn off.
"""

import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from farmlease.node.files.folder import Seen, VendorPath

__all__ = ["Disk"]

_WAL_HEADER, _FRAME_HEADER = 32, 24


class _Drawer:
    """The folder of one place, for the production code; see ``farmlease.node.files.folder.Folder``."""

    def __init__(
        self, files: dict[tuple[str, str], bytes], writes: Counter[tuple[str, str]], place: VendorPath
    ) -> None:
        self._files = files
        self._writes = writes
        self._key = (place.account, place.template)

    def read(self, _: int) -> Seen | None:
        found = self._files.get(self._key)
        return None if found is None else Seen(0o600, found, self._writes[self._key] << 32 | zlib.crc32(found))

    def is_being_written(self) -> bool:
        return False

    def write(self, content: bytes) -> None:
        self._files[self._key] = content
        self._writes[self._key] += 1

    def remove(self) -> None:
        self._files.pop(self._key, None)

    def sweep(self) -> None:
        pass


class Disk:
    """The disk of one host. ``files``: content by account and template."""

    def __init__(self, folder: Path, chance: Random) -> None:
        self.state = folder
        self.files: dict[tuple[str, str], bytes] = {}
        self._writes: Counter[tuple[str, str]] = Counter()
        self._chance = chance
        self._saved: dict[str, bytes] = {}

    @contextmanager
    def opened(self, place: VendorPath, *, make: bool) -> Iterator[_Drawer]:
        """Yield the folder of a place; it is always there."""
        del make
        yield _Drawer(self.files, self._writes, place)

    def cut(self) -> None:
        """Remember what is on the disk now: the agent that has it open is about to die."""
        self._saved = {
            name: (self.state / name).read_bytes()
            for name in ("journal.sqlite", "journal.sqlite-wal", "journal.mark")
            if (self.state / name).exists()
        }

    def left(self, *, torn: bool) -> None:
        """Put back what was there at the cut, after a loss of power without the last that was written."""
        saved = dict(self._saved)
        wal = saved.get("journal.sqlite-wal", b"")
        if torn and wal:
            saved["journal.sqlite-wal"] = self._torn(wal)
        (self.state / "journal.sqlite-shm").unlink(missing_ok=True)
        (self.state / "journal.sqlite-wal").unlink(missing_ok=True)
        for name, content in saved.items():
            (self.state / name).write_bytes(content)
            (self.state / name).chmod(0o600)

    def wipe(self) -> None:
        """Forget the state folder."""
        shutil.rmtree(self.state, ignore_errors=True)

    def _torn(self, wal: bytes) -> bytes:
        """Cut the log off somewhere in its last three transactions, maybe in the middle of a page."""
        size = _FRAME_HEADER + int(struct.unpack(">I", wal[8:12])[0])
        ends = [
            at + size
            for at in range(_WAL_HEADER, len(wal) - size + 1, size)
            if struct.unpack(">I", wal[at + 4 : at + 8])[0]
        ]
        earliest = ends[-4] if len(ends) > 3 else _WAL_HEADER
        return wal[: self._chance.randint(earliest, len(wal))]
