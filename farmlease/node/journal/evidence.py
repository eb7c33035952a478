"""Files kept for inspection: bytes that were refused as damaged, and files that lost against a newer version.

They may be the evidence of an attack or a user's only copy. So this module must never overwrite or delete what it
keeps. A full folder refuses more instead of dropping the oldest: an attacker could fill it on purpose. For the same
reason no user has more than a share of it: whoever fills his own stands in nobody else's way. An administrator inspects
the files and moves them away.
"""

import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import structlog

from farmlease import private_file
from farmlease.errors import FileRefused, InvalidName
from farmlease.private_file import UNFINISHED

__all__ = ["MAX_BYTES", "MAX_FILES", "USER_BYTES", "USER_FILES", "VERSIONS", "Evidence", "as_label", "stamp"]

#: Most files in the folder; more would explain no problem better.
MAX_FILES = 1000
#: Most bytes in the folder: 256 MiB, so that the agent's journal beside it always has room.
MAX_BYTES = 256 << 20
#: Most files of one user, and most bytes of them: 8 MiB.
USER_FILES = 20
USER_BYTES = 8 << 20

#: A folder among the kept files that is none of them: see ``versions.py``.
VERSIONS = "versions"

_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", re.ASCII)
_log = structlog.get_logger(__name__)


def as_label(*parts: str) -> str:
    """Return ``parts`` as a label, with ``_`` for any other character, so that two labels may be equal."""
    return "u" + re.sub(r"[^A-Za-z0-9._-]", "_", "-".join(parts))[:96] + "u"


class Evidence:
    """A folder of the state folder, made 0700 when it is first needed. One agent owns it."""

    def __init__(self, folder: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._keeping = threading.Lock()
        self._counted: tuple[int, int] | None = None  #: when the folder was changed last, and how full it was then

    @property
    def blocked(self) -> str:
        """The name, in the state folder, of a place where something else lies than a folder; empty if none does."""
        places = (self._folder, self._folder / VERSIONS)
        blocked = next((place for place in places if os.path.lexists(place) and not place.is_dir()), None)
        return "" if blocked is None else str(blocked.relative_to(self._folder.parent))

    @property
    def percent_full(self) -> int:
        """How full the folder is, by files or by bytes, in percent, rounded down. OSError if the disk refuses."""
        try:
            changed = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return 0
        counted = self._counted
        if counted is None or counted[0] != changed:
            sizes = _sizes(self.list())
            full = max(100 * len(sizes) // self._max_files, 100 * sum(sizes.values()) // self._max_bytes)
            self._counted = counted = changed, full
        return counted[1]

    def keep(self, kind: str, label: str, data: bytes, now_ms: int, *, user: str = "") -> Path:
        """Write ``data`` to a new file ``<utc time>-<kind>-<label>``, 0600 and on the disk, and return its path.

        ``kind`` is the reason ("rejected-record"), ``label`` the subject. A label must not be a user's name, as backups
        and logs show names of files: use the user index. Both are letters, digits, ``.``, ``_`` and ``-``, at most 100
        (else ``InvalidName``). ``now_ms`` is this host's time. The same bytes of the same kind and label are kept once.
        ``user``: the index of the user whose share of the folder this takes; the label begins with it. Raises
        ``FileRefused`` when the folder or the share is full or the disk refuses: then do not overwrite the original.
        """
        name = _name(kind, label)
        try:
            with self._keeping:
                self._counted = None
                return self._keep(name, data, now_ms, user)
        except OSError as error:
            raise FileRefused(
                f"cannot keep a file in {self._folder} ({error.strerror}): make room there or correct its rights"
            ) from error

    def move(self, kind: str, label: str, files: Iterable[Path], notes: Mapping[str, bytes], now_ms: int) -> Path:
        """Move files of the state folder, as they are, into a new folder named like a kept file, and return it.

        They are moved in the order given. ``notes``: small files by name, written beside them if there is room. A full
        folder does not refuse this, as it takes no room. Raises ``InvalidName`` and ``FileRefused`` as
        ``keep``.
        """
        name = _name(kind, label)
        try:
            with self._keeping:
                self._prepare()
                place = self._new_folder(f"{stamp(now_ms)}-{name}")
                for file in files:
                    file.rename(place / file.name)
                for note, text in notes.items():
                    with suppress(OSError):  # the disk is full; the files themselves have been moved
                        (place / note).write_bytes(text)
                private_file.sync_folder(place)
                private_file.sync_folder(self._folder)
        except OSError as error:
            raise FileRefused(f"cannot be moved to {self._folder} ({error.strerror}): correct its rights") from error
        return place

    def list(self, kind: str = "") -> tuple[Path, ...]:
        """Return the kept files, all or those of a kind, the oldest first."""
        if not self._folder.is_dir():
            return ()
        found = (
            path for path in self._folder.iterdir() if not path.name.startswith(UNFINISHED) and path.name != VERSIONS
        )
        return tuple(sorted(path for path in found if not kind or f"Z-{kind}-" in path.name))

    def _prepare(self) -> None:
        self._folder.mkdir(0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        private_file.sync_folder(self._folder.parent)

    def _new_folder(self, name: str) -> Path:
        for number in count(1):
            path = self._folder / (name if number == 1 else f"{name}~{number}")
            try:
                path.mkdir(0o700)  # refuses a name that is taken
            except FileExistsError:
                continue
            break
        return path

    def _keep(self, name: str, data: bytes, now_ms: int, user: str) -> Path:
        self._prepare()
        sizes = _sizes(self.list())
        for path, size in sizes.items():
            if size == len(data) and _is_copy(path, name, data):
                return path
        self._check_room([*sizes.values()], len(data), name, self._max_files, self._max_bytes, "is full")
        if user:
            his = [size for path, size in sizes.items() if f"-{as_label(user)[:-1]}" in path.name]
            self._check_room(his, len(data), name, USER_FILES, USER_BYTES, "has as much of this user as of any")
        return self._write(f"{stamp(now_ms)}-{name}", data)

    def _check_room(self, sizes: Sequence[int], more: int, name: str, files: int, most: int, what: str) -> None:
        """Refuse a file where there is no room for one more of so many bytes."""
        if len(sizes) >= files or sum(sizes) + more > most:
            _log.error("evidence.full", folder=str(self._folder), files=len(sizes), bytes=sum(sizes), refused=name)
            raise FileRefused(f"the folder {self._folder} {what}: inspect the files in it and move them away")

    def _write(self, name: str, data: bytes) -> Path:
        """Write a file under a name that is free; what a killed agent left unfinished goes."""
        for leftover in self._folder.glob(f"{UNFINISHED}*"):
            leftover.unlink()
        names = (name if number == 1 else f"{name}~{number}" for number in count(1))
        path = private_file.create(map(self._folder.joinpath, names), data)
        assert path is not None  # noqa: S101 - there is always another name
        return path


def _sizes(kept: Iterable[Path]) -> dict[Path, int]:
    """Return the sizes of kept files; one that an administrator moves away meanwhile is none."""
    sizes = {}
    for path in kept:
        with suppress(FileNotFoundError):
            sizes[path] = path.lstat().st_size
    return sizes


def _name(kind: str, label: str) -> str:
    for part in (kind, label):
        if not _PART.fullmatch(part):
            raise InvalidName(f"{part!r} cannot be part of a file's name: use letters, digits, '.', '_' and '-'")
    return f"{kind}-{label}"


def stamp(now_ms: int) -> str:
    """Return a moment as the name of a kept file begins with it."""
    at = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=now_ms)
    return f"{at:%Y%m%dT%H%M%S}.{at.microsecond // 1000:03}Z"


def _is_copy(path: Path, name: str, data: bytes) -> bool:
    """Whether ``path`` has exactly these bytes under this name, whatever its time."""
    _, _, rest = path.name.partition("Z-")
    return rest.partition("~")[0] == name and path.is_file() and path.read_bytes() == data
