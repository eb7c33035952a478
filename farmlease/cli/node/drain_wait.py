"""Waiting until a node is empty: it has no session and has delivered everything to the store.

Shows the progress: a bar on a terminal, a line for each change elsewhere. This module must never request a drain: its
caller has done that.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import click

from farmlease.admin.nodes import NodeAdmin, Occupancy
from farmlease.cli import print_line, printable
from farmlease.cli.client.farm import FarmClient
from farmlease.cli.output.format import Command
from farmlease.domain import wording
from farmlease.domain.duration import format_duration, parse_duration
from farmlease.errors import FarmleaseError, InvalidInput, StoreUnavailable

__all__ = ["WaitLimit", "empty_text", "remaining_text", "wait_option", "wait_until_empty"]

#: Seconds between two checks.
EVERY = 1.0
#: Seconds the store may be unavailable before the wait fails.
_STORE_AWAY = 30.0
_FOREVER = "forever"


class WaitLimit(NamedTuple):
    """How long to wait, in ms; None: without limit."""

    span_ms: int | None


def wait_option(command: Command) -> Command:
    """Give a command ``--wait [D]``, handed to it as ``limit``: None if it was not given."""
    return click.option(
        "--wait",
        "limit",
        metavar="[D]",
        is_flag=False,
        flag_value=_FOREVER,
        callback=_parse_limit,
        help="Wait until the node is empty; at most for D, e.g. 8h. Write it after N.",
    )(command)


def wait_until_empty(client: FarmClient, nodes: NodeAdmin, name: str, limit: WaitLimit) -> None:
    """Return when a node is empty, and print it; FarmleaseError with what is left when the time is up."""
    began = answered = time.monotonic()
    with _progress(name) as show:
        while True:
            try:
                occupancy, answered = client.wait(nodes.occupancy(name)), time.monotonic()
            except StoreUnavailable:
                if time.monotonic() - answered > _STORE_AWAY:
                    raise
            else:
                show(occupancy)
                if occupancy.empty:
                    break
                if limit.span_ms is not None and (time.monotonic() - began) * 1000 >= limit.span_ms:
                    span = format_duration(limit.span_ms)
                    raise FarmleaseError(
                        f"{name} is not empty after {span}: {remaining_text(occupancy)}; it goes on draining"
                    )
            time.sleep(EVERY)
    print_line(empty_text(occupancy))


def remaining_text(occupancy: Occupancy) -> str:
    """Return why a node is not empty, in words."""
    view, sessions = occupancy.view, f"{wording.counted(occupancy.sessions, 'session')} left"
    if view.namesakes:
        return (
            f"{view.namesakes + 1} hosts report under this name, so the sessions of each are unknown: "
            "give each a node name of its own in farmlease.toml"
        )
    if occupancy.counted:
        silent = f"{view.state} since {wording.moment(view.seen_at)}"
        if occupancy.sessions:
            return f"{silent}, {sessions} by the store's count until the session_timeout is over"
        return (
            f"{silent}, and {view.owed} session ends or saved files are not delivered and on its disk only: "
            "start its agent once more"
        )
    if not view.draining:
        return f"{sessions}, and the node has not read the drain request yet"
    if view.owed and not occupancy.sessions:
        return f"no session is left, {view.owed} session ends or saved files are not delivered to the store yet"
    return sessions


def empty_text(occupancy: Occupancy) -> str:
    """Return the confirmation for a node that is empty."""
    view = occupancy.view
    if not occupancy.counted:
        return f"{view.node} is empty and has delivered everything: safe to reimage"
    return (
        f"{view.node} is {view.state} since {wording.moment(view.seen_at)}, had delivered everything then, and by the "
        "store's count has no session left: safe to reimage"
    )


def _parse_limit(_: click.Context, __: click.Parameter, text: str | None) -> WaitLimit | None:
    if text is None or text == _FOREVER:
        return None if text is None else WaitLimit(None)
    try:
        return WaitLimit(parse_duration(text))
    except InvalidInput as error:
        raise click.BadParameter(f"{error}. Write the node's name before --wait.") from error


@contextmanager
def _progress(name: str) -> Iterator[Callable[[Occupancy], None]]:
    """Yield the function that shows the progress."""
    if sys.stdout.isatty():
        with _bar(name) as show:
            yield show
        return
    last = ""

    def print_change(occupancy: Occupancy) -> None:
        nonlocal last
        if not occupancy.empty and remaining_text(occupancy) != last:
            last = remaining_text(occupancy)
            print_line(f"{name}: {last}")

    yield print_change


@contextmanager
def _bar(name: str) -> Iterator[Callable[[Occupancy], None]]:
    """Yield the function that moves a bar from the most sessions seen to none."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=Console(markup=False, highlight=False), transient=True) as progress:
        task, most = progress.add_task(name, total=1), 0

        def move(occupancy: Occupancy) -> None:
            nonlocal most
            rest = occupancy.sessions + occupancy.view.owed
            most = max(most, rest, 1)
            progress.update(
                task, total=most, completed=most - rest, description=printable(f"{name}: {remaining_text(occupancy)}")
            )

        yield move
