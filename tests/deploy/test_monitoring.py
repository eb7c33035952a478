"""``deploy/prometheus`` and ``deploy/grafana``: valid by Prometheus' own tools, and about metrics that there are."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.metric_names import NAMES, VALUES, known_names, named_in
from tests.support.patience import within
from tests.support.samples import replaced
from tests.support.servers import require

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
RULES = (PROMETHEUS / "farmlease.rules.yml").read_text(encoding="utf-8")
DASHBOARD = json.loads((DEPLOY / "grafana" / "farmlease.json").read_text(encoding="utf-8"))
BALANCERS = (DEPLOY / "BALANCERS.md").read_text(encoding="utf-8")
#: Labels that Prometheus gives to a target: its own, and those of our scrape configuration.
OF_TARGETS = {"job", "instance", "farm", "node"}
#: What stands before ``(`` in an expression, or between two of them.
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def expressions() -> Iterator[str]:
    """Every expression of PromQL in rules and dashboard."""
    yield from re.findall(r"expr: (?:\|\n\s+)?(.+)", RULES)
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


EXPRESSIONS = [*expressions()]


@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "--lint=all", "--lint-fatal", "farmlease.rules.yml"],
        ["test", "rules", "farmlease.tests.yml"],
    ],
    ids=" ".join,
)
def test_prometheus_own_tools_agree(command: list[str]) -> None:
    """The scrape configuration and the rules are valid, and every alert fires when it is to, and not before."""
    told = subprocess.run(
        [require("promtool"), *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False, timeout=within(60)
    )
    assert 0 == told.returncode, told.stdout + told.stderr


def test_a_node_is_called_by_its_address(tmp_path: Path) -> None:
    """Whole, without port and brackets, by Prometheus' own relabelling."""
    names = {
        "ctx-02:8732": "ctx-02",
        "ctx-01.corp.example.com:8732": "ctx-01.corp.example.com",
        "192.0.2.11:8732": "192.0.2.11",
        "[2001:db8::11]:8732": "2001:db8::11",
        "[::1]:8732": "::1",
    }
    sample = (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
    rules = "rule_files:\n  - farmlease.rules.yml\n"
    lines = "".join(f'          - "{target}"\n' for target in names)
    config = tmp_path / "prometheus.yml"
    config.write_text(replaced(sample, {"          - ctx-02:8732\n": lines, rules: ""}))
    command = ["check", "service-discovery", "--timeout=3s", str(config), "farmlease"]
    told = subprocess.run(
        [require("promtool"), *command], capture_output=True, text=True, check=False, timeout=within(60)
    )
    assert 0 == told.returncode, told.stderr
    found = {each["labels"]["instance"]: each["labels"]["node"] for each in json.loads(told.stdout)}
    assert names == {target: node for target, node in found.items() if target in names}


def test_every_alert_is_tested() -> None:
    """An alert that was never seen to fire is none."""
    tests = (PROMETHEUS / "farmlease.tests.yml").read_text(encoding="utf-8")
    fired = set(re.findall(r"alertname: (\w+)\n\s+eval_time: \w+\n\s+exp_alerts:\n", tests))
    assert set(re.findall(r"alert: (\w+)", RULES)) == fired


def test_there_are_expressions() -> None:
    """What follows looks at something."""
    assert len(re.findall(r"expr:", RULES)) == len([*re.findall(r"expr: (?:\|\n\s+)?(.+)", RULES)])
    assert len(EXPRESSIONS) > 35


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_is_about_what_there_is(expression: str) -> None:
    """Each metric is exported under this name, each label is one of its own or of its target, with a value it has."""
    assert named_in(expression) <= known_names()
    grouped = [label for by in re.findall(r"(?:by|on) \(([\w, ]+)\)", expression) for label in by.split(", ")]
    for label in grouped:
        assert label in VALUES.keys() | OF_TARGETS
    for label, how, value in _MATCHER.findall(expression):
        assert label in VALUES.keys() | OF_TARGETS
        if label in VALUES and label not in {"pool", "verb"}:
            wanted = value.split("|") if how in {"=~", "!~"} else [value]
            assert [] == [each for each in wanted if each not in VALUES[label]]


def test_what_an_alert_says_names_labels_it_has() -> None:
    """A label that the expression has aggregated away would be empty in the text."""
    for alert in re.split(r"\n      - ", RULES)[1:]:
        if not alert.startswith("alert:"):
            continue
        used = set(re.findall(r"\$labels\.(\w+)", alert))
        by = re.findall(r"by \(([\w, ]+)\)", alert)
        kept = set(by[0].split(", ")) if by else OF_TARGETS
        assert used <= kept, alert


def test_the_dashboard_is_one() -> None:
    """Panels have their own ids and places, a title, and say what they show; the data source is the reader's choice."""
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len(panels) == len({panel["id"] for panel in panels})
    taken = set[tuple[int, int]]()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (column, row)
            for column in range(place["x"], place["x"] + place["w"])
            for row in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert {"${datasource}"} == {target["datasource"]["uid"] for target in panel["targets"]}
    assert ["datasource", "farm"] == [each["name"] for each in DASHBOARD["templating"]["list"]]


def test_the_documents_list_every_metric() -> None:
    """And none that there is not."""
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in NAMES if not name.endswith("_created")}
    families = {name for name in families if name != "farmlease_store_call_duration"}
    listed = set(re.findall(r"`(farmlease_\w+)", BALANCERS))
    assert families == listed
