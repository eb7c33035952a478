"""How this node is: the facts that its health, its metrics and the farm's list of nodes go by.

Must never wait, nor ask anybody else: what is not known here is not told.
"""

from farmlease.domain.health import Facts
from farmlease.errors import JournalFailed
from farmlease.node.journal.journal import Journal
from farmlease.node.journal.policy_cache import PolicyCache
from farmlease.node.journal.receipts import Receipts
from farmlease.node.journal.sessions import SessionTable
from farmlease.node.journal.store_state import StoreState
from farmlease.node.sync.keyring_reload import KeyringReload
from farmlease.node.sync.node_report import NodeReport
from farmlease.node.sync.outbox_delivery import Outbox
from farmlease.node.sync.recovery import Recovery

__all__ = ["HealthMonitor"]


class HealthMonitor:
    """The condition of one node. ``leaving``: it was told to end; ``stopped``: it takes no more sessions."""

    def __init__(
        self,
        *,
        journal: Journal,
        policy: PolicyCache,
        sessions: SessionTable,
        outbox: Outbox,
        receipts: Receipts,
        store_state: StoreState,
        recovery: Recovery,
        report: NodeReport,
        keyring: KeyringReload,
        offline_denies: bool,
    ) -> None:
        self._journal = journal
        self._policy = policy
        self._sessions = sessions
        self._outbox = outbox
        self._receipts = receipts
        self._store_state = store_state
        self._recovery = recovery
        self._report = report
        self._keyring = keyring
        self._offline_denies = offline_denies
        self.leaving = self.stopped = False
        report.facts = self.facts

    def facts(self) -> Facts:
        """What this node's health is judged by."""
        journal_writes, owed = self._journal.works, 0
        try:
            owed = self._outbox.pending()
        except JournalFailed:
            journal_writes = False
        return Facts(
            draining=self._report.draining,
            stopping=self.leaving,
            stopped=self.stopped,
            namesakes=self._report.namesakes,
            store_answers=self._policy.store_answers,
            offline_denies=self._offline_denies,
            policy_known=self._policy.in_force.policy is not None,
            policy_trouble=self._policy.trouble,
            journal_writes=journal_writes,
            journal_refused=self._journal.refused,
            damaged=self._sessions.damaged,
            owed=owed,
            refused=self._outbox.refused,
            rejected=self._receipts.rejected,
            recovering=self._recovery.under_way,
            clock_off_ms=self._store_state.clock_off_ms,
            ring_trouble=self._keyring.trouble,
            sessions=sum(each.state.shown for each in self._sessions),
        )
