"""``farmlease status``: how a farm is, on one screen; with ``--changed`` only what became wrong or right."""

import json
import sys
from pathlib import Path
from typing import Literal

import click

from farmlease.cli import example, print_line, print_stderr
from farmlease.cli.client.farm import warn_on_stderr
from farmlease.cli.output.format import print_folded, write_json
from farmlease.cli.status.known_file import keep_known, last_known
from farmlease.cli.status.look import look
from farmlease.cli.status.screen import finding_row, status_document, write_screen
from farmlease.domain.diagnosis.changes import Change, News, changed, known_now
from farmlease.errors import EXIT_FAILED, EXIT_UNAVAILABLE

__all__ = ["status"]

#: Findings of this host's health that are no news: it takes no new users as it was asked to, and how full pools are is
#: told for the whole farm, once it lasts.
_NO_NEWS = {("health", "sessions"), ("health", "pools")}
#: Columns that the continuation of a line of news is indented by.
_INDENT = 7


@click.command(
    epilog=example(
        "farmlease status", "farmlease status -o json", "farmlease status --changed /var/lib/farmlease-status/known"
    )
)
@click.option(
    "--changed",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Print only what became wrong or right since the last call with this FILE; nothing if nothing did.",
)
@click.option(
    "-o",
    "--output",
    "fmt",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Output format; with --changed, json is a line for each change.",
)
def status(*, file: Path | None, fmt: Literal["table", "json"]) -> None:
    """Show the pools, the nodes, and what is wrong: all that the doctor finds, and what only the farm shows.

    That is: a pool full for ten minutes, five different people denied in ten minutes, a silent node. With --changed,
    FILE keeps what was wrong; if it is absent or damaged, that is told and all that is wrong now counts as news.

    Exit status: 0 nothing fails (warnings do not count), 1 something fails, 4 the store does not answer. With
    --changed: 0 whatever the news are, 1 if FILE cannot be read or written.
    """
    warn_on_stderr()
    if file is not None:
        _tell_changes(file, fmt)
        return
    sight = look({})
    if fmt == "json":
        write_json(status_document(sight))
    else:
        write_screen(sight)
    if sight.store_away:
        click.get_current_context().exit(EXIT_UNAVAILABLE)
    if sight.failing:
        click.get_current_context().exit(EXIT_FAILED)


def _tell_changes(file: Path, fmt: str) -> None:
    """Print the news, and then keep what is known: news that could not be printed are told again."""
    before, told = last_known(file)
    if told:
        print_stderr(told)
    sight = look(before.full)
    seen = {
        group: [each for each in found if (each.check, each.subject) not in _NO_NEWS]
        for group, found in sight.findings.items()
    }
    now = known_now(before, seen, sight.full, sight.partly)
    for news in changed(before, now):
        if fmt == "json":
            print_line(json.dumps({"change": news.change.value, **finding_row(news.finding)}))
        else:
            _print_news(news)
    sys.stdout.flush()
    keep_known(file, now)


def _print_news(news: News) -> None:
    """Print one change: of what is right now, how it was."""
    was = "was: " if news.change is Change.RIGHT else ""
    print_folded(f"{news.change.value}: {news.finding.check}: {was}{news.finding.text}", _INDENT)
