"""What administrators do with nodes: list them, ask that one be drained, and check whether it is empty.

It reads what the nodes reported and records requests; a node carries out a request itself. This module must never
change anything on a node.
"""

from dataclasses import dataclass

from farmlease.domain.node_view import NodeView, near_names
from farmlease.errors import FarmleaseError, RecordRejected
from farmlease.farm import Farm

__all__ = ["NodeAdmin", "Occupancy"]


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What is left on a node. ``counted``: the sessions were counted in the store, because the node is silent."""

    view: NodeView
    sessions: int
    counted: bool

    @property
    def empty(self) -> bool:
        """Whether the node has no session, takes no new users, and has delivered everything to the store."""
        shut = self.counted or self.view.draining
        return shut and not self.sessions and not self.view.owed and not self.view.namesakes


class NodeAdmin:
    """The nodes of one farm, for an administrator."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    async def all(self) -> list[NodeView]:
        """Return every known node, by name."""
        return await self._farm.nodes.roster()

    async def one(self, name: str) -> NodeView:
        """Return a node; FarmleaseError with similar names if there is none of exactly this name."""
        views = await self.all()
        found = next((view for view in views if view.node == name), None)
        if found is None:
            raise _unknown(name, [view.node for view in views])
        return found

    async def drain(self, name: str, *, on: bool) -> NodeView:
        """Request that a node take no new users, or take them again, and return it; the audit records the request."""
        if not await self._farm.nodes.drain(name, on=on, by=self._farm.signature()):
            raise _unknown(name, [view.node for view in await self.all()])
        return await self.one(name)

    async def occupancy(self, name: str) -> Occupancy:
        """Return what is left on a node: as it reported, or as the store counts if the node is silent."""
        view = await self.one(name)
        if view.heard:
            return Occupancy(view, view.sessions, counted=False)
        pools = (await self._farm.policy()).pools
        return Occupancy(view, sum([await self._farm.nodes.guests(pool.name, name) for pool in pools]), counted=True)

    def requested_by(self, view: NodeView) -> str | None:
        """Return who requested a node's drain or undrain; None if there was no request or the name does not open."""
        try:
            return self._farm.sealer.unseal_author(view.wish.wisher) if view.wish.wisher else None
        except RecordRejected:
            return None


def _unknown(name: str, names: list[str]) -> FarmleaseError:
    near = near_names(name, names) or sorted(names)[:5]
    if not near:
        return FarmleaseError("no node has reported to this farm yet; start an agent with `farmlease agent`")
    return FarmleaseError(f"there is no node {name}; did you mean {' or '.join(near)}? see `farmlease node list`")
