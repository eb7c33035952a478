"""Versions of a record that the store did not take: another node saved one first, or the lease has ended.

Of versions that two nodes made at once the one that was changed last counts, by the store's time. Guaranteed: the other
one is kept, among the superseded versions of this host; a version for which there is no lease is kept as evidence.
"""

from dataclasses import replace

import structlog

from farmlease.clock import Clock
from farmlease.crypto.seal import Sealer
from farmlease.domain.record import decode, encode
from farmlease.errors import RecordRejected
from farmlease.node.files.user_disk import UserDisk
from farmlease.node.journal.evidence import as_label
from farmlease.node.journal.outbox import SaveMessage
from farmlease.node.journal.receipts import new_line
from farmlease.node.journal.state import State
from farmlease.store.answers.session import Conflict

__all__ = ["RecordConflicts"]

_log = structlog.get_logger(__name__)


class RecordConflicts:
    """What becomes of the versions that were made on this node and are not the store's."""

    def __init__(self, state: State, sealer: Sealer, disk: UserDisk, clock: Clock) -> None:
        self._receipts = state.receipts
        self._evidence = state.evidence
        self._versions = state.versions
        self._sealer = sealer
        self._disk = disk
        self._clock = clock

    def rebased(self, mine: SaveMessage, theirs: Conflict) -> SaveMessage | None:
        """Return our later version, made anew from the one that another node saved before it; that one is kept.

        None if theirs is as late, or either does not open: then theirs counts.
        """
        if not mine.made_at or mine.made_at < theirs.saved_at:
            return None
        binding = replace(mine.binding, version=theirs.version)
        try:
            ours = decode(self._sealer.unseal_record(mine.binding, mine.record))
            base = decode(self._sealer.unseal_record(binding, theirs.record))
        except RecordRejected:
            return None
        self._versions.keep(binding, theirs.record, self._clock.now_ms())
        _log.warning("record.conflict", user=mine.claim.user, pool=mine.pool, version=theirs.version, counts="ours")
        files = {file.name: file for file in (*base.files, *ours.files)}
        binding = replace(binding, version=theirs.version + 1)
        sealed = self._sealer.seal_record(binding, encode(replace(ours, files=tuple(files.values()))))
        made = replace(mine, version=binding.version, record=sealed, line=new_line())
        receipt = self._receipts.find(mine.claim.user, mine.pool)
        if receipt is not None and receipt.line == mine.line:
            changed = replace(receipt, version=made.version, record=sealed, line=made.line)
            self._receipts.keep(mine.claim.user, mine.pool, changed)
        return made

    def lose(self, mine: SaveMessage, theirs: Conflict) -> None:
        """Another node's version was changed later than ours, or as late: it counts, and ours is kept."""
        self._versions.keep(mine.binding, mine.record, self._clock.now_ms())
        _log.warning("record.conflict", user=mine.claim.user, pool=mine.pool, version=theirs.version, counts="theirs")
        receipt = self._receipts.find(mine.claim.user, mine.pool)
        if receipt is not None and receipt.line == mine.line:
            beaten = replace(receipt, winner=(theirs.version, theirs.record))
            # As long as files of ours are on the disk, what they were made from is needed.
            self._receipts.keep(mine.claim.user, mine.pool, beaten if beaten.files else beaten.with_winner())

    def lease_gone(self, mine: SaveMessage) -> None:
        """A change was collected for a lease that has ended: it is kept as evidence."""
        index = mine.claim.user
        try:
            record = decode(self._sealer.unseal_record(mine.binding, mine.record))
        except RecordRejected:  # its key has been retired: only the sealed bytes can be kept
            self._evidence.keep("lease-gone", as_label(index), mine.record, self._clock.now_ms(), user=index)
        else:
            for file in record.files:
                self._disk.keep("lease-gone", index, file)
        _log.warning("record.lease_gone", user=index, pool=mine.pool)
