"""Who gets in, and by which pool: a start, step by step.

Guaranteed: what had the session's id before is ended, and the store has heard so, before anything is asked in its name;
and an answer that the store does not get to check is given by the policy as it is now, if the store can be asked.
Callers hold the session's turn.
"""

from typing import Literal

from farmlease.domain import denial_text
from farmlease.domain.model import Decision, Denial, Reason, Restricted, SessionRequest
from farmlease.domain.policy import Denied, Plan, Pool, RestrictedUse, TryPools
from farmlease.domain.pool import QUEUE_PLACE_MS
from farmlease.domain.session_states import SessionState
from farmlease.errors import StoreRefused, StoreUnavailable
from farmlease.farm import Farm, PolicyInForce
from farmlease.node.concurrency import BackgroundTasks
from farmlease.node.journal.policy_cache import PolicyCache
from farmlease.node.journal.sessions import NodeSession, SessionTable
from farmlease.node.sessions.acquire import SeatAcquisition
from farmlease.node.sessions.end import SessionEnd
from farmlease.node.sync.heartbeat import Heartbeat
from farmlease.node.sync.outbox_delivery import NoteMessage, Outbox
from farmlease.store.answers.session import Waiting

__all__ = ["SessionStart"]

#: How often a start may find that the policy changed under it before it gives up.
_MOST_CHANGES = 5
#: Beyond so many undelivered messages, decisions of the policy are no longer noted: an audit is not worth a full disk.
_MOST_NOTES = 10_000


class SessionStart:
    """The starts of one node's sessions."""

    def __init__(
        self,
        *,
        farm: Farm,
        node: str,
        policy: PolicyCache,
        sessions: SessionTable,
        outbox: Outbox,
        ending: SessionEnd,
        acquisition: SeatAcquisition,
        tasks: BackgroundTasks,
        heartbeat: Heartbeat,
    ) -> None:
        self._farm = farm
        self._node = node
        self._policy = policy
        self._sessions = sessions
        self._outbox = outbox
        self._ending = ending
        self._acquisition = acquisition
        self._tasks = tasks
        self._heartbeat = heartbeat

    async def start(self, request: SessionRequest) -> Decision | Waiting:
        """1. End what had this session id before. 2. Plan. 3. Ask pool after pool until one grants."""
        held = await self._end_predecessor(request)
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
                    if plan.reason is Reason.NOT_ENTITLED:  # who asks for a pool that is not there asked wrongly
                        self._note(request, "denied", plan.reason.value)
                    return denial_text.denial(plan.reason, plan.pool)
                case TryPools():
                    decision = await self._try_pools(request, held, in_force, plan.pools)
            if decision is not None:
                return decision
            await self._policy.read_policy()
        raise StoreRefused("the policy keeps changing; is somebody applying policies in a loop?")

    async def _end_predecessor(self, request: SessionRequest) -> NodeSession | None:
        """Hosts reuse session ids: what had this one before is ended first. Return the session if it is the same."""
        held = self._sessions.find(request.session)
        if held is None:
            await self._pay(request.session)
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
        await self._pay(held.id)

    async def _pay(self, session: str) -> None:
        """Tell the store what it is owed about a session id before it is asked for a seat. StoreError if it cannot."""
        if self._outbox.pending(session):
            await self._outbox.deliver()
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
            self._policy.store_failed(error)
            return known, plan
        return now, now.policy.plan(request, self._node) if now.policy else Denied(Reason.UNKNOWN_POOL, request.pool)

    async def _try_pools(
        self, request: SessionRequest, held: NodeSession | None, in_force: PolicyInForce, pools: tuple[Pool, ...]
    ) -> Decision | Waiting | None:
        """Return the first grant, else the denial that ends first; None to plan anew.

        Only the last pool is waited for. A held seat or place is asked for alone. A record that cannot be trusted is
        told, not gone round by way of another pool.
        """
        denials: list[Denial] = []
        for pool in pools:
            if held is not None and held.pool != pool.name:
                continue
            wait_ms = QUEUE_PLACE_MS if request.wait_ms and (held is not None or pool is pools[-1]) else 0
            decision = await self._acquisition.ask(request, held, in_force, pool, wait_ms)
            if not isinstance(decision, Denial) or decision.reason is Reason.RECORD_REJECTED:
                return decision
            denials.append(decision)
        return min(denials, key=lambda denial: (denial.retry_at is None, denial.retry_at))

    def _note(self, request: SessionRequest, event: Literal["restricted", "denied"], detail: str = "") -> None:
        """Have a decision of the policy audited, as soon as the store can be told."""
        claim = self._ending.claim_of(request.user, request.session)
        if self._outbox.pending() < _MOST_NOTES:
            name = self._farm.sealer.seal_name(claim.user, request.user.canonical)
            self._outbox.owe(NoteMessage(claim=claim, event=event, detail=detail, name=name))
            self._tasks.run("deliver", self._heartbeat.deliver)


def _covers(plan: Plan, pool: str) -> bool:
    """Whether a plan lets a session keep its seat of this pool."""
    return isinstance(plan, TryPools) and any(each.name == pool for each in plan.pools)
