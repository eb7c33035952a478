"""Laws of a session's uses, judged from outside: what was asked for, and what became of each use.

A use that nobody asked to end goes on, whatever becomes of other uses of its session (L3); the uses of one session are
one user's (L2); the end of a session leaves none of them (L3); and nobody takes a floating seat while a named one is
kept for them (L2).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from farmlease.domain.identity import User
from farmlease.domain.model import Decision, Grant, SessionRequest
from farmlease.domain.session_states import SessionEvent, SessionState
from farmlease.domain.stored_id import SHOWN
from farmlease.node.journal.sessions import NodeSession
from tests.simulation.host import Host
from tests.simulation.ledger import Ledger
from tests.simulation.server import Carried

__all__ = ["Uses"]

_LIVE = frozenset({SessionState.ACTIVE, SessionState.WAITING})
_ALL = "*"  #: every pool
#: Seconds after which a question to the store that got no answer is given up; its agent goes on without.
_PATIENCE = 2
#: Seconds after which an end that was asked for has been carried out, or never will be.
_CARRIED_OUT = 300


@dataclass(slots=True)
class _Asked:
    """What a start asked the store for.

    ``seated``: the user had a named lease before, and has it still when the store is asked for the first seat, so soon
    that its agent had an answer to who has a seat.
    """

    at: float
    seated: bool
    pools: list[str] = field(default_factory=list)


class Uses:
    """The uses of all hosts. Methods return what broke a law, or None."""

    def __init__(self, ledger: Ledger, now: Callable[[], float]) -> None:
        self._ledger = ledger
        self._now = now
        #: By host and session: pool or all, a user, whether the end is for that user or for all others; and when.
        self._may_end: dict[tuple[str, str], dict[tuple[str, str, bool], float]] = {}
        self._asked: dict[tuple[str, str, str], _Asked] = {}  #: by host, session and user index

    def start_asked(self, host: Host, index: str, request: SessionRequest) -> None:
        """Note a start: it may end uses of another user of the id, and its own of the pools that it leads to."""
        session, user = request.session, request.user.canonical
        self._note(host, session, {(_ALL, user, False), (request.pool or _ALL, user, True)})
        if not any(each.user == request.user for each in host.book.of_session(session)):
            named = self._ledger.pools.get("named")
            asked, under_way = (host.name, session, index), self._asked.get((host.name, session, index))
            since = under_way.at if under_way is not None and not under_way.pools else self._now()
            self._asked[asked] = _Asked(since, named is not None and index in named.model.leases)

    def is_start_under_way(self, host: Host, session: str) -> bool:
        """Whether somebody has asked for a start of an id, and may wait for the answer."""
        return any(
            (name, asked) == (host.name, session) and self._now() - each.at < _CARRIED_OUT
            for (name, asked, _), each in self._asked.items()
        )

    def end_asked(self, host: Host, session: str, pool: str | None) -> None:
        """Note that somebody asked for the end of a session, or of its use of one pool."""
        self._note(host, session, {(pool or _ALL, "", False)})

    def carried(self, carried: Carried) -> None:
        """Note what a start asks the store for."""
        if carried.name == "acquire" and carried.word in {"granted", "denied", "waiting", "strange"}:
            given = carried.arguments
            asked = self._asked.get((carried.by, given["session"].translate(SHOWN), given["user"]))
            if asked is not None:
                if not asked.pools:
                    in_time = self._now() - asked.at < _PATIENCE
                    asked.seated = asked.seated and in_time and self._is_seated(given["user"], carried)
                asked.pools.append(carried.pool)

    def stepped(self, host: Host, before: SessionState, event: SessionEvent, after: NodeSession) -> str | None:
        """L3: a use ends by its host's wish only if that was asked for."""
        if event is not SessionEvent.END_ASKED or before not in _LIVE:
            return None
        wishes = self._may_end.get((host.name, after.id), {})
        asked = any(
            pool in {after.pool, _ALL} and (user == after.user.canonical) is his and self._now() - at < _CARRIED_OUT
            for (pool, user, his), at in wishes.items()
        )
        if asked or after.grant is None:  # one whose record was refused is ended by the agent itself, without its grant
            return None
        return f"the use of {after.pool} by session {after.id} on {host.name} was ended, and nobody had asked for that"

    def decided(
        self, host: Host, index: str, request: SessionRequest, decision: Decision, *, knows: bool
    ) -> str | None:
        """L2: the uses of a session are one user's; and who has a named seat takes no floating one beside it.

        ``knows``: the host could know who has a seat.
        """
        asked = self._asked.pop((host.name, request.session, index), None)
        if not isinstance(decision, Grant) or decision.again or not host.up:
            return None
        if strangers := _users(host, request.session) - {request.user}:
            return f"session {request.session} on {host.name} is {request.user.name}'s and {len(strangers)} others' too"
        knows = knows and self._ledger.clock_is_sound
        if knows and request.pool is None and asked is not None and asked.seated and asked.pools[:1] == ["floating"]:
            return f"{request.user.name} was to be given a floating seat first, and a named one is kept for them"
        return None

    def ended(self, host: Host, session: str, before: frozenset[tuple[str, int]]) -> str | None:
        """L3: after the end of a session nothing is left of what it had ``before``: pools and fences."""
        left = sorted(fences(host, session) & before)
        return f"session {session} on {host.name} was ended and goes on in {left}" if left else None

    def _is_seated(self, index: str, carried: Carried) -> bool:
        """Whether a named seat is kept for a user: the model knows a lease until it settles, be it over or not."""
        named = self._ledger.pools.get("named")
        if named is None or index not in named.model.leases:
            return False
        return named.model.lease_deadline(index) > self._ledger.now_ms("named", carried.now_ms)

    def _note(self, host: Host, session: str, wishes: set[tuple[str, str, bool]]) -> None:
        self._may_end.setdefault((host.name, session), {}).update(dict.fromkeys(wishes, self._now()))


def fences(host: Host, session: str) -> frozenset[tuple[str, int]]:
    """Return pool and fence of every use of a session that has its seat."""
    uses = host.book.of_session(session) if host.up else ()
    return frozenset((each.pool, each.grant.fence) for each in uses if each.state is SessionState.ACTIVE and each.grant)


def _users(host: Host, session: str) -> set[User]:
    return {each.user for each in host.book.of_session(session) if each.state in _LIVE}
