"""Admission while the store is away: by the node's own receipts, and by nothing else.

A receipt admits its user in the incarnation of the node in which the store granted it, and only once this node can
estimate the store's time. ``domain/offline_rules.py`` decides the rest.
"""

from dataclasses import replace

from farmlease.domain import offline_rules
from farmlease.domain.lease_document import LeaseDocument
from farmlease.domain.pool import Pool
from farmlease.domain.session_states import SessionState
from farmlease.node.journal.receipts import Receipt, Receipts
from farmlease.node.journal.sessions import NodeSession, SessionTable
from farmlease.node.journal.store_state import StoreState
from farmlease.node.journal.user_names import UserNames

__all__ = ["OfflineAdmission"]


class OfflineAdmission:
    """The admissions of one node while its store is away. ``denies``: the configuration allows none."""

    def __init__(
        self,
        *,
        receipts: Receipts,
        store_state: StoreState,
        sessions: SessionTable,
        names: UserNames,
        farm: str,
        denies: bool,
    ) -> None:
        self._receipts = receipts
        self._store_state = store_state
        self._sessions = sessions
        self._names = names
        self._farm = farm
        self._denies = denies

    def admission(self, session: NodeSession, pool: Pool) -> tuple[NodeSession, Receipt] | None:
        """Return the receipt that lets a session in, and the session under the index of the receipt's lease.

        None if there is none, neither under the user's present name nor under a former one.
        """
        receipt = self._receipt(session, pool)
        if receipt is not None:
            return session, receipt
        for index in self._names.indexes(session.user)[1:]:
            other = replace(session, index=index, claim=replace(session.claim, user=index))
            receipt = self._receipt(other, pool)
            if receipt is not None:
                return other, receipt
        return None

    def _receipt(self, session: NodeSession, pool: Pool) -> Receipt | None:
        """Return the receipt under a session's own index that lets it in."""
        now = self._store_state.store_now(pool.name)
        if self._denies or not now or session.state is not SessionState.STARTING:
            return None
        receipt = self._receipts.find(session.claim.user, pool.name)
        if receipt is None or not receipt.document or not self._receipts.is_of_this_life(receipt):
            return None
        of_user = self._sessions.of_user(session.user)
        admitted = offline_rules.admits(
            pool,
            receipt.lease,
            LeaseDocument.parse(receipt.document).named(self._farm),
            device=session.device,
            sessions=[each.device for each in of_user if each.pool == pool.name and each.state is SessionState.ACTIVE],
            now=now,
            node_counts=self._store_state.is_alive(pool.name),
        )
        return receipt if admitted else None
