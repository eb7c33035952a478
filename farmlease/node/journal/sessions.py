"""The sessions of this node: in memory for reading, in the journal before a caller is answered.

A session may use several pools. Each *use* is a row of its own, by session id and pool, and has a life of its own.
Every change goes through the state table of ``domain/session_states.py``. Bodies are sealed for this node: a journal
that is copied elsewhere reveals nothing and opens nothing.
"""

import json
from collections.abc import Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

import psutil
import structlog
from pydantic import Field, TypeAdapter

from farmlease.clock import Clock
from farmlease.crypto.seal import NodeSealer
from farmlease.domain.identity import Identities, User, device_name
from farmlease.domain.model import Grant, SessionRequest, Source
from farmlease.domain.pool import Pool
from farmlease.domain.session_states import TABLE, SessionEvent, SessionState, next_state
from farmlease.errors import FileRefused, InvalidName, RecordRejected
from farmlease.node.host_identity import lives, started_at
from farmlease.node.journal.evidence import Evidence, as_label
from farmlease.node.journal.journal import Journal, UseRow
from farmlease.store.answers.session import Claim
from farmlease.store.keys import node_member

__all__ = ["NodeSession", "Process", "SessionTable", "joined"]


Outer = TypeVar("Outer", bound=Hashable)
Inner = TypeVar("Inner", bound=Hashable)

_UNKNOWN = Claim(user="", node="", session="")


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this host. ``started`` tells it from a later one with the same pid; None: it was gone already."""

    pid: int
    started: float | None

    @property
    def may_live(self) -> bool:
        """Whether it is not known to be gone: one that cannot be looked at may live."""
        with suppress(OSError, psutil.Error):
            return self.started is not None and lives(self.pid, self.started)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSession:
    """What a session of this node does with one pool. ``grant`` is there once it was granted."""

    id: str  #: of the session; hosts reuse ids
    state: SessionState
    user: User
    pool: str
    device: str
    given: str = ""  #: the user's name as the caller spelt it
    grant: Grant | None = None
    processes: tuple[Process, ...] = ()  #: the use ends with the last of them; none: it ends only when that is asked
    reservations: tuple[str, ...] = ()  #: ids of the reservations it may use
    hold_until: int | None = None  #: ms by the store's clock; until then it does not idle
    lost_because: str | None = None
    incarnation: str = ""  #: life of the node in which it began
    ended_by_boot: bool = False  #: it was going on when that life ended
    index: str = ""  #: user index under which the store has it, where that is a former name's
    former: tuple[str, ...] = ()  #: further indexes under which the store may have it, if its answer was lost
    #: The session as the store knows it; made anew when the journal is opened, as the node may have another life.
    claim: Annotated[Claim, Field(exclude=True)] = _UNKNOWN

    @property
    def key(self) -> tuple[str, str]:
        """Session id and pool, which no other use of this node has."""
        return self.id, self.pool

    @property
    def is_uncounted(self) -> bool:
        """Whether a receipt granted it, and the store has not counted it yet."""
        return self.state is SessionState.ACTIVE and self.grant is not None and self.grant.source is Source.RECEIPT


_FORM = TypeAdapter(NodeSession)
_log = structlog.get_logger(__name__)


class SessionTable:
    """The uses of one node's sessions. ``damaged``: how many entries of the journal did not open; they are kept."""

    def __init__(self, journal: Journal, sealer: NodeSealer, evidence: Evidence, node: str, clock: Clock) -> None:
        self._journal = journal
        self._sealer = sealer
        self._node = node
        self._member = node_member(node, journal.incarnation)
        self._uses: dict[tuple[str, str], NodeSession] = {}
        # The same by session, by user and by what is uncounted: a look-up takes no longer with more sessions.
        self._of_session: dict[str, dict[str, NodeSession]] = {}
        self._of_user: dict[User, dict[tuple[str, str], NodeSession]] = {}
        self._uncounted: dict[tuple[str, str], NodeSession] = {}
        #: The table by which the users were read last; None: by that of the agent's last life.
        self.identity: Identities | None = None
        self.damaged = 0
        #: Grows with every change: a reader that awaited something compares it to learn whether the table is the same.
        self.changes = 0
        old: list[NodeSession] = []
        for entry in journal.uses():
            try:
                use = self._opened(entry)
            except (RecordRejected, ValueError):
                self.damaged += 1
                self._set_aside(entry, evidence, clock.now_ms())
                continue
            self._put(use)
            if not entry.pool:
                old.append(use)
        if old:
            self._rewrite(old)

    def __iter__(self) -> Iterator[NodeSession]:
        """Yield every use, in no order."""
        return iter(tuple(self._uses.values()))

    def find(self, session: str, pool: str) -> NodeSession | None:
        """Return the use that a session makes of a pool, whatever its state."""
        return self._uses.get((session, pool))

    def of_session(self, session: str) -> tuple[NodeSession, ...]:
        """Return every use of a session, in the order in which they began."""
        return tuple(self._of_session.get(session, {}).values())

    def shown_uses(self, session: str, only: User | None = None, pool: str | None = None) -> tuple[NodeSession, ...]:
        """Return each use of a session that the API shows: those of one user, or of one pool, if these are given."""
        return tuple(
            each
            for each in self.of_session(session)
            if each.state.shown and only in (None, each.user) and pool in (None, each.pool)
        )

    def is_anothers(self, session: str, only: User | None, pool: str | None = None) -> bool:
        """Whether a session, or its use of one pool, is another user's than ``only`` and has not ended here."""
        return only is not None and any(
            each.user != only and each.state is not SessionState.ENDING and pool in (None, each.pool)
            for each in self.of_session(session)
        )

    def of_user(self, user: User) -> tuple[NodeSession, ...]:
        """Return every use of a user's sessions."""
        return tuple(self._of_user.get(user, {}).values())

    @property
    def shown_sessions(self) -> int:
        """How many sessions have a use that the API shows."""
        return len({each.id for each in self._uses.values() if each.state.shown})

    def uncounted(self, pool: str) -> tuple[NodeSession, ...]:
        """Return every use of a pool that a receipt granted and the store has not counted yet."""
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

    def begin(self, request: SessionRequest, pool: Pool, device: str, former: tuple[str, ...] = ()) -> NodeSession:
        """Write the question into the journal before the store is asked: a crash must not leave a seat taken.

        ``former``: other indexes of the user, under which the store is asked to look too.
        """
        self.changes += 1
        begun = self.question(request, pool, device, former)
        self._write(begun)
        return begun

    def question(self, request: SessionRequest, pool: Pool, device: str, former: tuple[str, ...] = ()) -> NodeSession:
        """Return a use as it is when the store is asked for it; nothing is written."""
        return NodeSession(
            claim=self.claim_of(request.user, request.session),
            id=request.session,
            state=SessionState.STARTING,
            user=request.user,
            pool=pool.name,
            device=device,
            given=request.given,
            processes=_processes_of(request),
            reservations=pool.reservations(request, self._node),
            incarnation=self._journal.incarnation,
            former=former,
        )

    def step(self, session: NodeSession, event: SessionEvent, **changes: Any) -> NodeSession:  # noqa: ANN401 - fields of OpenSession
        """Take a session to the state after ``event``, in the journal too; one that has ended is removed."""
        self.changes += 1
        state = TABLE[session.state].get(event) or next_state(session.state, event)  # which raises
        after = replace(session, state=state, **changes)
        if after.state is SessionState.ENDED:
            self._journal.remove_use(after.id, after.pool)
            self._drop(after.key)
        else:
            self._write(after)
        return after

    def amend(self, session: NodeSession, **changes: Any) -> NodeSession:  # noqa: ANN401 - fields of OpenSession
        """Change fields of a session, in the journal too; its state stays."""
        amended = replace(session, **changes)
        self._write(amended)
        return amended

    def stands_under(self, session: NodeSession, index: str) -> NodeSession:
        """Note under which user index the store has a session; everything about it goes by that one from now on."""
        if session.claim.user == index:
            return session
        own = self.claim_of(session.user, session.id).user
        claim = replace(session.claim, user=index)
        return self.amend(session, index="" if index == own else index, claim=claim)

    def read_names(self, identity: Identities) -> None:
        """Read every session's user by a table of who is who; where the store has a session stays as it is.

        To be repeated: a change that was under way about a session may bring its former user back.
        """
        for each in self:
            with suppress(InvalidName):
                user = identity.user(each.user.canonical)
                if user != each.user:
                    self.amend(each, user=user, index=each.claim.user)
        self.identity = identity

    def reseal(self) -> None:
        """Write anew what the primary key does not seal yet."""
        for entry in self._journal.uses():
            session = self._uses.get((entry.session, entry.pool))
            if session is not None and not self._sealer.are_fresh(entry.body):
                self._write(session)

    def _has(self, user: User, pool: str, states: set[SessionState]) -> bool:
        return any(each.pool == pool and each.state in states for each in self.of_user(user))

    def _put(self, use: NodeSession) -> None:
        before = self._uses.get(use.key)
        if before is not None and before.user != use.user:
            self._drop(use.key)
        self._uses[use.key] = use
        self._of_session.setdefault(use.id, {})[use.pool] = use
        self._of_user.setdefault(use.user, {})[use.key] = use
        self._uncounted.pop(use.key, None)
        if use.is_uncounted:
            self._uncounted[use.key] = use

    def _drop(self, key: tuple[str, str]) -> None:
        use = self._uses.pop(key, None)
        self._uncounted.pop(key, None)
        if use is not None:
            _remove(self._of_session, use.id, use.pool)
            _remove(self._of_user, use.user, key)

    def _rewrite(self, uses: list[NodeSession]) -> None:
        """Write what 0.1.0 wrote under a session's id alone under its pool too."""
        with self._journal.together():
            for use in uses:
                self._write(use)
                self._journal.remove_use(use.id, "")

    def _set_aside(self, entry: UseRow, evidence: Evidence, now_ms: int) -> None:
        """Keep an entry that does not open as evidence, and remove it from the journal."""
        try:
            path = evidence.keep("rejected-session", as_label(entry.session), entry.body, now_ms)
        except FileRefused as error:
            _log.error("session.rejected", session=entry.session, why=str(error))
        else:
            _log.error("session.rejected", session=entry.session, kept=str(path))
            self._journal.remove_use(entry.session, entry.pool)

    def _write(self, use: NodeSession) -> None:
        body = self._sealer.seal(("session", use.id, use.pool), _FORM.dump_json(use))
        self._journal.write_use(UseRow(use.id, use.pool, use.state.value, body))
        self._put(use)

    def _opened(self, entry: UseRow) -> NodeSession:
        if entry.pool:
            plain = self._sealer.unseal(("session", entry.session, entry.pool), entry.body)
        else:
            plain = _of_0_1_0(self._sealer.unseal(("session", entry.session), entry.body))
        # The state outside the seal is what a reboot may have changed; it can only take a session towards its end.
        use = _FORM.validate_json(plain)
        claim = self.claim_of(use.user, use.id)
        device = device_name(use.device, self._sealer.farm.farm)  # farmlease 0.1.0 wrote it in any spelling
        grant = None if use.grant is None else replace(use.grant, device=device)
        if use.index:
            claim = replace(claim, user=use.index)
        state = SessionState(entry.state)
        # A boot marks the rows of what was going on, and cannot write the bodies.
        by_boot = use.ended_by_boot or (state is SessionState.ENDING and use.state is not state)
        return replace(use, state=state, device=device, grant=grant, claim=claim, ended_by_boot=by_boot)


def _of_0_1_0(plain: bytes) -> bytes:
    """Return a body that 0.1.0 wrote, which knew one process of a session, in the present form."""
    document = json.loads(plain)
    if document.get("pid") is not None:
        document["processes"] = [{"pid": document["pid"], "started": document.get("pid_started")}]
    return json.dumps(document).encode()


def _processes_of(request: SessionRequest) -> tuple[Process, ...]:
    """Return the process whose end is the end of a requested session, if it names one."""
    return () if request.pid is None else (Process(request.pid, started_at(request.pid)),)


def joined(processes: tuple[Process, ...], request: SessionRequest) -> tuple[Process, ...]:
    """Return the processes whose last one ends a use, once it was requested again; those that are gone left out.

    A use that was ever requested without a process ends only when that is asked.
    """
    if not processes or request.pid is None:
        return ()
    kept = tuple(each for each in processes if each.may_live)
    return kept + tuple(each for each in _processes_of(request) if each not in kept)


def _remove(index: dict[Outer, dict[Inner, NodeSession]], outer: Outer, inner: Inner) -> None:
    """Remove a use from an index, and what it leaves empty."""
    del index[outer][inner]
    if not index[outer]:
        del index[outer]
