"""What a session start would be answered on any node, as far as the store knows: for whoever has no agent at hand.

Nothing is taken and nothing is written. What only a node knows is not told: its receipts, and the groups that its host
sees; those that are given count.
"""

import secrets
from dataclasses import replace

from farmlease.admin.nodes import NodeAdmin
from farmlease.domain import denial_text
from farmlease.domain.explanation import Explanation, GroupSource, Place, PoolExplanation, decided
from farmlease.domain.identity_reading import readings
from farmlease.domain.model import Decision, Kind, Reason, Restricted, SessionRequest
from farmlease.domain.node_view import NodeView
from farmlease.domain.policy import Denied, PolicyInForce, Pool, RestrictedUse, TryPools
from farmlease.domain.spellings import other_spellings
from farmlease.farm import Farm
from farmlease.store.answers.explained import explained_pool, other_hosts
from farmlease.store.answers.session import Claim, Explained, Taking

__all__ = ["FarmExplanation"]


class FarmExplanation:
    """The explanations of starts on the nodes of one farm, for an administrator."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    async def explain(self, request: SessionRequest, in_force: PolicyInForce, node: str) -> Explanation:
        """Explain what a start on ``node`` would be answered now; FarmleaseError if the farm knows no such node."""
        view = await NodeAdmin(self._farm).one(node)
        if request.device is not None:
            request = replace(request, device=self._farm.device(request.device))
        answer, pools = await self._planned(request, in_force, view)
        here = any(member.startswith(f"{node}#") for each in pools if each.lease for member in each.lease.sessions)
        if view.draining and not here:
            answer = denial_text.denial(Reason.DRAINING, request.pool)
        policy, identity = in_force.policy, in_force.identity
        text = policy.text if policy is not None and policy.has_identity else ""
        return Explanation(
            user=request.user,
            reading=readings(identity, request.given or request.user.canonical, text),
            groups=tuple(sorted(identity.groups(request.groups or ()))) if in_force.reads_groups else None,
            groups_from=GroupSource.GIVEN if in_force.reads_groups else GroupSource.NOT_ASKED,
            node=node,
            ruling=None if policy is None else policy.ruling(request, node),
            pools=pools,
            answer=answer,
        )

    async def _planned(
        self, request: SessionRequest, in_force: PolicyInForce, view: NodeView
    ) -> tuple[Decision | Place, tuple[PoolExplanation, ...]]:
        if in_force.policy is None:
            return denial_text.denial(Reason.OFFLINE, request.pool, sentence=denial_text.NO_POLICY), ()
        match in_force.policy.plan(request, view.node):
            case RestrictedUse():
                return Restricted(user=request.user, node=view.node, session=request.session), ()
            case Denied() as plan:
                return denial_text.denial(plan.reason, plan.pool, sentence=plan.sentence), ()
            case TryPools(pools=pools):
                told = [await self._pool(request, pool, in_force, view) for pool in pools]
                # A pool in which the user has a named seat goes first, as in a start.
                told.sort(key=lambda each: each.lease is None or each.pool.kind is not Kind.NAMED)
                return decided(told), tuple(told)

    async def _pool(
        self, request: SessionRequest, pool: Pool, in_force: PolicyInForce, view: NodeView
    ) -> PoolExplanation:
        if not pool.serves(view.node):
            return other_hosts(pool)
        sealer, device = self._farm.sealer, request.device or self._farm.name
        index = sealer.user_index(request.user)
        former = other_spellings(in_force.identity, request.user) if in_force.former_names else ()
        claim = Claim(user=index, node=f"{view.node}#{view.incarnation}", session=request.session)
        taking = Taking(
            device=device, lease_id=secrets.token_urlsafe(12), record=b"", name=b"",
            reservations=pool.reservations(request, view.node), former=tuple(map(sealer.user_index, former)),
        )  # fmt: skip
        found = await self._farm.leases.explain(pool, in_force.version, claim, taking)
        if not isinstance(found, Explained):
            return PoolExplanation(pool=pool, answer=denial_text.denial(Reason.RECOVERING, pool.name))
        opens = self._farm.opens(pool.name, found)
        return explained_pool(pool, request, found, node=view.node, device=device, opens=opens)
