"""The sync room, put together: everything that talks to the store for the whole node."""

from dataclasses import dataclass

from farmlease.config.model import Config
from farmlease.farm import Farm
from farmlease.node.concurrency import Runtime
from farmlease.node.files.record_sync import RecordSync
from farmlease.node.journal.state import State
from farmlease.node.sync.availability import StoreAvailability
from farmlease.node.sync.damage import StoreDamage
from farmlease.node.sync.events import SyncEvents
from farmlease.node.sync.heartbeat import Heartbeat
from farmlease.node.sync.keyring_reload import KeyringReload, KeyringTiming
from farmlease.node.sync.node_report import NodeReport
from farmlease.node.sync.outbox_delivery import OutboxDelivery
from farmlease.node.sync.recovery import Recovery
from farmlease.node.sync.renamed_node import RenamedNode
from farmlease.node.sync.secrets_watch import StoreSecrets

__all__ = ["Sync", "build_sync"]


@dataclass(frozen=True, slots=True)
class Sync:
    """The parts that talk to the store. ``recovery.deliver`` sends the outbox."""

    availability: StoreAvailability
    damage: StoreDamage
    secrets: StoreSecrets
    records: RecordSync
    delivery: OutboxDelivery
    events: SyncEvents
    recovery: Recovery
    heartbeat: Heartbeat
    report: NodeReport
    keyring: KeyringReload


def build_sync(config: Config, farm: Farm, state: State, records: RecordSync, runtime: Runtime) -> Sync:
    """Put the room together."""
    availability, events, damage = StoreAvailability(), SyncEvents(), StoreDamage()
    delivery = OutboxDelivery(state, farm, records, events, RenamedNode(state, farm.nodes))
    recovery = Recovery(state, farm, availability, delivery, events, runtime, config.recovery.window_ms)
    timing = KeyringTiming(config.agent.heartbeat_ms, config.store.timeout_ms)
    return Sync(
        availability=availability,
        damage=damage,
        secrets=StoreSecrets(),
        records=records,
        delivery=delivery,
        events=events,
        recovery=recovery,
        heartbeat=Heartbeat(state, farm, availability, recovery, events, damage, runtime),
        report=NodeReport(state, farm.nodes, farm.sealer, config.health.listen[0]),
        keyring=KeyringReload(state, farm, runtime.clock, config.keys.file, timing),
    )
