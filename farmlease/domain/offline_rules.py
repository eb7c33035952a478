"""Who may start a session while the store is away: the part of ``acquire.lua`` that one node can decide alone.

Guaranteed: a session that is admitted takes no further seat and no further device, and the store would have granted it
as far as this node can know: a named lease holds its seat until the lease ends; any other seat is held while one of its
sessions lives. Not guaranteed: that the store agrees. Another node may have started a session of the same user, and an
administrator may have taken the lease; the store decides again once it is back.
This module must never admit a user who holds no lease.
"""

from collections.abc import Sequence

from farmlease.domain.lease_document import LeaseDocument
from farmlease.domain.model import Kind, Lease, Share
from farmlease.domain.pool import MOST_USES, Pool

__all__ = ["admits"]


def admits(
    pool: Pool,
    lease: Lease,
    document: LeaseDocument,
    *,
    device: str,
    sessions: Sequence[str],
    now: int,
    node_counts: bool,
) -> bool:
    """Whether the holder of ``lease`` may start one more session on ``device``.

    ``sessions``: the device of each session that the user has in this pool on this node. ``now``: ms by the store's
    clock, as estimated here. ``node_counts``: whether the store still counts this node's sessions.
    """
    if len(sessions) >= min(pool.sessions_per_user or MOST_USES, MOST_USES):
        return False
    if device not in document.device_deadlines(now):
        return False
    if pool.kind is Kind.NAMED:
        return not lease.has_ended(now)
    return node_counts and _shares_a_seat(pool.share, device, sessions)


def _shares_a_seat(share: Share, device: str, sessions: Sequence[str]) -> bool:
    """Whether a seat that one of these sessions holds covers one more on ``device``; a node-locked one per device."""
    match share:
        case Share.SESSION:
            return False
        case Share.USER_DEVICE:
            return device in sessions
        case Share.USER:
            return bool(sessions)
