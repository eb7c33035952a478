"""``farmlease pool history``, ``rollback`` and ``show --version``: the last policies, and the way back to one."""

from collections.abc import Iterator

import click

from farmlease.admin.policy_history import PolicyHistory, PolicyVersion
from farmlease.cli import example
from farmlease.cli.client.farm import FarmClient, configuration, opened_farm
from farmlease.cli.confirm import yes_option
from farmlease.cli.output.format import Column, Format, Row, day_and_time, emit, output_option
from farmlease.cli.pool.change import put_in_force
from farmlease.domain.json_documents import timestamp
from farmlease.domain.policy import parse_policy
from farmlease.domain.policy_diff import diff_policies
from farmlease.errors import FarmleaseError

__all__ = ["history", "policy_text", "rollback"]

COLUMNS = ("version", "applied_at", "by", "in_force", "changes")

TABLE = (
    Column("version", lambda row: f"{row['version']}{' *' * bool(row['in_force'])}"),
    Column("applied (UTC)", lambda row: day_and_time(row["applied_at"])),
    "by",
    Column("changes", lambda row: _first(row["changes"])),
)


@click.command(epilog=example("farmlease pool history", "farmlease pool history -o json"))
@output_option
def history(fmt: Format) -> None:
    """List the last 10 policies: when, by whom, what they changed.

    The newest stands first. The one in force has an asterisk. A policy that a host put back into a store which had lost
    it is the host's.
    """
    with opened_farm() as client:
        emit(_rows(client), COLUMNS, fmt, table=TABLE)


@click.command(epilog=example("farmlease pool rollback 1795294078123 --dry-run"))
@click.argument("version", type=click.IntRange(min=1), metavar="VERSION")
@click.option("--dry-run", is_flag=True, help="Only print what would change, and for whom.")
@yes_option
def rollback(*, version: int, dry_run: bool, yes: bool) -> None:
    """Put a former policy in force again.

    VERSION is as ``pool history`` lists it. This prints and asks what ``pool apply`` prints and asks. The policy
    becomes a new version, so that a rollback can be rolled back as well.
    """
    with opened_farm() as client:
        source = f"policy {version}"
        policy = parse_policy(policy_text(client, version), source, configuration().host_identity)
        put_in_force(client, policy, source, dry_run=dry_run, yes=yes)


def policy_text(client: FarmClient, version: int) -> str:
    """Return the text of one of the last policies; FarmleaseError if it is none, RecordRejected if it does not open."""
    found = client.wait(PolicyHistory(client.farm).versions())
    for each in found:
        if each.version == version:
            return client.wait(PolicyHistory(client.farm).text(each))
    known = ", ".join(str(each.version) for each in found) or "none"
    raise FarmleaseError(f"policy {version} is not among the last ones, which are {known}")


def _rows(client: FarmClient) -> Iterator[Row]:
    """Yield a row for each policy, the newest first; what it changed is known while the one before it is."""
    log, in_force = PolicyHistory(client.farm), client.in_force().version
    found = client.wait(log.versions())
    for each, before in zip(found, [*found[1:], None], strict=True):
        yield {
            "version": each.version,
            "applied_at": timestamp(each.applied_at),
            "by": each.by,
            "in_force": each.version == in_force,
            "changes": _changes(each, before),
        }


def _changes(each: PolicyVersion, before: PolicyVersion | None) -> list[str]:
    """Return what a policy changed, in words."""
    if each.policy is None:
        return ["does not open with this host's key ring"]
    if before is None or before.policy is None:
        return []
    lines = [line for line in diff_policies(before.policy, each.policy).lines if not line.startswith(" ")]
    return lines or ["changed the text only" if before.policy.text != each.policy.text else "put in force again"]


def _first(changes: object) -> str:
    """Return the first change, and how many more there are."""
    if not isinstance(changes, list) or not changes:
        return ""
    return str(changes[0]) + (f"; and {len(changes) - 1} more" if len(changes) > 1 else "")
