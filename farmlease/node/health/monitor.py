"""The node's health as it stands: facts are collected once a second, and answered as often as they are asked for.

However many probes come, and however slow the disk is, a probe touches neither the store nor the journal. What the node
itself decides, draining and stopping, counts in the very next answer.
"""

from dataclasses import replace

from farmlease.config.model import AgentSection
from farmlease.domain.health import Facts, Health, Steady, health
from farmlease.errors import JournalFailed
from farmlease.node.concurrency import Phase, Runtime
from farmlease.node.health.metrics import Metrics
from farmlease.node.health.pool_usage import PoolUsage
from farmlease.node.journal.state import State
from farmlease.node.sessions.build import Sessions
from farmlease.node.sync.build import Sync

__all__ = ["HealthMonitor"]

#: Seconds for which one page of metrics serves all who scrape.
_PAGE_LASTS = 1.0


class HealthMonitor:
    """The health of one node, for balancers, for monitors and for its report to the farm."""

    def __init__(
        self,
        state: State,
        sync: Sync,
        sessions: Sessions,
        usage: PoolUsage,
        metrics: Metrics,
        runtime: Runtime,
        settings: AgentSection,
    ) -> None:
        self._state = state
        self._sync = sync
        self._liveness = sessions.liveness
        self._usage = usage
        self._metrics = metrics
        self._clock = runtime.clock
        self._lifecycle = runtime.lifecycle
        self._accounts = runtime.accounts
        self._log = runtime.log
        self._offline_denies = settings.offline == "deny"
        self._max_sessions = settings.max_sessions
        self._page: tuple[float, bytes] | None = None
        self._facts = self.collect()
        self._store = Steady(self._facts.store_answers, self._clock.monotonic())

    def collect(self) -> Facts:
        """Return the facts as they are now. It reads the journal, and asks nothing else."""
        state, sync = self._state, self._sync
        journal_writes, owed = state.journal.works, 0
        try:
            owed = state.outbox.pending()
        except JournalFailed:
            journal_writes = False
        return Facts(
            draining=state.journal.draining,
            stopping=self._lifecycle.phase is not Phase.RUNNING,
            stopped=self._lifecycle.phase is Phase.STOPPED,
            namesakes=sync.report.namesakes,
            store_answers=sync.availability.answers,
            store_awaited=not sync.availability.answers and not sync.availability.is_away,
            store_damage=sync.damage.texts,
            store_secrets=sync.secrets.texts,
            offline_denies=self._offline_denies,
            policy_known=state.policy.in_force.policy is not None,
            policy_trouble=state.policy.trouble,
            host_table=state.policy.host_table,
            unknown_domains=state.unknown_domains.count(),
            journal_writes=journal_writes,
            journal_displaced=state.journal.displaced,
            journal_put_back=state.journal.put_back,
            journal_refused=state.journal.refused,
            damaged=state.sessions.damaged,
            owed=owed,
            refused=sync.delivery.refused,
            rejected=state.receipts.rejected,
            taken_back=state.tombstones.count(),
            recovering=sync.recovery.under_way,
            clock_off_ms=state.store_state.clock_off_ms,
            ring_trouble=sync.keyring.trouble,
            unseen=self._liveness.unseen,
            unreported=self._liveness.unreported(),
            kept_blocked=state.evidence.blocked,
            kept_percent=state.evidence.percent_full,
            file_troubles=sync.records.troubles.texts,
            sessions=state.sessions.shown_sessions,
            accounts_failed=self._accounts.failures.users,
            accounts_unknown=self._accounts.failures.unknown,
            log_trouble=self._log.trouble,
        )

    def count_beat(self) -> None:
        """Count a heartbeat in the metrics, by whether the store answered."""
        self._metrics.beaten(answered=self._sync.availability.answers)

    def look(self) -> Facts:
        """Collect the facts anew, and return them. A disk that does not list a folder counts as one not writable."""
        self._log.tend()
        try:
            self._facts = self.collect()
        except OSError:
            self._facts = replace(self._facts, journal_writes=False)
        self._store = self._store.seen(self._facts.store_answers, self._clock.monotonic())
        return self._facts

    @property
    def facts(self) -> Facts:
        """The facts as last collected, and what the node has decided since."""
        return replace(
            self._facts,
            draining=self._state.journal.draining,
            stopping=self._lifecycle.phase is not Phase.RUNNING,
            store_lost=not self._store.counts(self._clock.monotonic()),
            max_sessions=self._max_sessions,
            crowded=tuple(self._usage.crowded.values()),
        )

    @property
    def health(self) -> Health:
        """The node's health, judged from the facts."""
        return health(self.facts)

    @property
    def page(self) -> bytes:
        """The metrics, as Prometheus scrapes them."""
        now = self._clock.monotonic()
        if self._page is None or now - self._page[0] >= _PAGE_LASTS:
            facts, usage = self.facts, self._usage
            page = self._metrics.page(
                facts,
                health(facts),
                [each for each in self._state.sessions if each.state.shown],
                usage.uses,
                crowded=usage.crowded,
                counted_at=usage.counted_at,
            )
            self._page = now, page
        return self._page[1]
