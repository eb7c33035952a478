"""A policy put in force: first what it changes and for whom, then, unless that was all that was asked, the change.

It is applied over the version that it was compared with, or not at all. ``apply`` and ``rollback`` are the same here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from farmlease.cli import print_line, print_stderr
from farmlease.cli.client.farm import FarmClient
from farmlease.cli.confirm import ask_first
from farmlease.cli.pool.impact import impact_lines
from farmlease.cli.pool.renames import due_lines, may_rename, moved_lines
from farmlease.domain.policy import Policy, check_timing, policy_doubts
from farmlease.domain.policy_diff import diff_policies
from farmlease.errors import PolicyError

__all__ = ["put_in_force"]


@dataclass(frozen=True, slots=True)
class _Preview:
    """What a new policy would change, compared with the one of ``version``."""

    version: int
    unchanged: bool
    lines: Sequence[str]
    renames: bool  #: leases may stand under other names than it reads
    removed: Mapping[str, int]  #: pools that would be removed while seats are held in them, with the number of seats


def put_in_force(client: FarmClient, policy: Policy, source: str, *, dry_run: bool, yes: bool) -> None:
    """Print what a policy changes and put it in force; ``source``: what it was read from, for warnings and errors."""
    for doubt in policy_doubts(policy):
        print_stderr(f"warning: {source}: {doubt}")
    _check_heartbeat(client, policy, source)
    preview = _preview(client, policy)
    for line in preview.lines:
        print_line(line)
    if preview.unchanged and not preview.renames:
        return
    if dry_run:
        for line in due_lines(client, policy) if preview.renames else ():
            print_line(line)
        print_line("dry run: nothing was applied")
        return
    if preview.removed:
        pools = ", ".join(f"{name} ({count} held)" for name, count in preview.removed.items())
        ask_first(f"this removes pools with leases: {pools}", yes=yes)
    applied = client.wait(client.farm.apply(policy, over=preview.version))
    if not preview.unchanged:
        print_line(f"applied policy {applied.version}")
    if applied.former_names:
        for line in moved_lines(client, applied):
            print_line(line)


def _preview(client: FarmClient, policy: Policy) -> _Preview:
    """Compare a policy with the one in force, and list the users that its limits affect."""
    found = client.in_force()
    due = may_rename(found, policy)
    if found.policy is not None and found.policy.text == policy.text:
        return _Preview(found.version, unchanged=True, lines=["unchanged"], renames=due, removed={})
    changes = diff_policies(found.policy, policy)
    held = {each.name: client.seats_held(each) for each in found.pools}
    return _Preview(
        found.version,
        unchanged=False,
        lines=[
            *(changes.lines or ("changed the text only",)),
            *impact_lines(client, found.policy, policy, held),
        ],
        renames=due,
        removed={each.name: held[each.name] for each in changes.removed if held[each.name]},
    )


def _check_heartbeat(client: FarmClient, policy: Policy, source: str) -> None:
    """Raise PolicyError for a pool whose session_timeout one late heartbeat would exceed."""
    for each in policy.pools:
        try:
            check_timing(client.config.agent.heartbeat_ms, each)
        except PolicyError as error:
            raise PolicyError(f"{source}: {error}") from None
