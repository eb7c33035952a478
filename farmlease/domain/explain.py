"""A denial in plain words: which limit, what blocks it, and when the first claim ends (law L8).

The sentence is for the user who asked. It may name that user's own devices, hosts and sessions, and of other people's
only how many seats are held.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from farmlease.domain.model import Blocker, Denial, Reason

__all__ = ["counted", "denial", "moment"]


def moment(at_ms: int) -> str:
    """Return an instant as a person reads it: ``2026-12-21 09:00 UTC``, rounded up to the minute."""
    return datetime.fromtimestamp(-(-at_ms // 60_000) * 60, UTC).strftime("%Y-%m-%d %H:%M UTC")


def counted(number: int, what: str) -> str:
    """Return "1 session", "2 sessions"."""
    return f"{number} {what}{'s' * (number != 1)}"


def denial(
    reason: Reason,
    pool: str | None,
    *,
    retry_at: int | None = None,
    blocking: Sequence[Blocker] = (),
    held: int | None = None,
    capacity: int | None = None,
) -> Denial:
    """Return the denial with its sentence."""
    subject = f"pool {pool}" if pool else "no pool"
    return Denial(
        reason=reason,
        pool=pool,
        detail=_SENTENCES[reason](subject, blocking, held, capacity, retry_at),
        retry_at=retry_at,
        blocking=tuple(blocking),
        held=held,
        capacity=capacity,
    )


def _free_when(retry_at: int | None, otherwise: str) -> str:
    return otherwise if retry_at is None else f"the first becomes free at {moment(retry_at)}"


def _when(retry_at: int | None) -> str:
    return "in a minute" if retry_at is None else f"at {moment(retry_at)}"


def _devices(blocking: Sequence[Blocker]) -> str:
    return ", ".join(
        f"{claim.device} ({'in use now' if claim.until is None else f'until {moment(claim.until)}'})"
        for claim in blocking
    )


def _sessions(blocking: Sequence[Blocker]) -> str:
    return ", ".join(f"{claim.session} on {claim.node}" for claim in blocking)


_Sentence = Callable[[str, Sequence[Blocker], int | None, int | None, int | None], str]

_SENTENCES: dict[Reason, _Sentence] = {
    Reason.CAPACITY: lambda subject, _, held, capacity, retry: (
        f"All seats of {subject} are taken ({held} of {capacity}); "
        f"{_free_when(retry, 'one becomes free when a user ends')}."
    ),
    Reason.DEVICE_LIMIT: lambda subject, blocking, _, capacity, retry: (
        f"Your licence in {subject} is on {len(blocking)} devices already, and {capacity} are allowed: "
        f"{_devices(blocking)}; "
        f"{_free_when(retry, 'none becomes free while they are in use')}."
    ),
    Reason.SESSION_LIMIT: lambda subject, blocking, _, capacity, __: (
        f"You have {len(blocking)} sessions in {subject}, and {capacity} are allowed: {_sessions(blocking)}; "
        "end one of them."
    ),
    Reason.RESERVED: lambda subject, _, __, ___, ____: (
        f"The free seats of {subject} are reserved for others; try again when a user has ended."
    ),
    Reason.QUARANTINED: lambda subject, _, __, ___, retry: (
        f"The free seats of {subject} were given back too recently; {_free_when(retry, 'try again later')}."
    ),
    Reason.WRONG_NODE: lambda subject, _, __, ___, ____: (
        f"The licence of {subject} belongs to other hosts; start the program on one of them."
    ),
    Reason.NOT_ENTITLED: lambda subject, _, __, ___, ____: (
        f"You may not use {subject}; ask your administrator for the right to."
    ),
    Reason.REVOKED: lambda subject, _, __, ___, ____: (
        f"An administrator has taken back your licence in {subject}; ask them why."
    ),
    Reason.RECOVERING: lambda _, __, ___, ____, retry: (
        f"The licence store is recovering after a failure; try again {_when(retry)}."
    ),
    Reason.OFFLINE: lambda _, __, ___, ____, retry: (
        "The licence store cannot be reached from this host, and it holds no receipt that would let you in; "
        f"try again {_when(retry)}."
    ),
    Reason.DRAINING: lambda _, __, ___, ____, _____: (
        "This host takes no new sessions; start again and the balancer will send you to another one."
    ),
    Reason.UNKNOWN_POOL: lambda subject, _, __, ___, ____: (
        f"There is no licence pool for this ({subject}); name one with --pool, or ask your administrator."
    ),
    Reason.RECORD_REJECTED: lambda subject, _, __, ___, ____: (
        f"Your licence record of {subject} could not be trusted or put in place; "
        "it was kept for inspection, tell your administrator."
    ),
}
