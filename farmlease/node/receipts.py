"""What this node keeps of each lease it had a session of: the record as last seen, and what of it lies on its disk.

Sealed for this node, in the journal. A receipt that does not open is kept for inspection and counts as none.
"""

import secrets
from dataclasses import dataclass, field
from typing import ClassVar

import structlog
from pydantic import ConfigDict, TypeAdapter, ValidationError

from farmlease.clock import Clock
from farmlease.domain.model import Lease
from farmlease.errors import RecordRejected
from farmlease.node.journal import Journal
from farmlease.node.kept import KeptFiles, as_label
from farmlease.seal import Purpose, Sealer

__all__ = ["Receipt", "Receipts", "new_line"]

_log = structlog.get_logger(__name__)


def new_line() -> str:
    """Return the name of a new line of record versions, each made on this node from the one before."""
    return secrets.token_hex(6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A lease, the record of it that a later change is compared with, and the files in this node's care."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    lease: Lease
    version: int
    record: bytes  #: sealed
    #: Begins anew with each record from the store: versions of one line were each made from the one before.
    line: str = field(default_factory=new_line)
    files: tuple[str, ...] = ()  #: templates of the files that may lie on this node's disk
    placing: bool = False  #: they were being put in place; no session has used them yet
    #: Version and sealed record that another node saved before ours of this line arrived: that one counts.
    winner: tuple[int, bytes] | None = None


_FORM = TypeAdapter(Receipt)


class Receipts:
    """The receipts of one node, by user index and pool."""

    def __init__(self, *, journal: Journal, sealer: Sealer, kept: KeptFiles, node: str, clock: Clock) -> None:
        self._journal = journal
        self._sealer = sealer
        self._kept = kept
        self._node = node
        self._clock = clock

    def find(self, index: str, pool: str) -> Receipt | None:
        """Return the receipt, if there is one that opens."""
        body = self._journal.receipt(index, pool)
        if body is None:
            return None
        try:
            return _FORM.validate_json(self._sealer.unseal(Purpose.RECEIPT, index, self._context(pool), body))
        except (RecordRejected, ValidationError):
            path = self._kept.keep("rejected-receipt", as_label(index), body, self._clock.now_ms())
            _log.error("receipt.rejected", user=index, pool=pool, kept=str(path))
            return None

    def keep(self, index: str, pool: str, receipt: Receipt) -> None:
        """Keep a receipt, over the older one."""
        body = self._sealer.seal(Purpose.RECEIPT, index, self._context(pool), _FORM.dump_json(receipt))
        self._journal.write_receipt(index, pool, body)

    def _context(self, pool: str) -> tuple[str, ...]:
        return ("receipt", self._node, pool)
