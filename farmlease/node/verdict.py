"""The node's health as it stands: looked at once a second, told as often as anybody asks.

However many ask, and however slow the disk is, being asked touches neither the store nor the journal. What the node
itself decides, draining and stopping, counts in the very next answer.
"""

from dataclasses import replace

from farmlease.clock import Clock
from farmlease.domain.health import Facts, Health, Steady, health
from farmlease.node.agent import Agent
from farmlease.node.health.metrics import Metrics
from farmlease.node.health.pool_usage import PoolUsage

__all__ = ["Verdict"]

#: Seconds for which one page of metrics serves all who scrape.
_PAGE_LASTS = 1.0


class Verdict:
    """What balancers and monitors are told of one node."""

    def __init__(self, agent: Agent, usage: PoolUsage, metrics: Metrics, clock: Clock, max_sessions: int) -> None:
        self._agent = agent
        self._usage = usage
        self._metrics = metrics
        self._clock = clock
        self._max_sessions = max_sessions
        self._page: tuple[float, bytes] | None = None
        self._facts = agent.facts()
        self._store = Steady(self._facts.store_answers, clock.monotonic())

    def look(self) -> None:
        """Look at the agent anew. A disk that does not even say what lies on it is one that cannot be written."""
        try:
            self._facts = self._agent.facts()
        except OSError:
            self._facts = replace(self._facts, journal_writes=False)
        self._store = self._store.seen(self._facts.store_answers, self._clock.monotonic())

    @property
    def facts(self) -> Facts:
        """What the verdict is made of."""
        return replace(
            self._facts,
            draining=self._agent.draining,
            stopping=self._agent.leaving,
            store_lost=not self._store.counts(self._clock.monotonic()),
            max_sessions=self._max_sessions,
            crowded=tuple(self._usage.crowded.values()),
        )

    @property
    def health(self) -> Health:
        """The verdict."""
        return health(self.facts)

    @property
    def page(self) -> bytes:
        """The metrics, for Prometheus."""
        now = self._clock.monotonic()
        if self._page is None or now - self._page[0] >= _PAGE_LASTS:
            facts, usage = self.facts, self._usage
            page = self._metrics.page(
                facts,
                health(facts),
                self._agent.sessions(),
                usage.uses,
                crowded=usage.crowded,
                counted_at=usage.counted_at,
            )
            self._page = now, page
        return self._page[1]
