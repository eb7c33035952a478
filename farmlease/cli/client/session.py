"""Requests about sessions to this node's agent, and what a command prints and exits with for each answer.

Used at every logon, so this module must import neither redis, cryptography, pydantic, asyncio nor rich. A denial is
printed to stdout like any answer and ends the command with its own exit status; an error is raised.
"""

import http.client
import os
from datetime import UTC, datetime, timedelta
from typing import NoReturn
from urllib.parse import quote

import click

from farmlease.cli import config_file, print_line
from farmlease.cli.client.agent import TIMEOUT, Answer, ask, error_of, reason
from farmlease.config.source import agent_endpoint
from farmlease.domain.duration import parse_duration
from farmlease.errors import EXIT_DENIED, EXIT_UNAVAILABLE, FarmleaseError, InvalidInput

__all__ = [
    "call_agent",
    "expect_success",
    "format_instant",
    "grant_line",
    "list_sessions",
    "option_seconds",
    "session_path",
    "start_session",
    "undo_start",
    "uses_of",
]


def call_agent(method: str, path: str, document: object = None, *, extra_seconds: float = 0.0) -> Answer:
    """Send a request to this node's agent; the answer may take ``extra_seconds`` longer than usual."""
    return ask(agent_endpoint(config_file(), os.environ), method, path, document, timeout=TIMEOUT + extra_seconds)


def start_session(request: dict[str, object], fmt: str | None = None, *, extra_seconds: float = 0.0) -> Answer:
    """Request a session and return the grant; on a denial print it and exit."""
    answer = call_agent("POST", "/v1/sessions", request, extra_seconds=extra_seconds)
    document = answer.fields()
    decision = document.get("decision")
    if decision == "denied":
        _exit_denied(document, fmt)
    if answer.status not in {http.client.OK, http.client.CREATED} or decision not in {"granted", "restricted"}:
        raise error_of(answer)
    return answer


def undo_start(session_id: str, answer: Answer, error: OSError) -> FarmleaseError:
    """End the use of a grant that could not be written to stdout; return the error to raise.

    The caller sees a failure and refuses the logon, so no seat may stay taken for it. What the session had before this
    command is in use: it is not ended.
    """
    what = f"cannot write the answer ({reason(error)})"
    if answer.status != http.client.CREATED:
        return FarmleaseError(f"{what}; the session was already granted. Fix the output and retry.")
    pool = answer.fields().get("pool")
    try:
        expect_success(call_agent("DELETE", session_path(session_id, pool=str(pool) if pool else None)))
    except FarmleaseError as failure:
        return FarmleaseError(f"{what}; session {session_id} was started and cannot be ended: {failure}")
    return FarmleaseError(
        f"{what}; session {session_id} was started and has been ended again. Fix the output and retry."
    )


def expect_success(answer: Answer) -> Answer:
    """Return an answer with a 2xx status; print a denial and exit, raise FarmleaseError for anything else."""
    if http.client.OK <= answer.status < http.client.MULTIPLE_CHOICES:
        return answer
    if answer.fields().get("decision") == "denied":
        _exit_denied(answer.fields(), None)
    if answer.status == http.client.NOT_FOUND:
        why = str(answer.fields().get("detail") or "there is no such session on this node")
        raise FarmleaseError(f"{why}; list the sessions of this node with 'farmlease session list'")
    raise error_of(answer)


def list_sessions(user: str | None = None) -> list[dict[str, object]]:
    """Return the sessions that the agent lists, of one user in any spelling; FarmleaseError if it is not a list."""
    query = "" if user is None else f"?user={quote(user, safe='')}"
    rows = expect_success(call_agent("GET", f"/v1/sessions{query}")).document
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise FarmleaseError("the agent's answer is not a list of sessions; is it of the same version as this command?")
    return rows


def session_path(session_id: str, verb: str = "", pool: str | None = None) -> str:
    """Return the URL of a verb on a session, or on its use of one pool; the agent judges its id."""
    if not session_id:
        raise click.BadParameter("a session id must not be empty.", param_hint="'ID'")
    query = "" if pool is None else f"?pool={quote(pool, safe='', errors='surrogatepass')}"
    return f"/v1/sessions/{quote(session_id, safe='', errors='surrogatepass')}{verb}{query}"


def uses_of(answer: Answer) -> list[dict[str, object]]:
    """Return what an answer says of each use of a session; FarmleaseError if it says nothing of uses."""
    uses = answer.fields().get("uses")
    if not isinstance(uses, list) or not all(isinstance(use, dict) for use in uses):
        raise FarmleaseError("the agent's answer shows no uses; is it of the same version as this command?")
    return uses


def option_seconds(option: str, span: str | None) -> float:
    """Return the duration given to an option, in seconds; 0 if not given. Raises a usage error naming the option."""
    if span is None:
        return 0.0
    try:
        return parse_duration(span) / 1000
    except (InvalidInput, ValueError) as error:
        raise click.BadParameter(str(error), param_hint=f"'{option}'") from error


def grant_line(document: dict[str, object]) -> str:
    """Return a grant or restricted use as one line."""
    whom = f"{document.get('user')} on {document.get('node')}"
    if document.get("decision") == "restricted":
        return f"restricted use for {whom}, without a licence"
    lease = document.get("lease")
    until = lease.get("expires_at") if isinstance(lease, dict) else None
    notes = [f"lease expires {format_instant(until)}"]
    if document.get("overdraft"):
        notes.append("on overdraft")
    if document.get("source") == "receipt":
        notes.append("by this node's receipt while the store is away")
    return f"granted {document.get('pool')} to {whom}, {', '.join(notes)}"


def format_instant(value: object, *, round_up: bool = False) -> str:
    """Return an RFC 3339 time as "2026-12-21 09:00 UTC"; ``round_up``: to the next full minute, never too early."""
    try:
        time = datetime.fromisoformat(str(value)).astimezone(UTC)
    except ValueError:
        return str(value)
    if round_up and (time.second or time.microsecond):
        time += timedelta(minutes=1)
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _exit_denied(document: dict[str, object], fmt: str | None) -> NoReturn:
    """Print a denial and exit: status 4 if the store could not be reached (no limit was checked), else 3."""
    if fmt == "json":
        from farmlease.cli.output.format import write_json

        write_json(document)
    else:
        print_line(_denial_line(document))
    click.get_current_context().exit(EXIT_UNAVAILABLE if document.get("reason") == "offline" else EXIT_DENIED)


def _denial_line(document: dict[str, object]) -> str:
    """Return a denial as one line: the agent's sentence and, unless the sentence has it, when to try again."""
    sentence = str(document.get("detail") or document.get("reason")).strip().rstrip(".")
    retry_at = document.get("retry_at")
    when = format_instant(retry_at, round_up=True) if retry_at else ""
    return f"denied: {sentence}" if when in sentence else f"denied: {sentence}; try again after {when}"
