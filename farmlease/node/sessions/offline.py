"""Who may start a session while the store is away: whoever holds a lease by this node's own word, and nobody else.

A receipt lets in its user, on a device that the lease is on, in the life of the node in which the store granted it, and
until its lease ends by the store's time as counted here. A seat that is held only by sessions is still held only while
one of them lives here, and the store has not given this node up.
"""

import json

from farmlease.crypto.seal import Sealer
from farmlease.domain.model import Kind, Share
from farmlease.domain.pool import Pool
from farmlease.domain.session_states import SessionState
from farmlease.node.journal.receipts import Receipt, Receipts
from farmlease.node.journal.sessions import NodeSession, SessionTable
from farmlease.node.journal.store_state import StoreState

__all__ = ["OfflineAdmission"]


class OfflineAdmission:
    """The admissions of one node without its store. ``denies``: there are none."""

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
        here = [each for each in of_user if each.pool == session.pool and each.state is SessionState.ACTIVE]
        if pool.sessions_per_user and len(here) >= pool.sessions_per_user:
            return None
        device = dict(json.loads(receipt.document)["devices"]).get(session.device)
        if device is None:
            return None
        if pool.kind is Kind.NAMED:
            return receipt if now < receipt.lease.expires_at else None
        shared = any(pool.share is Share.USER or each.device == session.device for each in here)
        covered = shared and (pool.kind is Kind.NODE_LOCKED or pool.share is not Share.SESSION)
        return receipt if covered and self._store_state.is_alive(pool.name) else None
