"""How ``farmlease status`` shows a farm: on one screen for people, as one document for programs."""

from collections import Counter
from collections.abc import Sequence

from farmlease.cli import print_line
from farmlease.cli.node.commands import time_ago
from farmlease.cli.output.format import Column, Row, print_folded, write_table
from farmlease.cli.status.look import Sight
from farmlease.domain.diagnosis.farm import PoolState
from farmlease.domain.diagnosis.finding import Finding, Verdict
from farmlease.domain.json_documents import Document, node_document, timestamp
from farmlease.domain.node_view import NodeState, NodeView
from farmlease.domain.wording import counted

__all__ = ["finding_row", "status_document", "status_word", "write_screen"]

POOLS = (
    "pool", "state", "held", "capacity", "waiting", "quarantined", "overdraft",
    Column("denied 24 h", lambda row: str(row["denied_24h"])),
)  # fmt: skip
NODES = ("node", "state", "sessions", "health", "version", Column("heard", time_ago))
FINDINGS = ("check", "verdict", "finding")
#: Columns that the continuation of a line is indented by.
_INDENT = 2
#: Nodes shown one by one, those that are not ready first; of more, only how many there are.
MOST_NODES = 12


def status_word(sight: Sight) -> str:
    """Return fail, warn or pass: the worst verdict."""
    return "fail" if sight.failing else "warn" if sight.wrong else "pass"


def status_document(sight: Sight) -> Document:
    """Return all that is shown, for programs. Pools and nodes are null where they are not known."""
    seen, config = sight.overview, sight.config
    return {
        "status": status_word(sight),
        "farm": config.farm if config else None,
        "node": config.node if config else None,
        "at": timestamp(seen.at) if seen else None,
        "pools": [_pool_row(sight, pool) for pool in seen.pools] if seen else None,
        "nodes": [node_document(view, None) for view in seen.nodes] if seen else None,
        "findings": [finding_row(each) for each in sight.wrong],
    }


def write_screen(sight: Sight) -> None:
    """Print the screen: how it is as a whole, pools, nodes, and what is wrong."""
    _write_head(sight)
    if sight.overview is None:
        print_line()
        print_line("pools and nodes are not known: see below")
    else:
        _write_pools(sight, sight.overview.pools)
        _write_nodes(sight.overview.nodes)
    if sight.wrong:
        print_line()
        write_table(map(finding_row, sight.wrong), FINDINGS)


def finding_row(finding: Finding) -> Row:
    """Return a finding as a row, with the doctor's names."""
    return {"check": finding.check, "verdict": finding.verdict.value, "finding": finding.text}


def _write_head(sight: Sight) -> None:
    verdicts = Counter(each.verdict for each in sight.wrong)
    wrong = ", ".join(
        f"{verdicts[verdict]} {word}" for verdict, word in ((Verdict.FAIL, "failing"), (Verdict.WARN, "to look at"))
        if verdicts[verdict]
    )  # fmt: skip
    where = f"farm {sight.config.farm}, seen from {sight.config.node}" if sight.config else "this host"
    at = f", {(timestamp(sight.overview.at) or '')[:16].replace('T', ' ')} UTC" if sight.overview else ""
    print_folded(f"{where}{at}", _INDENT)
    print_folded(f"{status_word(sight)}: {wrong or 'nothing is wrong'}", _INDENT)


def _write_pools(sight: Sight, pools: Sequence[PoolState]) -> None:
    print_line()
    if pools:
        write_table((_pool_row(sight, pool) for pool in pools), POOLS)
    else:
        print_line("no pools: no policy was applied yet")


def _pool_row(sight: Sight, pool: PoolState) -> Document:
    since = sight.full.get(pool.name)
    return {
        "pool": pool.name,
        "kind": pool.kind.value,
        "state": _pool_state(sight, pool),
        "held": pool.held,
        "capacity": pool.capacity,
        "waiting": pool.waiting,
        "quarantined": pool.quarantined,
        "overdraft": pool.beyond,
        "overdraft_limit": pool.overdraft,
        "denied_24h": pool.denied,
        "full_since": timestamp(since.at) if since else None,
    }


def _pool_state(sight: Sight, pool: PoolState) -> str:
    subjects = {each.subject for each in sight.wrong}
    if f"{pool.name} recovering" in subjects:
        return "recovering"
    return "full" if pool.full else "ok"


def _write_nodes(views: Sequence[NodeView]) -> None:
    print_line()
    if not views:
        print_line("no node has reported yet; start an agent with `farmlease agent`")
        return
    states = Counter(view.state for view in views)
    versions = Counter(view.version or "unknown" for view in views)
    by_state = ", ".join(f"{states[state]} {state.value}" for state in NodeState if states[state])
    by_version = ", ".join(f"{version} ({number})" for version, number in sorted(versions.items()))
    print_line(f"{counted(len(views), 'node')}: {by_state}; version {by_version}")
    chosen = sorted(views, key=lambda view: (view.state is NodeState.READY and not view.namesakes, view.node))
    if len(views) > MOST_NODES:
        chosen = [view for view in chosen if view.state is not NodeState.READY or view.namesakes][:MOST_NODES]
    if chosen:
        write_table((node_document(view, None) for view in chosen), NODES)
    if len(views) > len(chosen):
        print_line(f"and {len(views) - len(chosen)} more; see `farmlease node list`")
