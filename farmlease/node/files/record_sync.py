"""The user's record while it is on this node: opened, its files placed, changes collected, and files removed again.

Guaranteed: a record that does not open is kept as evidence and never overwritten; so is a file that would be replaced
by another content, and the loser of two versions that were made at once. Callers run one of these at a time for a user.

Once another node's version has won, later changes here never replace it: they are kept as evidence until the winner's
files are placed or ours are removed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePath

import structlog

from farmlease.clock import Clock
from farmlease.crypto.seal import Sealer
from farmlease.domain.identity import User
from farmlease.domain.policy import Pool
from farmlease.domain.record import BorrowedRecord, VendorFile, decode, encode
from farmlease.errors import FileRefused, RecordRejected
from farmlease.node.concurrency import in_thread
from farmlease.node.files.vendor_files import VendorFiles
from farmlease.node.journal.evidence import Evidence, as_label
from farmlease.node.journal.outbox import SaveMessage
from farmlease.node.journal.receipts import Receipt, Receipts, new_line
from farmlease.node.journal.sessions import NodeSession

__all__ = ["RecordSync", "Version"]

_log = structlog.get_logger(__name__)

Version = tuple[int, bytes]  #: a record's version and its sealed bytes


class RecordSync:
    """The records and vendor's files of one node."""

    def __init__(self, *, receipts: Receipts, sealer: Sealer, evidence: Evidence, clock: Clock) -> None:
        self._receipts = receipts
        self._sealer = sealer
        self._evidence = evidence
        self._clock = clock

    async def receive(self, session: NodeSession, pool: Pool, taken: Receipt, *, place: bool) -> None:
        """Open a record, keep its receipt, and ``place`` its files; not where the user's sessions use them already.

        RecordRejected if it does not open, FileRefused if a file cannot be placed, PolicyError if its path is none on
        this system.
        """
        user, index = session.user, session.claim.user
        record = self._open(index, pool.name, taken)
        mine = self._receipts.find(index, pool.name)
        if not place:
            # The files here came with our receipt, and a later change must be compared with that one. Only a lease that
            # began anew under a running session has no other files to lose, and needs the ones here.
            if mine is None or (mine.lease.id != taken.lease.id and not record.files):
                mine = replace(taken, files=mine.files if mine else pool.files)
            same = mine.lease.id == taken.lease.id
            self._receipts.keep(index, pool.name, mine.granted_anew(taken) if same else mine)
            return
        if mine is not None and _is_ahead(mine, taken):
            taken, record = mine.granted_anew(taken), self._open(index, pool.name, mine)
        if not pool.files:
            self._receipts.keep(index, pool.name, replace(taken, files=(), placing=False))
            return
        files = VendorFiles(pool.files)
        # Before the disk is touched: what the store reports meanwhile is noted in the receipt and must stay there.
        self._receipts.keep(index, pool.name, replace(taken, files=pool.files, placing=True))
        named = [file for file in record.files if file.name in pool.files]
        await in_thread(lambda: self._place(index, user, files, named))
        self._update(index, pool.name, placing=False)

    def has_files(self, session: NodeSession) -> bool:
        """Whether files that we placed for the user may be on this node's disk."""
        mine = self._receipts.find(session.claim.user, session.pool)
        return mine is not None and bool(mine.files)

    async def collect_changes(self, session: NodeSession) -> tuple[Receipt | None, Mapping[str, FileRefused]]:
        """Return the receipt of a new version if the user's files were changed, and the files that were refused.

        A file that is missing stays in the record as it was. FileRefused if they do not fit into a record.
        """
        user, pool, index = session.user, session.pool, session.claim.user
        mine = self._receipts.find(index, pool)
        if mine is None or not mine.files:
            return None, {}
        templates = mine.files
        found, refused = await in_thread(lambda: _taken(user, templates))
        mine = self._receipts.find(index, pool)  # meanwhile the store may have reported that another node was first
        if mine is None or mine.placing:
            return None, refused
        record = self._open(index, pool, mine)
        changed = _changed(record.files, found)
        if changed and mine.winner is not None:
            self._keep_files("conflict", index, changed)
        if not changed or mine.winner is not None:
            return None, refused
        files = {file.name: file for file in (*record.files, *found)}
        binding = mine.binding(index, pool, mine.version + 1)
        sealed = self._sealer.seal_record(binding, encode(replace(record, files=tuple(files.values()))))
        return replace(mine, version=binding.version, record=sealed), refused

    def keep_changes(self, session: NodeSession, receipt: Receipt) -> None:
        """Keep the receipt of collected changes, once the message to the store is written."""
        self._receipts.keep(session.claim.user, session.pool, receipt)

    async def remove_files(self, session: NodeSession, *, spare: Iterable[str]) -> None:
        """Remove the user's files from this node, but for those to ``spare``, which the receipt goes on naming."""
        user, pool, index = session.user, session.pool, session.claim.user
        mine = self._receipts.find(index, pool)
        if mine is None or not mine.files:
            return
        spared = tuple(spare)
        gone = [template for template in mine.files if template not in spared]
        # A file that was only being placed, and has other content by now, is not ours to remove.
        ours = self._open(index, pool, mine).files if mine.placing else None
        await in_thread(lambda: _remove(user, gone, ours))
        self._update(index, pool, files=spared, placing=False)

    def lose_conflict(self, mine: SaveMessage, theirs: Version) -> None:
        """Two nodes changed the record at once and the other was first: its version counts, ours becomes evidence."""
        self._keep_record("conflict", mine)
        _log.warning("record.conflict", user=mine.claim.user, pool=mine.pool, version=theirs[0])
        receipt = self._receipts.find(mine.claim.user, mine.pool)
        if receipt is not None and receipt.line == mine.line:
            self._receipts.keep(mine.claim.user, mine.pool, _settled(replace(receipt, winner=theirs)))

    def lease_gone(self, mine: SaveMessage) -> None:
        """A change was collected for a lease that has ended: it is kept as evidence."""
        self._keep_record("lease-gone", mine)
        _log.warning("record.lease_gone", user=mine.claim.user, pool=mine.pool)

    async def yield_to_winner(self, session: NodeSession) -> bool:
        """Place another node's files if its version won over ours; return whether it did."""
        user, pool, index = session.user, session.pool, session.claim.user
        mine = self._receipts.find(index, pool)
        if mine is None or mine.winner is None:
            return False
        version, sealed = mine.winner
        theirs = replace(mine, version=version, record=sealed, line=new_line(), winner=None)
        record, known = self._open(index, pool, theirs), self._open(index, pool, mine).files
        files = VendorFiles(mine.files)
        named = [file for file in record.files if file.name in mine.files]
        await in_thread(lambda: self._place(index, user, files, named, known))
        self._receipts.keep(index, pool, theirs)
        return True

    def _open(self, index: str, pool: str, receipt: Receipt) -> BorrowedRecord:
        """Return the record; RecordRejected, and the bytes kept as evidence, if it was sealed for anything else."""
        try:
            binding = receipt.binding(index, pool, receipt.version)
            return decode(self._sealer.unseal_record(binding, receipt.record))
        except RecordRejected:
            path = self._evidence.keep("rejected-record", as_label(index), receipt.record, self._clock.now_ms())
            _log.error("record.rejected", user=index, pool=pool, kept=str(path))
            raise

    def _place(
        self, index: str, user: User, files: VendorFiles, arriving: list[VendorFile], known: Iterable[VendorFile] = ()
    ) -> None:
        """Place files; one that is there with other content, and in no record, is kept as evidence first."""
        replaced = {file.name for file in arriving}
        contents = {(file.name, file.content) for file in (*arriving, *known)}
        for file in files.take(user):
            if file.name in replaced and (file.name, file.content) not in contents:
                self._keep_files("replaced", index, [file])
        files.place(user, arriving)

    def _keep_record(self, why: str, mine: SaveMessage) -> None:
        try:
            record = decode(self._sealer.unseal_record(mine.binding, mine.record))
        except RecordRejected:  # its key has been retired: only the sealed bytes can be kept
            self._evidence.keep(why, as_label(mine.claim.user), mine.record, self._clock.now_ms())
        else:
            self._keep_files(why, mine.claim.user, record.files)

    def _keep_files(self, why: str, index: str, files: Iterable[VendorFile]) -> None:
        for file in files:
            label = as_label(index, PurePath(file.name.replace("\\", "/")).name)
            path = self._evidence.keep(why, label, file.content, self._clock.now_ms())
            _log.warning("file.kept", why=why, user=index, kept=str(path))

    def _update(self, index: str, pool: str, *, placing: bool, files: tuple[str, ...] | None = None) -> None:
        """Change a receipt as it is now: the store may have reported a winner in between."""
        receipt = self._receipts.find(index, pool)
        if receipt is not None:
            files = receipt.files if files is None else files
            self._receipts.keep(index, pool, _settled(replace(receipt, placing=placing, files=files)))


def _is_ahead(mine: Receipt, taken: Receipt) -> bool:
    """Whether a version made here has not reached the store yet."""
    return mine.lease.id == taken.lease.id and mine.version > taken.version and mine.winner is None


def _settled(receipt: Receipt) -> Receipt:
    """Return the receipt with the winner as its version, if none of our files is on the disk any more."""
    if receipt.winner is None or receipt.files:
        return receipt
    version, record = receipt.winner
    return replace(receipt, version=version, record=record, line=new_line(), winner=None)


def _changed(recorded: Iterable[VendorFile], found: Iterable[VendorFile]) -> list[VendorFile]:
    """The files on the disk whose content is not the record's. Their mode does not count: we set it."""
    contents = {file.name: file.content for file in recorded}
    return [file for file in found if contents.get(file.name) != file.content]


def _taken(user: User, templates: Iterable[str]) -> tuple[list[VendorFile], dict[str, FileRefused]]:
    """Return the files that are there, and the refusals of others, by template."""
    found: list[VendorFile] = []
    refused: dict[str, FileRefused] = {}
    for template in templates:
        try:
            found.extend(VendorFiles((template,)).take(user))
        except FileRefused as refusal:
            refused[template] = refusal
    return found, refused


def _remove(user: User, templates: Iterable[str], only: Iterable[VendorFile] | None) -> None:
    """Remove files; with ``only`` given, those that have exactly that content."""
    contents = None if only is None else {(file.name, file.content) for file in only}
    for template in templates:
        file = VendorFiles((template,))
        if contents is None or any((each.name, each.content) in contents for each in file.take(user)):
            file.remove(user)
