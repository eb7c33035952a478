"""The metrics that there are: what a node exports, and what the rules in ``deploy/`` make of it under names of their own."""

import re

from prometheus_client.parser import text_string_to_metric_families

from farmlease.clock import SystemClock
from farmlease.domain.health import health
from farmlease.domain.model import Kind, PoolUse, Reason
from farmlease.domain.session_states import SessionState
from farmlease.node.health.metrics import Metrics
from tests.domain.test_health import WELL
from tests.support.samples import DEPLOY

__all__ = ["NAMES", "VALUES", "known_names", "named_in"]


def exported() -> tuple[set[str], dict[str, set[str]]]:
    """The names of all samples that a node exports, and the values that each label may have."""
    metrics = Metrics(SystemClock())
    use = PoolUse(name="p", kind=Kind.NAMED, capacity=1, used=0, quarantined=0, kept=0, queued=0)
    metrics.called("acquire", 0.0)
    page = metrics.page(WELL, health(WELL), [], [use], counted_at=0.0).decode()
    names, values = set[str](), dict[str, set[str]]()
    for family in text_string_to_metric_families(page):
        names.add(family.name if family.type != "counter" else f"{family.name}_total")
        for sample in family.samples:
            names.add(sample.name)
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
    values["decision"] |= {"granted", "restricted"}
    values["reason"] |= {*Reason, "store", "receipt", "again"}
    values["state"] |= {*SessionState}
    # Labels of what has no series before it happens.
    return names | {"farmlease_store_call_failures_total"}, values | {"error": {"unavailable", "refused"}}


NAMES, VALUES = exported()


def known_names() -> set[str]:
    """Every name that an expression may use."""
    rules = (DEPLOY / "prometheus" / "farmlease.rules.yml").read_text(encoding="utf-8")
    return NAMES | set(re.findall(r"- record: (\S+)", rules))


def named_in(text: str) -> set[str]:
    """The names of metrics in a text."""
    return set(re.findall(r"[\w:]*\bfarmlease_[\w:]*\w", text))
