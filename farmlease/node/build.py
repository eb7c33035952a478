"""An agent put together: every part of it, made once, in the order in which they need each other.

This is the only place that knows all parts. Tests make whole nodes with it on stores, clocks and disks of their own.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from farmlease.clock import Clock
from farmlease.config.model import Config
from farmlease.farm import Farm
from farmlease.node.agent import Agent
from farmlease.node.concurrency import BackgroundTasks, KeyedLocks
from farmlease.node.files.record_sync import RecordSync
from farmlease.node.health.metrics import Metrics
from farmlease.node.health.monitor import HealthMonitor
from farmlease.node.journal.evidence import Evidence
from farmlease.node.journal.journal import Journal
from farmlease.node.journal.policy_cache import PolicyCache
from farmlease.node.journal.receipts import Receipts
from farmlease.node.journal.sessions import SessionTable
from farmlease.node.journal.store_state import StoreState
from farmlease.node.loops import Loops
from farmlease.node.sessions.acquire import SeatAcquisition
from farmlease.node.sessions.end import SessionEnd
from farmlease.node.sessions.grant import Granting
from farmlease.node.sessions.hooks import Hook, Hooks
from farmlease.node.sessions.housekeeping import Housekeeping
from farmlease.node.sessions.liveness import Liveness
from farmlease.node.sessions.offline import OfflineAdmission
from farmlease.node.sessions.reacquire import Reacquisition
from farmlease.node.sessions.start import SessionStart
from farmlease.node.sync.heartbeat import Heartbeat
from farmlease.node.sync.keyring_reload import KeyringReload
from farmlease.node.sync.node_report import NodeReport
from farmlease.node.sync.outbox_delivery import Outbox
from farmlease.node.sync.recovery import Recovery
from farmlease.store.keys import node_member
from farmlease.store.node_store import NodeStore
from farmlease.store.seal_store import SealStore

__all__ = ["Node", "compose"]


@dataclass(frozen=True, slots=True)
class Node:
    """A composed agent and what it stands on."""

    agent: Agent
    loops: Loops
    policy: PolicyCache
    journal: Journal
    store_state: StoreState
    receipts: Receipts
    reacquire: Reacquisition
    metrics: Metrics


@contextlib.contextmanager
def compose(config: Config, farm: Farm, clock: Clock, metrics: Metrics | None = None) -> Iterator[Node]:
    """Open the node's state folder and put its agent together; AlreadyRunning if another agent has the folder.

    ``metrics`` are told what happens; default: ones of its own.

    A journal that cannot be believed is kept, and the agent starts with a new one. JournalFailed if the disk refuses,
    JournalRejected if a later version of farmlease wrote the journal.
    """
    folder = config.agent.state_dir
    evidence = Evidence(folder / "kept")
    journal = Journal.open(folder, node=config.node, evidence=evidence, now_ms=clock.now_ms())
    try:
        yield _node(config, farm, clock, journal, evidence, metrics=metrics or Metrics(clock))
    finally:
        journal.close()


def _node(config: Config, farm: Farm, clock: Clock, journal: Journal, evidence: Evidence, *, metrics: Metrics) -> Node:
    node, sealer, locks, tasks = config.node, farm.sealer, KeyedLocks(), BackgroundTasks()
    member, denies = node_member(node, journal.incarnation), config.agent.offline == "deny"
    commands = {Hook.GRANTED: config.hooks.granted, Hook.ENDED: config.hooks.ended, Hook.LOST: config.hooks.lost}
    hooks = Hooks(commands, tasks, metrics.hook_ran)
    policy = PolicyCache(farm, journal, node, config.agent.heartbeat_ms)
    sessions = SessionTable(journal=journal, sealer=sealer, evidence=evidence, node=node, clock=clock)
    receipts = Receipts(journal=journal, sealer=sealer, evidence=evidence, node=node, clock=clock)
    records = RecordSync(receipts=receipts, sealer=sealer, evidence=evidence, clock=clock)
    store_state = StoreState(journal=journal, sealer=sealer, node=node, clock=clock, sessions=sessions)
    reacquire, liveness = Reacquisition(clock), Liveness(sessions, clock, policy, store_state)
    outbox = Outbox(
        node=node,
        journal=journal,
        sealer=sealer,
        store=farm.store,
        sessions=sessions,
        records=records,
        evidence=evidence,
        clock=clock,
        store_state=store_state,
        receipts=receipts,
    )
    ending = SessionEnd(
        member=member,
        sealer=sealer,
        journal=journal,
        sessions=sessions,
        records=records,
        outbox=outbox,
        locks=locks,
        tasks=tasks,
        hooks=hooks,
    )
    recovery = Recovery(
        farm=farm,
        member=member,
        store_state=store_state,
        sessions=sessions,
        receipts=receipts,
        outbox=outbox,
        policy=policy,
        locks=locks,
        tasks=tasks,
        clock=clock,
        window_ms=config.recovery.window_ms,
    )
    heartbeat = Heartbeat(
        store=farm.store,
        node=node,
        journal=journal,
        policy=policy,
        sessions=sessions,
        outbox=outbox,
        tasks=tasks,
        store_state=store_state,
        recovery=recovery,
        clock=clock,
    )
    granting = Granting(
        sealer=sealer,
        node=node,
        sessions=sessions,
        records=records,
        receipts=receipts,
        store_state=store_state,
        ending=ending,
        locks=locks,
        hooks=hooks,
    )
    acquisition = SeatAcquisition(
        farm=farm,
        node=node,
        policy=policy,
        sessions=sessions,
        receipts=receipts,
        store_state=store_state,
        granting=granting,
        ending=ending,
        locks=locks,
        clock=clock,
        beat=heartbeat.beat,
        recovery=recovery,
        offline=OfflineAdmission(
            receipts=receipts, store_state=store_state, sessions=sessions, sealer=sealer, denies=denies
        ),
    )
    starting = SessionStart(
        farm=farm,
        node=node,
        policy=policy,
        sessions=sessions,
        outbox=outbox,
        ending=ending,
        acquisition=acquisition,
        tasks=tasks,
        heartbeat=heartbeat,
    )
    housekeeping = Housekeeping(
        heartbeat=heartbeat,
        policy=policy,
        sessions=sessions,
        outbox=outbox,
        ending=ending,
        acquisition=acquisition,
        locks=locks,
        tasks=tasks,
        reacquire=reacquire,
        liveness=liveness,
        recovery=recovery,
    )
    keyring = KeyringReload(
        path=config.keys.file,
        node=node,
        sealer=sealer,
        vault=SealStore(farm.store.connection, farm.name),
        journal=journal,
        sessions=sessions,
        receipts=receipts,
        outbox=outbox,
        policy=policy,
        store_state=store_state,
        clock=clock,
        every_ms=config.agent.heartbeat_ms,
        store_timeout_ms=config.store.timeout_ms,
    )
    report = NodeReport(
        nodes=NodeStore(farm.store.connection, farm.name),
        node=node,
        listen=config.health.listen,
        journal=journal,
        sessions=sessions,
        sealer=sealer,
    )
    monitor = HealthMonitor(
        journal=journal,
        policy=policy,
        sessions=sessions,
        outbox=outbox,
        receipts=receipts,
        store_state=store_state,
        recovery=recovery,
        report=report,
        keyring=keyring,
        offline_denies=denies,
    )
    agent = Agent(
        store=farm.store,
        policy=policy,
        sessions=sessions,
        outbox=outbox,
        store_state=store_state,
        recovery=recovery,
        locks=locks,
        tasks=tasks,
        reacquire=reacquire,
        liveness=liveness,
        ending=ending,
        heartbeat=heartbeat,
        report=report,
        starting=starting,
        housekeeping=housekeeping,
        monitor=monitor,
        clock=clock,
        metrics=metrics,
        heartbeat_ms=config.agent.heartbeat_ms,
    )
    loops = Loops(
        store=farm.store,
        journal=journal,
        policy=policy,
        store_state=store_state,
        heartbeat=heartbeat,
        report=report,
        housekeeping=housekeeping,
        keyring=keyring,
        metrics=metrics,
    )
    return Node(
        agent=agent,
        loops=loops,
        policy=policy,
        journal=journal,
        store_state=store_state,
        receipts=receipts,
        reacquire=reacquire,
        metrics=metrics,
    )
