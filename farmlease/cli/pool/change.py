"""A policy put in force: first what it changes and for whom, then, unless that was all that was asked, the change.

It is applied over the version that it was compared with, or not at all. ``apply`` and ``rollback`` are the same here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from farmlease.cli import print_line, print_stderr
from farmlease.cli.client.farm import FarmClient
from farmlease.cli.confirm import ask_first
from farmlease.cli.pool.impact import impact_lines
from farmlease.cli.pool.losses import lost_keys, written_again
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
    lost: Sequence[str]  #: the farm's own keys that have lost something, or do not decode

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self.unchanged and not self.renames and not self.lost


def put_in_force(client: FarmClient, policy: Policy, source: str, *, dry_run: bool, yes: bool) -> None:
    """Print what a policy changes and put it in force; ``source``: what it was read from, for warnings and errors."""
    for doubt in policy_doubts(policy):
        print_stderr(f"warning: {source}: {doubt}")
    _check_heartbeat(client, policy, source)
    preview = _preview(client, policy)
    for line in preview.lines:
        print_line(line)
    if preview.idle:
        return
    if dry_run:
        for line in _would_lines(client, policy, preview):
            print_line(line)
        return
    if preview.removed:
        pools = ", ".join(f"{name} ({count} held)" for name, count in preview.removed.items())
        ask_first(f"this removes pools with leases: {pools}", yes=yes)
    for line in _applied_lines(client, policy, preview):
        print_line(line)


def _preview(client: FarmClient, policy: Policy) -> _Preview:
    """Compare a policy with the one in force, and list the users that its limits affect."""
    found = client.in_force()
    due, lost = may_rename(found, policy), lost_keys(client)
    if found.policy is not None and found.policy.text == policy.text:
        lines = [] if lost else ["unchanged"]
        return _Preview(found.version, unchanged=True, lines=lines, renames=due, removed={}, lost=lost)
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
        lost=lost,
    )


def _would_lines(client: FarmClient, policy: Policy, preview: _Preview) -> Iterator[str]:
    """Yield what else would be done."""
    if preview.lost:
        yield written_again(preview.lost, unchanged=preview.unchanged, dry_run=True)
    if preview.renames:
        yield from due_lines(client, policy)
    yield "dry run: nothing was applied"


def _applied_lines(client: FarmClient, policy: Policy, preview: _Preview) -> Iterator[str]:
    """Apply the policy over the version that was previewed, and yield what was done."""
    applied = client.wait(client.farm.apply(policy, over=preview.version, anew=bool(preview.lost)))
    if not preview.unchanged:
        yield f"applied policy {applied.version}"
    if preview.lost:
        yield written_again(preview.lost, unchanged=preview.unchanged)
    if applied.former_names:
        yield from moved_lines(client, applied)


def _check_heartbeat(client: FarmClient, policy: Policy, source: str) -> None:
    """Raise PolicyError for a pool whose session_timeout one late heartbeat would exceed."""
    for each in policy.pools:
        try:
            check_timing(client.config.agent.heartbeat_ms, each)
        except PolicyError as error:
            raise PolicyError(f"{source}: {error}") from None
