"""A node put together, room by room: each room builds itself and hands one frozen bundle to the next.

Tests make whole nodes with it on stores, clocks and disks of their own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from farmlease.clock import Clock
from farmlease.config.model import Config
from farmlease.farm import Farm
from farmlease.node.accounts.accounts import Accounts
from farmlease.node.agent import Agent
from farmlease.node.concurrency import Runtime
from farmlease.node.files.record_sync import RecordSync
from farmlease.node.health.metrics import Metrics
from farmlease.node.health.monitor import HealthMonitor
from farmlease.node.health.pool_usage import PoolUsage
from farmlease.node.journal.integrity import ReportedMark
from farmlease.node.journal.state import State, open_state
from farmlease.node.logs import Log
from farmlease.node.loops import Loops
from farmlease.node.sessions.build import Counters, Sessions, build_sessions
from farmlease.node.sync.build import Sync, build_sync

__all__ = ["Node", "compose"]


@dataclass(frozen=True, slots=True)
class Node:
    """An agent and what it stands on."""

    runtime: Runtime
    state: State
    sync: Sync
    sessions: Sessions
    monitor: HealthMonitor
    usage: PoolUsage
    metrics: Metrics
    agent: Agent
    loops: Loops


@contextmanager
def compose(
    config: Config,
    farm: Farm,
    clock: Clock,
    metrics: Metrics | None = None,
    accounts: Accounts | None = None,
    log: Log | None = None,
    reported: Sequence[ReportedMark] = (),
) -> Iterator[Node]:
    """Open the node's state folder and put its agent together.

    ``metrics``: where to count; default: its own. ``accounts``: those of the host; default: the system's.
    ``log``: where it logs; default: standard error. ``reported``: what the store remembers of the farm's nodes. Raises
    what ``open_state`` raises.
    """
    metrics = metrics or Metrics(clock)
    with open_state(config, farm, clock, reported) as state:
        runtime = Runtime(clock, accounts or Accounts(clock), log=log or Log())
        records = RecordSync(state, farm.sealer, runtime.accounts, clock)
        sync = build_sync(config, farm, state, records, runtime)
        counters = Counters(metrics.decided, metrics.hook_ran)
        sessions = build_sessions(config, farm, state, records, sync, runtime, counters)
        usage = PoolUsage(farm, state.policy, sync.availability, clock, config.health.pool_alert_percent)
        monitor = HealthMonitor(state, sync, sessions, usage, metrics, runtime, config.agent)
        yield Node(
            runtime=runtime,
            state=state,
            sync=sync,
            sessions=sessions,
            monitor=monitor,
            usage=usage,
            metrics=metrics,
            agent=Agent(state, sync, sessions, monitor, runtime),
            loops=Loops(state, farm.leases, sync, sessions, monitor, usage, runtime),
        )
