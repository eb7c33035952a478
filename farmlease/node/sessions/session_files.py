"""A session's files on this host: put in place when it is granted, taken back when it ends or is saved, then removed.

Guaranteed: files are removed only when no session of their user in the pool lives on any host; one of these runs for a
user at a time; a new version of the record and the message that carries it to the store are written together or not at
all. A disk that hangs holds a session up for ten seconds at most: the work goes on without it.
"""

from collections.abc import Coroutine, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any, TypeVar

import structlog

from farmlease.domain.identity import User
from farmlease.domain.policy import Pool
from farmlease.errors import FarmleaseError, FileRefused, JournalFailed, StoreError
from farmlease.node.concurrency import Runtime
from farmlease.node.files.record_sync import RecordSync
from farmlease.node.files.user_disk import Placing
from farmlease.node.journal.outbox import SaveMessage
from farmlease.node.journal.receipts import FileOwner, Receipt
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State
from farmlease.node.sync.availability import StoreAvailability
from farmlease.store.answers.session import Claim
from farmlease.store.damage_store import DamageStore
from farmlease.store.lease_store import LeaseStore

__all__ = ["SessionFiles"]

T = TypeVar("T")

_log = structlog.get_logger(__name__)

#: Leftovers that are looked at in one round; each asks the store twice.
_MOST_LEFTOVERS = 100
#: Seconds to wait for the disk of a user's files before the session goes on, or ends, without them.
_PATIENCE = 10.0


class SessionFiles:
    """The files of one node's sessions. But for ``clear`` and ``clear_leftovers``, callers hold the session's lock."""

    def __init__(
        self, state: State, records: RecordSync, store: LeaseStore, availability: StoreAvailability, runtime: Runtime
    ) -> None:
        self._journal = state.journal
        self._member = state.member
        self._sessions = state.sessions
        self._receipts = state.receipts
        self._names = state.names
        self._policy = state.policy
        self._outbox = state.outbox
        self._store_state = state.store_state
        self._records = records
        self._store = store
        self._availability = availability
        self._locks = runtime.locks
        self._tasks = runtime.tasks

    async def place(self, session: NodeSession, pool: Pool, receipt: Receipt, *, alone: bool) -> None:
        """Open the record of a receipt and put its files in place, unless sessions of the user use them already.

        ``alone``: the store has just said that no session of the user in the pool lives on another host.
        RecordRejected if the record does not open, FileRefused if a file cannot be put in place, PolicyError if it has
        no place on this system.
        """

        async def place() -> bool:
            owner = await self._records.owner(session) if pool.files else FileOwner(session.user.name)
            async with self._locks.user(session.user):
                unused = not self._sessions.uses_files(session.user, pool.name)
                placing = Placing(owner, unused=unused, alone=alone)
                return await self._records.receive(session, pool, receipt, placing)

        if await self._patiently(place()):
            self._tasks.run(f"put back {session.claim.user} {pool.name}", lambda: self._put_back(session.claim, pool))

    async def _put_back(self, claim: Claim, pool: Pool) -> None:
        """Put a record back that the store had, and has no more: an older one lies there, or one that does not open.

        What is still to be delivered comes first: it may be the later version itself.
        """
        mine = self._receipts.find(claim.user, pool.name)
        if mine is None or mine.winner is not None or self._outbox.pending():
            return
        with suppress(StoreError):
            known, damage = self._store_state.known(pool.name), DamageStore(self._store.connection, self._store.farm)
            if await damage.put_back_record(pool.name, claim, mine.lease.id, mine.version, mine.record, known):
                _log.error("record.put_back", user=claim.user, pool=pool.name, version=mine.version)

    async def take_back(self, session: NodeSession) -> tuple[bool, FileRefused | None]:
        """Make a new version of the record if the user's files changed; return whether, and the first refused file.

        FileRefused if the disk hangs or the files do not fit into a record.
        """

        async def save() -> tuple[bool, Mapping[str, FileRefused]]:
            async with self._locks.user(session.user):
                return await self._save(session.claim, session.pool)

        changed, refused = await self._patiently(save())
        return changed, next(iter(refused.values()), None)

    async def yield_to_winner(self, session: NodeSession) -> bool:
        """Put another node's files in place if they won over ours; return whether. FileRefused if that cannot be."""

        async def give_way() -> bool:
            async with self._locks.user(session.user):
                return await self._records.yield_to_winner(session.claim.user, session.pool)

        return await self._patiently(give_way())

    async def leave(self, session: NodeSession) -> None:
        """Take the user's files back; ``clear`` removes them. JournalFailed: to be repeated."""
        try:
            if self._records.has_files(session.claim.user, session.pool):
                await self._patiently(self._leave(session))
        except JournalFailed:
            raise  # what changed in the files is still to be written down: the session leaves when that is possible
        except FarmleaseError as error:
            _log.error("session.files_left", session=session.id, pool=session.pool, why=str(error))
            self._records.note_unsaved(session.claim.user, session.pool, None)

    def leave_soon(self, session: NodeSession) -> None:
        """Do the same in the background, and remove the files."""

        async def leave() -> None:
            await self.leave(session)
            await self.clear(session.claim.user, session.pool)

        self._tasks.run(f"leave {session.id} {session.pool}", leave)

    async def clear(self, index: str, pool: str) -> None:
        """Remove a user's files from this host if no session of the user in the pool lives anywhere.

        The answer to an end says so as a rule, else the store is asked. With the store away, or with sessions on other
        hosts, the files stay, and are looked at again later.
        """
        if not self._records.has_files(index, pool):
            return
        try:
            await self._patiently(self._clear(index, pool))
        except JournalFailed:
            raise
        except FarmleaseError as error:
            _log.error("file.not_removed", pool=pool, why=str(error))

    async def clear_leftovers(self) -> None:
        """Look at the files that no session here uses any more, as many as ``_MOST_LEFTOVERS``."""
        left = [key for key in self._receipts.with_files() if not self._is_needed(*key)]
        for index, pool in left[:_MOST_LEFTOVERS]:
            if not self._availability.is_away:
                await self.clear(index, pool)

    async def _patiently(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what ``work`` on a user's disk returns; FileRefused, and it goes on, if the disk hangs."""
        try:
            return await self._tasks.finish(work, within=_PATIENCE)
        except TimeoutError:
            raise FileRefused("the disk of the user's files does not answer: look at what is mounted there") from None

    async def _leave(self, session: NodeSession) -> None:
        async with self._locks.user(session.user):
            _, refused = await self._save(session.claim, session.pool)
            self._records.note_unsaved(session.claim.user, session.pool, refused)
        for refusal in refused.values():
            _log.error("file.refused", session=session.id, pool=session.pool, why=str(refusal))

    async def _clear(self, index: str, pool: str) -> None:
        user = self._user(index, pool)
        if user is None:
            return
        async with self._locks.user(user):
            if self._is_needed(index, pool) or not self._records.has_files(index, pool):
                return
            if not self._records.is_over(index, pool):
                await self._ask_for_others(user, index, pool)
            if self._records.is_over(index, pool):
                claim = Claim(user=index, node=self._member, session="")
                await self._save(claim, pool, unsaved=True)
                await self._records.remove_files(index, pool)

    async def _ask_for_others(self, user: User, index: str, pool: str) -> None:
        """Ask the store where the user's sessions live, by any name; one that this node does not know cannot say."""
        await self._records.look(index, pool)
        try:
            if await self._store.peek(pool, self._store_state.known(pool)):
                asked = [await self._store.document(pool, each) for each in self._names.indexes(user, index)]
                leases = [each for each in asked if each is not None]
                if not await self._is_elsewhere(index, pool, {each.id for each in leases}):
                    self._records.session_over(index, pool, frozenset().union(*(each.nodes for each in leases)))
        except StoreError as error:
            self._availability.failed(error)

    async def _is_elsewhere(self, index: str, pool: str, leases: AbstractSet[str]) -> bool:
        """Whether a receipt's lease is none of these, by id, but lives: moved by hand, to a name unknown here.

        Nobody can say then who works with its file. All leases are looked through only if it is not where it was.
        """
        receipt, known = self._receipts.find(index, pool), self._policy.in_force.pool(pool)
        if receipt is None or known is None or receipt.lease.id in leases:
            return False
        return receipt.lease.id in {stored.lease.id async for stored in self._store.list(known)}

    def _is_needed(self, index: str, pool: str) -> bool:
        """Whether a session here uses a user's files, or is about to."""
        user = self._user(index, pool)
        return user is not None and self._sessions.needs_files(user, pool)

    def _user(self, index: str, pool: str) -> User | None:
        """Return who has today the name of a receipt; None if there is none that says."""
        receipt = self._receipts.find(index, pool)
        return None if receipt is None else self._names.present(index, receipt.name)

    async def _save(self, claim: Claim, pool: str, *, unsaved: bool = False) -> tuple[bool, Mapping[str, FileRefused]]:
        """Take the files back; write the new version and its message, all or nothing."""
        changed, refused = await self._records.collect_changes(claim.user, pool, unsaved=unsaved)
        if changed is not None:
            message = SaveMessage(
                pool=pool,
                claim=claim,
                lease_id=changed.lease.id,
                line=changed.line,
                version=changed.version,
                record=changed.record,
                made_at=self._store_state.store_now(pool),
            )
            with self._journal.together():
                self._records.keep_changes(claim.user, pool, changed)
                self._outbox.add(message)
        if unsaved:
            self._records.note_unsaved(claim.user, pool, refused)
        return changed is not None, refused
