"""A grant: the user's record is opened, the files are put in place, and the grant is written into the journal.

Guaranteed: the grant is in the journal before it is answered; where the record or a file is refused, the seat goes back
and the session is denied. Callers hold the session's lock.
"""

from dataclasses import replace
from typing import Any

import structlog

from farmlease.crypto.seal import Sealer
from farmlease.domain import denial_text
from farmlease.domain.lease_document import LeaseDocument
from farmlease.domain.model import Denial, Grant, Lease, LossReason, Reason, Source
from farmlease.domain.policy import Pool
from farmlease.domain.session_states import SessionEvent, SessionState
from farmlease.errors import FarmleaseError, FileRefused, JournalFailed, PolicyError, RecordRejected
from farmlease.node.journal.receipts import Receipt
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State
from farmlease.node.sessions.end import SessionEnd
from farmlease.node.sessions.hooks import Hook, Hooks
from farmlease.node.sessions.session_files import SessionFiles
from farmlease.store.answers.session import Taken

__all__ = ["Granting"]

_log = structlog.get_logger(__name__)


class Granting:
    """The grants of one node."""

    def __init__(self, state: State, sealer: Sealer, files: SessionFiles, ending: SessionEnd, hooks: Hooks) -> None:
        self._node = state.node
        self._sessions = state.sessions
        self._receipts = state.receipts
        self._store_state = state.store_state
        self._sealer = sealer
        self._files = files
        self._ending = ending
        self._hooks = hooks

    async def by_store(self, session: NodeSession, pool: Pool, taken: Taken) -> Grant | Denial:
        """Grant a session the seat that it has taken in the store."""
        self._store_state.see_fence(pool.name, taken.fence)
        known = taken.again and session.grant is not None and session.grant.lease.id == taken.lease.id
        if taken.moved or not known:
            name = self._sealer.seal_name(session.claim.user, session.user.canonical)
            try:
                alone = bool(pool.files) and not LeaseDocument.parse(taken.document).nodes - {self._node}
                await self._files.place(session, pool, self._receipts.granted(taken, name), alone=alone)
            except (RecordRejected, FileRefused, PolicyError) as error:
                if isinstance(error, RecordRejected) or not taken.moved:
                    return await self._reject(session, pool, error)
                # A use that moved has its files here already, and goes on with them.
                _log.error("file.refused", session=session.id, pool=pool.name, why=str(error))
        grant = self._write(session, pool, taken.lease, taken.fence, overdraft=taken.overdraft)
        # A session that has not been answered yet is granted anew, though the store may have been asked twice.
        return replace(grant, again=taken.again and session.grant is not None)

    async def by_receipt(self, session: NodeSession, pool: Pool, receipt: Receipt) -> Grant | Denial:
        """Grant a session by the node's own receipt, while the store is away."""
        known = self._store_state.known(pool.name)
        try:
            await self._files.place(session, pool, receipt, alone=False)  # nobody knows who runs elsewhere
        except (RecordRejected, FileRefused, PolicyError) as error:
            return await self._reject(session, pool, error)
        return self._write(session, pool, receipt.lease, max(known.fence, 1), source=Source.RECEIPT)

    async def _reject(self, session: NodeSession, pool: Pool, error: FarmleaseError) -> Denial:
        _log.error("session.record_rejected", session=session.id, pool=pool.name, why=str(error))
        await self._give_back(session)
        # Only a record that does not open cannot be trusted; else the user is told what is in the way of the file.
        if isinstance(error, RecordRejected):
            return denial_text.denial(Reason.RECORD_REJECTED, pool.name)
        return denial_text.no_place(pool.name, str(error))

    def _write(self, session: NodeSession, pool: Pool, lease: Lease, fence: int, **more: Any) -> Grant:  # noqa: ANN401 - fields of Grant
        """Write a grant into the journal."""
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
        hold_until = session.hold_until if session.grant is None or session.grant.fence == fence else None
        event = SessionEvent.REACQUIRED if back else SessionEvent.GRANTED
        try:
            granted = self._sessions.step(session, event, grant=grant, lost_because=None, hold_until=hold_until)
        except JournalFailed:
            if session.state is not SessionState.ACTIVE or session.grant is None or session.grant.fence != fence:
                raise
            granted = session  # written already, but for when the lease ends: a running session goes on
        if session.grant is None:
            self._hooks.run(Hook.GRANTED, granted)
        _log.info("session.granted", session=session.id, pool=pool.name, fence=fence, source=grant.source.value)
        return grant

    async def _give_back(self, session: NodeSession) -> None:
        if session.state is SessionState.STARTING:
            self._ending.abandon(session)
        elif session.state is SessionState.INVALID:
            await self._ending.surrender(session, LossReason.RECORD_REJECTED)
        else:
            # The seat may have been granted anew, with a fence that this session's own grant does not know.
            await self._ending.end(replace(session, grant=None))
