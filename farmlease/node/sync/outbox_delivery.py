"""Sends the outbox to the store: in order, each message until the store has taken it.

Guaranteed: the store carries out each message once, however often it is sent. One that the store refuses stays in the
outbox, is logged, and holds up no other user's messages.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog

from farmlease.domain.session_states import SessionEvent, SessionState
from farmlease.errors import FarmleaseError, JournalFailed, RecordRejected, StoreUnavailable
from farmlease.farm import Farm
from farmlease.node.files.record_sync import RecordSync
from farmlease.node.journal.outbox import Message, NoteMessage, ReleaseMessage, SaveMessage
from farmlease.node.journal.state import State
from farmlease.node.sync.events import FilesLeft, SyncEvents
from farmlease.node.sync.renamed_node import RenamedNode
from farmlease.store.answers.recovery import Remains
from farmlease.store.answers.session import Behind, Conflict, Saved

__all__ = ["DeliveryReport", "OutboxDelivery"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What was met since the last report. ``strange``: pools whose store is another one and took nothing."""

    strange: frozenset[str]


@dataclass(slots=True)
class _Round:
    """What one round has met so far."""

    strange: set[str]  #: pools
    unsaved: set[tuple[str, str]] = field(default_factory=set)  #: whose next version must not pass a refused one
    refused: dict[int, str] = field(default_factory=dict)  #: number to why

    def must_wait(self, message: Message) -> bool:
        """Whether a message before this one has to be taken first."""
        return message.pool in self.strange or (isinstance(message, SaveMessage) and _record(message) in self.unsaved)


class OutboxDelivery:
    """The delivery of one node's outbox. Callers that come together share a round."""

    def __init__(self, state: State, farm: Farm, records: RecordSync, events: SyncEvents, renamed: RenamedNode) -> None:
        self._journal = state.journal
        self._outbox = state.outbox
        self._sessions = state.sessions
        self._store_state = state.store_state
        self._receipts = state.receipts
        self._names = state.names
        self._sealer = farm.sealer
        self._store = farm.leases
        self._records = records
        self._events = events
        self._renamed = renamed
        self._delivering = asyncio.Lock()
        self._next: asyncio.Task[DeliveryReport] | None = None
        self._rounds: set[asyncio.Task[DeliveryReport]] = set()
        self._refused: dict[int, str] = {}
        #: Pools that a round found strange and has not reported yet, as the store went away before its end.
        self._strange: set[str] = set()

    @property
    def refused(self) -> int:
        """How many messages the store refused in the last round."""
        return len(self._refused)

    @property
    def renamed(self) -> RenamedNode:
        """What is done where the host was renamed."""
        return self._renamed

    async def deliver(self) -> DeliveryReport:
        """Send all messages, oldest first. StoreUnavailable if the store does not answer.

        A caller that comes while a round is under way shares the next round with all others that do: a store that hangs
        costs each caller two rounds at most.
        """
        if self._next is None:
            self._next = task = asyncio.create_task(self._round())
            self._rounds.add(task)
            task.add_done_callback(self._rounds.discard)
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._next)

    async def _round(self) -> DeliveryReport:
        async with self._delivering:
            self._next = None
            met = _Round(self._strange)
            for number, message in self._outbox.messages():
                if not met.must_wait(message) and not self._must_wait(message):
                    await self._try(number, message, met)
            self._refused, self._strange = met.refused, set()
            return DeliveryReport(frozenset(met.strange))

    async def _try(self, number: int, message: Message, met: _Round) -> None:
        """Send one message; what the store does not take is noted in ``met``."""
        try:
            if not await self._send(number, message):
                met.strange.add(message.pool)
        except (StoreUnavailable, JournalFailed):
            raise
        except FarmleaseError as error:
            if isinstance(message, SaveMessage):
                met.unsaved.add(_record(message))
            met.refused[number] = str(error)
            if self._refused.get(number) != str(error):
                _log.error("outbox.refused", kind=message.kind, session=message.claim.session, why=str(error))

    def _must_wait(self, message: Message) -> bool:
        """Whether the end of a session would free the seat of one that the store has not counted yet.

        A receipt granted that session the seat of the one that has ended: it is to be counted first.
        """
        return isinstance(message, ReleaseMessage) and any(
            each.claim.user == message.claim.user for each in self._sessions.uncounted(message.pool)
        )

    async def _send(self, number: int, message: Message) -> bool:
        """Send a message. False if the store is not the one that this node knew: it took nothing."""
        match message:
            case SaveMessage():
                return await self._save(number, message)
            case NoteMessage():
                await self._store.note(message.claim, message.event, message.detail, message.name)
                self._outbox.settle(number)
                return True
            case ReleaseMessage():
                return await self._release(number, message)

    async def _release(self, number: int, message: ReleaseMessage) -> bool:
        known = self._store_state.known(message.pool)
        await self._renamed.take_over(message.pool, known)
        outcome = await self._store.release(message.pool, message.claim, message.fence, known)
        if outcome is Behind.STRANGE:
            return False
        self._store_state.keep_fence(message.pool)
        with self._journal.together():
            self._outbox.settle(number)
            self._close(message)
            if isinstance(outcome, Remains):
                self._receipts.renew(message.claim.user, message.pool, outcome)
        if self._records.has_files(message.claim.user, message.pool):
            if isinstance(outcome, Remains):
                self._records.session_over(message.claim.user, message.pool, outcome.nodes)
            self._events.add(FilesLeft(message.pool, message.claim.user))
        return True

    async def _save(self, number: int, message: SaveMessage) -> bool:
        outcome = await self._ask_to_save(message)
        if outcome is None and (moved := self._under_present_name(message)) is not None:
            message, outcome = moved, await self._ask_to_save(moved)
        if isinstance(outcome, Behind):
            return False
        # Nothing is awaited from here on: what comes back from a user's disk meanwhile must see the outcome.
        made = None
        with self._journal.together():
            match outcome:
                case Saved():
                    pass
                case Conflict() if any(self._is_same(each, outcome) for _, each in self._made_from(number, message)):
                    pass  # the answer was lost, and the record sealed anew since; or it was restored with what we kept
                case Conflict():
                    made = self._meet(number, message, outcome)
                case None:
                    self._records.conflicts.lease_gone(message)
            if made is None:
                self._outbox.settle(number)
        return True if made is None else await self._save(number, made)

    async def _ask_to_save(self, message: SaveMessage) -> Saved | Conflict | Behind | None:
        return await self._store.save(
            message.pool,
            message.claim,
            message.lease_id,
            message.version,
            message.record,
            known=self._store_state.known(message.pool),
        )

    def _under_present_name(self, message: SaveMessage) -> SaveMessage | None:
        """Return the message for the name that its user has today, to which the lease may have moved meanwhile."""
        index = message.claim.user
        present = self._present_index(message)
        if present is None or present == index:
            return None
        moved = replace(message, claim=replace(message.claim, user=present))
        with suppress(RecordRejected):
            content = self._sealer.unseal_record(message.binding, message.record)
            return replace(moved, record=self._sealer.seal_record(moved.binding, content))
        return None

    def _present_index(self, message: SaveMessage) -> str | None:
        """Return the index of who has a message's lease today; None if no receipt says.

        A start by the new name may have moved the receipt already: then the one of the same lease says.
        """
        receipt = self._receipts.find(message.claim.user, message.pool)
        if receipt is not None:
            user = self._names.present(message.claim.user, receipt.name)
            return None if user is None else self._sealer.user_index(user)
        moved = (at for at, each in self._receipts.of_pool(message.pool) if each.lease.id == message.lease_id)
        return next(moved, None)

    def _is_same(self, message: SaveMessage, found: Conflict) -> bool:
        """Whether the store already has this very version, under another seal."""
        with suppress(RecordRejected):
            same = self._sealer.is_same_record(message.binding, message.record, found.record)
            return found.version == message.version and same
        return False

    def _meet(self, number: int, message: SaveMessage, theirs: Conflict) -> SaveMessage | None:
        """Of this version, with those made from it, and another node's, let the one count that was changed last.

        Return what is to be saved instead of all of ours; None if theirs counts. The store would take the next of ours
        for one that was made from theirs.
        """
        ours = self._made_from(number, message)
        made = self._records.conflicts.rebased(ours[-1][1], theirs)
        for each, version in ours:
            if made is None:
                self._records.conflicts.lose(version, theirs)
                self._records.session_over(version.claim.user, version.pool, theirs.nodes)
            if each != number:
                self._outbox.settle(each)
        if made is not None:
            self._outbox.replace(number, made)
        return made

    def _made_from(self, number: int, message: SaveMessage) -> list[tuple[int, SaveMessage]]:
        """Return this version and the undelivered ones that were made from it."""
        found = [(number, message)]
        for later, child in self._outbox.messages(number):
            if isinstance(child, SaveMessage) and (child.pool, child.line) == (message.pool, message.line):
                found.append((later, child))
        return found

    def _close(self, message: ReleaseMessage) -> None:
        session = self._sessions.find(message.claim.session, message.pool)
        if session is not None and session.state is SessionState.ENDING and message.fence:
            self._sessions.step(session, SessionEvent.RELEASED)


def _record(message: SaveMessage) -> tuple[str, str]:
    """Return which record a message is about."""
    return message.pool, message.claim.user
