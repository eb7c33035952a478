"""After the store lost its data, or another server took over: what this node has is counted again, before new sessions.

1. This node sends the store the epoch it knew. The store begins a new epoch if there is reason to, and admits nothing
   new until every node known before has restored, or the recovery window is over.
2. What was taken back, and the store has lost that it was, is taken again (``taken_back.py``).
3. Every lease this node keeps a receipt of, and every session that lives here, is restored: after a random moment, so
   that a farm does not come all at once, and no faster than some hundreds a second.
4. What does not fit is asked for again while the window lasts: a node that has not restored yet may make room. A
   session that then has no seat is lost.
5. What the store counts for this node and the node does not have is given back.

Until that is done the node keeps the epoch it knew, so that none of its calls is carried out by a store that does not
have its leases yet.
"""

import random
from contextlib import suppress
from dataclasses import replace
from enum import Enum

import structlog

from farmlease.domain.lease_document import LeaseDocument
from farmlease.domain.model import LossReason, Source
from farmlease.domain.pool import Pool
from farmlease.domain.session_states import SessionState
from farmlease.errors import StoreError
from farmlease.farm import Farm
from farmlease.node.concurrency import Runtime
from farmlease.node.journal.outbox import ANY_FENCE, ReleaseMessage
from farmlease.node.journal.receipts import Receipt
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.journal.state import State
from farmlease.node.sync.availability import StoreAvailability
from farmlease.node.sync.events import SeatLost, SyncEvents
from farmlease.node.sync.outbox_delivery import OutboxDelivery
from farmlease.node.sync.taken_back import TakenBack
from farmlease.store.answers.recovery import Recovering, Restoring
from farmlease.store.answers.session import Behind, Claim, Known, Lost
from farmlease.store.keys import node_member

__all__ = ["Recovery"]

_log = structlog.get_logger(__name__)

#: Leases that one node restores in a second, at most: a farm of a hundred nodes must not drown the store.
RATE = 500
_BATCH = 25
#: Longest random wait before a node begins, in seconds; never more than a fifth of the window.
JITTER = 3.0
#: Milliseconds after which to ask again where the window is over already, and only this node is not ready yet.
_SOON_MS = 2_000
#: Seconds between two attempts to restore what found no seat.
_AGAIN = 0.5

#: States of a session that has a seat, or had one until its end reaches the store.
_HOLDS = frozenset({SessionState.ACTIVE, SessionState.ENDING})
#: States of a session for which the store may rightly count a seat; one that waits has none, but while it asks.
_MAY_HOLD = _HOLDS | {SessionState.STARTING, SessionState.INVALID}


class _Restored(Enum):
    """What became of one lease that was sent to the store."""

    DONE = "done"  #: restored, or ended: its sessions are counted, or know that they are lost
    NO_SEAT = "no seat"  #: there was no seat for it or for one of its sessions: to be tried again
    EPOCH_OVER = "epoch over"  #: another epoch has begun: the recovery begins anew


class Recovery:
    """The recovery of one node."""

    def __init__(
        self,
        state: State,
        farm: Farm,
        availability: StoreAvailability,
        delivery: OutboxDelivery,
        events: SyncEvents,
        runtime: Runtime,
        window_ms: int,
    ) -> None:
        self._member = state.member
        self._store_state = state.store_state
        self._sessions = state.sessions
        self._receipts = state.receipts
        self._outbox = state.outbox
        self._policy = state.policy
        self._names = state.names
        self._farm = farm
        self._taken_back = TakenBack(state, farm, events)
        self._availability = availability
        self._delivery = delivery
        self._events = events
        self._clock = runtime.clock
        self._locks = runtime.locks
        self._tasks = runtime.tasks
        self._window_ms = window_ms
        self._renamed = delivery.renamed
        #: Pool to the end of its window, in ms of the store; 0: not known yet, or over.
        self._under_way: dict[str, int] = {}
        #: Pool to what it lacked when all that this node has of it was put back.
        self._mended: dict[str, tuple[frozenset[str], int]] = {}

    @property
    def under_way(self) -> bool:
        """Whether any pool is being recovered: one that this node knew before, or one whose window is open.

        The first visit to a store that lost nothing is none: nothing is missed there.
        """
        return any(until or self._store_state.known(pool).epoch for pool, until in self._under_way.items())

    async def until(self, pool: str) -> int | None:
        """Return when to ask for a session of a pool that is being recovered, in ms of the store; None: unknown."""
        now = self._store_state.store_now(pool)
        with suppress(StoreError):
            now = now or (await self._farm.leases.read_policy()).now
        return max(self._under_way.get(pool, 0), now + _SOON_MS) if now else None

    async def take_over(self, pool: str, known: Known) -> None:
        """Have what the store counts for this node under a former name go on under the present one."""
        await self._renamed.take_over(pool, known)

    async def deliver(self) -> None:
        """Deliver the outbox; begin to recover each pool whose store is not the one that this node knew.

        StoreUnavailable if the store does not answer.
        """
        report = await self._delivery.deliver()
        for pool in sorted(report.strange):
            self.begin(pool)

    def begin(self, pool: str) -> None:
        """Begin to recover a pool, unless that is under way."""
        self._tasks.run(f"recover {pool}", lambda: self._recover(pool))

    def mend(self, pool: str, missing: frozenset[str], lacking: int) -> None:
        """Begin to put back what a pool lacks of this node's leases, while the rest of it goes on.

        ``missing``: of what nodes have in their receipts; ``lacking``: how much. The same damage is not tried again.
        """
        if not missing:
            self._mended.pop(pool, None)
        elif self._mended.get(pool) != (missing, lacking):
            self._tasks.run(f"mend {pool}", lambda: self._mend(pool, missing, lacking))

    async def reconcile(self, pool: str) -> bool:
        """Give back what the store counts for this node and the node does not have, such as a late answer's seat.

        False if there was something, given back or not to be judged yet: then it is to be looked into again. A late
        copy of a question may bring back what was given back before a heartbeat has seen that it was gone.
        """
        unknown, whole = await self._unknown(pool)
        for claim, fence in unknown:
            self._outbox.add(ReleaseMessage(pool=pool, claim=claim, fence=fence))
        return whole and not unknown

    async def _unknown(self, pool: str) -> tuple[list[tuple[Claim, int]], bool]:
        """Return each session that the store counts for this node and the node does not have, with its fence.

        And whether that is all: not if something is under way about one of them.
        """
        found, whole = list[tuple[Claim, int]](), True
        for counted in await self._farm.leases.sessions(pool, self._member):
            ours = self._sessions.find(counted.session, pool)
            same = ours is not None and self._index(ours) == counted.user
            state = ours.state if ours is not None and same else None
            if state is SessionState.ACTIVE:
                continue
            # What is owed of an id that is another one's by now is that one's: the id is free once all was delivered.
            owed = self._outbox.pending(counted.session, pool) and (ours is None or same)
            if state in _MAY_HOLD or self._locks.is_locked(counted.session) or owed:
                whole = False
                continue
            _log.warning("session.unknown", pool=pool, session=counted.session)
            claim = Claim(user=counted.user, node=self._member, session=counted.session)
            found.append((claim, counted.fence or ANY_FENCE))
        return found, whole

    async def _recover(self, name: str) -> None:
        self._under_way[name] = 0  # here, not before: a task of this name may be ending just now
        try:
            pool = self._policy.in_force.pool(name)
            if pool is not None:
                await self._restore(pool)
                await self.deliver()
        except StoreError as error:  # the next heartbeat begins anew
            self._availability.failed(error)
        finally:
            self._under_way.pop(name, None)

    async def _mend(self, name: str, missing: frozenset[str], lacking: int) -> None:
        pool, epoch = self._policy.in_force.pool(name), self._store_state.known(name).epoch
        if pool is None or not epoch or name in self._under_way:  # a recovery restores all
            return
        if await self._put_back(pool, epoch):  # else the next heartbeat tells again
            self._mended[name] = missing, lacking

    async def _put_back(self, pool: Pool, epoch: int) -> bool:
        """Restore each lease of this node that the store lacks, or lacks a part of; return whether all were tried."""
        living = self._living(pool.name)
        try:
            for index, receipt in [*self._receipts.of_pool(pool.name)]:
                restoring = self._restoring(pool.name, index, receipt, living.get(index, []))
                if restoring is None:
                    continue
                stored = await self._farm.leases.look_up(pool, index)
                if stored is not None and stored.record and stored.name:
                    continue
                outcome = await self._restore_one(pool, self._policy.in_force.version, epoch, restoring)
                if outcome is _Restored.EPOCH_OVER:
                    return False
        except StoreError:
            return False
        return True

    async def _restore(self, pool: Pool) -> None:
        known, version = self._store_state.known(pool.name), self._policy.in_force.version
        found = await self._farm.leases.recover(
            pool, version, self._member, known, window_ms=self._window_ms, roster=self._store_state.roster(pool.name)
        )
        if isinstance(found, Behind):
            await self._policy.read_policy()
            return
        self._move_holds(pool.name, self._store_state.uncounted_ms(pool.name, found.now))
        self._store_state.note_recovery(pool.name, found)
        self._under_way[pool.name] = found.until if found.until > found.now else 0
        if known.epoch or self._under_way[pool.name]:
            _log.warning("store.recovering", pool=pool.name, epoch=found.epoch, knew=known.epoch)
        else:
            _log.info("store.joined", pool=pool.name, epoch=found.epoch)
        await self._farm.damage.rebuild(pool.name)  # what is in the documents needs no node to restore it
        in_time = max(0, found.until - found.now) / 1000
        await self._clock.sleep(random.uniform(0, min(JITTER, in_time / 5)))  # noqa: S311 - spreads load
        await self.take_over(pool.name, Known(epoch=found.epoch))
        unknown, _ = await self._unknown(pool.name)
        for claim, fence in unknown:  # what ended since the store's copy has others' seats
            await self._farm.leases.release(pool.name, claim, fence, Known(epoch=found.epoch))
        taken_back = await self._taken_back.recover(pool.name, found.epoch)
        if taken_back and await self._restore_all(pool, version, found, in_time):
            await self.reconcile(pool.name)
            if await self._farm.leases.restored(pool.name, self._member, found.epoch, knew=known.epoch > 0):
                # Which nodes are here now: the store may lose its data again before the next heartbeat.
                here = await self._farm.leases.nodes(pool.name)
                self._store_state.note_nodes(pool.name, [*self._store_state.roster(pool.name), *here], 0)
                self._store_state.recovered(pool.name, found)
                _log.info("store.recovered", pool=pool.name, epoch=found.epoch)

    def _move_holds(self, pool: str, by_ms: int) -> None:
        """A hold was promised for a span: where the store's time went on uncounted, it ends as much later."""
        if not by_ms:
            return
        for each in self._sessions:
            if each.pool == pool and each.hold_until is not None:
                self._sessions.amend(each, hold_until=each.hold_until + by_ms)

    async def _restore_all(self, pool: Pool, version: int, found: Recovering, in_time: float) -> bool:
        """Restore everything. False if the epoch ended meanwhile; then the next heartbeat begins anew."""
        self._receipts.drop_former(pool.name, self._living(pool.name))
        waiting = [self._by_present_name(pool.name, *each) for each in self._receipts.of_pool(pool.name)]
        for _ in range(1 + int(in_time / _AGAIN)):
            left, living = [], self._living(pool.name)
            for number, (index, receipt) in enumerate(waiting):
                if number % _BATCH == 0 and number:
                    await self._clock.sleep(_BATCH / RATE)
                restoring = self._restoring(pool.name, index, receipt, living.get(index, []))
                if restoring is None:
                    continue
                match await self._restore_one(pool, version, found.epoch, restoring):
                    case _Restored.EPOCH_OVER:
                        return False
                    case _Restored.NO_SEAT:
                        left.append((index, receipt))
            waiting = left
            if not waiting:
                break
            await self._clock.sleep(_AGAIN)
        for index, _ in waiting:
            _log.error("lease.not_restored", pool=pool.name, user=index, why="no seat is free")
            self._receipts.give_up(index, pool.name)
            for session in self._living(pool.name).get(index, []):
                self._add_lost(pool.name, session, LossReason.CAPACITY)
        return True

    def _by_present_name(self, pool: str, index: str, receipt: Receipt) -> tuple[str, Receipt]:
        """Return a receipt under the name that its user has today: where leases have moved, no old name comes back.

        While some are left under former names, each is restored where it was: the store's tombstones know which moved.
        """
        user = None if self._policy.in_force.former_names else self._names.present(index, receipt.name)
        new = index if user is None else self._farm.sealer.user_index(user)
        if user is None or new == index:
            return index, receipt
        self._receipts.move(index, new, pool, self._farm.sealer.seal_name(new, user.canonical))
        moved = self._receipts.find(new, pool)
        if moved is None or moved.lease.id != receipt.lease.id:
            return index, receipt
        for each in self._sessions:
            if each.pool == pool and self._index(each) == index:
                self._sessions.stands_under(each, new)
        return new, moved

    def _restoring(self, pool: str, index: str, receipt: Receipt, sessions: list[NodeSession]) -> Restoring | None:
        """Return what is known of a lease; None if there is nothing to restore."""
        sessions = [each for each in sessions if each.grant and each.grant.lease.id == receipt.lease.id]
        if not receipt.document or (not sessions and receipt.lease.has_ended(self._store_state.store_now(pool))):
            return None
        document = self._renamed.present(receipt.document)
        lease = LeaseDocument.parse(document)
        return Restoring(
            user=index,
            document=document,
            sessions={each.id: self._claim(each, lease) for each in sessions},
            version=receipt.winner[0] if receipt.winner else receipt.version,
            record=receipt.winner[1] if receipt.winner else receipt.record,
            name=receipt.name,
        )

    async def _restore_one(self, pool: Pool, version: int, epoch: int, restoring: Restoring) -> _Restored:
        """Restore a lease and its sessions."""
        outcome = await self._farm.leases.restore(pool, version, self._member, epoch, restoring)
        if isinstance(outcome, Behind):
            return _Restored.EPOCH_OVER
        if outcome.ended:
            self._receipts.give_up(restoring.user, pool.name)
        for name in restoring.sessions:
            session = self._sessions.find(name, pool.name)
            if session is None or session.grant is None or self._is_over(session):
                continue
            if outcome.ended or outcome.refused.get(name, LossReason.CAPACITY) != LossReason.CAPACITY:
                self._add_lost(pool.name, session, outcome.refused.get(name, LossReason.TIMEOUT))
            elif name not in outcome.refused:
                self._counted(session, restoring.sessions[name]["fence"], outcome.fences.get(name))
        full = outcome.again or LossReason.CAPACITY in outcome.refused.values()
        return _Restored.NO_SEAT if full else _Restored.DONE

    def _counted(self, session: NodeSession, asked: object, later: int | None) -> None:
        """The store has its seat now, perhaps by a later grant whose answer was lost: its end must name that one."""
        if session.grant is None or session.grant.fence != asked:
            return  # it has had another answer meanwhile
        grant = replace(session.grant, source=Source.STORE, fence=later or session.grant.fence)
        if grant != session.grant:
            self._sessions.amend(session, grant=grant)

    def _living(self, pool: str) -> dict[str, list[NodeSession]]:
        """Return the sessions of a pool that are to be restored, by user index. One that was lost has ended by then."""
        found: dict[str, list[NodeSession]] = {}
        for each in self._sessions:
            if each.pool == pool and each.state in _HOLDS and each.grant is not None and each.lost_because is None:
                found.setdefault(self._index(each), []).append(each)
        return found

    def _is_over(self, session: NodeSession) -> bool:
        """Whether it ended with a boot. It is not counted again: its end may name the life that it was of."""
        return session.state is SessionState.ENDING and not self._sessions.is_of_this_life(session)

    def _last_heard(self, session: NodeSession) -> int:
        """Return when the store last heard of a session that a boot ended; 0 of one that had ended before."""
        return self._store_state.heard_of(session.pool, session.incarnation) if session.ended_by_boot else 0

    def _claim(self, session: NodeSession, lease: LeaseDocument) -> dict[str, object]:
        """Return a session in the form in which the store restores it."""
        assert session.grant is not None  # noqa: S101 - _living has only those with one
        life = node_member(self._member.partition("#")[0], session.incarnation)  # in which the document knows it
        return lease.claim(
            f"{life if self._is_over(session) else self._member}/{session.id}",
            user=self._index(session),
            device=session.device,
            fence=session.grant.fence,
            hold_until=session.hold_until,
            over_at=self._last_heard(session) if self._is_over(session) else None,
        )

    def _add_lost(self, pool: str, session: NodeSession, reason: str) -> None:
        assert session.grant is not None  # noqa: S101 - _living has only those with one
        lost = Lost(session=session.id, user=self._index(session), fence=session.grant.fence, reason=reason)
        self._events.add(SeatLost(pool, lost))

    def _index(self, session: NodeSession) -> str:
        return session.claim.user
