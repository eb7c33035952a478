"""The sessions of this node: in memory for reading, in the journal before a caller is answered.

Every change goes through the state table of ``domain/session_states.py``. Bodies are sealed for this node: a journal
that is copied elsewhere reveals nothing and opens nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import structlog
from pydantic import Field, TypeAdapter

from farmlease.clock import Clock
from farmlease.crypto.seal import NodeSealer
from farmlease.domain.identity import User
from farmlease.domain.model import Grant, SessionRequest, Source
from farmlease.domain.pool import Pool
from farmlease.domain.session_states import TABLE, SessionEvent, SessionState, next_state
from farmlease.errors import FileRefused, RecordRejected
from farmlease.node.host_identity import started_at
from farmlease.node.journal.evidence import Evidence, as_label
from farmlease.node.journal.journal import Journal, SessionRow
from farmlease.store.answers.session import Claim
from farmlease.store.keys import node_member

__all__ = ["NodeSession", "SessionTable"]


_UNKNOWN = Claim(user="", node="", session="")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSession:
    """A session of this node. ``grant`` is there once it was granted."""

    id: str
    state: SessionState
    user: User
    pool: str
    device: str
    given: str = ""  #: the user's name as the caller spelt it
    grant: Grant | None = None
    pid: int | None = None
    pid_started: float | None = None  #: tells the process from a later one with the same pid
    reservations: tuple[str, ...] = ()  #: ids of the reservations it may use
    hold_until: int | None = None  #: ms by the store's clock; until then it does not idle
    lost_because: str | None = None
    incarnation: str = ""  #: life of the node in which it began
    #: The session as the store knows it; made anew when the journal is opened, as the node may have another life.
    claim: Annotated[Claim, Field(exclude=True)] = _UNKNOWN

    @property
    def is_uncounted(self) -> bool:
        """Whether a receipt granted it, and the store has not counted it yet."""
        return self.state is SessionState.ACTIVE and self.grant is not None and self.grant.source is Source.RECEIPT


_FORM = TypeAdapter(NodeSession)
_log = structlog.get_logger(__name__)


class SessionTable:
    """The sessions of one node. ``damaged``: how many entries of the journal did not open; they are kept."""

    def __init__(self, journal: Journal, sealer: NodeSealer, evidence: Evidence, node: str, clock: Clock) -> None:
        self._journal = journal
        self._sealer = sealer
        self._node = node
        self._member = node_member(node, journal.incarnation)
        self._sessions: dict[str, NodeSession] = {}
        self._of_user: dict[User, dict[str, NodeSession]] = {}  #: so that a look-up takes no longer with more sessions
        self._uncounted: dict[str, NodeSession] = {}  #: likewise
        self.damaged = 0
        #: Grows with every change: a reader that awaited something compares it to learn whether the table is the same.
        self.changes = 0
        for entry in journal.sessions():
            try:
                self._put(self._opened(entry))
            except (RecordRejected, ValueError):
                self.damaged += 1
                self._set_aside(entry, evidence, clock.now_ms())

    def __iter__(self) -> Iterator[NodeSession]:
        """Yield every session, in no order."""
        return iter(tuple(self._sessions.values()))

    def find(self, session: str) -> NodeSession | None:
        """Return the session of this id, whatever its state."""
        return self._sessions.get(session)

    def of_user(self, user: User) -> tuple[NodeSession, ...]:
        """Return every session of a user."""
        return tuple(self._of_user.get(user, {}).values())

    def uncounted(self, pool: str) -> tuple[NodeSession, ...]:
        """Return every session of a pool that a receipt granted and the store has not counted yet."""
        return tuple(each for each in self._uncounted.values() if each.pool == pool)

    def uses_files(self, user: User, pool: str) -> bool:
        """Whether a session of the user may be using the files of a pool."""
        return self._has(user, pool, {SessionState.ACTIVE, SessionState.INVALID})

    def needs_files(self, user: User, pool: str) -> bool:
        """Whether a session of the user uses the files of a pool, or is about to."""
        return self._has(user, pool, {SessionState.ACTIVE, SessionState.INVALID, SessionState.STARTING})

    def count(self, pool: str) -> int:
        """How many sessions of a pool this node holds seats for."""
        return sum(each.pool == pool and each.state is SessionState.ACTIVE for each in self)

    def is_of_this_life(self, session: NodeSession) -> bool:
        """Whether the node has not been booted since a session began."""
        return session.incarnation == self._journal.incarnation

    @property
    def quiet(self) -> bool:
        """Whether no session is being started or ended, as far as the store is concerned."""
        return not any(each.state in {SessionState.STARTING, SessionState.ENDING} for each in self)

    def claim_of(self, user: User, session: str) -> Claim:
        """Return the session that a user has, or is about to have, on this node under an id, as the store knows it."""
        return Claim(user=self._sealer.farm.user_index(user), node=self._member, session=session)

    def begin(self, request: SessionRequest, pool: Pool, device: str) -> NodeSession:
        """Write the question into the journal before the store is asked: a crash must not leave a seat taken."""
        self.changes += 1
        begun = NodeSession(
            claim=self.claim_of(request.user, request.session),
            id=request.session,
            state=SessionState.STARTING,
            user=request.user,
            pool=pool.name,
            device=device,
            given=request.given,
            pid=request.pid,
            pid_started=None if request.pid is None else started_at(request.pid),
            reservations=pool.reservations(request, self._node),
            incarnation=self._journal.incarnation,
        )
        self._write(begun)
        return begun

    def step(self, session: NodeSession, event: SessionEvent, **changes: Any) -> NodeSession:  # noqa: ANN401 - fields of OpenSession
        """Take a session to the state after ``event``, in the journal too; one that has ended is removed."""
        self.changes += 1
        state = TABLE[session.state].get(event) or next_state(session.state, event)  # which raises
        after = replace(session, state=state, **changes)
        if after.state is SessionState.ENDED:
            self._journal.remove_session(after.id)
            self._drop(after.id)
        else:
            self._write(after)
        return after

    def amend(self, session: NodeSession, **changes: Any) -> NodeSession:  # noqa: ANN401 - fields of OpenSession
        """Change fields of a session, in the journal too; its state stays."""
        amended = replace(session, **changes)
        self._write(amended)
        return amended

    def reseal(self) -> None:
        """Write anew what the primary key does not seal yet."""
        for entry in self._journal.sessions():
            session = self._sessions.get(entry.id)
            if session is not None and not self._sealer.are_fresh(entry.body):
                self._write(session)

    def _has(self, user: User, pool: str, states: set[SessionState]) -> bool:
        return any(each.pool == pool and each.state in states for each in self.of_user(user))

    def _put(self, session: NodeSession) -> None:
        self._drop(session.id)
        self._sessions[session.id] = session
        self._of_user.setdefault(session.user, {})[session.id] = session
        if session.is_uncounted:
            self._uncounted[session.id] = session

    def _drop(self, session: str) -> None:
        before = self._sessions.pop(session, None)
        self._uncounted.pop(session, None)
        if before is not None and len(of_user := self._of_user[before.user]) > 1:
            del of_user[session]
        elif before is not None:
            del self._of_user[before.user]

    def _set_aside(self, entry: SessionRow, evidence: Evidence, now_ms: int) -> None:
        """Keep an entry that does not open as evidence, and remove it from the journal."""
        try:
            path = evidence.keep("rejected-session", as_label(entry.id), entry.body, now_ms)
        except FileRefused as error:
            _log.error("session.rejected", session=entry.id, why=str(error))
        else:
            _log.error("session.rejected", session=entry.id, kept=str(path))
            self._journal.remove_session(entry.id)

    def _write(self, session: NodeSession) -> None:
        body = self._sealer.seal(("session", session.id), _FORM.dump_json(session))
        self._journal.write_session(SessionRow(session.id, session.state.value, body))
        self._put(session)

    def _opened(self, entry: SessionRow) -> NodeSession:
        plain = self._sealer.unseal(("session", entry.id), entry.body)
        # The state outside the seal is what a reboot may have changed; it can only take a session towards its end.
        session = _FORM.validate_json(plain)
        claim = self.claim_of(session.user, session.id)
        return replace(session, state=SessionState(entry.state), claim=claim)
