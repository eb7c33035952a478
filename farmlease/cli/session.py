"""``farmlease session …``: what the host's logon and logoff hooks call.

Speaks to this node's agent and to nothing else. It runs at every logon, so this module must import neither redis,
cryptography, pydantic, asyncio nor (but to draw a table) rich.

An answer is printed to stdout, a denial as well; an error goes to stderr.
"""

import http.client
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

import click

from farmlease.cli import config_file, example
from farmlease.cli.client.agent import TIMEOUT, Answer, ask, reason, refused
from farmlease.cli.output.format import (
    Column,
    Format,
    Row,
    day_and_time,
    emit,
    emit_one,
    follow_option,
    output_option,
)
from farmlease.config.source import agent_endpoint
from farmlease.domain.duration import parse_duration
from farmlease.errors import FarmleaseError, InvalidInput

__all__ = [
    "begun",
    "call",
    "canonical",
    "denied",
    "deny",
    "done",
    "granted",
    "instant",
    "place",
    "seconds",
    "session",
    "sessions",
    "taken_back",
]

DENIED = 3
UNAVAILABLE = 4

COLUMNS = (
    "session", "user", "pool", "kind", "state", "device", "source", "lease.expires_at", "lease.issued_at", "lease.id",
    "node", "overdraft", "fence",
)  # fmt: skip
#: What the agent shows of; a session that ends is not shown.
STATES = ("active", "waiting", "invalid", "lost")
TABLE = (
    "session", "user", "pool",
    Column("state", lambda row: f"{row.get('state')}{', by receipt' * (row.get('source') == 'receipt')}"), "device",
    Column("expires (UTC)", lambda row: day_and_time(_lease(row).get("expires_at"))),
)  # fmt: skip
DETAILS = (
    "session", "state", "user", "pool", "kind", "node", "device", "source", "overdraft", "fence",
    "lease.id", "lease.issued_at", "lease.expires_at", "hold_until",
)  # fmt: skip


@click.group()
def session() -> None:
    """Start, keep and end sessions on this node.

    Exit status: 0 granted or done, 1 failed, 2 wrong usage, 3 denied, 4 the agent or its store is unavailable.
    """


@session.command(
    epilog=example(
        "farmlease session start 'CORP\\john' --session 7",
        "farmlease session start 'CORP\\john' --session 7 --app clearquest --wait 5m",
    )
)
@click.argument("user")
@click.option("--session", "session_id", metavar="ID", required=True, help="The session's id, unique on this node.")
@click.option("--pool", metavar="P", help="Pool to take a seat of (default: as the policy says).")
@click.option("--app", metavar="A", help="Application that is started.")
@click.option("--group", "groups", metavar="G", multiple=True, help="Group the user is in; may be repeated.")
@click.option("--site", metavar="S", help="Site the session comes from.")
@click.option("--device", metavar="D", help="Machine outside the farm (default: the farm).")
@click.option("--pid", metavar="N", type=click.IntRange(min=1), help="End the session when this process ends.")
@click.option("--wait", metavar="D", help="Longest wait for a seat, e.g. 90s or 5m (default: do not wait).")
@click.option("-o", "--output", "fmt", type=click.Choice(["json"]), help="Print the agent's whole answer.")
def start(
    *, user: str, session_id: str, pool: str | None, app: str | None, groups: tuple[str, ...], site: str | None,
    device: str | None, pid: int | None, wait: str | None, fmt: str | None,
) -> None:  # fmt: skip
    """Ask for a session of USER and print the answer in one line.

    Asking again for the same session is safe: it takes no second seat. Where a grant cannot be printed (a full disk,
    say) that is a failure, and the session it was for is ended again.
    """
    optional = {
        "pool": pool, "app": app, "groups": list(groups) or None, "site": site, "device": device, "pid": pid,
        "wait": wait,
    }  # fmt: skip
    request: dict[str, object] = {"user": user, "session": session_id}
    request |= {k: v for k, v in optional.items() if v is not None}
    answer = begun(request, fmt, patience=seconds("--wait", wait))
    try:
        if fmt == "json":
            emit_one(answer.fields(), (), "json")
        else:
            click.echo(granted(answer.fields()))
    except OSError as error:
        raise taken_back(session_id, answer, error) from error


@session.command(epilog=example("farmlease session end 7"))
@click.argument("session_id", metavar="ID")
def end(session_id: str) -> None:
    """End session ID; ending it again does no harm."""
    done(call("DELETE", place(session_id)))
    click.echo(f"ended session {session_id}")


@session.command(epilog=example("farmlease session touch 7"))
@click.argument("session_id", metavar="ID")
def touch(session_id: str) -> None:
    """Say that the user of session ID is at work. The idle timeout starts anew."""
    done(call("POST", place(session_id) + "/activity"))
    click.echo(f"touched session {session_id}")


@session.command(epilog=example("farmlease session hold 7 --for 4h"))
@click.argument("session_id", metavar="ID")
@click.option("--for", "span", metavar="D", help="How long, e.g. 4h (default: as long as the pool allows).")
def hold(session_id: str, span: str | None) -> None:
    """Keep the seat of session ID even if its node is not heard of."""
    seconds("--for", span)
    answer = done(call("POST", place(session_id) + "/hold", {} if span is None else {"for": span}))
    click.echo(f"holding session {session_id} until {instant(answer.fields().get('hold_until'))}")


@session.command(epilog=example("farmlease session save 7"))
@click.argument("session_id", metavar="ID")
def save(session_id: str) -> None:
    """Take the vendor's files of session ID into the user's record now."""
    done(call("POST", place(session_id) + "/save"))
    click.echo(f"saved the files of session {session_id}")


@session.command(
    "list",
    epilog=example(
        "farmlease session list", "farmlease session list --state waiting -o csv", "farmlease session list --follow"
    ),
)
@click.option("--pool", metavar="P", help="Only those of this pool.")
@click.option("--user", metavar="U", help="Only this user's, in any spelling.")
@click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
@output_option
@follow_option
def list_(*, pool: str | None, user: str | None, state: str | None, fmt: Format, watch: bool) -> None:
    """List the sessions of this node."""
    wanted = {"pool": pool, "user": canonical(user), "state": state}

    def rows() -> list[Row]:
        given = {name: value for name, value in wanted.items() if value is not None}
        return [row for row in sessions() if all(row.get(name) == value for name, value in given.items())]

    if watch:
        from farmlease.cli.output.watch import Watched, follow

        follow(Watched(rows=rows, key=("session",), table=TABLE), fmt)
    emit(rows(), COLUMNS, fmt, table=TABLE)


@session.command(epilog=example("farmlease session show 7 -o json"))
@click.argument("session_id", metavar="ID")
@output_option
def show(session_id: str, fmt: Format) -> None:
    """Show session ID of this node."""
    emit_one(done(call("GET", place(session_id))).fields(), DETAILS, fmt)


def sessions() -> list[Row]:
    """Return the sessions that the agent shows; FarmleaseError if its answer is something else."""
    rows = done(call("GET", "/v1/sessions")).document
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise FarmleaseError("the agent's answer is not a list of sessions; is it of the same version as this command?")
    return rows


def canonical(user: str | None) -> str | None:
    """Return a user's one name, as this node's configuration spells it; InvalidName if it cannot be one."""
    if user is None:
        return None
    from farmlease.config.model import load_config

    file = config_file()
    return load_config(None if file is None else Path(file)).identities.user(user).canonical


def _lease(row: Row) -> Mapping[str, object]:
    lease = row.get("lease")
    return lease if isinstance(lease, Mapping) else {}


def call(method: str, path: str, document: object = None, *, patience: float = 0.0) -> Answer:
    """Ask this node's agent; ``patience`` is how many seconds longer than usual its answer may take."""
    return ask(agent_endpoint(config_file(), os.environ), method, path, document, timeout=TIMEOUT + patience)


def begun(request: dict[str, object], fmt: str | None = None, *, patience: float = 0.0) -> Answer:
    """Ask for a session and return the agent's yes; end the command with its no."""
    answer = call("POST", "/v1/sessions", request, patience=patience)
    document = answer.fields()
    decision = document.get("decision")
    if decision == "denied":
        deny(document, fmt)
    if answer.status not in {http.client.OK, http.client.CREATED} or decision not in {"granted", "restricted"}:
        raise refused(answer)
    return answer


def taken_back(session_id: str, answer: Answer, error: OSError) -> FarmleaseError:
    """End the session of a yes that could not be printed; return the error that says so.

    Who asked sees a failure and lets nobody in, so no seat may stay taken for it. A session that was there before has
    somebody at work in it: it goes on.
    """
    why = f"the answer cannot be printed ({reason(error)})"
    if answer.status != http.client.CREATED:
        return FarmleaseError(f"{why}, and it was a yes: nothing new was taken; mend where the output goes, ask again")
    try:
        done(call("DELETE", place(session_id)))
    except FarmleaseError as failure:
        return FarmleaseError(f"{why}; session {session_id} was started and cannot be ended: {failure}")
    return FarmleaseError(f"{why}: session {session_id} was started and ended again; mend where the output goes")


def place(session_id: str) -> str:
    """Return the path of a session, whatever characters its id has."""
    if not session_id:
        raise click.BadParameter("a session id is not empty.", param_hint="'ID'")
    return f"/v1/sessions/{quote(session_id, safe='')}"


def done(answer: Answer) -> Answer:
    """Return an answer that did what was asked; end the command with what it says otherwise."""
    if http.client.OK <= answer.status < http.client.MULTIPLE_CHOICES:
        return answer
    if answer.fields().get("decision") == "denied":
        deny(answer.fields(), None)
    if answer.status == http.client.NOT_FOUND:
        raise FarmleaseError("no such session on this node; 'farmlease session list' shows what there is")
    raise refused(answer)


def deny(document: dict[str, object], fmt: str | None) -> NoReturn:
    """Print a denial and exit: 4 when the store could not be asked (nobody decided against this user), else 3."""
    if fmt == "json":
        emit_one(document, (), "json")
    else:
        click.echo(denied(document))
    click.get_current_context().exit(UNAVAILABLE if document.get("reason") == "offline" else DENIED)


def granted(document: dict[str, object]) -> str:
    """Return a grant or restricted use as one line."""
    whom = f"{document.get('user')} on {document.get('node')}"
    if document.get("decision") == "restricted":
        return f"restricted use for {whom}, without a licence"
    lease = document.get("lease")
    until = lease.get("expires_at") if isinstance(lease, dict) else None
    notes = [f"lease expires {instant(until)}"]
    if document.get("overdraft"):
        notes.append("on overdraft")
    if document.get("source") == "receipt":
        notes.append("by this node's receipt while the store is away")
    return f"granted {document.get('pool')} to {whom}, {', '.join(notes)}"


def denied(document: dict[str, object]) -> str:
    """Return a denial as one line: the agent's sentence and, unless it says so itself, when to try again."""
    sentence = str(document.get("detail") or document.get("reason")).strip().rstrip(".")
    retry_at = document.get("retry_at")
    when = instant(retry_at, up=True) if retry_at else ""
    return f"denied: {sentence}" if when in sentence else f"denied: {sentence}; try again after {when}"


def instant(value: object, *, up: bool = False) -> str:
    """Return an RFC 3339 time as "2026-12-21 09:00 UTC"; ``up`` to the next full minute, never too early."""
    try:
        time = datetime.fromisoformat(str(value)).astimezone(UTC)
    except ValueError:
        return str(value)
    if up and (time.second or time.microsecond):
        time += timedelta(minutes=1)
    return f"{time:%Y-%m-%d %H:%M} UTC"


def seconds(option: str, span: str | None) -> float:
    """Return a duration as typed, in seconds; 0 for none. Raises a usage error that names the option."""
    if span is None:
        return 0.0
    try:
        return parse_duration(span) / 1000
    except (InvalidInput, ValueError) as error:
        raise click.BadParameter(str(error), param_hint=f"'{option}'") from error
