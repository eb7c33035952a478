"""A host that was renamed: what the store has of it under its former names goes on under the present one.

The journal knows under which names this life of the node was known. The store moves sessions, seats and notices in one
script, before it is told of anything under the present name: nobody takes a seat in between, and no end is delivered
to a name that the store does not know yet. A store that lost data may have the former names again, so it is asked in
each epoch.
"""

import structlog

from farmlease.node.journal.state import State
from farmlease.store.answers.session import Known
from farmlease.store.keys import node_member
from farmlease.store.node_store import NodeStore

__all__ = ["RenamedNode"]

_log = structlog.get_logger(__name__)


class RenamedNode:
    """The former names of one node; there are none unless its host was renamed since it was booted."""

    def __init__(self, state: State, nodes: NodeStore) -> None:
        self._node = state.node
        self._member = state.member
        self._former = state.journal.former
        self._members = tuple(node_member(name, state.journal.incarnation) for name in self._former)
        self._nodes = nodes
        #: Pool to the epoch in which that was done.
        self._done: dict[str, int] = {}

    async def take_over(self, pool: str, known: Known) -> None:
        """Have what a pool counts under a former name go on under the present one, unless that was done already."""
        if not self._members or self._done.get(pool) == known.epoch:
            return
        done = True
        for member in self._members:
            moved = await self._nodes.rename_node(pool, member, self._member, known)
            done = done and moved is not None
            if moved:
                _log.info("node.renamed", pool=pool, was=member.partition("#")[0], sessions=moved)
        if done and known.epoch:
            self._done[pool] = known.epoch

    def present(self, document: bytes) -> bytes:
        """Return a lease in the store's form with this node under its present name, whatever that was before."""
        for name, member in zip(self._former, self._members, strict=True):
            document = document.replace(member.encode(), self._member.encode())
            document = document.replace(f'"@{name}"'.encode(), f'"@{self._node}"'.encode())
        return document
