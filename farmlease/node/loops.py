"""What the agent does by the clock: heartbeats, looks at the store, at the sessions and at the key ring.

Nothing that goes wrong in a round ends the agent: it is in the log, and the next round comes.
"""

import asyncio

import structlog

from farmlease.errors import FarmleaseError, StoreError
from farmlease.node.health.metrics import Metrics
from farmlease.node.journal.journal import Journal
from farmlease.node.journal.policy_cache import PolicyCache
from farmlease.node.journal.store_state import StoreState
from farmlease.node.sessions.housekeeping import Housekeeping
from farmlease.node.sync.heartbeat import Heartbeat
from farmlease.node.sync.keyring_reload import KeyringReload
from farmlease.node.sync.node_report import NodeReport
from farmlease.store.lease_store import LeaseStore

__all__ = ["Loops"]

_log = structlog.get_logger(__name__)


class Loops:
    """The rounds of one node. ``daemon.py`` says when."""

    def __init__(
        self,
        *,
        store: LeaseStore,
        journal: Journal,
        policy: PolicyCache,
        store_state: StoreState,
        heartbeat: Heartbeat,
        report: NodeReport,
        housekeeping: Housekeeping,
        keyring: KeyringReload,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._journal = journal
        self._policy = policy
        self._store_state = store_state
        self._heartbeat = heartbeat
        self._report = report
        self._housekeeping = housekeeping
        self._keyring = keyring
        self._metrics = metrics
        self._looks = 0
        self._waking = asyncio.Lock()

    async def beat(self) -> None:
        """One heartbeat, with all that it brings to light."""
        self._journal.writes()
        try:
            await self._heartbeat.round()
            self._metrics.beaten(answered=self._policy.store_answers)
            await self._housekeeping.count_uncounted()
            self._housekeeping.tidy()
        except FarmleaseError as error:
            _log.error("beat.failed", why=str(error))
        except Exception:  # noqa: BLE001 - the sessions of this node live as long as it beats
            _log.error("beat.failed", exc_info=True)
        await self._report.tell()

    async def awake(self) -> None:
        """Return when it is known what became of the sessions while this agent slept, or was not there, if it did.

        Whoever is answered from memory waits for this first: a stopped process or a suspended host can be away for
        longer than the store keeps its sessions. One round for all who wait.
        """
        if self._heartbeat.overdue or self._waking.locked():
            async with self._waking:
                if self._heartbeat.overdue:
                    await self.beat()
                    await self._heartbeat.told()

    async def look(self) -> None:
        """Ask whether the store answers and is the one that this node knew; beat at once if not, or if it is back.

        Say what the node is, and hear whether it is to drain. One pool is asked about at a time, so that this costs
        the same however many there are.
        """
        if not self._journal.works:
            self._journal.writes()  # there may be room again
        pools = self._policy.in_force.pools
        self._looks += 1
        pool = pools[self._looks % len(pools)] if pools else None
        if pool is None or self._policy.store_is_away or not await self._is_known(pool.name):
            await self.beat()
        else:
            await self._report.tell()

    async def _is_known(self, pool: str) -> bool:
        try:
            return await self._store.peek(pool, self._store_state.known(pool))
        except StoreError as error:
            self._policy.store_failed(error)
            return True

    async def watch(self) -> None:
        """Look once for sessions that end by themselves: their process is gone, or they idle."""
        try:
            self._housekeeping.watch()
        except Exception:  # noqa: BLE001 - one process that cannot be looked at must not end the agent
            _log.error("watch.failed", exc_info=True)

    async def look_at_keys(self) -> None:
        """Look once whether the key ring's file changed, and do what that asks for."""
        try:
            await self._keyring.look()
        except Exception:  # noqa: BLE001 - the keys it has are good for going on
            _log.error("ring.failed", exc_info=True)
