"""What a node tells Prometheus: that it is true, bounded and silent, and that telling it costs store and journal nothing."""

import math
from dataclasses import dataclass

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from farmlease.config.model import AgentSection
from farmlease.errors import JournalFailed, StoreError
from farmlease.node.health.monitor import HealthMonitor
from farmlease.node.health.pool_usage import STALE_AFTER, PoolUsage
from farmlease.node.journal.journal import Journal
from farmlease.store.lease_store import LeaseStore
from tests.support.nodes import JOHN, MARY, Host, Site, site
from tests.support.stores import HOUR

__all__ = ["site"]

MINUTE = 60_000
#: Every label there may be. None of them can be chosen by who asks for a session.
LABELS = {
    "pool", "decision", "reason", "state", "verb", "error", "outcome", "hook", "check", "version", "python", "le",
}  # fmt: skip


@dataclass(slots=True)
class Node:
    """A host and what is told of it."""

    host: Host
    usage: PoolUsage
    monitor: HealthMonitor

    async def beat(self) -> None:
        """One heartbeat, a count of the pools if it is time, and a look."""
        await self.host.beat()
        await self.usage.take()
        self.monitor.look()

    def families(self) -> list[Metric]:
        """A scrape, a second after the one before."""
        self.host.site.timed.clock.advance(1_000)
        return list(text_string_to_metric_families(self.monitor.page.decode()))

    def value(self, name: str, **labels: str) -> float | None:
        """One sample of a scrape; None if it is not there."""
        found = [
            sample.value
            for family in self.families()
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        return found[0] if found else None


def observed(host: Host, alert: int = 90) -> Node:
    """What a daemon makes around an agent."""
    node = host.node
    usage = PoolUsage(host.farm, node.state.policy, node.sync.availability, host.clock, alert)
    settings = AgentSection(max_sessions=4)
    monitor = HealthMonitor(node.state, node.sync, node.sessions, usage, node.metrics, node.runtime, settings)
    return Node(host, usage, monitor)


@pytest.fixture
async def node(site: Site) -> Node:
    """A node that has beaten once."""
    made = observed(site.host())
    await made.beat()
    return made


async def test_names_are_prometheus_own_kind(node: Node) -> None:
    """Each has our prefix and a help; a counter ends in _total, a time in seconds; and there are no birthdays."""
    await node.host.granted(JOHN)
    families = node.families()
    assert len(families) > 20
    for family in families:
        assert family.name.startswith("farmlease_")
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert not sample.name.endswith("_created")
            assert (family.type == "counter") == sample.name.endswith("_total")
            assert set(sample.labels) <= LABELS
    assert [] == [family.name for family in REGISTRY.collect() if family.name.startswith("farmlease")]


async def test_nothing_of_users_is_in_it(node: Node) -> None:
    """L10: no name, pseudonym, session id or device, whatever was asked; and a pool of any name makes no new series."""
    host = node.host
    john = await host.granted(JOHN, "canary-7", device="CANARY-NB")
    before = len(node.families()[0].samples)
    for number in range(20):
        await host.denied(MARY, f"canary-{number}", pool=f"canary-pool-{number}")
    node.monitor.look()
    page = node.monitor.page.decode()
    for word in (JOHN.canonical, JOHN.name, MARY.name, host.farm.sealer.user_index(JOHN), john.lease.id):
        assert word not in page
    assert "canary" not in page.lower()
    assert before == len(node.families()[0].samples)
    assert 20 == node.value("farmlease_decisions_total", pool="", decision="denied", reason="unknown_pool")


async def test_decisions_are_counted_by_what_they_were(site: Site) -> None:
    """A grant by its source, or as asked before; a denial by its reason; restricted use."""
    await site.apply(site.policy + '[[rule]]\nusers = ["*mary"]\naccess = "restricted"\n')
    node = observed(site.host())
    await node.beat()

    def count(decision: str, reason: str, pool: str = "qlikview") -> float | None:
        return node.value("farmlease_decisions_total", pool=pool, decision=decision, reason=reason)

    await node.host.granted(JOHN, "1")
    await node.host.granted(JOHN, "1")
    await node.host.granted(JOHN, "2", device="NB-1")
    await node.host.denied(JOHN, "3", device="NB-2")
    await node.host.start(MARY, "4")
    node.host.line.cut.add("*")
    await node.host.granted(JOHN, "5")
    assert (2, 1, 1) == (count("granted", "store"), count("granted", "again"), count("granted", "receipt"))
    assert (1, 1) == (count("denied", "device_limit"), count("restricted", "", pool=""))


async def test_the_state_of_the_node(node: Node) -> None:
    """Sessions by pool and state, the weight, and what health goes by."""
    await node.host.granted(JOHN)
    node.monitor.look()
    assert 1 == node.value("farmlease_sessions", pool="qlikview", state="active")
    assert (1, 0, 0.75, 4) == (
        node.value("farmlease_ready"),
        node.value("farmlease_draining"),
        node.value("farmlease_weight_ratio"),
        node.value("farmlease_max_sessions"),
    )
    assert (1, 1, 0, 0, 0, 0) == (
        node.value("farmlease_store_up"),
        node.value("farmlease_journal_writable"),
        node.value("farmlease_owed_messages"),
        node.value("farmlease_refused_messages"),
        node.value("farmlease_recovering"),
        node.value("farmlease_store_clock_offset_seconds"),
    )
    node.host.agent.drain(on=True)
    assert (0, 1, 1) == (
        node.value("farmlease_ready"),
        node.value("farmlease_draining"),
        node.value("farmlease_health_check", check="sessions"),
    )
    await node.host.end()
    node.monitor.look()
    assert None is node.value("farmlease_sessions", pool="qlikview", state="active")


async def test_an_outage_in_numbers(node: Node) -> None:
    """The store is away: it is not up, the heartbeat ages, what is owed grows."""
    await node.host.granted(JOHN)
    node.host.line.cut.add("*")
    await node.host.end()
    node.host.site.timed.clock.advance(5 * MINUTE)
    await node.beat()
    assert (0, 1, 1) == (
        node.value("farmlease_store_up"),
        node.value("farmlease_owed_messages"),
        node.value("farmlease_health_check", check="store"),
    )
    age = node.value("farmlease_heartbeat_age_seconds")
    assert age is not None
    assert 300 <= age < 330
    assert (1, 1) == (
        node.value("farmlease_heartbeats_total", outcome="answered"),
        node.value("farmlease_heartbeats_total", outcome="failed"),
    )


async def test_being_asked_touches_neither_store_nor_journal(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often, and even where both are broken."""
    calls = len(node.host.line.calls)

    def broken(*_: object) -> None:
        raise JournalFailed("touched")

    def unreadable(_: object) -> None:
        raise OSError

    monkeypatch.setattr(Journal, "_rows", broken)
    monkeypatch.setattr(Journal, "refused", property(unreadable))
    for _ in range(3):
        assert 1 == node.value("farmlease_ready")
        assert node.monitor.health.ready
    assert calls == len(node.host.line.calls)
    node.monitor.look()
    assert "the journal cannot be written" in node.monitor.health.why
    assert not node.monitor.health.ready


async def test_a_thousand_scrapes_are_one_page(node: Node) -> None:
    """Making a page costs milliseconds: it is made once a second, however many want it."""
    first = node.monitor.page
    assert all(node.monitor.page is first for _ in range(1000))
    node.host.site.timed.clock.advance(1_000)
    assert node.monitor.page is not first


async def test_calls_of_the_store_by_verb(node: Node) -> None:
    """How long each took, and which failed how."""
    metrics = node.host.node.metrics
    farm = metrics.measuring(node.host.farm)
    await farm.leases.count("qlikview")
    for fault, times in ((node.host.line.cut, 2), (node.host.line.refused, 1)):
        fault.add("count")
        for _ in range(times):
            with pytest.raises(StoreError):
                await farm.leases.count("qlikview")
        fault.clear()
    assert 4 == node.value("farmlease_store_call_duration_seconds_count", verb="count")
    assert (2, 1) == (
        node.value("farmlease_store_call_failures_total", verb="count", error="unavailable"),
        node.value("farmlease_store_call_failures_total", verb="count", error="refused"),
    )
    assert isinstance(farm.leases, LeaseStore)


# --- the pools ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def crowd(site: Site) -> Node:
    """A node of a farm with ten seats, nine of them taken."""
    await site.apply(
        '[[pool]]\nname = "clearquest"\nkind = "floating"\nshare = "session"\ncapacity = 10\nqueue = "1h"\n'
        '[[pool]]\nname = "locked"\nkind = "node_locked"\nnodes = ["ctx-01"]\n'
    )
    node = observed(site.host())
    await node.host.beat()
    for number in range(9):
        await node.host.granted(JOHN, str(number), pool="clearquest")
    await node.host.granted(JOHN, "locked", pool="locked")
    await node.beat()
    return node


async def test_the_seats_of_the_pools(crowd: Node) -> None:
    """As counted by the store; each pool with its own numbers."""
    assert (10, 9, 1, 0) == (
        crowd.value("farmlease_pool_capacity_seats", pool="clearquest"),
        crowd.value("farmlease_pool_seats", pool="clearquest", state="used"),
        crowd.value("farmlease_pool_seats", pool="clearquest", state="free"),
        crowd.value("farmlease_pool_seats", pool="clearquest", state="quarantined"),
    )
    assert (0, 0) == (
        crowd.value("farmlease_pool_queued_sessions", pool="clearquest"),
        crowd.value("farmlease_pool_reserved_seats", pool="clearquest"),
    )


async def test_a_crowded_pool_is_a_warning_and_no_more(crowd: Node) -> None:
    """90 % of the seats: metric and health say so, and the node stays ready. A node_locked pool is full by nature."""
    found = crowd.monitor.health
    assert (True, "warn", "pool clearquest: 9 of 10 seats are taken; see `farmlease pool list`") == (
        found.ready,
        found.status.value,
        found.why,
    )
    assert (1, 0) == (
        crowd.value("farmlease_pool_alert", pool="clearquest"),
        crowd.value("farmlease_pool_alert", pool="locked"),
    )
    for alert, is_crowded in ((91, False), (0, False), (1, True)):
        node = observed(crowd.host, alert)
        await node.usage.take()
        assert is_crowded == (node.monitor.health.status.value == "warn")


async def test_pools_are_counted_once_a_minute(crowd: Node) -> None:
    """Not at each beat, and not at each scrape; a new policy is counted at once."""
    counts = crowd.host.line.calls.count
    before = counts("count")
    for _ in range(50):
        await crowd.beat()
        crowd.families()
    assert before == counts("count")
    crowd.host.site.timed.clock.advance(MINUTE)
    await crowd.beat()
    assert before + 2 == counts("count")
    await crowd.host.site.apply(crowd.host.site.policy)
    await crowd.beat()
    assert before + 3 == counts("count")
    assert None is crowd.value("farmlease_pool_capacity_seats", pool="clearquest")


async def test_an_old_count_is_not_told(crowd: Node) -> None:
    """The store is away: it is not asked, and after five minutes nobody is told how full it was."""
    crowd.host.line.cut.add("*")
    await crowd.beat()
    calls = crowd.host.line.calls.count("count")
    crowd.host.site.timed.clock.advance(MINUTE)
    await crowd.beat()
    assert calls == crowd.host.line.calls.count("count")
    age = crowd.value("farmlease_pool_count_age_seconds")
    assert age is not None
    assert 60 <= age < 70
    crowd.host.site.timed.clock.advance(int(STALE_AFTER * 1000))
    assert None is crowd.value("farmlease_pool_capacity_seats", pool="clearquest")
    assert math.isnan(crowd.value("farmlease_pool_count_age_seconds") or 0)
    assert {} == crowd.usage.crowded


async def test_a_store_that_fails_while_it_counts_is_an_outage_like_any_other(crowd: Node) -> None:
    """It is noted, and counting goes on when it is back."""
    crowd.host.site.timed.clock.advance(HOUR // 2)
    await crowd.host.beat()
    crowd.host.line.cut.add("count")
    await crowd.usage.take()
    assert not crowd.host.agent.facts().store_answers
    crowd.host.line.cut.clear()
    crowd.host.site.timed.clock.advance(MINUTE)
    await crowd.beat()
    assert 9 == crowd.value("farmlease_pool_seats", pool="clearquest", state="used")
