"""What the agent does periodically: heartbeats, and looks at the store, the sessions, the pools and the key ring.

Nothing that goes wrong in a round ends the agent: it is logged, and the next round comes. This is where results go up:
what the heartbeat and a recovery bring to light is handed to the housekeeping of the sessions here.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog

from farmlease.clock import Clock
from farmlease.errors import FarmleaseError, StoreError
from farmlease.node.concurrency import Runtime
from farmlease.node.health.monitor import HealthMonitor
from farmlease.node.health.pool_usage import PoolUsage
from farmlease.node.journal.state import State
from farmlease.node.sessions.build import Sessions
from farmlease.node.sync.build import Sync
from farmlease.node.sync.keyring_reload import LOOK_EVERY
from farmlease.store.lease_store import LeaseStore

__all__ = ["Loop", "Loops", "every"]

_log = structlog.get_logger(__name__)

#: Seconds between two looks at whether the store answers, so that health is true and the outbox is delivered soon.
_LOOK_AT_STORE = 2.0
#: Seconds between two looks for sessions whose process is gone or that idle, and at whether to count the pools.
_WATCH = 1.0
#: Seconds between two looks at files that no session here needs any more.
_LEFTOVERS = 60.0


class Loop(NamedTuple):
    """A step that is repeated: ``at_once``, or after the first ``seconds``."""

    seconds: float
    step: Callable[[], Awaitable[None]]
    at_once: bool = False


async def every(clock: Clock, loop: Loop) -> None:
    """Repeat a step until cancelled."""
    if not loop.at_once:
        await clock.sleep(loop.seconds)
    while True:
        await loop.step()
        await clock.sleep(loop.seconds)


class Loops:
    """The periodic work of one node."""

    def __init__(
        self,
        state: State,
        store: LeaseStore,
        sync: Sync,
        sessions: Sessions,
        monitor: HealthMonitor,
        usage: PoolUsage,
        runtime: Runtime,
    ) -> None:
        self._journal = state.journal
        self._policy = state.policy
        self._store_state = state.store_state
        self._store = store
        self._sync = sync
        self._sessions = sessions
        self._housekeeping = sessions.housekeeping
        self._monitor = monitor
        self._usage = usage
        self._clock = runtime.clock
        self._looks = 0
        self._waking = asyncio.Lock()

    def table(self, heartbeat_ms: int) -> list[Loop]:
        """Return all loops of a running agent."""
        return [
            Loop(heartbeat_ms / 1000, self.beat, at_once=True),
            Loop(_LOOK_AT_STORE, self.look),
            Loop(_WATCH, self.watch),
            Loop(_WATCH, self._usage.take),  # a loop of its own: a store that hangs holds up nothing else
            Loop(LOOK_EVERY, self.look_at_keys, at_once=True),
            Loop(_LEFTOVERS, self.clear_leftovers, at_once=True),
        ]

    async def handle_events(self) -> None:
        """Act on each event of the sync room as soon as it comes, until cancelled."""
        while True:
            await self._sync.events.wait()
            self._housekeeping.take_events()

    async def beat(self) -> None:
        """Send one heartbeat, and begin to act on all that it brings to light."""
        self._journal.writes()
        try:
            try:
                await self._sync.heartbeat.round()
            finally:
                self._housekeeping.take_events()
            self._monitor.count_beat()
            await self._housekeeping.count_uncounted()
            self._housekeeping.tidy()
        except FarmleaseError as error:
            _log.error("beat.failed", why=str(error))
        except Exception:  # noqa: BLE001 - the sessions of this node live as long as it beats
            _log.error("beat.failed", exc_info=True)
        await self._report()

    async def awake(self) -> None:
        """Return when this node knows what became of its sessions while the agent slept or was not running.

        A stopped process or a suspended host can be away for longer than the store keeps its sessions, so an answer
        from memory waits for a heartbeat first. One heartbeat serves all that wait.
        """
        if self._is_overdue() or self._waking.locked():
            async with self._waking:
                if self._is_overdue():
                    await self.beat()
                    await self._housekeeping.losses_known()

    async def look(self) -> None:
        """Ask whether the store answers and is the one that this node knew; beat at once if not, or if it is back.

        Report what the node is, and learn whether it is to drain. One pool is asked about at a time, so that this costs
        the same however many there are.
        """
        if not self._journal.works or self._journal.displaced is not None:
            self._journal.writes()  # there may be room again; what was removed is put back
        pools = self._policy.in_force.pools
        self._looks += 1
        pool = pools[self._looks % len(pools)] if pools else None
        if pool is None or self._sync.availability.is_away or not await self._is_known(pool.name):
            await self.beat()
        else:
            await self._report()

    async def watch(self) -> None:
        """Look once for sessions that end by themselves, and at what the host and a broker are to be asked or told."""
        self._housekeeping.take_events()
        try:
            self._housekeeping.watch()
            self._sessions.drain_notice.look()
            self._sessions.activity.look()
        except Exception:  # noqa: BLE001 - one process that cannot be looked at must not end the agent
            _log.error("watch.failed", exc_info=True)
        self._monitor.look()

    async def look_at_keys(self) -> None:
        """Look once whether the key ring's file changed, and do what that asks for."""
        try:
            await self._sync.keyring.look()
        except Exception:  # noqa: BLE001 - the keys that the agent has are good for going on
            _log.error("ring.failed", exc_info=True)

    async def clear_leftovers(self) -> None:
        """Look once at the files that ends have left behind."""
        try:
            await self._housekeeping.clear_leftovers()
        except Exception:  # noqa: BLE001 - one user's disk must not end the agent
            _log.error("leftovers.failed", exc_info=True)

    def _is_overdue(self) -> bool:
        """Whether the store may have ended this node's sessions since the last round: the agent slept, or is new.

        The wall clock may be wrong, but a paused virtual machine shows no other sign; a needless round costs little.
        """
        if self._sync.heartbeat.began is None:
            return True
        monotonic, wall = self._sync.heartbeat.began
        asleep = max(self._clock.monotonic() * 1000 - monotonic, self._clock.now_ms() - wall)
        return any(asleep >= pool.session_timeout_ms for pool in self._policy.in_force.pools)

    async def _report(self) -> None:
        await self._sync.report.send(self._monitor.look)
        self._monitor.look()

    async def _is_known(self, pool: str) -> bool:
        try:
            return await self._store.peek(pool, self._store_state.known(pool))
        except StoreError as error:
            self._sync.availability.failed(error)
            return True
