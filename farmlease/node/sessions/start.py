"""The start of a session, step by step: who gets in, and by which pool.

1. The session id's lock is taken: calls about one session never interleave.
2. What had the id before is ended, and the store has learned of it.
3. The policy plans: which pools to try in which order, use without a licence, or none.
4. Pool after pool is asked (``acquire``) until one grants (``grant``), or lets the session wait.
5. A session that waits asks again each second until it has a seat, its wait is over, or its caller hangs up.

Guaranteed: nothing is asked in the name of a session whose id another one still owes the store an end for; and an
answer that the store does not get to check is given by the policy as it is now, if the store can be asked.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Literal

from farmlease.domain import denial_text
from farmlease.domain.identity import User
from farmlease.domain.model import Decision, Denial, Reason, Restricted, SessionRequest
from farmlease.domain.policy import Denied, Plan, PolicyInForce, Pool, RestrictedUse, TryPools
from farmlease.domain.pool import QUEUE_PLACE_MS
from farmlease.domain.session_states import SessionState
from farmlease.errors import StoreError, StoreRefused, StoreUnavailable
from farmlease.farm import Farm
from farmlease.node.concurrency import Phase, Runtime
from farmlease.node.journal.outbox import NoteMessage
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State
from farmlease.node.sessions.acquire import Answer, SeatAcquisition
from farmlease.node.sessions.end import SessionEnd
from farmlease.node.sync.build import Sync
from farmlease.store.answers.session import Behind, Waiting

__all__ = ["SessionStart"]

#: Seconds between two questions of a session that waits for a seat.
_ASK_AGAIN = 1.0
#: How often a start may find that the policy changed under it before it gives up.
_MOST_CHANGES = 5
#: Beyond so many undelivered messages, decisions of the policy are no longer noted: an audit is not worth a full disk.
_MOST_NOTES = 10_000

_WAITED_FOR = frozenset({SessionState.WAITING, SessionState.ACTIVE})


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
        self._unknown_domains.meet(request.user)
        before = self._sessions.find(request.session) if request.wait_ms else None
        try:
            decision = await self._until_decided(request, only)
        except asyncio.CancelledError:
            if request.wait_ms:
                self._tasks.run(f"hang up {request.session}", partial(self._hang_up, request, before))
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
        return self._deny_offline(pool, denial_text.NO_POLICY)

    def _deny_offline(self, pool: str | None, sentence: str = "") -> Denial:
        retry_at = self._clock.now_ms() + self._policy.heartbeat_ms
        return denial_text.denial(Reason.OFFLINE, pool, retry_at=retry_at, sentence=sentence)

    async def _until_decided(self, request: SessionRequest, only: User | None) -> Decision:
        """Ask, and ask again while the session waits for a seat."""
        since, asked = self._clock.monotonic(), request
        while True:
            answer = await self._tasks.finish(self._ask(asked, only))
            if not isinstance(answer, Waiting):
                return answer
            await self._clock.sleep(_ASK_AGAIN)
            found = self._sessions.find(request.session)
            # A caller that asked twice may have got the seat by the other question: this one is answered the same.
            if found is None or found.user != request.user or found.state not in _WAITED_FOR:
                return denial_text.denial(Reason.CAPACITY, found.pool if found else request.pool)
            pool = self._policy.in_force.pool(found.pool)
            over = self._clock.monotonic() - since >= min(request.wait_ms, pool.queue_ms if pool else 0) / 1000
            asked = replace(request, wait_ms=0) if over else request

    async def _ask(self, request: SessionRequest, only: User | None) -> Decision | Waiting:
        """Ask once, under the session's lock; a store that is away denies."""
        async with self._locks.session(request.session):
            held = self._sessions.find(request.session)
            if held is not None and held.state is not SessionState.ENDING and only not in {None, held.user}:
                return denial_text.denial(Reason.NOT_ENTITLED, request.pool)
            if self._takes_no_more(request.user):
                return denial_text.denial(Reason.DRAINING, request.pool)
            try:
                answer = await self._decide(request, held)
            except StoreError as error:
                self._availability.failed(error)
                return self._deny_offline(request.pool)
        if isinstance(answer, Denial) and self._outbox.pending(request.session):
            await self._heartbeat.deliver()
        return answer

    def _takes_no_more(self, user: User) -> bool:
        """Whether the node takes no session of this user: it has stopped, or drains and the user has none here."""
        if self._lifecycle.phase is Phase.STOPPED:
            return True
        return self._journal.draining and not any(each.state.shown for each in self._sessions.of_user(user))

    async def _decide(self, request: SessionRequest, held: NodeSession | None) -> Decision | Waiting:
        """End what had this session id before, plan, and ask pool after pool until one grants."""
        held = await self._end_predecessor(request, held)
        for _ in range(_MOST_CHANGES):
            in_force, plan = await self._plan(request)
            if held is not None and not _covers(plan, held.pool):
                await self._end_first(held)
                held = None
            match plan:
                case RestrictedUse():
                    self._note(request, "restricted")
                    return Restricted(user=request.user, node=self._node, session=request.session)
                case Denied():
                    if plan.reason is Reason.NOT_ENTITLED:  # a request for a pool that is not there is a mistake
                        self._note(request, "denied", plan.reason.value)
                    if plan.reason is Reason.OFFLINE:
                        return self._deny_offline(plan.pool, plan.sentence)
                    return denial_text.denial(plan.reason, plan.pool, sentence=plan.sentence)
                case TryPools():
                    answer = await self._try_pools(request, held, in_force, plan.pools)
            if answer is not Behind.POLICY:
                return answer
            await self._policy.read_policy()
        raise StoreRefused("the policy keeps changing; is somebody applying policies in a loop?")

    async def _end_predecessor(self, request: SessionRequest, held: NodeSession | None) -> NodeSession | None:
        """Hosts reuse session ids: end what had this one before. Return the session if it is the same."""
        if held is None:
            await self._deliver_end(request.session)
            return None
        device = request.device or self._farm.name
        if (
            held.state in {SessionState.ACTIVE, SessionState.WAITING}
            and (held.user, held.device) == (request.user, device)
            and request.pool in {None, held.pool}
        ):
            return held
        await self._end_first(held)
        return None

    async def _end_first(self, held: NodeSession) -> None:
        await self._ending.end(held)
        await self._deliver_end(held.id)

    async def _deliver_end(self, session: str) -> None:
        """Deliver what the store has yet to learn about a session id. StoreError if it cannot be delivered."""
        if self._outbox.pending(session):
            await self._recovery.deliver()
            if self._outbox.pending(session):
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
        self, request: SessionRequest, held: NodeSession | None, in_force: PolicyInForce, pools: tuple[Pool, ...]
    ) -> Answer:
        """Return the first grant, else the denial that ends first.

        Only the last pool is waited for. A held seat or place is asked for alone. A record that cannot be trusted is a
        denial, not a reason to go on to another pool.
        """
        denials: list[Denial] = []
        for pool in pools:
            if held is not None and held.pool != pool.name:
                continue
            wait_ms = QUEUE_PLACE_MS if request.wait_ms and (held is not None or pool is pools[-1]) else 0
            answer = await self._acquisition.ask(request, held, in_force, pool, wait_ms)
            if not isinstance(answer, Denial) or answer.reason is Reason.RECORD_REJECTED:
                return answer
            denials.append(answer)
        return min(denials, key=lambda denial: (denial.retry_at is None, denial.retry_at))

    def _note(self, request: SessionRequest, event: Literal["restricted", "denied"], detail: str = "") -> None:
        """Have a decision of the policy audited, as soon as the store can be reached."""
        claim = self._sessions.claim_of(request.user, request.session)
        if self._outbox.pending() < _MOST_NOTES:
            name = self._farm.sealer.seal_name(claim.user, request.user.canonical)
            self._outbox.add(NoteMessage(claim=claim, event=event, detail=detail, name=name))
            self._tasks.run("deliver", self._heartbeat.deliver)

    async def _hang_up(self, request: SessionRequest, before: NodeSession | None) -> None:
        """End a session whose caller has gone, unless it had its seat ``before`` it was asked for again."""
        async with self._locks.session(request.session):
            found = self._sessions.find(request.session)
        had = before.grant.fence if before is not None and before.grant is not None else None
        if found is not None and (found.grant is None or found.grant.fence != had):
            await self._ending.end_session(request.session, request.user)


def _covers(plan: Plan, pool: str) -> bool:
    """Whether a plan lets a session keep its seat of this pool."""
    return isinstance(plan, TryPools) and any(each.name == pool for each in plan.pools)
