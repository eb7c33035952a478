"""What this node owes the store: ends of sessions, saved records and notes for the audit.

They are delivered in order, each until it was taken.

Guaranteed: what was noted before an answer is delivered even if the agent is killed and the store is away meanwhile,
and the store carries it out once, however often it is told. A debt is sealed for this node, and says itself of which of
its lives it is. One that does not open is kept for inspection; one that the store refuses stays owed, is told in the
log, and holds up no other user's.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import structlog
from pydantic import ConfigDict, TypeAdapter, ValidationError

from farmlease.clock import Clock
from farmlease.crypto.seal import Purpose, RecordBinding, Sealer
from farmlease.domain.session_states import SessionEvent, SessionState
from farmlease.errors import FarmleaseError, FileRefused, JournalFailed, RecordRejected, StoreUnavailable
from farmlease.node.files.record_sync import MadeHere, RecordSync, Version
from farmlease.node.journal.evidence import Evidence
from farmlease.node.journal.journal import Journal, OutboxRow
from farmlease.node.journal.receipts import Receipts
from farmlease.node.journal.sessions import SessionTable
from farmlease.node.journal.store_state import StoreState
from farmlease.store.answers.recovery import Remains
from farmlease.store.answers.session import Behind, Claim, Conflict, Saved
from farmlease.store.lease_store import LeaseStore

__all__ = ["ANY_FENCE", "NoteMessage", "Outbox", "ReleaseMessage", "SaveMessage"]

#: Fence of a release that ends whatever the store took for a question whose answer was lost. Exact in Lua's numbers.
ANY_FENCE = 2**53 - 1

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseMessage:
    """A session is over. Fence 0: it was over already, and the store's word of that was heard."""

    kind: Literal["release"] = "release"
    pool: str
    claim: Claim
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveMessage:
    """A record has a new version, sealed. Versions of one ``line`` were each made from the one before."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    kind: Literal["save"] = "save"
    pool: str
    claim: Claim
    lease_id: str
    line: str
    version: int
    record: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteMessage:
    """The policy decided without a seat: use without a licence, or none at all."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    kind: Literal["note"] = "note"
    pool: ClassVar[str] = ""  #: of the whole farm
    claim: Claim
    event: Literal["restricted", "denied"]
    detail: str = ""
    name: bytes = b""  #: of the user, sealed


Message = ReleaseMessage | SaveMessage | NoteMessage

_FORM: TypeAdapter[Message] = TypeAdapter(Message)


class Outbox:
    """The debts of one node."""

    #: Told of a pool whose store is not the one that this node knew.
    estranged: Callable[[str], None]

    def __init__(
        self,
        *,
        node: str,
        journal: Journal,
        sealer: Sealer,
        store: LeaseStore,
        sessions: SessionTable,
        records: RecordSync,
        evidence: Evidence,
        clock: Clock,
        store_state: StoreState,
        receipts: Receipts,
    ) -> None:
        self._node = node
        self._journal = journal
        self._sealer = sealer
        self._store = store
        self._sessions = sessions
        self._records = records
        self._evidence = evidence
        self._clock = clock
        self._store_state = store_state
        self._receipts = receipts
        self._delivering = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._loops: set[asyncio.Task[None]] = set()
        self._refused: dict[int, str] = {}

    def owe(self, debt: Message) -> None:
        """Note a debt in the journal."""
        # A note is nobody's seat: a session does not wait until it is delivered.
        session = "" if isinstance(debt, NoteMessage) else debt.claim.session
        self._journal.owe(session, self._sealed(session, debt))

    def reseal(self) -> None:
        """Write down anew what the sealer's primary does not seal yet."""
        number = 0
        while owed := self._journal.next_owed(number):
            number = owed.number
            debt = None if self._sealer.is_fresh(owed.body) else self._opened(owed)
            if debt is not None:
                self._journal.amend_owed(number, self._sealed(owed.session, debt))

    def pending(self, session: str | None = None) -> int:
        """How many debts are not delivered yet: of one session, or all."""
        return self._journal.owes(session)

    @property
    def refused(self) -> int:
        """How many debts the store refused when it was last told."""
        return len(self._refused)

    async def deliver(self) -> None:
        """Tell the store everything owed, oldest first. StoreUnavailable where it cannot be told now.

        Who comes while a round is under way waits for the next one, all together: a store that hangs costs each caller
        two rounds at most, however many they are.
        """
        if self._next is None:
            self._next = task = asyncio.create_task(self._round())
            self._loops.add(task)
            task.add_done_callback(self._loops.discard)
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._next)

    async def _round(self) -> None:
        async with self._delivering:
            self._next = None
            unsaved = set[tuple[str, str]]()  # whose next version must not pass the one that was refused
            strange = set[str]()  # pools whose store must hear first what this node has
            refused: dict[int, str] = {}
            number = 0
            while owed := self._journal.next_owed(number):
                number = owed.number
                debt = self._opened(owed)
                if debt is None or (isinstance(debt, SaveMessage) and _line(debt) in unsaved):
                    continue
                if debt.pool in strange or self._must_wait(debt):
                    continue
                try:
                    if not await self._deliver(number, debt):
                        strange.add(debt.pool)
                        self.estranged(debt.pool)
                except (StoreUnavailable, JournalFailed):
                    raise
                except FarmleaseError as error:
                    if isinstance(debt, SaveMessage):
                        unsaved.add(_line(debt))
                    refused[number] = str(error)
                    if self._refused.get(number) != str(error):
                        _log.error("debt.refused", kind=debt.kind, session=owed.session, why=str(error))
            self._refused = refused

    def _sealed(self, session: str, debt: Message) -> bytes:
        """Seal a debt, and the record in it with the same key."""
        if isinstance(debt, SaveMessage):
            with suppress(RecordRejected):  # the store's business
                debt = replace(debt, record=self._sealer.reseal_record(_binding(debt), debt.record))
        return self._sealer.seal(Purpose.RECEIPT, self._node, ("debt", session), _FORM.dump_json(debt))

    def _must_wait(self, debt: Message) -> bool:
        """Whether the end of a session would free a seat on which a session still sits that the store has not heard of.

        A receipt let that in, by the seat of the one that has ended: it is to be counted first.
        """
        return isinstance(debt, ReleaseMessage) and any(
            self._sealer.user_index(each.user) == debt.claim.user for each in self._sessions.uncounted(debt.pool)
        )

    def _opened(self, owed: OutboxRow) -> Message | None:
        """Return the debt; None if it does not open: then it is kept, and owed no longer."""
        try:
            plain = self._sealer.unseal(Purpose.RECEIPT, self._node, ("debt", owed.session), owed.body)
            return _FORM.validate_json(plain)
        except (RecordRejected, ValidationError):
            pass
        try:
            path = self._evidence.keep("rejected-debt", str(owed.number), owed.body, self._clock.now_ms())
        except FileRefused as error:
            _log.error("debt.rejected", why=str(error))
        else:
            _log.error("debt.rejected", kept=str(path))
            self._journal.settle(owed.number)
        return None

    async def _deliver(self, number: int, debt: Message) -> bool:
        """Tell the store. False if it is not the one that this node knew: it took no notice."""
        match debt:
            case SaveMessage():
                return await self._save(number, debt)
            case NoteMessage():
                await self._store.note(debt.claim, debt.event, debt.detail, debt.name)
                self._journal.settle(number)
                return True
            case ReleaseMessage():
                return await self._release(number, debt)

    async def _release(self, number: int, debt: ReleaseMessage) -> bool:
        known = self._store_state.known(debt.pool)
        outcome = await self._store.release(debt.pool, debt.claim, debt.fence, known)
        if outcome is Behind.STRANGE:
            return False
        self._store_state.keep_fence(debt.pool)
        with self._journal.together():
            self._journal.settle(number)
            self._close(debt)
            if isinstance(outcome, Remains):
                self._receipts.renew(debt.claim.user, debt.pool, outcome)
        return True

    async def _save(self, number: int, debt: SaveMessage) -> bool:
        known = self._store_state.known(debt.pool)
        outcome = await self._store.save(debt.pool, debt.claim, debt.lease_id, debt.version, debt.record, known=known)
        if isinstance(outcome, Behind):
            return False
        # Nothing is awaited from here on: what comes back from a user's disk meanwhile must see the outcome.
        with self._journal.together():
            match outcome:
                case Saved():
                    pass
                case Conflict() if any(self._is(each, outcome) for _, each in self._made_from(number, debt)):
                    pass  # the answer was lost, and the record sealed anew since; or it was restored with what we kept
                case Conflict():
                    self._lost_race(number, debt, (outcome.version, outcome.record))
                case None:
                    self._records.lease_gone(_made_here(debt))
            self._journal.settle(number)
        return True

    def _is(self, debt: SaveMessage, found: Conflict) -> bool:
        """Whether what the store has is the very version that it is told of, under another seal."""
        with suppress(RecordRejected):
            same = self._sealer.is_same_record(_binding(debt), debt.record, found.record)
            return found.version == debt.version and same
        return False

    def _lost_race(self, number: int, debt: SaveMessage, theirs: Version) -> None:
        """Keep this version and those made from it: the store would take the next one for a child of the winner."""
        for each, child in self._made_from(number, debt):
            self._records.lost_race(_made_here(child), theirs)
            self._journal.settle(each)

    def _made_from(self, number: int, debt: SaveMessage) -> list[tuple[int, SaveMessage]]:
        """Return this version and those made from it that the store has yet to hear of."""
        found = [(number, debt)]
        while owed := self._journal.next_owed(number):
            number = owed.number
            child = self._opened(owed)
            if isinstance(child, SaveMessage) and (child.pool, child.line) == (debt.pool, debt.line):
                found.append((number, child))
        return found

    def _close(self, debt: ReleaseMessage) -> None:
        session = self._sessions.find(debt.claim.session)
        ending = session is not None and session.state is SessionState.ENDING and session.pool == debt.pool
        if session is not None and ending and debt.fence:
            self._sessions.step(session, SessionEvent.RELEASED)


def _line(debt: SaveMessage) -> tuple[str, str]:
    return debt.pool, debt.claim.user


def _binding(debt: SaveMessage) -> RecordBinding:
    return RecordBinding(pool=debt.pool, user_index=debt.claim.user, lease_id=debt.lease_id, version=debt.version)


def _made_here(debt: SaveMessage) -> MadeHere:
    return MadeHere(
        pool=debt.pool,
        user=debt.claim.user,
        lease_id=debt.lease_id,
        line=debt.line,
        version=debt.version,
        record=debt.record,
    )
