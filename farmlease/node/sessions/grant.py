"""A session comes in: its user's record is opened, the files are put in place, and the grant is written down.

Guaranteed: the grant is in the journal before anybody hears it; where the record or a file is refused, the seat goes
back and the session is denied. Callers hold the session's turn.
"""

from dataclasses import replace
from typing import Any

import structlog

from farmlease.crypto.seal import Sealer
from farmlease.domain import denial_text
from farmlease.domain.model import Denial, Grant, Lease, Reason, Source
from farmlease.domain.policy import Pool
from farmlease.domain.session_states import SessionEvent, SessionState
from farmlease.errors import FarmleaseError, FileRefused, JournalFailed, PolicyError, RecordRejected
from farmlease.node.concurrency import KeyedLocks
from farmlease.node.files.record_sync import RecordSync
from farmlease.node.journal.receipts import Receipt, Receipts
from farmlease.node.journal.sessions import NodeSession, SessionTable
from farmlease.node.journal.store_state import StoreState
from farmlease.node.sessions.end import SessionEnd
from farmlease.node.sessions.hooks import Hook, Hooks
from farmlease.store.answers.session import Taken

__all__ = ["Granting"]

_log = structlog.get_logger(__name__)


class Granting:
    """The grants of one node."""

    def __init__(
        self,
        *,
        sealer: Sealer,
        node: str,
        sessions: SessionTable,
        records: RecordSync,
        receipts: Receipts,
        store_state: StoreState,
        ending: SessionEnd,
        locks: KeyedLocks,
        hooks: Hooks,
    ) -> None:
        self._sealer = sealer
        self._node = node
        self._sessions = sessions
        self._records = records
        self._receipts = receipts
        self._store_state = store_state
        self._ending = ending
        self._locks = locks
        self._hooks = hooks

    async def receive(self, session: NodeSession, pool: Pool, taken: Taken) -> Grant | Denial:
        """Open the record, put the files in place, write the grant down; where that fails the seat goes back."""
        self._store_state.see_fence(pool.name, taken.fence)
        if not (taken.again and session.grant is not None and session.grant.lease.id == taken.lease.id):
            name = self._sealer.seal_name(self._ending.claim(session).user, session.user.canonical)
            try:
                await self._ending.patiently(self._take_in(session, pool, self._receipts.granted(taken, name)))
            except (RecordRejected, FileRefused, PolicyError) as error:
                return await self._reject(session, pool, error)
        grant = self._grant(session, pool, taken.lease, taken.fence, overdraft=taken.overdraft)
        # To a session that has not heard of a grant it is a new one, though the store may have been asked twice.
        return replace(grant, again=taken.again and session.grant is not None)

    async def let_in(self, session: NodeSession, pool: Pool, receipt: Receipt) -> Grant | Denial:
        """Grant a session that starts by the node's own receipt."""
        known = self._store_state.known(pool.name)
        try:
            await self._ending.patiently(self._take_in(session, pool, receipt))
        except (RecordRejected, FileRefused, PolicyError) as error:
            return await self._reject(session, pool, error)
        return self._grant(session, pool, receipt.lease, max(known.fence, 1), source=Source.RECEIPT)

    async def _reject(self, session: NodeSession, pool: Pool, error: FarmleaseError) -> Denial:
        _log.error("session.record_rejected", session=session.id, pool=pool.name, why=str(error))
        await self._give_back(session)
        return denial_text.denial(Reason.RECORD_REJECTED, pool.name)

    def _grant(self, session: NodeSession, pool: Pool, lease: Lease, fence: int, **more: Any) -> Grant:  # noqa: ANN401 - fields of Grant
        """Write a grant down."""
        grant = Grant(
            user=session.user,
            pool=pool.name,
            kind=pool.kind,
            device=session.device,
            node=self._node,
            session=session.id,
            fence=fence,
            lease=lease,
            **more,
        )
        back = session.state is SessionState.INVALID
        event = SessionEvent.REACQUIRED if back else SessionEvent.GRANTED
        try:
            granted = self._sessions.step(session, event, grant=grant, lost_because=None)
        except JournalFailed:
            if session.state is not SessionState.ACTIVE or session.grant is None or session.grant.fence != fence:
                raise
            granted = session  # written down already, but for when the lease ends: a running session goes on
        if session.grant is None:
            self._hooks.tell(Hook.GRANTED, granted)
        _log.info("session.granted", session=session.id, pool=pool.name, fence=fence, source=grant.source.value)
        return grant

    async def _take_in(self, session: NodeSession, pool: Pool, receipt: Receipt) -> None:
        async with self._locks.user(session.user):
            place = not self._sessions.uses_files(session.user, pool.name)
            await self._records.receive(session.user, pool, receipt, place=place)

    async def _give_back(self, session: NodeSession) -> None:
        if session.state is SessionState.STARTING:
            self._ending.abandon(session)
        elif session.state is SessionState.INVALID:
            await self._ending.surrender(session, Reason.RECORD_REJECTED.value)
        else:
            # The seat may have been granted anew, with a fence that this session's own grant does not know.
            await self._ending.end(replace(session, grant=None))
