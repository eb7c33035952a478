"""Waiting for a node to be empty: until nobody is on it and nothing lies there that only it knows.

Tells how far it is: a bar on a terminal, a line for each change elsewhere. Decides nothing: who wants the node drained
has said so before.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import click

from farmlease.admin.nodes import Occupancy, Roster
from farmlease.cli.client.farm import FarmClient
from farmlease.cli.output.format import Command
from farmlease.domain import wording
from farmlease.domain.duration import format_duration, parse_duration
from farmlease.errors import FarmleaseError, InvalidInput, StoreUnavailable

__all__ = ["ForAsLong", "left", "verdict", "wait_option", "wait_until_empty"]

#: Seconds between two looks.
EVERY = 1.0
#: Seconds for which the store may be away before the wait is given up.
_STORE_AWAY = 30.0
_FOREVER = "forever"


class ForAsLong(NamedTuple):
    """How long to wait, in ms; None: as long as it takes."""

    span_ms: int | None


def wait_option(command: Command) -> Command:
    """Give a command ``--wait [D]``, handed to it as ``patience``: None if it was not given."""
    return click.option(
        "--wait", "patience", metavar="[D]", is_flag=False, flag_value=_FOREVER, callback=_patience,
        help="Wait until the node is empty; at most for D, e.g. 8h. Stands after N.",
    )(command)  # fmt: skip


def wait_until_empty(client: FarmClient, roster: Roster, name: str, patience: ForAsLong) -> None:
    """Return when a node is empty, having said so; FarmleaseError with what is left when the wait is over."""
    began = heard = time.monotonic()
    with _telling(name) as tell:
        while True:
            try:
                occupancy, heard = client.wait(roster.occupancy(name)), time.monotonic()
            except StoreUnavailable:
                if time.monotonic() - heard > _STORE_AWAY:
                    raise
            else:
                tell(occupancy)
                if occupancy.empty:
                    break
                if patience.span_ms is not None and (time.monotonic() - began) * 1000 >= patience.span_ms:
                    span = format_duration(patience.span_ms)
                    raise FarmleaseError(f"{name} is not empty after {span}: {left(occupancy)}; it goes on draining")
            time.sleep(EVERY)
    click.echo(verdict(occupancy))


def left(occupancy: Occupancy) -> str:
    """Return what keeps a node from being taken away, in words."""
    view, sessions = occupancy.view, f"{wording.counted(occupancy.sessions, 'session')} left"
    if view.namesakes:
        return (
            f"{view.namesakes + 1} hosts report under this name, and which one has how many sessions is not known: "
            "give each a node name of its own in farmlease.toml"
        )
    if occupancy.counted:
        silent = f"{view.state} since {wording.moment(view.seen_at)}"
        if occupancy.sessions:
            return f"{silent}, {sessions} by the store's count until the session_timeout is over"
        return (
            f"{silent}, and {view.owed} things it had yet to tell the store (ends, saved files) are on its disk only: "
            "start its agent once more"
        )
    if not view.draining:
        return f"{sessions}, and the node has not yet heard that it is to drain"
    if view.owed and not occupancy.sessions:
        return f"nobody is left, {view.owed} things are yet to be told to the store"
    return sessions


def verdict(occupancy: Occupancy) -> str:
    """Return what is said of a node that is empty."""
    view = occupancy.view
    if not occupancy.counted:
        return f"{view.node} is empty and has delivered everything: safe to reimage"
    return (
        f"{view.node} is {view.state} since {wording.moment(view.seen_at)}, had delivered everything then, and by the "
        "store's count nobody is left there: safe to reimage"
    )


def _patience(_: click.Context, __: click.Parameter, text: str | None) -> ForAsLong | None:
    if text is None or text == _FOREVER:
        return None if text is None else ForAsLong(None)
    try:
        return ForAsLong(parse_duration(text))
    except InvalidInput as error:
        raise click.BadParameter(f"{error}. The node's name stands before --wait.") from error


@contextmanager
def _telling(name: str) -> Iterator[Callable[[Occupancy], None]]:
    """Yield what tells how far it is."""
    if sys.stdout.isatty():
        with _bar(name) as tell:
            yield tell
        return
    last = ""

    def say(occupancy: Occupancy) -> None:
        nonlocal last
        if not occupancy.empty and left(occupancy) != last:
            last = left(occupancy)
            click.echo(f"{name}: {last}")

    yield say


@contextmanager
def _bar(name: str) -> Iterator[Callable[[Occupancy], None]]:
    """Yield what moves a bar from the most sessions there were to none."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=Console(markup=False, highlight=False), transient=True) as progress:
        task, most = progress.add_task(name, total=1), 0

        def move(occupancy: Occupancy) -> None:
            nonlocal most
            rest = occupancy.sessions + occupancy.view.owed
            most = max(most, rest, 1)
            progress.update(task, total=most, completed=most - rest, description=f"{name}: {left(occupancy)}")

        yield move
