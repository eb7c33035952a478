"""A host that was renamed: what the store has of it under its former names goes on under the present one.

The journal knows under which names this life of the node was known. The store moves sessions, seats and notices in one
script, before it is asked anything under the present name: nobody takes a seat in between. A store that lost data may
have the former names again, so it is asked in each epoch.
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

    async def take_over(self, pool: str, known: Known) -> None:
        """Have what a pool counts under a former name go on under the present one."""
        for member in self._members:
            moved = await self._nodes.rename_node(pool, member, self._member, known)
            if moved:
                _log.info("node.renamed", pool=pool, was=member.partition("#")[0], sessions=moved)

    def present(self, document: bytes) -> bytes:
        """Return a lease in the store's form with this node under its present name, whatever that was before."""
        for name, member in zip(self._former, self._members, strict=True):
            document = document.replace(member.encode(), self._member.encode())
            document = document.replace(f'"@{name}"'.encode(), f'"@{self._node}"'.encode())
        return document
