"""``farmlease audit``: every decision of the farm, from the scripts that took them, merged by time.

Works on the store with the farm's keys; it needs no agent and changes nothing. It never holds a list whole, so that an
audit of any length passes through a pipe.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import click

from farmlease.admin.audit import Decision, History
from farmlease.cli import example
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.output.format import Command, Format, check_reader, folded, output_option, write_csv
from farmlease.domain.duration import parse_duration
from farmlease.domain.identity import User
from farmlease.domain.json_documents import Document, decision_line, timestamp
from farmlease.errors import FarmleaseError, StoreUnavailable
from farmlease.store.audit_store import AuditCursor

__all__ = [
    "audit",
    "decision_line_of",
    "decisions",
    "known_pools",
    "one_of",
    "since_option",
    "since_when",
    "story",
    "tell_cut",
    "write",
]

COLUMNS = (
    "at", "pool", "event", "user", "index", "node", "session", "device", "detail", "fence", "by", "note",
)  # fmt: skip
#: Seconds between two looks for what is new.
PAUSE = 1.0
#: Columns before what is continued of a line.
_INDENT = 21


def since_option(default: str) -> Callable[[Command], Command]:
    """Give a command ``--since``, handed to it as ``since``; ``default`` is what it does without, in words."""
    return click.option("--since", metavar="D", help=f"How far back, e.g. 24h or 30d (default: {default}).")


@click.command(
    epilog=example(
        "farmlease audit --since 24h",
        "farmlease audit --user 'CORP\\john' -o csv",
        "farmlease audit --pool qlikview -o json > audit.jsonl",
        "farmlease audit --since 10m --follow",
    )
)
@since_option("as far as there is")
@click.option("--user", metavar="U", help="Only what concerns this user, in any spelling.")
@click.option("--pool", metavar="P", help="Only this pool (default: all there ever were, and the farm itself).")
@click.option("--follow", is_flag=True, help="Go on with what is decided from now on, until interrupted.")
@output_option
def audit(*, since: str | None, user: str | None, pool: str | None, follow: bool, fmt: Format) -> None:
    """Show every decision: when, in which pool, what, about whom, where, why, and by which administrator.

    Oldest first. `-o json` prints JSON lines: one object to a line. Where a name was forgotten its pseudonym stands;
    --user finds the entries all the same. Each pool keeps its latest 100,000 decisions or a few more; what was cut off
    before is told on stderr.
    """
    with opened_farm() as client:
        history = History(client.farm)
        start = since_when(client, history, since)
        pools = ["", *known_pools(client, history)] if pool is None else [one_of(client, history, pool)]
        tell_cut(client, history, pools, start)
        who = None if user is None else client.config.identities.user(user)
        places = [AuditCursor.at(each, start) for each in pools]
        write(decisions(client, history, places, who, follow=follow), fmt)


def since_when(client: FarmClient, history: History, since: str | None) -> int:
    """Return an instant of the store's clock, in ms, so long ago; 0 without one."""
    return 0 if since is None else max(0, client.wait(history.now()) - parse_duration(since))


def known_pools(client: FarmClient, history: History) -> list[str]:
    """Return every pool there ever was."""
    return sorted({*client.wait(history.pools()), *(each.name for each in client.in_force().pools)})


def one_of(client: FarmClient, history: History, pool: str) -> str:
    """Return a pool's name; FarmleaseError naming the pools if there never was one of that name."""
    pools = known_pools(client, history)
    if pool not in pools:
        raise FarmleaseError(f"there never was a pool of this name; there are {', '.join(pools) or 'none'}")
    return pool


def tell_cut(client: FarmClient, history: History, pools: Sequence[str], start: int) -> None:
    """Say on stderr what is missing at the beginning: the audit's length is bounded."""
    for pool, extent in client.wait(history.extents(pools)).items():
        if extent.cut and (extent.oldest_at or start + 1) > start:
            where = f"pool {pool}" if pool else "the farm itself"
            begins = timestamp(extent.oldest_at) or "now"
            click.echo(f"farmlease: {where}: {extent.cut:,} older decisions were cut off; it begins {begins}", err=True)


def decisions(
    client: FarmClient, history: History, places: Sequence[AuditCursor], user: User | None, *, follow: bool
) -> Iterator[Decision]:
    """Yield what there is and, to ``follow``, what comes, whether or not the store is away for a while meanwhile."""
    began = False
    while True:
        passed = {place.pool: place.after for place in places}
        try:
            for decision in client.each(history.decisions(places, user)):
                passed[decision.pool] = decision.id
                yield decision
        except StoreUnavailable as error:
            if not (follow and began):
                raise
            click.echo(f"farmlease: {error}; trying again", err=True)
            places = [AuditCursor(*place) for place in passed.items()]  # what was read and not yielded is read again
        if not follow:
            return
        began = True
        sys.stdout.flush()
        check_reader()
        client.wait(asyncio.sleep(PAUSE))


def write(found: Iterable[Decision], fmt: Format) -> None:
    """Print decisions as they come."""
    if fmt == "csv":
        write_csv(map(decision_line_of, found), COLUMNS)
        return
    for decision in found:
        click.echo(json.dumps(decision_line_of(decision)) if fmt == "json" else folded(story(decision), _INDENT))


def decision_line_of(decision: Decision) -> Document:
    """Return a decision as a program reads it."""
    return decision_line(
        at=decision.at, pool=decision.pool, event=decision.event, user=decision.user, index=decision.index,
        node=decision.node, incarnation=decision.incarnation, session=decision.session, device=decision.device,
        detail=decision.detail, fence=decision.fence, by=decision.by, note=decision.note, id=decision.id,
    )  # fmt: skip


def story(decision: Decision) -> str:
    """Return a decision in one line: when, where, what, who, and whatever else is known."""
    place = [
        f"on {decision.node}" if decision.node and decision.user else "",
        f"session {decision.session}" if decision.session else "",
        f"device {decision.device}" if decision.device else "",
    ]
    rest = [
        ", ".join(part for part in place if part),
        f"{decision.detail} ahead" if decision.event == "queued" else decision.detail,
        f"fence {decision.fence}" if decision.fence else "",
        f"by {decision.by}" if decision.by else "",
        f'"{decision.note}"' if decision.note else "",
    ]
    when = (timestamp(decision.at) or "")[:19].replace("T", " ")
    about = (decision.user or decision.node, *rest)
    told = "; ".join(part for part in about if part)
    return f"{when}  {decision.pool or '(farm)':<10}  {decision.event:<15}  {told}".rstrip()
