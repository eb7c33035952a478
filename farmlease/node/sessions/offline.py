"""Admission while the store is away: by the node's own receipts, and by nothing else.

A receipt admits its user in the incarnation of the node in which the store granted it, and only once this node can
estimate the store's time. ``domain/offline_rules.py`` decides the rest.
"""

from farmlease.crypto.seal import Sealer
from farmlease.domain import offline_rules
from farmlease.domain.lease_document import LeaseDocument
from farmlease.domain.pool import Pool
from farmlease.domain.session_states import SessionState
from farmlease.node.journal.receipts import Receipt, Receipts
from farmlease.node.journal.sessions import NodeSession, SessionTable
from farmlease.node.journal.store_state import StoreState

__all__ = ["OfflineAdmission"]


class OfflineAdmission:
    """The admissions of one node while its store is away. ``denies``: the configuration allows none."""

    def __init__(
        self, *, receipts: Receipts, store_state: StoreState, sessions: SessionTable, sealer: Sealer, denies: bool
    ) -> None:
        self._receipts = receipts
        self._store_state = store_state
        self._sessions = sessions
        self._sealer = sealer
        self._denies = denies

    def receipt(self, session: NodeSession, pool: Pool) -> Receipt | None:
        """Return the receipt that lets a session in; None if there is none."""
        now = self._store_state.store_now(pool.name)
        if self._denies or not now or session.state is not SessionState.STARTING:
            return None
        receipt = self._receipts.find(self._sealer.user_index(session.user), pool.name)
        if receipt is None or not receipt.document or not self._receipts.is_of_this_life(receipt):
            return None
        of_user = self._sessions.of_user(session.user)
        admitted = offline_rules.admits(
            pool,
            receipt.lease,
            LeaseDocument.parse(receipt.document).named(self._sealer.farm),
            device=session.device,
            sessions=[each.device for each in of_user if each.pool == pool.name and each.state is SessionState.ACTIVE],
            now=now,
            node_counts=self._store_state.is_alive(pool.name),
        )
        return receipt if admitted else None
