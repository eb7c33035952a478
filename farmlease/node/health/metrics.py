"""What a node measures of itself, for Prometheus.

The rooms count events here; a page is made of the counts and of the facts that health last collected. Must never ask
the store or the journal, and no label may hold what a user, or the caller of a start, can choose: names of
pools come from the policy, all others from lists in the program.
"""

import platform
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from farmlease import __version__
from farmlease.clock import Clock
from farmlease.domain.health import Facts, Health, Status
from farmlease.domain.model import Decision, Denial, Grant, PoolUse, Reason
from farmlease.errors import StoreError, StoreUnavailable
from farmlease.farm import Farm
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.sessions.hooks import Hook
from farmlease.store.lease_store import LeaseStore, ScriptRunner
from farmlease.store.script import Argument, Script

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

#: Seconds. A call of the store takes less than a millisecond, and at most twice `[store] timeout`.
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """The metrics of one node, in a registry of their own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._registry = CollectorRegistry(auto_describe=False)
        self._beaten_at = clock.monotonic()
        self._counters()
        self._gauges()

    def _counters(self) -> None:
        """What is counted as it happens."""
        ours = self._registry
        self._decisions = Counter(
            "farmlease_decisions",
            "Answers to sessions that wanted to start. reason of a grant: store, receipt, or again (asked before).",
            ["pool", "decision", "reason"],
            registry=ours,
        )
        self._calls = Histogram(
            "farmlease_store_call_duration_seconds",
            "How long calls of the store took, asking again included.",
            ["verb"],
            buckets=_BUCKETS,
            registry=ours,
        )
        self._failures = Counter(
            "farmlease_store_call_failures",
            "Calls of the store without an answer (unavailable) or with a refusal (refused).",
            ["verb", "error"],
            registry=ours,
        )
        self._heartbeats = Counter(
            "farmlease_heartbeats", "Heartbeats, by whether the store answered all of it.", ["outcome"], registry=ours
        )
        self._hooks = Counter(
            "farmlease_hook_runs", "Hooks that were run: ok, failed, or timeout.", ["hook", "outcome"], registry=ours
        )
        # A series that begins with its first event hides that event from a query for an increase.
        for outcome in ("answered", "failed"):
            self._heartbeats.labels(outcome)
        for hook in Hook:
            for outcome in ("ok", "failed", "timeout"):
                self._hooks.labels(hook.value, outcome)
        self._expect_denials("")

    def _expect_denials(self, pool: str) -> None:
        for reason in Reason:
            self._decisions.labels(pool, "denied", reason.value)

    def _gauges(self) -> None:
        """What is set when a page is made."""

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"farmlease_{name}", what, labels, registry=self._registry)

        self._ready = gauge("ready", "1 if new logons should come to this node.")
        self._weight = gauge("weight_ratio", "Share of free sessions, from 0 to 1.")
        self._draining = gauge("draining", "1 if the node takes no new users.")
        self._check = gauge("health_check", "Each check of health: 0 pass, 1 warn, 2 fail.", "check")
        self._sessions = gauge("sessions", "Sessions of this node.", "pool", "state")
        self._most = gauge("max_sessions", "[agent] max_sessions of this node.")
        self._store_up = gauge("store_up", "1 if the store answered when it was last asked.")
        self._age = gauge("heartbeat_age_seconds", "Seconds since the store last answered a whole heartbeat.")
        self._owed = gauge("owed_messages", "Messages that the store has yet to be told.")
        self._refused = gauge("refused_messages", "Of these, messages that the store does not take.")
        self._recovering = gauge("recovering", "1 while leases are being restored to a store that lost data.")
        self._offset = gauge("store_clock_offset_seconds", "By how much the store's clock has leapt ahead (or back).")
        self._journal = gauge("journal_writable", "1 if the journal can be written.")
        self._logs = gauge("log_writable", "1 if the log can be written.")
        self._capacity = gauge("pool_capacity_seats", "Seats of a pool. The whole farm's: take the max.", "pool")
        self._seats = gauge("pool_seats", "Seats of a pool by state: used, quarantined, free.", "pool", "state")
        self._reserved = gauge("pool_reserved_seats", "Of the free seats, those kept for reservations.", "pool")
        self._queued = gauge("pool_queued_sessions", "Sessions that wait for a seat of a pool.", "pool")
        self._alert = gauge("pool_alert", "1 if a pool is as full as [health] pool_alert.", "pool")
        self._counted = gauge("pool_count_age_seconds", "Seconds since the seats of the pools were counted.")
        build = gauge("build_info", "This program.", "version", "python")
        build.labels(__version__, platform.python_version()).set(1)

    # --- what is counted --------------------------------------------------------------------------------------------

    def decided(self, decision: Decision, pools: Collection[str]) -> None:
        """Count an answer to a session that wanted to start; ``pools``: the names that are in the policy."""
        pool, reason = "", ""
        match decision:
            case Grant():
                pool, reason = decision.pool, "again" if decision.again else decision.source.value
                word = "granted"
            case Denial():
                pool, reason, word = decision.pool or "", decision.reason.value, "denied"
            case _:
                word = "restricted"
        # Who asks may ask for a pool of any name.
        self._decisions.labels(pool if pool in pools else "", word, reason).inc()

    def beaten(self, *, answered: bool) -> None:
        """Note a heartbeat."""
        self._heartbeats.labels("answered" if answered else "failed").inc()
        if answered:
            self._beaten_at = self._clock.monotonic()

    def hook_ran(self, hook: str, outcome: str) -> None:
        """Count a hook; ``outcome``: ok, failed or timeout."""
        self._hooks.labels(hook, outcome).inc()

    def measuring(self, farm: Farm) -> Farm:
        """Return the farm with every call of its store measured."""
        leases = LeaseStore(_Measured(farm.leases.connection, self), farm.name)
        return Farm(farm.name, leases, farm.sealer, host_identity=farm.host_identity)

    def called(self, verb: str, began: float, error: StoreError | None = None) -> None:
        """Note a call of the store that began at ``began`` by the clock's seconds."""
        self._calls.labels(verb).observe(self._clock.monotonic() - began)
        if error is not None:
            kind = "unavailable" if isinstance(error, StoreUnavailable) else "refused"
            self._failures.labels(verb, kind).inc()

    def now(self) -> float:
        """Seconds by the clock that calls are measured with."""
        return self._clock.monotonic()

    # --- the page -----------------------------------------------------------------------------------------------------

    def page(
        self,
        facts: Facts,
        found: Health,
        sessions: Sequence[NodeSession],
        uses: Sequence[PoolUse],
        *,
        crowded: Collection[str] = (),
        counted_at: float | None = None,
    ) -> bytes:
        """Return what a scrape reads. ``uses`` were counted at ``counted_at``; ``crowded``: names of pools."""
        self._of_the_node(facts, found)
        self._of_sessions(sessions)
        self._of_pools(uses, crowded)
        self._counted.set(self._clock.monotonic() - counted_at if counted_at is not None else float("nan"))
        return generate_latest(_WithoutBirthdays(self._registry))

    def _of_the_node(self, facts: Facts, found: Health) -> None:
        self._ready.set(found.ready)
        self._weight.set(found.weight / 100)
        self._draining.set(facts.draining)
        self._most.set(facts.max_sessions)
        self._store_up.set(facts.store_answers)
        self._age.set(self._clock.monotonic() - self._beaten_at)
        self._owed.set(facts.owed)
        self._refused.set(facts.refused)
        self._recovering.set(facts.recovering)
        self._offset.set(facts.clock_off_ms / 1000)
        self._journal.set(facts.journal_writes)
        self._logs.set(facts.log_trouble is None)
        for check in found.checks:
            self._check.labels(check.name).set([*Status].index(check.status))

    def _of_sessions(self, sessions: Sequence[NodeSession]) -> None:
        self._sessions.clear()
        for each in sessions:
            self._sessions.labels(each.pool, each.state.value).inc()

    def _of_pools(self, uses: Sequence[PoolUse], crowded: Collection[str]) -> None:
        for gauge in (self._capacity, self._seats, self._reserved, self._queued, self._alert):
            gauge.clear()
        for use in uses:
            self._expect_denials(use.name)
            self._capacity.labels(use.name).set(use.capacity)
            for state, seats in (("used", use.used), ("quarantined", use.quarantined), ("free", use.free)):
                self._seats.labels(use.name, state).set(seats)
            self._reserved.labels(use.name).set(use.reserved)
            self._queued.labels(use.name).set(use.queued)
            self._alert.labels(use.name).set(use.name in crowded)


class _Measured:
    """A connection that measures each call."""

    def __init__(self, caller: ScriptRunner, metrics: Metrics) -> None:
        self._caller = caller
        self._metrics = metrics

    async def call(self, script: Script, keys: tuple[str, ...], args: list[Argument]) -> list[Any]:
        """Call the store."""
        began = self._metrics.now()
        try:
            answer = await self._caller.call(script, keys, args)
        except StoreError as error:
            self._metrics.called(script.name, began, error)
            raise
        self._metrics.called(script.name, began)
        return answer


class _WithoutBirthdays(Collector):
    """A registry without the time at which each series began: nothing asks for it, and it doubles the page."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    @override
    def collect(self) -> Iterator[Metric]:
        """Yield each metric with what it measures."""
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
