"""``farmlease node …``: the nodes of the farm, and emptying one for an update, from anywhere.

Works on the store with the farm's keys; it needs no agent here. A node does what is wished of it when it next asks,
every two seconds.
"""

from collections.abc import Iterator

import click

from farmlease.admin.nodes import Roster
from farmlease.cli import example
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.node.drain_wait import ForAsLong, wait_option, wait_until_empty
from farmlease.cli.output.format import Column, Format, Row, day_and_time, emit, follow_option, output_option
from farmlease.domain.json_documents import node_document
from farmlease.domain.node_view import NodeState

__all__ = ["ago", "node", "rows", "state_of"]

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
    """List the nodes of the farm. Each line is what a node said of itself when it was last heard of.

    A node that was not heard of for half a minute is silent; after thirty days it is forgotten. Hosts that share a name
    (clones of an image, say) are one line that says so: give each a name of its own.
    """
    with opened_farm() as client:
        if watch:
            from farmlease.cli.output.watch import Watched, follow

            moving = ("last_heard_at", "heard_ago_s")
            follow(Watched(rows=lambda: rows(client, state), key=("node",), table=TABLE, moving=lambda _: moving), fmt)
        emit(rows(client, state), COLUMNS, fmt, table=TABLE)


@node.command(epilog=example("farmlease node drain ctx-01", "farmlease node drain ctx-01 --wait 8h"))
@click.argument("name", metavar="N")
@wait_option
def drain(name: str, patience: ForAsLong | None) -> None:
    """Let node N take no new users. Those with a session there may come back to it.

    The balancer is told within five seconds. With --wait: until nobody is left and the node has delivered everything,
    so that it is safe to reimage; exit status 1 if that takes longer than D.
    """
    with opened_farm() as client:
        client.in_force()  # with a wrong key ring nobody could read who it was
        roster = Roster(client.farm)
        view = client.wait(roster.drain(name, on=True))
        if patience is not None:
            wait_until_empty(client, roster, name, patience)
            return
    told = "takes no new users" if view.draining else "takes no new users in a few seconds"
    late = "" if view.heard else f"; it is {view.state} now, and will hear of it when its agent runs"
    click.echo(f"{name} {told}{late}; sessions left: {view.sessions}")


@node.command(epilog=example("farmlease node undrain ctx-01"))
@click.argument("name", metavar="N")
def undrain(name: str) -> None:
    """Let node N take users again."""
    with opened_farm() as client:
        client.in_force()  # as above
        view = client.wait(Roster(client.farm).drain(name, on=False))
    late = "" if view.heard else f"; it is {view.state} now, and will hear of it when its agent runs"
    click.echo(f"{name} takes users again in a few seconds{late}")


def rows(client: FarmClient, state: str | None) -> Iterator[Row]:
    """Yield the nodes in a state, or all."""
    roster = Roster(client.farm)
    for view in client.wait(roster.all()):
        if state in {None, view.state}:
            yield node_document(view, roster.wished_by(view))


def state_of(row: Row) -> str:
    """Return a node's state in words: also what it was told and has not done yet, and that it is more than one."""
    drain, state = row["drain"], str(row["state"])
    if row["namesakes"]:
        return f"{int(str(row['namesakes'])) + 1} hosts of this name"
    wished = isinstance(drain, dict) and bool(drain["wished"])
    if state in {NodeState.SILENT, NodeState.STOPPED, NodeState.STOPPING}:
        return f"{state}, to drain" if wished else state
    if wished != (state == NodeState.DRAINING):
        return f"{state}, to {'drain' if wished else 'undrain'}"
    return state


def ago(row: Row) -> str:
    """Return how long a node was not heard of, as a person reads it, by its largest unit: ``8 s ago``, ``5 d ago``."""
    seconds = int(str(row["heard_ago_s"]))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


TABLE = (
    "node", Column("state", state_of), "sessions", "health", "version", Column("heard", ago),
    Column("since (UTC)", lambda row: day_and_time(row["since"])),
)  # fmt: skip
