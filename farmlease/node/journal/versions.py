"""Versions of users' records that later ones have superseded on this host: the last three of each user and pool.

A vendor's program may have written nonsense, or two hosts may have changed a file at once: an administrator brings an
earlier version back with ``farmlease lease restore-file``. They lie in ``kept/versions/``, sealed as the store has
them, so that they open for their farm, pool, user, lease and version only.

Guaranteed: no more than ``KEPT`` of a user and pool, and of a user in all pools as much as any user may have kept; the
oldest goes first. Not guaranteed: that a version is kept when
the disk is full; the newer one counts all the same. Evidence of an attack is another thing: see ``evidence.py``.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import structlog

from farmlease import private_file
from farmlease.crypto.seal import RecordBinding, Sealer, key_id_of
from farmlease.errors import RecordRejected
from farmlease.node.journal.evidence import USER_BYTES, USER_FILES, stamp
from farmlease.private_file import UNFINISHED

__all__ = ["KEPT", "KeptVersion", "KeptVersions"]

#: How many superseded versions of a user's record in a pool are kept.
KEPT = 3

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class KeptVersion:
    """One superseded version: the sealed bytes, and what they are sealed for."""

    path: Path
    binding: RecordBinding
    sealed: bytes

    @property
    def label(self) -> str:
        """How an administrator names it: its number, with ``~2`` behind it for the second of that number."""
        return self.path.name.split(" ")[1]

    @property
    def superseded(self) -> str:
        """When it was superseded, by this host's clock, as names of files in ``kept/`` have it."""
        return self.path.name.split(" ")[0]


class KeptVersions:
    """The superseded versions on one host. ``folder``: ``kept/versions`` in its state folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, binding: RecordBinding, sealed: bytes, now_ms: int) -> None:
        """Keep a version, and drop the oldest beyond ``KEPT``. ``now_ms`` is this host's time.

        The same bytes are kept once. A disk that refuses is logged: what supersedes them is stored all the same.
        """
        try:
            self._keep(binding, sealed, now_ms)
        except OSError as error:
            _log.error("version.not_kept", user=binding.user_index, pool=binding.pool, why=error.strerror)

    def list(self, pool: str, user_index: str) -> list[KeptVersion]:
        """Return the kept versions of a user's record in a pool, the oldest first. OSError if the disk refuses."""
        return [*self._read(self._folder / _name(pool, user_index))]

    def all(self) -> Iterator[KeptVersion]:
        """Yield every kept version. OSError if the disk refuses."""
        for folder in sorted(self._folder.glob("*/")):
            yield from self._read(folder)

    def damaged(self) -> Sequence[Path]:
        """Return what lies among the kept versions and does not read as one. OSError if the disk refuses."""
        found = (path for path in self._folder.glob("*/*") if not path.name.startswith(UNFINISHED))
        return sorted(path for path in found if _version(path) is None)

    def stale(self, primary: str) -> Counter[str]:
        """Count the kept versions by the key that seals them, but for ``primary``."""
        keys = (key_id_of(each.sealed) for each in self.all())
        return Counter(key for key in keys if key not in {None, primary})

    def reseal(self, sealer: Sealer) -> None:
        """Seal anew what the primary key does not seal; a version that does not open any more is dropped."""
        for each in [*self.all()]:
            if sealer.is_fresh(each.sealed):
                continue
            try:
                sealed = sealer.reseal_record(each.binding, each.sealed)
            except RecordRejected:
                _log.error("version.rejected", user=each.binding.user_index, pool=each.binding.pool)
                each.path.unlink(missing_ok=True)
            else:
                unfinished = each.path.with_name(f"{UNFINISHED}{each.path.name}")
                private_file.replace(each.path, _body(each.binding, sealed), unfinished=unfinished)

    def _keep(self, binding: RecordBinding, sealed: bytes, now_ms: int) -> None:
        folder = self._folder / _name(binding.pool, binding.user_index)
        for each in (self._folder.parent, self._folder, folder):
            each.mkdir(0o700, exist_ok=True)
        for leftover in folder.glob(f"{UNFINISHED}*"):
            leftover.unlink()
        kept = [*self._read(folder)]
        if any((each.binding, each.sealed) == (binding, sealed) for each in kept):
            return
        taken = {each.label for each in kept}
        labels = (str(binding.version) if number == 1 else f"{binding.version}~{number}" for number in count(1))
        label = next(each for each in labels if each not in taken)
        paths = (folder / f"{stamp(now_ms + later)} {label}" for later in count())
        private_file.create(paths, _body(binding, sealed))
        for oldest in [*self._read(folder)][:-KEPT]:
            oldest.path.unlink(missing_ok=True)
        self._narrow(binding.user_index)

    def _narrow(self, user_index: str) -> None:
        """Drop a user's oldest versions, of whatever pool, until they are as much as any user may have kept."""
        paths = sorted(
            (path for path in self._folder.glob(f"{user_index}.*/* *") if not path.name.startswith(UNFINISHED)),
            key=lambda path: path.name,
        )
        sizes = [path.stat().st_size for path in paths]
        while len(paths) > 1 and (len(paths) > USER_FILES or sum(sizes) > USER_BYTES):
            paths.pop(0).unlink(missing_ok=True)
            sizes.pop(0)

    def _read(self, folder: Path) -> Iterator[KeptVersion]:
        try:
            names = sorted(folder.iterdir())
        except FileNotFoundError:
            return
        for path in names:
            if (version := _version(path)) is not None:
                yield version


def _version(path: Path) -> KeptVersion | None:
    """Return the version in a file; None if it is none of ours."""
    if path.name.startswith(UNFINISHED) or not path.is_file():  # a pipe would make us wait for ever
        return None
    if path.stat().st_size > USER_BYTES:
        return None
    head, _, sealed = path.read_bytes().partition(b"\n")
    try:
        _, _ = path.name.split(" ")
        pool, user_index, lease_id, version = json.loads(head)
        binding = RecordBinding(pool=pool, user_index=user_index, lease_id=lease_id, version=version)
    except (ValueError, TypeError):
        return None
    return KeptVersion(path, binding, sealed)


def _body(binding: RecordBinding, sealed: bytes) -> bytes:
    """Return a file's bytes: one line that says what the rest is sealed for."""
    head = json.dumps([binding.pool, binding.user_index, binding.lease_id, binding.version])
    return head.encode("ascii") + b"\n" + sealed


def _name(pool: str, user_index: str) -> str:
    """Return the name of the folder of a user's versions in a pool; a pool's name may be no folder's."""
    return f"{user_index}.{hashlib.sha256(pool.encode()).hexdigest()[:16]}"
