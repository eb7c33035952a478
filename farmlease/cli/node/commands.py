"""``farmlease node …``: list the nodes of the farm, and drain one for an update, from any host.

Works on the store with the farm's keys; it needs no agent here. A node reads the request at its next report, within two
seconds.
"""

from collections.abc import Iterator

import click

from farmlease.admin.nodes import NodeAdmin
from farmlease.cli import example, print_line
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.node.drain_wait import WaitLimit, wait_option, wait_until_empty
from farmlease.cli.output.format import Column, Format, Row, day_and_time, emit, follow_option, output_option
from farmlease.domain.json_documents import node_document
from farmlease.domain.node_view import NodeState

__all__ = ["node", "time_ago"]

COLUMNS = (
    "node", "state", "sessions", "owed", "version", "health", "health_listen", "incarnation", "namesakes", "started_at",
    "since", "last_heard_at", "drain.wished", "drain.at", "drain.by",
)  # fmt: skip


@click.group()
def node() -> None:
    """See the nodes of the farm, and empty one.

    Exit status: 0 done, 1 no such node or not empty in time, 4 the store is unavailable.
    """


@node.command(
    "list",
    epilog=example(
        "farmlease node list", "farmlease node list --state draining -o json", "farmlease node list --follow"
    ),
)
@click.option("--state", type=click.Choice([state.value for state in NodeState]), help="Only those in this state.")
@output_option
@follow_option
def list_(*, state: str | None, fmt: Format, watch: bool) -> None:
    """List the nodes of the farm. Each line is a node's last report about itself.

    A node without a report for half a minute is silent; after thirty days it is removed. Hosts that share a name, such
    as clones of an image, share one line, which is marked: give each a name of its own.
    """
    with opened_farm() as client:
        if watch:
            from farmlease.cli.output.watch import WatchedList, watch_list

            volatile = ("last_heard_at", "heard_ago_s")
            watched = WatchedList(
                rows=lambda: _rows(client, state), key=("node",), table=TABLE, volatile=lambda _: volatile
            )
            watch_list(watched, fmt)
        emit(_rows(client, state), COLUMNS, fmt, table=TABLE)


@node.command(epilog=example("farmlease node drain ctx-01", "farmlease node drain ctx-01 --wait 8h"))
@click.argument("name", metavar="N")
@wait_option
def drain(name: str, limit: WaitLimit | None) -> None:
    """Let node N take no new users. Users with a session there may come back to it.

    The node's health listener reports it to the balancer within five seconds. With --wait: return when no session is
    left and the node has delivered everything, so that it is safe to reimage; exit status 1 after D.
    """
    with opened_farm() as client:
        client.in_force()  # fails with a wrong key ring, whose seal of the administrator's name would not open
        nodes = NodeAdmin(client.farm)
        view = client.wait(nodes.drain(name, on=True))
        if limit is not None:
            wait_until_empty(client, nodes, name, limit)
            return
    soon = "" if view.draining else " in a few seconds"
    late = "" if view.heard else f"; it is {view.state} now, and will read this when its agent runs"
    print_line(f"{name} takes no new users{soon}{late}; sessions left: {view.sessions}")


@node.command(epilog=example("farmlease node undrain ctx-01"))
@click.argument("name", metavar="N")
def undrain(name: str) -> None:
    """Let node N take users again."""
    with opened_farm() as client:
        client.in_force()  # as above
        view = client.wait(NodeAdmin(client.farm).drain(name, on=False))
    late = "" if view.heard else f"; it is {view.state} now, and will read this when its agent runs"
    print_line(f"{name} takes users again in a few seconds{late}")


def _rows(client: FarmClient, state: str | None) -> Iterator[Row]:
    """Yield the nodes in a state, or all."""
    nodes = NodeAdmin(client.farm)
    for view in client.wait(nodes.all()):
        if state in {None, view.state}:
            yield node_document(view, nodes.requested_by(view))


def _state_cell(row: Row) -> str:
    """Return a node's state in words, with a request it has not carried out yet; or how many hosts share the name."""
    drain, state = row["drain"], str(row["state"])
    if row["namesakes"]:
        return f"{int(str(row['namesakes'])) + 1} hosts of this name"
    requested = isinstance(drain, dict) and bool(drain["wished"])
    if state in {NodeState.SILENT, NodeState.STOPPED, NodeState.STOPPING}:
        return f"{state}, to drain" if requested else state
    if requested != (state == NodeState.DRAINING):
        return f"{state}, to {'drain' if requested else 'undrain'}"
    return state


def time_ago(row: Row) -> str:
    """Return how long ago a node last reported, in its largest unit: ``8 s ago``, ``5 d ago``."""
    seconds = int(str(row["heard_ago_s"]))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


TABLE = (
    "node", Column("state", _state_cell), "sessions", "health", "version", Column("heard", time_ago),
    Column("since (UTC)", lambda row: day_and_time(row["since"])),
)  # fmt: skip
