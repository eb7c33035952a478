"""The user's record while it is on this node: opened, its files placed, changes collected, and files removed again.

Guaranteed: a record that does not open is kept as evidence and never overwritten; so is a file that would be replaced
by another content and is in no record. A half-written file never becomes a version. A file is removed only as this host
left it, and none is replaced under a session that runs on another host, which may see the same disk. Callers run one of
these at a time for a user.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

import structlog

from farmlease.clock import Clock
from farmlease.crypto.seal import Sealer
from farmlease.domain.identity import User
from farmlease.domain.policy import Pool
from farmlease.domain.record import BorrowedRecord, VendorFile, decode, encode, is_half_written
from farmlease.errors import FileRefused, RecordRejected
from farmlease.node.accounts.accounts import Accounts, NoAnswer
from farmlease.node.accounts.database import Account
from farmlease.node.files.record_conflicts import RecordConflicts
from farmlease.node.files.troubles import FileTroubles
from farmlease.node.files.user_disk import Placing, UserDisk, changed_files
from farmlease.node.files.vendor_files import Found, VendorFiles
from farmlease.node.journal.evidence import as_label
from farmlease.node.journal.receipts import FileOwner, Receipt
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State
from farmlease.threads import in_thread

__all__ = ["RecordSync"]

_log = structlog.get_logger(__name__)

_HOMELESS = "the user's folder is missing, so that nothing is saved: is its share mounted? Else write {home} in files"


class RecordSync:
    """The records and vendor's files of one node."""

    def __init__(self, state: State, sealer: Sealer, accounts: Accounts, clock: Clock) -> None:
        self._node = state.node
        self._policy = state.policy
        self._names = state.names
        self._accounts = accounts
        self._receipts = state.receipts
        self._evidence = state.evidence
        self._versions = state.versions
        self._sealer = sealer
        self._clock = clock
        self._disk = UserDisk(state.evidence, clock)
        self.conflicts = RecordConflicts(state, sealer, self._disk, clock)
        self.troubles = FileTroubles()
        #: When the files were last changed, as this host left them, by user index and pool.
        self._left: dict[tuple[str, str], Mapping[str, int]] = {}
        #: Whose files no session uses any more, by the store's last answer to an end.
        self._over: set[tuple[str, str]] = set()

    async def owner(self, session: NodeSession) -> FileOwner:
        """Return whose a session's files are on this host: where its account database cannot say, whose they were.

        FileRefused if the user had none here before.
        """
        user = session.user
        account = await self._accounts.account(user, session.given or user.canonical, self._policy.in_force.identity)
        match account:
            case Account(name=name, uid=uid, home=home):
                return FileOwner(user.name, name, uid, str(home))
            case NoAnswer.NONE:
                return FileOwner(user.name)
            case NoAnswer.UNKNOWN:
                mine = self._receipts.find(session.claim.user, session.pool)
                if mine is not None and mine.owner is not None:
                    return mine.owner
                raise FileRefused(
                    "the account database of this host does not answer: look at what /etc/nsswitch.conf names"
                )

    async def receive(self, session: NodeSession, pool: Pool, taken: Receipt, placing: Placing) -> bool:
        """Open a record, keep its receipt, and place its files; return whether this node has a later version of it.

        RecordRejected if it does not open, FileRefused if a file cannot be placed, PolicyError if its path is none on
        this system.
        """
        index = session.claim.user
        record = self._open(index, pool.name, taken)
        mine = self._receipts.find(index, pool.name)
        better = mine is not None and _is_ahead(mine, taken)
        if mine is not None and mine.lease.id != taken.lease.id:
            await self._keep_former(index, pool.name, mine)
        self._over.discard((index, pool.name))
        self._left.pop((index, pool.name), None)
        if not placing.unused:
            # The files here came with our receipt, and a later change must be compared with that one. Only a lease that
            # began anew under a running session has no other files to lose, and needs the ones here.
            if mine is None or (mine.lease.id != taken.lease.id and not record.files):
                mine = _with_files_of(mine, replace(taken, files=mine.files if mine else pool.files))
            same = mine.lease.id == taken.lease.id
            self._receipts.keep(index, pool.name, mine.granted_anew(taken) if same else mine)
            return better
        left_here = mine if mine is not None and mine.lease.id == taken.lease.id else None
        if mine is not None and _is_ahead(mine, taken):
            taken, record = mine.granted_anew(taken), self._open(index, pool.name, mine)
        if not pool.files:
            self._receipts.keep(index, pool.name, replace(taken, files=(), paths=(), placing=False))
            return better
        paths = VendorFiles(pool.files).paths(placing.owner)
        holder = self._receipts.holder(index, pool.name, paths)
        if holder is not None:
            if self._move_former(holder, session, taken, pool):
                return await self.receive(session, pool, taken, placing)
            self._check_holder(holder, session, taken, pool)
        known = self._open(index, pool.name, left_here).files if left_here is not None else ()
        # Before the disk is touched: what the store reports meanwhile is noted in the receipt and must stay there.
        receipt = replace(taken, files=pool.files, unsaved=(), owner=placing.owner, paths=paths, placing=True)
        self._receipts.keep(index, pool.name, receipt)
        named = [file for file in record.files if file.name in pool.files]
        found = await self._disk.place(index, placing, pool.files, named, known)
        self.troubles.note(index, pool.name, *_homeless(found))
        self._update(index, pool.name, placing=False)
        return better

    def has_files(self, index: str, pool: str) -> bool:
        """Whether files that we placed for the user may be on this node's disk."""
        mine = self._receipts.find(index, pool)
        return mine is not None and bool(mine.files)

    async def collect_changes(
        self, index: str, pool: str, *, unsaved: bool = False
    ) -> tuple[Receipt | None, Mapping[str, FileRefused]]:
        """Return the receipt of a new version if the user's files were changed, and the files that were refused.

        A file that is missing, empty or half-written stays in the record as it was. ``unsaved``: only of those files
        that could not be read at the session's end. FileRefused if they do not fit into a record.
        """
        mine = self._receipts.find(index, pool)
        if mine is None or not (templates := mine.unsaved if unsaved else mine.files):
            return None, {}
        recorded = self._open(index, pool, mine).files
        found = await self._disk.read_changes(self._owner_of(index, mine), templates, recorded)
        left = self._left.get((index, pool), {}) if unsaved else {}
        self._left[index, pool] = {**left, **found.changed_at}
        self.troubles.note(index, pool, *_homeless(found), *map(str, found.refused.values()))
        mine = self._receipts.find(index, pool)  # meanwhile the store may have reported that another node was first
        if mine is None or mine.placing:
            return None, found.refused
        base = mine.with_winner()
        record = self._open(index, pool, base)
        # As we had it, a file is no change of the winner's; as the winner has it, it is no change of ours.
        changed = changed_files(record.files, changed_files(recorded, found.files.values()))
        changed = self._whole(index, pool, changed, recorded)
        if not changed:
            return None, found.refused
        await self._supersede(index, pool, base, record)
        files = {file.name: file for file in (*record.files, *changed)}
        binding = base.binding(index, pool, base.version + 1)
        sealed = self._sealer.seal_record(binding, encode(replace(record, files=tuple(files.values()))))
        return replace(base, version=binding.version, record=sealed), found.refused

    def keep_changes(self, index: str, pool: str, receipt: Receipt) -> None:
        """Keep the receipt of collected changes, once the message to the store is written."""
        self._receipts.keep(index, pool, receipt)

    def note_unsaved(self, index: str, pool: str, templates: Iterable[str] | None) -> None:
        """Note which files could not be read at the end of a session, None: any of them. They are read again later."""
        mine = self._receipts.find(index, pool)
        if mine is not None:
            unsaved = mine.files if templates is None else tuple(templates)
            if unsaved != mine.unsaved:
                self._receipts.keep(index, pool, replace(mine, unsaved=unsaved))

    # --- files that no session uses any more --------------------------------------------------------------------------

    def session_over(self, index: str, pool: str, nodes: frozenset[str]) -> None:
        """Note what the store answered to an end: the nodes on which sessions of the user in the pool still live."""
        if nodes - {self._node}:
            self._over.discard((index, pool))
        else:
            self._over.add((index, pool))

    def is_over(self, index: str, pool: str) -> bool:
        """Whether the store said last that none lives elsewhere, and how the files were before that is known."""
        return (index, pool) in self._over and (index, pool) in self._left

    async def look(self, index: str, pool: str) -> None:
        """Note how the files are now, before the store is asked whether a session uses them."""
        mine = self._receipts.find(index, pool)
        if mine is not None and mine.files:
            self._left[index, pool] = (await self._disk.look(self._owner_of(index, mine), mine.files)).changed_at

    async def remove_files(self, index: str, pool: str) -> None:
        """Remove the user's files from this node, as far as they are as this host left them.

        One with another content is somebody else's by now and stays. One that was written since it was last looked at,
        be it with the same content, may have come with a session that has just begun: it is looked at again later. So
        is one that is refused, and one that is still to be read.
        """
        mine = self._receipts.find(index, pool)
        if mine is None or not mine.files:
            return
        ours, left = self._open(index, pool, mine).files, self._left.get((index, pool), {})
        gone = [template for template in mine.files if template not in mine.unsaved]
        kept, refused = await self._disk.remove(self._owner_of(index, mine), gone, ours, left)
        for template, refusal in refused.items():
            _log.error("file.refused", pool=pool, why=str(refusal))
            kept.add(template)
        self._over.discard((index, pool))
        self._left.pop((index, pool), None)
        stay = tuple(template for template in mine.files if template in kept or template in mine.unsaved)
        self._update(index, pool, files=stay, placing=False)
        if not stay:
            self.troubles.note(index, pool)

    async def yield_to_winner(self, index: str, pool: str) -> bool:
        """Place another node's files if its version won over ours and no session runs there; return whether it won."""
        mine = self._receipts.find(index, pool)
        if mine is None or mine.winner is None:
            return False
        theirs = mine.with_winner()
        record, known = self._open(index, pool, theirs), self._open(index, pool, mine).files
        placing = Placing(self._owner_of(index, mine), unused=False, alone=self.is_over(index, pool))
        if placing.alone:
            named = [file for file in record.files if file.name in mine.files]
            await self._disk.place(index, placing, mine.files, named, known)
            self._receipts.keep(index, pool, theirs)
        return True

    # --- below ------------------------------------------------------------------------------------------------------

    def _move_former(self, holder: tuple[str, str], session: NodeSession, taken: Receipt, pool: Pool) -> bool:
        """Move the receipt that has this user's paths if it is of this lease by a former name; return whether it was.

        One of another lease stays where it is: its record may be the only copy of what it has.
        """
        index = session.claim.user
        former = self._receipts.find(*holder) if holder[1] == pool.name and holder[0] != index else None
        if former is None or former.lease.id != taken.lease.id:
            return False
        self._receipts.move(holder[0], index, pool.name, self._sealer.seal_name(index, session.user.canonical))
        return self._receipts.find(*holder) is None

    def _is_former(self, holder: tuple[str, str], session: NodeSession, taken: Receipt, pool: Pool) -> bool:
        """Whether the holder of a path is this user by a former name, in the same pool.

        The names of today say so, or the lease: ``lease rename`` gave it another name, and it is one person's.
        """
        receipt = self._receipts.find(*holder)
        if receipt is None or holder[0] == session.claim.user or holder[1] != pool.name:
            return False
        return receipt.lease.id == taken.lease.id or self._names.present(holder[0], receipt.name) == session.user

    def _check_holder(self, holder: tuple[str, str], session: NodeSession, taken: Receipt, pool: Pool) -> None:
        """Refuse paths that are another user's on this host, or this user's in another pool."""
        index = session.claim.user
        if self._is_former(holder, session, taken, pool):
            return
        if holder[0] == index:
            why = f"pool {holder[1]} has the same file of this user on this host: write another path in one of the two"
        else:
            why = "another user of this host has the same path: write {home} or {account} in files, so that they differ"
        self.troubles.note(index, pool.name, f"the files of pool {pool.name}: {why}")
        raise FileRefused(why)

    def _open(self, index: str, pool: str, receipt: Receipt) -> BorrowedRecord:
        """Return the record; RecordRejected, and the bytes kept as evidence, if it was sealed for anything else."""
        try:
            binding = receipt.binding(index, pool, receipt.version)
            return decode(self._sealer.unseal_record(binding, receipt.record))
        except RecordRejected:
            now_ms, label = self._clock.now_ms(), as_label(index)
            path = self._evidence.keep("rejected-record", label, receipt.record, now_ms, user=index)
            _log.error("record.rejected", user=index, pool=pool, kept=str(path))
            raise

    def _whole(
        self, index: str, pool: str, changed: list[VendorFile], recorded: Iterable[VendorFile]
    ) -> list[VendorFile]:
        """Return the changed files that are whole, and log the others."""
        before = {file.name: file.content for file in recorded}
        half = [file for file in changed if is_half_written(file.content, before.get(file.name, b""))]
        for file in half:
            _log.warning("file.half_written", user=index, pool=pool, file=file.name, bytes=len(file.content))
        return [file for file in changed if file not in half]

    async def _keep_former(self, index: str, pool: str, receipt: Receipt) -> None:
        """Keep the record of a lease that another one takes the place of: this may be the only copy of its files."""
        with suppress(RecordRejected):  # kept as evidence
            await self._supersede(index, pool, receipt, self._open(index, pool, receipt))

    async def _supersede(self, index: str, pool: str, receipt: Receipt, record: BorrowedRecord) -> None:
        """Keep a version that a new one is about to supersede; one without files is worth nothing."""
        if record.files:
            binding, now_ms = receipt.binding(index, pool, receipt.version), self._clock.now_ms()
            await in_thread(lambda: self._versions.keep(binding, receipt.record, now_ms))

    def _owner_of(self, index: str, receipt: Receipt) -> FileOwner:
        """Return whose the files of a receipt are; one of 0.1.0 does not say."""
        return receipt.owner or FileOwner(User(self._sealer.unseal_name(index, receipt.name)).name)

    def _update(self, index: str, pool: str, *, placing: bool, files: tuple[str, ...] | None = None) -> None:
        """Change a receipt as it is now: the store may have reported a winner in between."""
        receipt = self._receipts.find(index, pool)
        if receipt is not None:
            files = receipt.files if files is None else files
            unsaved = tuple(template for template in receipt.unsaved if template in files)
            changed = replace(receipt, placing=placing, files=files, unsaved=unsaved)
            self._receipts.keep(index, pool, changed if files else changed.with_winner())


def _is_ahead(mine: Receipt, taken: Receipt) -> bool:
    """Whether a version made here has not reached the store yet."""
    return mine.lease.id == taken.lease.id and mine.version > taken.version and mine.winner is None


def _with_files_of(mine: Receipt | None, receipt: Receipt) -> Receipt:
    """Return a receipt with the places of the files that are here by the receipt before it."""
    return receipt if mine is None else replace(receipt, owner=mine.owner, paths=mine.paths, unsaved=mine.unsaved)


def _homeless(found: Found) -> list[str]:
    return [f"{template}: {_HOMELESS}" for template in sorted(found.homeless)]
