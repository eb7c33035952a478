"""The journal room, opened: what survives a kill -9 of the agent."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from farmlease.clock import Clock
from farmlease.config.model import Config
from farmlease.crypto.seal import NodeSealer
from farmlease.farm import Farm
from farmlease.node.journal.evidence import VERSIONS, Evidence
from farmlease.node.journal.integrity import ReportedMark
from farmlease.node.journal.journal import Journal
from farmlease.node.journal.outbox import Outbox
from farmlease.node.journal.policy_cache import PolicyCache
from farmlease.node.journal.receipts import Receipts
from farmlease.node.journal.sessions import SessionTable
from farmlease.node.journal.store_state import StoreState
from farmlease.node.journal.tombstones import Tombstones
from farmlease.node.journal.unknown_domains import UnknownDomains
from farmlease.node.journal.user_names import UserNames
from farmlease.node.journal.versions import KeptVersions
from farmlease.store.keys import node_member

__all__ = ["State", "open_state"]


@dataclass(frozen=True, slots=True)
class State:
    """The tables over the journal. ``member``: this life of the node, as the store knows it."""

    node: str
    member: str
    journal: Journal
    evidence: Evidence
    versions: KeptVersions
    sessions: SessionTable
    receipts: Receipts
    outbox: Outbox
    store_state: StoreState
    tombstones: Tombstones
    policy: PolicyCache
    unknown_domains: UnknownDomains
    names: UserNames


@contextmanager
def open_state(config: Config, farm: Farm, clock: Clock, reported: Sequence[ReportedMark] = ()) -> Iterator[State]:
    """Open the node's state folder; AlreadyRunning if another agent has it.

    ``reported``: what the store remembers of the farm's nodes.
    A journal that cannot be trusted is kept as evidence, and a new one begins. JournalFailed if the disk refuses,
    JournalRejected if a later version of farmlease wrote the journal.
    """
    folder, node = config.agent.state_dir, config.node
    evidence = Evidence(folder / "kept")
    journal = Journal.open(folder, node=node, evidence=evidence, now_ms=clock.now_ms(), reported=reported)
    try:
        sealer, member = NodeSealer(farm.sealer, journal.sealed_for), node_member(node, journal.incarnation)
        sessions = SessionTable(journal, sealer, evidence, node, clock)
        policy = PolicyCache(farm, journal, node, config.agent.heartbeat_ms)
        yield State(
            node=node,
            member=member,
            journal=journal,
            evidence=evidence,
            versions=KeptVersions(folder / "kept" / VERSIONS),
            sessions=sessions,
            receipts=Receipts(journal, sealer, evidence, clock),
            outbox=Outbox(journal, member, sealer, evidence, clock),
            store_state=StoreState(journal, sealer, sessions, clock),
            tombstones=Tombstones(journal, sealer),
            policy=policy,
            unknown_domains=UnknownDomains(policy, sessions, clock),
            names=UserNames(policy, farm.sealer),
        )
    finally:
        journal.close()
