"""What a session start would be answered on this node, and why; nothing is taken, and nothing is written.

The steps are those of ``start``, and each decision is asked where a start asks for it: the policy plans, ``pool_order``
orders, ``offline`` admits, and the store runs acquire's own script. A session that waits is told its first place.
"""

from contextlib import suppress
from dataclasses import replace

from farmlease.domain import denial_text
from farmlease.domain.explanation import Explanation, GroupSource, How, Place, PoolExplanation, decided
from farmlease.domain.identity import User
from farmlease.domain.identity_reading import readings
from farmlease.domain.lease_document import LeaseDocument
from farmlease.domain.model import Decision, Denial, Grant, Reason, Restricted, SessionRequest, Source
from farmlease.domain.policy import Denied, PolicyInForce, Pool, RestrictedUse, TryPools
from farmlease.domain.pool import QUEUE_PLACE_MS
from farmlease.errors import InvalidName, PolicyError, RecordRejected, StoreError
from farmlease.farm import Farm
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State
from farmlease.node.sessions.offline import OfflineAdmission
from farmlease.node.sessions.start import SessionStart, standing_pool
from farmlease.node.sync.build import Sync
from farmlease.store.answers.explained import explained_pool, other_hosts
from farmlease.store.answers.session import Explained, Taking

__all__ = ["SessionExplanation"]


class SessionExplanation:
    """The explanations of one node's starts."""

    def __init__(self, state: State, farm: Farm, sync: Sync, start: SessionStart, offline: OfflineAdmission) -> None:
        self._node = state.node
        self._sessions = state.sessions
        self._store_state = state.store_state
        self._receipts = state.receipts
        self._names = state.names
        self._policy = state.policy
        self._farm = farm
        self._recovery = sync.recovery
        self._start = start
        self._offline = offline

    async def explain(self, request: SessionRequest, only: User | None, groups_from: GroupSource) -> Explanation:
        """Explain what ``start_session`` would answer to this request now. ``only``: as there."""
        if request.device is not None:
            request = replace(request, device=self._farm.device(request.device))
        in_force = await self._policy_now()
        with suppress(InvalidName):
            request = replace(request, user=in_force.identity.user(request.user.canonical))
        pools: tuple[PoolExplanation, ...] = ()
        turned_away = self._start.turned_away(request, only)
        answer: Decision | Place
        if turned_away is not None:
            answer = turned_away
        else:
            answer, pools = await self._planned(request, in_force)
        policy, identity = in_force.policy, in_force.identity
        text = policy.text if policy is not None and policy.has_identity else ""
        return Explanation(
            user=request.user,
            reading=readings(identity, request.given or request.user.canonical, text),
            groups=None if request.groups is None else tuple(sorted(identity.groups(request.groups))),
            groups_from=groups_from,
            node=self._node,
            ruling=None if policy is None else policy.ruling(request, self._node),
            pools=pools,
            answer=answer,
        )

    async def _policy_now(self) -> PolicyInForce:
        """Return the policy that a start would go by; this node goes on with the one that it knows."""
        known = self._policy.in_force
        with suppress(StoreError, RecordRejected, PolicyError):
            found = await self._farm.policy()
            return found if found.version >= known.version else known
        return known

    async def _planned(
        self, request: SessionRequest, in_force: PolicyInForce
    ) -> tuple[Decision | Place, tuple[PoolExplanation, ...]]:
        if in_force.policy is None:
            return self._start.deny_without_policy(request.pool), ()
        match in_force.policy.plan(request, self._node):
            case RestrictedUse():
                return Restricted(user=request.user, node=self._node, session=request.session), ()
            case Denied() as plan:
                return denial_text.denial(plan.reason, plan.pool, sentence=plan.sentence), ()
            case TryPools(pools=pools):
                uses = {use.pool: use for use in self._sessions.of_session(request.session) if use.user == request.user}
                standing = standing_pool(pools, uses)
                if standing is not None:
                    pools = (standing,)
                elif len(pools) > 1:
                    pools = await self._start.order.seated_first(request.user, pools)
                told = [
                    await self._pool(
                        request, pool, in_force, uses.get(pool.name) if standing else None, last=pool is pools[-1]
                    )
                    for pool in pools
                ]
                return decided(told), tuple(told)

    async def _pool(
        self, request: SessionRequest, pool: Pool, in_force: PolicyInForce, held: NodeSession | None, *, last: bool
    ) -> PoolExplanation:
        """Ask the store what this pool would answer; by the node's receipts if it is away."""
        if not pool.serves(self._node):
            return other_hosts(pool)
        device = request.device or self._farm.name
        former = self._names.indexes(request.user)[1:] if in_force.former_names else ()
        session = self._sessions.question(request, pool, device, former)
        wait_ms = QUEUE_PLACE_MS if request.wait_ms and last else 0
        reservations = session.reservations if held is None else held.reservations
        claim = session.claim if held is None else held.claim
        taking = Taking(
            device=device, lease_id="", record=b"", name=b"", reservations=reservations, wait_ms=wait_ms, former=former
        )  # fmt: skip
        known = self._store_state.known(pool.name)
        try:
            found = await self._farm.leases.explain(pool, in_force.version, claim, taking, known)
        except StoreError:
            return self._offline_answer(session, pool, held)
        if isinstance(found, Explained):
            opens = self._farm.opens(pool.name, found)
            return explained_pool(pool, request, found, node=self._node, device=device, opens=opens)
        return PoolExplanation(pool=pool, answer=await self._recovering(pool, held))

    async def _recovering(self, pool: Pool, held: NodeSession | None) -> Grant | Denial:
        """Return what a start is answered where the store is not the one that this node knew."""
        if held is not None and held.grant is not None:
            return replace(held.grant, again=True)
        retry_at = await self._recovery.until(pool.name)
        return denial_text.denial(Reason.RECOVERING, pool.name, retry_at=retry_at)

    def _offline_answer(self, session: NodeSession, pool: Pool, held: NodeSession | None) -> PoolExplanation:
        """Return what the node answers by itself while the store is away."""
        if held is not None and held.grant is not None:
            return PoolExplanation(pool=pool, answer=replace(held.grant, again=True), how=How.AGAIN)
        admission = self._offline.admission(session, pool) if held is None else None
        if admission is None:
            return PoolExplanation(pool=pool, answer=self._start.deny_offline(pool.name))
        session, receipt = admission
        grant = Grant(
            user=session.user, pool=pool.name, kind=pool.kind, device=session.device, node=self._node,
            session=session.id, fence=self._store_state.known(pool.name).fence, lease=receipt.lease,
            source=Source.RECEIPT,
        )  # fmt: skip
        lease = LeaseDocument.parse(receipt.document).named(self._farm.name)
        return PoolExplanation(
            pool=pool, answer=grant, how=How.RECEIPT, lease=lease, lease_until=receipt.lease.expires_at
        )
