"""The leases that a policy moves to another name of their user, told before and carried out after it is applied.

What cannot move stays where it is and is told with what to do; the next ``pool apply`` tries again.
"""

import shlex
from collections.abc import Iterator

from farmlease.admin.audit import AuditLog
from farmlease.admin.renaming import DueRename, LeaseRenamer
from farmlease.cli.client.farm import FarmClient
from farmlease.cli.client.history import all_pools
from farmlease.domain import wording
from farmlease.domain.policy import Policy, PolicyInForce
from farmlease.farm import renames
from farmlease.store.name_store import Rename

__all__ = ["due_lines", "may_rename", "moved_lines"]


def may_rename(before: PolicyInForce, policy: Policy) -> bool:
    """Whether leases may stand under other names than those that ``policy`` reads."""
    return before.former_names or renames(before, policy)


def due_lines(client: FarmClient, policy: Policy) -> Iterator[str]:
    """Yield a line for each lease that would be renamed, or that cannot be now."""
    for due in _due(client, policy):
        yield f"rename: {_what(due)}" if due.movable else _obstacle(due, _reason(due))


def moved_lines(client: FarmClient, applied: PolicyInForce) -> Iterator[str]:
    """Move every lease that can move, and yield a line for each; note where none is left under a former name."""
    assert applied.policy is not None  # noqa: S101 - it has just been applied
    left = 0
    for due in _due(client, applied.policy):
        outcome = client.wait(LeaseRenamer(client.farm).move(due)) if due.movable else _reason(due)
        if outcome is Rename.RENAMED:
            yield f"renamed: {_what(due)}"
        elif outcome is not Rename.NONE:  # it ended meanwhile
            left += 1
            yield _obstacle(due, outcome)
    if left:
        leases = wording.counted(left, "lease")
        yield f"{leases} left under former names, and found by either name: run `farmlease pool apply` again later"
    else:
        client.wait(client.farm.names.settle(applied.version))


def _due(client: FarmClient, policy: Policy) -> Iterator[DueRename]:
    """Yield what stands under another name than ``policy`` reads, in every pool there ever was."""
    pools = {*all_pools(client, AuditLog(client.farm)), *(pool.name for pool in policy.pools)}
    return client.each(LeaseRenamer(client.farm).due(sorted(pools), policy.identity))


def _reason(due: DueRename) -> Rename:
    return Rename.TAKEN if due.taken else Rename.IN_USE


def _what(due: DueRename) -> str:
    what = "the revocation of " if due.barred_only else ""
    return f"{what}{due.name} -> {due.user.canonical} in pool {due.pool}"


def _obstacle(due: DueRename, outcome: Rename) -> str:
    """Return that a lease stays, why, and what to do."""
    old, new = shlex.quote(due.name), shlex.quote(due.user.canonical)
    match outcome:
        case Rename.TAKEN:
            return (
                f"two leases: {due.name} and {due.user.canonical} in pool {due.pool} are one person; both stay. Give "
                f"one back: farmlease lease return {old} --pool {due.pool}, or {new}"
            )
        case Rename.IN_USE if due.barred_only:
            return f"waits: {_what(due)}: {due.user.canonical} has a session"
        case Rename.IN_USE:
            sessions = wording.counted(max(due.sessions, 1), "session")
            return f"waits: {_what(due)} has {sessions}"
        case Rename.RECOVERING:
            return f"waits: {_what(due)}: the pool is recovering"
        case Rename.DAMAGED:
            return f"damaged: {_what(due)}: its record does not open; farmlease lease check {old} --pool {due.pool}"
    return f"waits: {_what(due)}: it keeps changing"
