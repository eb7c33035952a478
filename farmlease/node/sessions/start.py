"""The start of a session, step by step: who gets in, and by which pool.

1. The session id's lock is taken: calls about one session never interleave.
2. If another user had the id before, all uses of that session are ended, and the store has learned of it.
3. The policy plans: which pools to try in which order, use without a licence, or none.
4. If the session uses a pool of the plan already, that use alone is asked for; else a pool in which the user has a
   named seat goes first (``pool_order``), and pool after pool is asked (``acquire``) until one grants (``grant``), or
   lets the session wait.
5. A session that waits asks again each second until it has a seat, its wait is over, or its caller hangs up.

Guaranteed: a session's uses of other pools are not touched, whatever the answer; nothing is asked for a use while an
earlier one of the same session and pool owes the store its end; and an answer that the store does not get to check is
given by the policy as it is now, if the store can be asked.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from farmlease.domain import denial_text
from farmlease.domain.identity import User
from farmlease.domain.model import Decision, Denial, Reason, Restricted, SessionRequest
from farmlease.domain.policy import Denied, Plan, PolicyInForce, Pool, RestrictedUse, TryPools
from farmlease.domain.pool import QUEUE_PLACE_MS
from farmlease.domain.session_states import SessionState
from farmlease.errors import InvalidName, PolicyError, StoreError, StoreRefused, StoreUnavailable
from farmlease.farm import Farm
from farmlease.node.concurrency import Phase, Runtime
from farmlease.node.journal.outbox import NoteMessage
from farmlease.node.journal.sessions import NodeSession, joined
from farmlease.node.journal.state import State
from farmlease.node.sessions.acquire import SeatAcquisition
from farmlease.node.sessions.end import SessionEnd
from farmlease.node.sessions.pool_order import PoolOrder
from farmlease.node.sync.build import Sync
from farmlease.store.answers.session import Behind, Waiting

__all__ = ["SessionStart", "standing_pool"]

#: Seconds between two questions of a session that waits for a seat.
_ASK_AGAIN = 1.0
#: How often a start may find that the policy changed under it before it gives up.
_MOST_CHANGES = 5
#: Beyond so many undelivered messages, decisions of the policy are no longer noted: an audit is not worth a full disk.
_MOST_NOTES = 10_000

#: States in which a repeated request is about the use that there is.
_STANDING = frozenset({SessionState.WAITING, SessionState.ACTIVE})


@dataclass(frozen=True, slots=True)
class _Queued:
    """The session waits for a seat of this pool."""

    pool: str


@dataclass(frozen=True, slots=True)
class _Question:
    """One caller's request, and what was asked for it. ``only``: as in ``start_session``.

    ``before``: the fence of each use that the session had, by pool; None for one without a seat.
    """

    request: SessionRequest
    only: User | None
    before: Mapping[str, int | None]
    asked: set[str] = field(default_factory=set)  #: pools


class SessionStart:
    """The starts of one node's sessions. ``count`` counts each decision, with the names of the pools there are."""

    def __init__(
        self,
        state: State,
        farm: Farm,
        sync: Sync,
        acquisition: SeatAcquisition,
        ending: SessionEnd,
        runtime: Runtime,
        count: Callable[[Decision, Collection[str]], None],
    ) -> None:
        self._node = state.node
        self._journal = state.journal
        self._sessions = state.sessions
        self._outbox = state.outbox
        self._policy = state.policy
        self._unknown_domains = state.unknown_domains
        self._farm = farm
        self._availability = sync.availability
        self._heartbeat = sync.heartbeat
        self._recovery = sync.recovery
        self._acquisition = acquisition
        self.order = PoolOrder(state, farm)
        self._ending = ending
        self._clock = runtime.clock
        self._locks = runtime.locks
        self._tasks = runtime.tasks
        self._lifecycle = runtime.lifecycle
        self._count = count

    async def start_session(self, request: SessionRequest, only: User | None = None) -> Decision:
        """Decide whether a session may start; asking again for the same one gives the same answer.

        ``only``: the caller may act for this user alone; None: for anybody. With ``wait_ms`` this returns when there is
        a seat or the wait is over; ``end_session`` ends it before, and so does a caller who hangs up: then the place in
        the queue is given up. What was begun is carried out even if the caller goes away.
        """
        if request.device is not None:
            request = replace(request, device=self._farm.device(request.device))
        before = self._sessions.of_session(request.session) if request.wait_ms else ()  # asked about after a hang-up
        question = _Question(request, only, {each.pool: _fence(each) for each in before})
        try:
            decision = await self._until_decided(question)
        except asyncio.CancelledError:
            if request.wait_ms:
                self._tasks.run(f"hang up {request.session} {id(question)}", partial(self._hang_up, question))
            raise
        self._count(decision, {pool.name for pool in self._policy.in_force.pools})
        return decision

    async def known_policy(self) -> PolicyInForce:
        """Return the policy by which names are read; a node that knows none asks whether there is one by now."""
        if self._policy.in_force.policy is None:
            try:
                await self._policy.read_policy()
            except StoreError as error:
                self._availability.failed(error)
        return self._policy.in_force

    def deny_without_policy(self, pool: str | None) -> Denial:
        """Return the denial for whoever asks while no policy is known: then nobody knows who is who."""
        return self.deny_offline(pool, denial_text.NO_POLICY)

    def turned_away(self, request: SessionRequest, only: User | None) -> Denial | None:
        """Return the denial of a session that has another user's id, or comes to a node that takes no more; or None."""
        if self._sessions.is_anothers(request.session, only):
            return denial_text.denial(Reason.NOT_ENTITLED, request.pool)
        if self._takes_no_more(request.user):
            return denial_text.denial(Reason.DRAINING, request.pool)
        return None

    def deny_offline(self, pool: str | None, sentence: str = "") -> Denial:
        """Return the denial of a session that neither the store nor a receipt lets in."""
        retry_at = self._clock.now_ms() + self._policy.heartbeat_ms
        return denial_text.denial(Reason.OFFLINE, pool, retry_at=retry_at, sentence=sentence)

    async def _until_decided(self, question: _Question) -> Decision:
        """Ask, and ask again while the session waits for a seat."""
        request, since, longest = question.request, self._clock.monotonic(), question.request.wait_ms
        wait_ms = longest
        while True:
            answer = await self._tasks.finish(self._ask(question, wait_ms))
            if not isinstance(answer, _Queued):
                if isinstance(answer, Denial) and not wait_ms and longest < request.wait_ms:
                    return denial_text.wait_was_cut(answer, longest)
                return answer
            await self._clock.sleep(_ASK_AGAIN)
            question = self._read_anew(question)
            request = question.request
            found = self._sessions.find(request.session, answer.pool)
            # A caller that asked twice may have got the seat by the other question: this one is answered the same.
            if found is None or found.user != request.user or found.state not in _STANDING:
                return denial_text.wait_was_ended(answer.pool)
            pool = self._policy.in_force.pool(found.pool)
            longest = min(request.wait_ms, pool.queue_ms if pool else 0)
            over = self._clock.monotonic() - since >= longest / 1000
            wait_ms = 0 if over else request.wait_ms

    async def _ask(self, question: _Question, wait_ms: int) -> Decision | _Queued:
        """Ask once, under the session's lock; a store that is away denies."""
        async with self._locks.session(question.request.session):
            question, uses = await self._with_uses(question)
            request, only = replace(question.request, wait_ms=wait_ms), question.only
            if (turned_away := self.turned_away(request, only)) is not None:
                return turned_away
            try:
                await self._end(each for each in uses if each.user != request.user)
                answer = await self._decide(request, question, _by_pool(request, uses))
            except StoreError as error:
                self._availability.failed(error)
                return self.deny_offline(request.pool)
        if isinstance(answer, Denial) and self._outbox.pending(request.session):
            await self._heartbeat.deliver()
        return answer

    async def _with_uses(self, question: _Question) -> tuple[_Question, tuple[NodeSession, ...]]:
        """Return a question as it reads now, and the uses of its session.

        Before another user's uses are ended the policy is read: it may make the two one person.
        """
        question = self._read_anew(question)
        uses = self._sessions.of_session(question.request.session)
        if all(each.user == question.request.user for each in uses):
            return question, uses
        with suppress(StoreError, PolicyError):
            await self._policy.read_policy()
        question = self._read_anew(question)
        return question, self._sessions.of_session(question.request.session)

    def _read_anew(self, question: _Question) -> _Question:
        """Return a question whose persons are read by the policy as it is now: it may have changed since that came."""
        identity, request, only = self._policy.in_force.identity, question.request, question.only
        if self._sessions.identity is not identity:
            self._sessions.read_names(identity)
        with suppress(InvalidName):
            user = identity.user(request.user.canonical)
            only = None if only is None else identity.user(only.canonical)
            return replace(question, request=replace(request, user=user), only=only)
        return question

    def _takes_no_more(self, user: User) -> bool:
        """Whether the node takes no session of this user: it has stopped, or drains and the user has none here."""
        if self._lifecycle.phase is Phase.STOPPED:
            return True
        return self._journal.draining and not any(each.state.shown for each in self._sessions.of_user(user))

    async def _decide(
        self, request: SessionRequest, question: _Question, uses: Mapping[str, NodeSession]
    ) -> Decision | _Queued:
        """Plan, and ask pool after pool until one grants. ``uses``: what the session has or had, by pool."""
        for _ in range(_MOST_CHANGES):
            identity = self._policy.in_force.identity
            in_force, plan = await self._plan(request)
            if in_force.identity is not identity:  # the plan is for whom the former table made of the name
                question, request, uses = self._asked_anew(question, request)
                continue
            match plan:
                case RestrictedUse():
                    self._note(request, "restricted")
                    return Restricted(user=request.user, node=self._node, session=request.session)
                case Denied():
                    self._unknown_domains.meet(request.user)
                    if plan.reason is Reason.NOT_ENTITLED:  # a request for a pool that is not there is a mistake
                        self._note(request, "denied", plan.reason.value)
                    if plan.reason is Reason.OFFLINE:
                        return self.deny_offline(plan.pool, plan.sentence)
                    return denial_text.denial(plan.reason, plan.pool, sentence=plan.sentence)
                case TryPools():
                    answer = await self._try_pools(request, question, uses, in_force, plan.pools)
            if answer is not Behind.POLICY:
                return answer
            await self._policy.read_policy()
            question, request, uses = self._asked_anew(question, request)
        raise StoreRefused("the policy keeps changing; is somebody applying policies in a loop?")

    def _asked_anew(
        self, question: _Question, request: SessionRequest
    ) -> tuple[_Question, SessionRequest, Mapping[str, NodeSession]]:
        """Return a question, its request and its user's uses by the policy as it is now."""
        question = self._read_anew(question)
        request = replace(question.request, wait_ms=request.wait_ms)
        return question, request, _by_pool(request, self._sessions.of_session(request.session))

    async def _end(self, uses: Iterable[NodeSession]) -> None:
        """End uses, and have the store learn of it. StoreError if it cannot."""
        for use in uses:
            await self._ending.end(use)
            await self._deliver_end(*use.key)

    async def _deliver_end(self, session: str, pool: str) -> None:
        """Deliver what the store has yet to learn about a use. StoreError if it cannot be delivered."""
        if self._outbox.pending(session, pool):
            await self._recovery.deliver()
            if self._outbox.pending(session, pool):
                raise StoreRefused("the store does not take the end of a session that had this id before; see the log")

    async def _plan(self, request: SessionRequest) -> tuple[PolicyInForce, Plan]:
        """Plan by the policy as known; an answer that the store does not get to check, by the policy as it is now."""
        known = self._policy.in_force
        plan = known.policy.plan(request, self._node) if known.policy else None
        if isinstance(plan, TryPools):
            return known, plan
        try:
            now = await self._policy.read_policy()
        except StoreUnavailable as error:
            if plan is None:
                raise
            self._availability.failed(error)
            return known, plan
        if now.policy is None:
            return now, Denied(Reason.OFFLINE, request.pool, denial_text.NO_POLICY)
        return now, now.policy.plan(request, self._node)

    async def _try_pools(
        self,
        request: SessionRequest,
        question: _Question,
        uses: Mapping[str, NodeSession],
        in_force: PolicyInForce,
        pools: tuple[Pool, ...],
    ) -> Decision | _Queued | Literal[Behind.POLICY]:
        """Return the first grant, else the denial that helps most.

        A use that there is, is asked for alone. Only the last pool is waited for. A record that cannot be trusted is a
        denial, not a reason to go on to another pool.
        """
        standing = standing_pool(pools, uses)
        if standing is not None:
            pools = (standing,)
        elif len(pools) > 1:
            pools = await self.order.seated_first(request.user, pools)
        denials: list[Denial] = []
        for pool in pools:
            question.asked.add(pool.name)
            wait_ms = QUEUE_PLACE_MS if request.wait_ms and pool is pools[-1] else 0
            use = uses.get(pool.name)
            if not standing:  # what lost its seat, or has yet to end, ends first
                await self._end(filter(None, [use]))
                await self._deliver_end(request.session, pool.name)
            answer = await self._acquisition.ask(request, use if standing else None, in_force, pool, wait_ms)
            if standing and not isinstance(answer, Denial):
                self._join(request, pool)
            if isinstance(answer, Waiting):
                return _Queued(pool.name)
            if not isinstance(answer, Denial) or answer.reason is Reason.RECORD_REJECTED:
                return answer
            denials.append(answer)
        return denial_text.most_helpful(denials)

    def _join(self, request: SessionRequest, pool: Pool) -> None:
        """Have a use end with the process of a repeated request too."""
        use = self._sessions.find(request.session, pool.name)
        if use is not None and use.state in _STANDING:
            processes = joined(use.processes, request)
            if processes != use.processes:
                self._sessions.amend(use, processes=processes)

    def _note(self, request: SessionRequest, event: Literal["restricted", "denied"], detail: str = "") -> None:
        """Have a decision of the policy audited, as soon as the store can be reached."""
        claim = self._sessions.claim_of(request.user, request.session)
        if self._outbox.pending() < _MOST_NOTES:
            name = self._farm.sealer.seal_name(claim.user, request.user.canonical)
            self._outbox.add(NoteMessage(claim=claim, event=event, detail=detail, name=name))
            self._tasks.run("deliver", self._heartbeat.deliver)

    async def _hang_up(self, question: _Question) -> None:
        """End what a caller who has gone had asked for, unless it had its seat ``before``."""
        request = self._read_anew(question).request
        async with self._locks.session(request.session):
            uses = [each for each in self._sessions.of_session(request.session) if each.pool in question.asked]
        for each in uses:
            fence = _fence(each)
            if each.user == request.user and (fence is None or fence != question.before.get(each.pool)):
                await self._ending.end_session(request.session, request.user, each.pool)


def standing_pool(pools: Iterable[Pool], uses: Mapping[str, NodeSession]) -> Pool | None:
    """Return the first pool that the session uses already, or waits for: that one alone is asked for again."""
    return next((pool for pool in pools if pool.name in uses and uses[pool.name].state in _STANDING), None)


def _by_pool(request: SessionRequest, uses: Iterable[NodeSession]) -> dict[str, NodeSession]:
    """Return the uses of the requesting user by pool."""
    return {each.pool: each for each in uses if each.user == request.user}


def _fence(use: NodeSession) -> int | None:
    """Return the fence of a use's grant; None without one."""
    return None if use.grant is None else use.grant.fence
