"""What this node keeps of each lease that it had a session of: the lease, its record as last seen, and its files here.

A receipt admits a session while the store is away, and a lease that the store lost is restored from it. It is sealed
for this node, names the life of the node in which it was made and when its lease ends, and lies in the journal. A
receipt that does not open is kept as evidence and counts as none.
"""

import secrets
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import ClassVar

import structlog
from pydantic import ConfigDict, TypeAdapter, ValidationError

from farmlease.clock import Clock
from farmlease.crypto.seal import NodeSealer, RecordBinding
from farmlease.domain.lease_document import LeaseDocument
from farmlease.domain.model import Lease
from farmlease.domain.tombstones import granted_with
from farmlease.errors import RecordRejected
from farmlease.node.journal.evidence import Evidence, as_label
from farmlease.node.journal.journal import Journal
from farmlease.store.answers.recovery import Remains
from farmlease.store.answers.session import Taken

__all__ = ["FileOwner", "Receipt", "Receipts", "new_line"]

_log = structlog.get_logger(__name__)


def new_line() -> str:
    """Return the name of a new line of record versions, each made on this node from the one before."""
    return secrets.token_hex(6)


@dataclass(frozen=True, slots=True)
class FileOwner:
    """Whose files these are on this host: what the placeholders of a path stand for. Empty: the host does not know."""

    name: str  #: the user's canonical name without domain
    account: str = ""  #: as the host's system spells it
    uid: str = ""
    home: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A lease, the record of it that a later change is compared with, and the files in this node's care."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    lease: Lease
    version: int
    record: bytes  #: sealed
    #: Begins anew with each record from the store: versions of one line were each made from the one before.
    line: str = field(default_factory=new_line)
    name: bytes = b""  #: of the user, sealed
    document: bytes = b""  #: the lease as the store had it, to be restored from; empty once it was given up
    incarnation: str = ""  #: life of the node in which the store granted it; it admits sessions in this one only
    files: tuple[str, ...] = ()  #: templates of the files that may lie on this node's disk
    unsaved: tuple[str, ...] = ()  #: those of them that could not be read when a session ended: to be read again
    owner: FileOwner | None = None  #: of the files, as this host knew the user when they were put in place
    paths: tuple[str, ...] = ()  #: that are the user's on this host as long as the lease may come back here
    placing: bool = False  #: they were being put in place; no session has used them yet
    #: Version and sealed record that another node saved before ours of this line arrived: that one counts.
    winner: tuple[int, bytes] | None = None

    def binding(self, index: str, pool: str, version: int) -> RecordBinding:
        """Return what a version of this lease's record is sealed for."""
        return RecordBinding(pool=pool, user_index=index, lease_id=self.lease.id, version=version)

    def granted_anew(self, taken: "Receipt") -> "Receipt":
        """Return this receipt with the lease as a later grant has it, and with its own record."""
        return replace(self, lease=taken.lease, name=taken.name, document=taken.document, incarnation=taken.incarnation)

    def with_winner(self) -> "Receipt":
        """Return this receipt with the winner as its version, if there is one."""
        if self.winner is None:
            return self
        version, record = self.winner
        return replace(self, version=version, record=record, line=new_line(), winner=None)


_FORM = TypeAdapter(Receipt)
#: Receipts whose content is remembered.
_MOST_OPENED = 256


@dataclass(frozen=True, slots=True)
class _Places:
    """What is remembered of a receipt, so that a start need not open them all."""

    paths: tuple[str, ...]
    files: bool
    expires_at: int


class Receipts:
    """The receipts of one node, by user index and pool."""

    def __init__(self, journal: Journal, sealer: NodeSealer, evidence: Evidence, clock: Clock) -> None:
        self._journal = journal
        self._sealer = sealer
        self._evidence = evidence
        self._clock = clock
        self._places: dict[tuple[str, str], _Places] | None = None  #: by user index and pool; read when first needed
        self._holders: dict[str, set[tuple[str, str]]] = {}
        #: By user index and pool: a body as the journal has it, and the receipt in it; those looked at last.
        self._opened: dict[tuple[str, str], tuple[bytes, Receipt]] = {}
        self.rejected = 0  #: how many did not open

    def of_pool(self, pool: str) -> Iterator[tuple[str, Receipt]]:
        """Yield every receipt of a pool that opens, with its user's index."""
        for index in self._journal.receipts(pool):
            receipt = self.find(index, pool)
            if receipt is not None:
                yield index, receipt

    def find(self, index: str, pool: str) -> Receipt | None:
        """Return the receipt, if there is one that opens."""
        body = self._journal.receipt(index, pool)
        if body is None:
            return None
        opened = self._opened.get((index, pool))
        if opened is not None and opened[0] == body:
            return opened[1]
        try:
            receipt = _FORM.validate_json(self._sealer.unseal(("receipt", index, pool), body))
        except (RecordRejected, ValidationError):
            path = self._evidence.keep("rejected-receipt", as_label(index), body, self._clock.now_ms(), user=index)
            _log.error("receipt.rejected", user=index, pool=pool, kept=str(path))
            self.rejected += 1
            self._remove(index, pool)
            return None
        self._remember(index, pool, body, receipt)
        return receipt

    def _remember(self, index: str, pool: str, body: bytes, receipt: Receipt) -> None:
        """Remember what a body of the journal holds: a start and its end look at one receipt many times."""
        self._opened.pop((index, pool), None)
        while len(self._opened) >= _MOST_OPENED:
            del self._opened[next(iter(self._opened))]
        self._opened[index, pool] = body, receipt

    def keep(self, index: str, pool: str, receipt: Receipt) -> None:
        """Keep a receipt, over the older one."""
        anew = self._anew(index, pool, receipt)
        body = self._sealer.seal(("receipt", index, pool), _FORM.dump_json(anew))
        self._journal.write_receipt(index, pool, body)
        self._remember(index, pool, body, anew)
        if self._places is not None:
            self._note(self._places, index, pool, receipt)

    def with_files(self) -> list[tuple[str, str]]:
        """Return user index and pool of each receipt with files that may lie on this node's disk."""
        return [key for key, places in self._known_places().items() if places.files]

    def holder(self, index: str, pool: str, paths: Iterable[str]) -> tuple[str, str] | None:
        """Return whose one of these paths is, user index and pool, if it is not this user's in this pool.

        A path is a user's while his files may lie there, and as long as his lease may come back to this node.
        """
        places, now = self._known_places(), self._clock.now_ms()
        others = {key for path in paths for key in self._holders.get(path, ()) if key != (index, pool)}
        alive = (key for key in sorted(others) if places[key].files or places[key].expires_at > now)
        return next(alive, None)

    def reseal(self, index: str, pool: str) -> None:
        """Keep a receipt anew if the sealer's primary does not seal it yet."""
        body = self._journal.receipt(index, pool)
        if body is not None and not self._sealer.are_fresh(body):
            receipt = self.find(index, pool)
            if receipt is not None:
                self.keep(index, pool, receipt)

    def granted(self, taken: Taken, name: bytes) -> Receipt:
        """Return the receipt of a grant."""
        return Receipt(
            lease=taken.lease,
            version=taken.record_version,
            record=taken.record,
            name=name,
            document=taken.document,
            incarnation=self._journal.incarnation,
        )

    def is_of_this_life(self, receipt: Receipt) -> bool:
        """Whether the node has not been booted since the grant."""
        return receipt.incarnation == self._journal.incarnation

    def move(self, old: str, new: str, pool: str, name: bytes, *, fence: int = 0) -> None:
        """Keep a receipt under another user index, where its lease stands now; since this ``fence``, if one is given.

        ``name``: the user's, sealed for that index; empty: it is not known. A receipt that does not open, or in whose
        place another one is, stays.
        """
        receipt = self.find(old, pool)
        if receipt is None or self.find(new, pool) is not None:
            return

        def moved(version: int, record: bytes) -> bytes:
            content = self._sealer.farm.unseal_record(receipt.binding(old, pool, version), record)
            return self._sealer.farm.seal_record(receipt.binding(new, pool, version), content)

        with suppress(RecordRejected):
            winner = receipt.winner and (receipt.winner[0], moved(*receipt.winner))
            record = moved(receipt.version, receipt.record)
            # In the lease's own form the index is part of the names of its seats, and of nothing else.
            document = receipt.document.replace(old.encode(), new.encode())
            document = granted_with(document, fence) if fence and document else document
            under = replace(receipt, record=record, winner=winner, name=name, document=document)
            try:
                with self._journal.together():
                    self.keep(new, pool, under)
                    self._remove(old, pool)
            except BaseException:
                self._places = None  # the journal has not made the move: what it has is read anew when it is needed
                self._holders.clear()
                raise

    def drop_former(self, pool: str, in_use: Container[str]) -> None:
        """Give up each receipt of a lease that was granted under another index since, but for the indexes ``in_use``.

        The lease has moved there, and the store may have lost that before this node was told.
        """
        found = [
            (index, each.lease.id, LeaseDocument.parse(each.document).fence)
            for index, each in self.of_pool(pool)
            if each.document
        ]
        latest = dict[str, int]()
        for _, lease, fence in found:
            latest[lease] = max(latest.get(lease, 0), fence)
        for index, lease, fence in found:
            if fence < latest[lease] and index not in in_use:
                self.give_up(index, pool)

    def renew(self, index: str, pool: str, remains: Remains) -> None:
        """Note what is left of a lease after the end of a session; a receipt without a use is removed.

        The answer to a later grant may have come first: what that one brought stays. A receipt that was given up stays
        so, and so is one of an earlier lease.
        """
        receipt = self.find(index, pool)
        if receipt is None or not receipt.document:
            return
        if LeaseDocument.parse(receipt.document).fence > remains.fence:
            return
        goes_on = bool(remains.document) and LeaseDocument.parse(remains.document).id == receipt.lease.id
        expires_at = remains.expires_at or receipt.lease.expires_at
        lease = replace(receipt.lease, expires_at=expires_at) if goes_on else receipt.lease
        self._put(index, pool, replace(receipt, lease=lease, document=remains.document if goes_on else b""))

    def take_back(self, index: str, pool: str, fence: int) -> None:
        """Give up the receipt of a lease whose sessions up to this fence an administrator ended.

        One without such a session is of a later grant, and stays.
        """
        receipt = self.find(index, pool)
        sessions = LeaseDocument.parse(receipt.document).sessions if receipt is not None and receipt.document else {}
        if any(each.fence <= fence for each in sessions.values()):
            self.give_up(index, pool)

    def give_up(self, index: str, pool: str) -> None:
        """Note that the lease is not this user's any more: its receipt restores nothing and admits no session."""
        receipt = self.find(index, pool)
        if receipt is not None:
            self._put(index, pool, replace(receipt, document=b""))

    def _anew(self, index: str, pool: str, receipt: Receipt) -> Receipt:
        """Return a receipt with its parts sealed by the same key as the whole: no other is needed to open it.

        A part that does not open stays as it is; it is refused where it is used.
        """
        if self._sealer.are_fresh(receipt.record, receipt.name, *((receipt.winner or ())[1:])):
            return receipt
        with suppress(RecordRejected):
            receipt = replace(receipt, record=self._record(index, pool, receipt, receipt.version, receipt.record))
        with suppress(RecordRejected):
            receipt = replace(receipt, name=self._sealer.farm.reseal_name(index, receipt.name))
        with suppress(RecordRejected):
            if receipt.winner is not None:
                version, record = receipt.winner
                receipt = replace(receipt, winner=(version, self._record(index, pool, receipt, version, record)))
        return receipt

    def _record(self, index: str, pool: str, receipt: Receipt, version: int, record: bytes) -> bytes:
        return self._sealer.farm.reseal_record(receipt.binding(index, pool, version), record)

    def _put(self, index: str, pool: str, receipt: Receipt) -> None:
        if receipt.document or receipt.files:
            self.keep(index, pool, receipt)
        else:
            self._remove(index, pool)

    def _remove(self, index: str, pool: str) -> None:
        self._journal.remove_receipt(index, pool)
        if self._places is not None:
            self._drop(self._places, index, pool)

    def _known_places(self) -> dict[tuple[str, str], "_Places"]:
        if self._places is None:
            places: dict[tuple[str, str], _Places] = {}
            self._places = places
            for index, pool in self._journal.all_receipts():
                if receipt := self.find(index, pool):
                    self._note(places, index, pool, receipt)
        return self._places

    def _note(self, places: dict[tuple[str, str], "_Places"], index: str, pool: str, receipt: Receipt) -> None:
        self._drop(places, index, pool)
        places[index, pool] = _Places(receipt.paths, bool(receipt.files), receipt.lease.expires_at)
        for path in receipt.paths:
            self._holders.setdefault(path, set()).add((index, pool))

    def _drop(self, places: dict[tuple[str, str], "_Places"], index: str, pool: str) -> None:
        before = places.pop((index, pool), None)
        for path in before.paths if before else ():
            self._holders[path].discard((index, pool))
            if not self._holders[path]:
                del self._holders[path]
