"""What this node has yet to report to the store: ends of sessions, saved records and notes for the audit.

Guaranteed: a message is in the journal before anybody is answered, and stays there, in order, until the store has taken
it; ``sync/outbox_delivery.py`` sends it. It is sealed for this node and names the life of the node that it belongs to.
One that does not open is kept as evidence.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import structlog
from pydantic import ConfigDict, TypeAdapter, ValidationError

from farmlease.clock import Clock
from farmlease.crypto.seal import NodeSealer, RecordBinding
from farmlease.errors import FileRefused, RecordRejected
from farmlease.node.journal.evidence import Evidence
from farmlease.node.journal.journal import Journal, OutboxRow
from farmlease.store.answers.session import Claim

__all__ = ["ANY_FENCE", "Message", "NoteMessage", "Outbox", "ReleaseMessage", "SaveMessage"]

#: Fence of a release that ends whatever the store took for a question whose answer was lost. Exact in Lua's numbers.
ANY_FENCE = 2**53 - 1

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseMessage:
    """A session is over. Fence 0: it was over already, and this acknowledges the store's report of that."""

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
    made_at: int = 0  #: ms by the store's time as this node estimated it; 0: it had no estimate

    @property
    def binding(self) -> RecordBinding:
        """What the record is sealed for."""
        return RecordBinding(pool=self.pool, user_index=self.claim.user, lease_id=self.lease_id, version=self.version)


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
    """The undelivered messages of one node, numbered in the order in which they were added."""

    def __init__(self, journal: Journal, member: str, sealer: NodeSealer, evidence: Evidence, clock: Clock) -> None:
        self._journal = journal
        self._member = member
        self._sealer = sealer
        self._evidence = evidence
        self._clock = clock

    def add(self, message: Message) -> None:
        """Write a message into the journal."""
        # A note holds no seat: a session does not wait for its delivery.
        session = "" if isinstance(message, NoteMessage) else message.claim.session
        self._journal.add_message(session, message.pool, self._sealed(session, message))

    def pending(self, session: str | None = None, pool: str | None = None) -> int:
        """How many messages are undelivered: about one session's use of a pool, about the session, or in all."""
        return self._journal.message_count(session, pool)

    def messages(self, after: int = 0) -> Iterator[tuple[int, Message]]:
        """Yield each message behind number ``after`` with its number, oldest first, also those added meanwhile."""
        while row := self._journal.next_message(after):
            after = row.number
            message = self._opened(row)
            if message is not None:
                yield after, message

    def settle(self, number: int) -> None:
        """Remove a message that the store has taken."""
        self._journal.remove_message(number)

    def replace(self, number: int, message: SaveMessage) -> None:
        """Write another message in the place of one."""
        self._journal.replace_message(number, self._sealed(message.claim.session, message))

    def reseal(self) -> None:
        """Write anew each message that the primary key does not seal yet."""
        after = 0
        while row := self._journal.next_message(after):
            after = row.number
            message = None if self._sealer.are_fresh(row.body) else self._opened(row)
            if message is not None:
                self._journal.replace_message(after, self._sealed(row.session, message))

    def _present(self, message: Message) -> Message:
        """Return a message with this life of the node under its present name: its host may have been renamed since."""
        if message.claim.node.partition("#")[2] != self._journal.incarnation or message.claim.node == self._member:
            return message
        return replace(message, claim=replace(message.claim, node=self._member))

    def _sealed(self, session: str, message: Message) -> bytes:
        """Seal a message, and the record in it with the same key."""
        if isinstance(message, SaveMessage):
            with suppress(RecordRejected):  # the store judges it
                record = self._sealer.farm.reseal_record(message.binding, message.record)
                message = replace(message, record=record)
        return self._sealer.seal(("debt", session), _FORM.dump_json(message))

    def _opened(self, row: OutboxRow) -> Message | None:
        """Return the message; None if it does not open: then it is kept as evidence, and delivered no more."""
        try:
            return self._present(_FORM.validate_json(self._sealer.unseal(("debt", row.session), row.body)))
        except (RecordRejected, ValidationError):
            pass
        try:
            path = self._evidence.keep("rejected-message", str(row.number), row.body, self._clock.now_ms())
        except FileRefused as error:
            _log.error("outbox.message_rejected", why=str(error))
        else:
            _log.error("outbox.message_rejected", kept=str(path))
            self._journal.remove_message(row.number)
        return None
