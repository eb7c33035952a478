"""``farmlease session …``: the commands of the host's logon and logoff hooks.

They send requests to this node's agent and to nothing else. They run at every logon, so this module must import neither
redis, cryptography, pydantic, asyncio nor (except to print a table) rich.

Answers and denials are printed to stdout, errors to stderr.
"""

from collections.abc import Mapping

import click

from farmlease.cli import example, print_line, print_stderr
from farmlease.cli.client.session import (
    call_agent,
    expect_success,
    format_instant,
    grant_line,
    list_sessions,
    option_seconds,
    session_path,
    start_session,
    undo_start,
    uses_of,
)
from farmlease.cli.output.format import (
    Column,
    Format,
    Row,
    day_and_time,
    emit,
    emit_one,
    follow_option,
    output_option,
    write_json,
)
from farmlease.errors import FarmleaseError

__all__ = ["session"]

COLUMNS = (
    "session", "user", "pool", "kind", "state", "device", "source", "lease.expires_at", "lease.issued_at", "lease.id",
    "node", "overdraft", "fence",
)  # fmt: skip
#: States of the sessions that the agent lists; a session that is ending is not listed.
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


pool_option = click.option("--pool", metavar="P", help="Its use of this pool alone (default: all its pools).")


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
    *,
    user: str,
    session_id: str,
    pool: str | None,
    app: str | None,
    groups: tuple[str, ...],
    site: str | None,
    device: str | None,
    pid: int | None,
    wait: str | None,
    fmt: str | None,
) -> None:
    """Request a session of USER and print the answer in one line.

    Repeating the request for the same session is safe: it takes no second seat. If a grant cannot be printed (for
    example on a full disk) the command fails and ends the session it started.
    """
    optional = {
        "pool": pool,
        "app": app,
        "groups": list(groups) or None,
        "site": site,
        "device": device,
        "pid": pid,
        "wait": wait,
    }
    request: dict[str, object] = {"user": user, "session": session_id}
    request |= {k: v for k, v in optional.items() if v is not None}
    answer = start_session(request, fmt, extra_seconds=option_seconds("--wait", wait))
    try:
        if fmt == "json":
            write_json(answer.fields())
        else:
            print_line(grant_line(answer.fields()))
    except OSError as error:
        raise undo_start(session_id, answer, error) from error


@session.command(epilog=example("farmlease session end 7", "farmlease session end 7 --pool clearquest"))
@click.argument("session_id", metavar="ID")
@pool_option
def end(session_id: str, pool: str | None) -> None:
    """End session ID, all its pools or one of them.

    Ending it again does no harm; the command then says that nothing was there, or that the seat had been lost before,
    and exits with status 1.
    """
    shown = call_agent("GET", session_path(session_id, pool=pool))
    expect_success(call_agent("DELETE", session_path(session_id, pool=pool)))  # also one that is just being started
    uses = uses_of(expect_success(shown))
    print_line(f"ended session {session_id}{_of(pool)}")
    if lost := [f"{use.get('pool')} ({use.get('reason')})" for use in uses if use.get("state") == "lost"]:
        raise FarmleaseError(f"session {session_id} had lost its seat before it was ended: {', '.join(lost)}")


@session.command(epilog=example("farmlease session touch 7"))
@click.argument("session_id", metavar="ID")
@pool_option
def touch(session_id: str, pool: str | None) -> None:
    """Report that the user of session ID is active. The idle timeout starts anew."""
    expect_success(call_agent("POST", session_path(session_id, "/activity", pool)))
    print_line(f"touched session {session_id}{_of(pool)}")


@session.command(epilog=example("farmlease session hold 7 --for 4h"))
@click.argument("session_id", metavar="ID")
@click.option("--for", "span", metavar="D", help="How long, e.g. 4h (default: as long as the pool allows).")
@pool_option
def hold(session_id: str, span: str | None, pool: str | None) -> None:
    """Keep the seats of session ID even while its node is silent."""
    option_seconds("--for", span)
    given = {} if span is None else {"for": span}
    answer = expect_success(call_agent("POST", session_path(session_id, "/hold", pool), given))
    for use in uses_of(answer):
        if until := use.get("hold_until"):
            print_line(f"holding session {session_id} in {use.get('pool')} until {format_instant(until)}")
        else:
            print_stderr(f"not holding session {session_id} in {use.get('pool')}: {use.get('detail')}")


@session.command(epilog=example("farmlease session save 7"))
@click.argument("session_id", metavar="ID")
@pool_option
def save(session_id: str, pool: str | None) -> None:
    """Take the vendor's files of session ID into the user's record now."""
    answer = expect_success(call_agent("POST", session_path(session_id, "/save", pool)))
    print_line(f"saved the files of session {session_id}{_of(pool)}")
    for use in uses_of(answer):
        if why := use.get("detail"):
            print_stderr(f"not saved in {use.get('pool')}: {why}")


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
    """List the sessions of this node.

    A session that uses several pools has a row for each.
    """
    wanted = {"pool": pool, "state": state}

    def rows() -> list[Row]:
        given = {name: value for name, value in wanted.items() if value is not None}
        return [row for row in list_sessions(user) if all(row.get(name) == value for name, value in given.items())]

    if watch:
        from farmlease.cli.output.watch import WatchedList, watch_list

        watch_list(WatchedList(rows=rows, key=("session", "pool"), table=TABLE), fmt)
    emit(rows(), COLUMNS, fmt, table=TABLE)


@session.command(epilog=example("farmlease session show 7 -o json"))
@click.argument("session_id", metavar="ID")
@pool_option
@output_option
def show(session_id: str, pool: str | None, fmt: Format) -> None:
    """Show session ID of this node: one block for each pool that it uses."""
    answer = expect_success(call_agent("GET", session_path(session_id, pool=pool)))
    if fmt == "json":
        write_json(answer.fields())
    elif fmt == "csv":
        emit(uses_of(answer), DETAILS, fmt)
    else:
        for number, use in enumerate(uses_of(answer)):
            if number:
                print_line()
            emit_one(use, DETAILS, fmt)


def _of(pool: str | None) -> str:
    return "" if pool is None else f" in {pool}"


def _lease(row: Row) -> Mapping[str, object]:
    lease = row.get("lease")
    return lease if isinstance(lease, Mapping) else {}
