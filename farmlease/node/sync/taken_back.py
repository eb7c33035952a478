"""What was taken back stays so: this node hears of it, drops what it keeps of it, and tells a store that lost it.

An administrator takes a lease, a device or a name from a user, or a lease moves to another name: the store leaves a
tombstone, and each heartbeat says whether there are new ones. A receipt of what was taken admits nobody from then on
and restores nothing, and a session of a lease that was taken has lost its seat, whether or not the store counted it
then. A store that has lost tombstones gets them back before anything is restored; one that arrives after its lease was
restored ends it.
"""

from dataclasses import replace

import structlog

from farmlease.domain.session_states import SessionState
from farmlease.domain.tombstones import Graves
from farmlease.farm import Farm
from farmlease.node.journal.receipts import Receipt
from farmlease.node.journal.state import State
from farmlease.node.sync.events import SeatLost, SyncEvents
from farmlease.store.answers.session import Lost

__all__ = ["TakenBack"]

_log = structlog.get_logger(__name__)


class TakenBack:
    """What was taken back from the users of one node's pools."""

    def __init__(self, state: State, farm: Farm, events: SyncEvents) -> None:
        self._member = state.member
        self._sessions = state.sessions
        self._events = events
        self._tombstones = state.tombstones
        self._receipts = state.receipts
        self._store_state = state.store_state
        self._policy = state.policy
        self._names = state.names
        self._farm = farm

    async def follow(self, pool: str, number: int) -> bool:
        """Hear what was taken back since this node last heard, if the store's ``number`` says that there is more.

        True if sessions of this node have lost their seats by what is known.
        """
        known = self._tombstones.number(pool)
        if number != known:
            await self._hear(pool, known if known < number else 0)
        return self._tell_lost(pool)

    async def recover(self, pool: str, epoch: int) -> bool:
        """Have a store that this node did not know learn what it lost. False if the epoch ended meanwhile."""
        theirs, now = await self._hear(pool, 0), self._store_state.store_now(pool)
        for user, ours in self._tombstones.of_pool(pool).items():
            if theirs.get(user, Graves({})).lacks(ours, now):
                _log.warning("tombstones.put_back", pool=pool, user=user)
                if not await self._farm.tombstones.put_back(pool, self._member, epoch, user, ours):
                    return False
                await self._heed(pool, user, ours)
        self._tell_lost(pool)
        return True

    def _tell_lost(self, pool: str) -> bool:
        """Add an event for each session whose lease was taken since its grant; return whether there is one.

        The store tells the node of those that it counted, and of no other: it may have lost this one before. Each time
        all are looked at, as an agent that is killed forgets the event.
        """
        graves, found = self._tombstones.of_pool(pool), False
        for each in self._sessions:
            if each.pool != pool or each.state is not SessionState.ACTIVE or each.grant is None or each.is_uncounted:
                continue
            user, grant = each.claim.user, each.grant
            reason = graves[user].why_lost(grant.lease.id, grant.fence) if user in graves else None
            if reason is not None:
                self._events.add(SeatLost(pool, Lost(session=each.id, user=user, fence=grant.fence, reason=reason)))
                found = True
        return found

    async def _hear(self, pool: str, after: int) -> dict[str, Graves]:
        """Return what the store has after a number, heeded and remembered here.

        In this order: an agent that is killed in between hears of it again, and no receipt admits anybody meanwhile.
        """
        found = await self._farm.tombstones.since(pool, after)
        for user, graves in found.graves.items():
            await self._heed(pool, user, graves)
        self._tombstones.note(pool, found.graves, self._store_state.store_now(pool))
        self._tombstones.heard_until(pool, found.number)
        return found.graves

    async def _heed(self, pool: str, user: str, graves: Graves) -> None:
        """Drop from a receipt what was taken since it was given."""
        receipt = self._receipts.find(user, pool)
        if receipt is None:
            return
        grave = graves.of_lease(receipt.document) if receipt.document else None
        if grave is not None and grave.moved_to:
            name = await self._present_name(pool, user, receipt, grave.moved_to)
            self._receipts.move(user, grave.moved_to, pool, name, fence=grave.fence + 1)
            if self._receipts.find(user, pool) is not None:  # the other name has one of its own
                self._receipts.give_up(user, pool)
        elif grave is not None:
            _log.info("receipt.taken_back", pool=pool, user=user)
            self._receipts.give_up(user, pool)
        elif receipt.document:
            in_force = self._policy.in_force.pool(pool)
            left = graves.left_of(receipt.document, in_force.quarantine_ms if in_force else 0)
            if left != receipt.document:
                self._receipts.keep(user, pool, replace(receipt, document=left))
        self._forget_name(pool, user, graves)

    async def _present_name(self, pool: str, user: str, receipt: Receipt, index: str) -> bytes:
        """Return the name that a user has under another index today, sealed for that; empty if nobody knows it.

        The policy may not read the one as the other: then the store has it, and the former name is none of this index.
        """
        present, in_force = self._names.present(user, receipt.name), self._policy.in_force.pool(pool)
        if present is not None and self._farm.sealer.user_index(present) == index:
            return self._farm.sealer.seal_name(index, present.canonical)
        stored = None if in_force is None else await self._farm.leases.look_up(in_force, index)
        return b"" if stored is None else stored.name

    def _forget_name(self, pool: str, user: str, graves: Graves) -> None:
        """Leave out of a receipt a name that was erased; whose files these are is needed until they are gone."""
        receipt = self._receipts.find(user, pool)
        if receipt is not None and graves.takes_name(receipt.document):
            without = _nameless(receipt)
            if without != receipt:
                self._receipts.keep(user, pool, without)


def _nameless(receipt: Receipt) -> Receipt:
    return replace(receipt, name=b"", owner=receipt.owner if receipt.files else None)
