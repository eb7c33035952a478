"""Whom a new policy touches, said before it is applied. It reads the store and changes nothing.

What a policy takes, it takes from decisions to come: a lease, a session and a device that are there stay. So this tells
who holds more than the new limits allow, not who loses it.
"""

from collections.abc import Callable, Iterator, Mapping

from farmlease.cli.client.farm import FarmClient
from farmlease.domain import wording
from farmlease.domain.model import LeaseView
from farmlease.domain.policy import Policy, Pool

__all__ = ["affected"]

#: Names told in one line; of those beyond, the number.
_MOST_NAMES = 10


def affected(client: FarmClient, old: Policy | None, new: Policy, held: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for each limit that is exceeded from now on; ``held`` says how many seats of each old pool are."""
    for before in old.pools if old else ():
        after = new.pool(before.name)
        if after is None:
            if held[before.name]:
                yield from _told(client, before, [(f"leases in the removed pool {before.name}", lambda _: True)])
            continue
        if after.capacity < before.capacity and held[before.name] > after.capacity:
            yield (
                f"affected: {held[before.name]} seats of pool {after.name} are held, "
                f"{held[before.name] - after.capacity} above the new capacity; they stay, and nobody new gets one "
                "until fewer are held"
            )
        yield from _told(client, before, list(_exceeded(before, after)))


_Exceeds = Callable[[LeaseView], bool]


def _exceeded(before: Pool, after: Pool) -> Iterator[tuple[str, _Exceeds]]:
    """Yield each limit of a user that got lower, in words, with what tells whether a lease exceeds it."""
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
    """Whether a limit got lower; 0 is none."""
    return after != 0 and (before == 0 or after < before)


def _told(client: FarmClient, pool: Pool, questions: list[tuple[str, _Exceeds]]) -> Iterator[str]:
    """Yield a line for each question that is true of somebody; the leases are read once, and not without need."""
    if not questions:
        return
    found: dict[str, list[str]] = {what: [] for what, _ in questions}
    for view in client.each(client.leases.leases(pool)):
        for what, exceeds in questions:
            if exceeds(view):
                found[what].append(view.user)
    for what, users in found.items():
        if users:
            yield f"affected: {wording.counted(len(users), 'user')} with {what}: {_names(users)}"


def _names(users: list[str]) -> str:
    told = ", ".join(sorted(users)[:_MOST_NAMES])
    more = len(users) - _MOST_NAMES
    return f"{told} and {more} more" if more > 0 else told
