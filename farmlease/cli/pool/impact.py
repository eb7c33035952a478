"""Which users a new policy affects, before it is applied. It reads the store and changes nothing.

A policy changes later decisions only: existing leases, sessions and devices stay. So this lists the users who hold more
than the new limits allow, none of whom loses anything. In a pool that it removes the sessions end: each is named.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping

from farmlease.cli.client.farm import FarmClient
from farmlease.domain import wording
from farmlease.domain.model import LeaseView
from farmlease.domain.policy import Policy, Pool

__all__ = ["impact_lines"]

#: Names listed in one line; the others are counted.
_MOST_NAMES = 10


def impact_lines(client: FarmClient, old: Policy | None, new: Policy, held: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for each new limit that is exceeded; ``held``: seats held in each old pool."""
    for before in old.pools if old else ():
        after = new.pool(before.name)
        if after is None:
            if held[before.name]:
                yield from _removed_lines(client, before)
            continue
        if after.capacity < before.capacity and held[before.name] > after.capacity:
            yield (
                f"affected: {held[before.name]} seats of pool {after.name} are held, "
                f"{held[before.name] - after.capacity} above the new capacity; they stay, and no new user gets one "
                "until fewer are held"
            )
        yield from _user_lines(client, before, list(_exceeded(before, after)))


def _removed_lines(client: FarmClient, pool: Pool) -> Iterator[str]:
    """Yield whose leases stand in a pool that would be removed, each session that would be lost, and what stays."""
    views = list(client.each(client.lease_admin.leases(pool)))
    users = [view.user for view in views]
    yield (
        f"affected: {wording.counted(len(users), 'user')} with leases in the removed pool {pool.name}: {_names(users)}"
    )
    lost = [f"session {each.session} of {view.user} on {each.node}" for view in views for each in view.sessions]
    yield from (f"lost: {each} in pool {pool.name}" for each in sorted(lost)[:_MOST_NAMES])
    if len(lost) > _MOST_NAMES:
        yield f"lost: {len(lost) - _MOST_NAMES} more sessions in pool {pool.name}"
    yield (
        f"the leases of pool {pool.name} stay listed until they end, and "
        f"`farmlease lease return USER --pool {shlex.quote(pool.name)}` gives one back"
    )


_Exceeds = Callable[[LeaseView], bool]


def _exceeded(before: Pool, after: Pool) -> Iterator[tuple[str, _Exceeds]]:
    """Yield each limit per user that got lower, in words, with the test whether a lease exceeds it."""
    if after.kind is not before.kind:
        yield f"{before.kind} leases in pool {after.name}, which becomes {after.kind}", lambda _: True
    devices, sessions = after.devices_per_user, after.sessions_per_user
    if _lower(before.devices_per_user, devices):
        yield (
            f"more than {wording.counted(devices, 'device')} in pool {after.name}",
            lambda view: len(view.devices) > devices,
        )
    if _lower(before.sessions_per_user, sessions):
        yield (
            f"more than {wording.counted(sessions, 'session')} in pool {after.name}",
            lambda view: len(view.sessions) > sessions,
        )
    if set(before.nodes) - set(after.nodes):
        yield (
            f"sessions on hosts that pool {after.name} no longer has",
            lambda view: any(not after.serves(session.node) for session in view.sessions),
        )


def _lower(before: int, after: int) -> bool:
    """Whether a limit got lower; 0 means no limit."""
    return after != 0 and (before == 0 or after < before)


def _user_lines(client: FarmClient, pool: Pool, limits: list[tuple[str, _Exceeds]]) -> Iterator[str]:
    """Yield a line for each limit that any user exceeds; the leases are read once, and only if there is a limit."""
    if not limits:
        return
    found: dict[str, list[str]] = {what: [] for what, _ in limits}
    for view in client.each(client.lease_admin.leases(pool)):
        for what, exceeds in limits:
            if exceeds(view):
                found[what].append(view.user)
    for what, users in found.items():
        if users:
            yield f"affected: {wording.counted(len(users), 'user')} with {what}: {_names(users)}"


def _names(users: list[str]) -> str:
    listed = ", ".join(sorted(users)[:_MOST_NAMES])
    more = len(users) - _MOST_NAMES
    return f"{listed} and {more} more" if more > 0 else listed
