"""The nodes of a farm in an administrator's hands: who is there, who is to drain, and whether a node is empty.

It reads what the nodes say and leaves wishes; what a node does about one is the node's own business.
"""

from dataclasses import dataclass

from farmlease.domain.node_view import NodeView, near_names
from farmlease.errors import FarmleaseError, RecordRejected
from farmlease.farm import Farm

__all__ = ["Occupancy", "Roster"]


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What keeps a node from being taken away. ``counted``: by the store, as the node is not heard of any more."""

    view: NodeView
    sessions: int
    counted: bool

    @property
    def empty(self) -> bool:
        """Whether nobody is on it, nobody new can come, and it has nothing that only it knows."""
        shut = self.counted or self.view.draining
        return shut and not self.sessions and not self.view.owed and not self.view.namesakes


class Roster:
    """The nodes of one farm, seen by somebody who holds its keys."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm

    async def all(self) -> list[NodeView]:
        """Every node that is known, by name."""
        return await self._farm.nodes.roster()

    async def one(self, name: str) -> NodeView:
        """Return a node; FarmleaseError naming near ones if there is none of exactly this name."""
        views = await self.all()
        found = next((view for view in views if view.node == name), None)
        if found is None:
            raise _unknown(name, [view.node for view in views])
        return found

    async def drain(self, name: str, *, on: bool) -> NodeView:
        """Wish that a node take no new users, or takes them again, and return it; the audit says who wished it."""
        if not await self._farm.nodes.drain(name, on=on, by=self._farm.signature()):
            raise _unknown(name, [view.node for view in await self.all()])
        return await self.one(name)

    async def occupancy(self, name: str) -> Occupancy:
        """Return what is left on a node: by its own word, or by the store's count if it is not heard of."""
        view = await self.one(name)
        if view.heard:
            return Occupancy(view, view.sessions, counted=False)
        pools = (await self._farm.policy()).pools
        return Occupancy(view, sum([await self._farm.nodes.guests(pool.name, name) for pool in pools]), counted=True)

    def wished_by(self, view: NodeView) -> str | None:
        """Return who made the wish of a node, in their words; None if nobody did or the words do not open."""
        try:
            return self._farm.sealer.unseal_author(view.wish.wisher) if view.wish.wisher else None
        except RecordRejected:
            return None


def _unknown(name: str, names: list[str]) -> FarmleaseError:
    near = near_names(name, names) or sorted(names)[:5]
    if not near:
        return FarmleaseError("no node has reported to this farm yet; start an agent with `farmlease agent`")
    return FarmleaseError(f"there is no node {name}; did you mean {' or '.join(near)}? see `farmlease node list`")
