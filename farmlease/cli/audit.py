"""``farmlease audit``: every decision of the farm, from the scripts that took them, merged by time.

Works on the store with the farm's keys; it needs no agent and changes nothing. It never holds the whole list, so that
an audit of any length passes through a pipe.
"""

import asyncio
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Sequence

import click

from farmlease.admin.addressing import is_pseudonym
from farmlease.admin.audit import AuditEvent, AuditLog
from farmlease.cli import example, print_line, print_stderr
from farmlease.cli.client.farm import FarmClient, opened_farm
from farmlease.cli.client.history import all_pools, existing_pool, pseudonyms_option, since_ms, since_option
from farmlease.cli.output.format import Format, check_reader, output_option, print_folded, write_csv
from farmlease.domain.json_documents import Document, decision_line, timestamp
from farmlease.errors import InvalidInput, StoreUnavailable
from farmlease.store.audit_store import AuditCursor

__all__ = ["audit", "event_line", "read_events"]

FIELDS = tuple(each.name for each in dataclasses.fields(AuditEvent))
#: Fields that only JSON has.
JSON_ONLY = {"incarnation", "id"}
COLUMNS = tuple(name for name in FIELDS if name not in JSON_ONLY)
#: Seconds between two reads of new events.
PAUSE = 1.0
#: Columns that the continuation of a folded line is indented by.
_INDENT = 21


@click.command(
    epilog=example(
        "farmlease audit --since 24h",
        "farmlease audit --user 'CORP\\john' -o csv",
        "farmlease audit --pool qlikview -o json > audit.jsonl",
        "farmlease audit --since 10m --follow",
    )
)
@since_option("as far as there is")
@click.option("--user", metavar="U", help="Only what concerns this user, in any spelling or under a former name.")
@click.option("--pool", metavar="P", help="Only this pool (default: all there ever were, and the farm itself).")
@pseudonyms_option
@click.option("--follow", is_flag=True, help="Then print each new decision as it is taken, until interrupted.")
@output_option
def audit(
    *, since: str | None, user: str | None, pool: str | None, pseudonyms: bool, follow: bool, fmt: Format
) -> None:
    """Show every decision: when, in which pool, what, about whom, where, why, and by which administrator.

    Oldest first. `-o json` prints JSON lines: one object to a line. A forgotten user is shown as a pseudonym;
    --user still finds the entries. Each pool keeps its latest 100,000 decisions or a few more; how many
    older ones were cut off is printed to stderr. With --pseudonyms, --user takes one as the audit prints it.
    """
    with opened_farm(pseudonyms=pseudonyms) as client:
        log = AuditLog(client.farm)
        start = since_ms(client, log, since)
        pools = ["", *all_pools(client, log)] if pool is None else [existing_pool(client, log, pool)]
        _report_truncation(client, log, pools, start)
        whose = () if user is None else _indexes(client, user)
        places = [AuditCursor.at(each, start) for each in pools]
        _print(read_events(client, log, places, whose, follow=follow), fmt)


def _indexes(client: FarmClient, user: str) -> Sequence[str]:
    """Return the user indexes that a name may mean; without the farm's keys only a pseudonym means anybody."""
    if client.has_keys:
        return client.addressee(user).indexes
    if not is_pseudonym(user):
        raise InvalidInput("with --pseudonyms, --user takes a pseudonym as the audit prints it: 22 characters")
    return (user,)


def _report_truncation(client: FarmClient, log: AuditLog, pools: Sequence[str], start: int) -> None:
    """Print to stderr how many events are missing at the beginning: the audit's length is bounded."""
    for pool, extent in client.wait(log.extents(pools)).items():
        if extent.cut and (extent.oldest_at or start + 1) > start:
            where = f"pool {pool}" if pool else "the farm itself"
            begins = timestamp(extent.oldest_at) or "now"
            print_stderr(f"{where}: {extent.cut:,} older decisions were cut off; it begins {begins}")


def read_events(
    client: FarmClient, log: AuditLog, places: Sequence[AuditCursor], users: Sequence[str], *, follow: bool
) -> Iterator[AuditEvent]:
    """Yield the events there are; with ``follow`` also every later one, across interruptions of the store.

    ``users``: only the events about these user indexes.
    """
    began = False
    while True:
        passed = {place.pool: place.after for place in places}
        try:
            for event in client.each(log.events(places, users)):
                passed[event.pool] = event.id
                yield event
        except StoreUnavailable as error:
            if not (follow and began):
                raise
            print_stderr(f"{error}; trying again")
            places = [AuditCursor(*place) for place in passed.items()]  # what was read and not yielded is read again
        if not follow:
            return
        began = True
        sys.stdout.flush()
        check_reader()
        client.wait(asyncio.sleep(PAUSE))


def _print(events: Iterable[AuditEvent], fmt: Format) -> None:
    """Print events as they come."""
    if fmt == "csv":
        write_csv(map(_document, events), COLUMNS)
        return
    for event in events:
        if fmt == "json":
            print_line(json.dumps(_document(event)))
        else:
            print_folded(event_line(event), _INDENT)


def _document(event: AuditEvent) -> Document:
    """Return an event as a program reads it."""
    return decision_line(**{name: getattr(event, name) for name in FIELDS})


def event_line(event: AuditEvent) -> str:
    """Return an event in one line: when, in which pool, what, who or which node, and the other known facts."""
    where = _given([(event.user and event.node, "on "), (event.session, "session "), (event.device, "device ")])
    facts = _given(
        [
            (event.user or event.node, ""),
            (", ".join(where), ""),
            (f"{event.detail} ahead" if event.event == "queued" else event.detail, ""),
            (event.fence, "fence "),
            (event.by, "by "),
            (event.note and f'"{event.note}"', ""),
        ]
    )
    when = (timestamp(event.at) or "")[:19].replace("T", " ")
    return f"{when}  {event.pool or '(farm)':<10}  {event.event:<15}  {'; '.join(facts)}".rstrip()


def _given(facts: Iterable[tuple[str | int, str]]) -> list[str]:
    """Return each value behind its prefix, without the empty ones."""
    return [f"{prefix}{value}" for value, prefix in facts if value]
