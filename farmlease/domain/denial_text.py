"""A denial in plain words: which limit, what blocks it, and when the first claim ends (law L8).

The sentence is for the user of the denied session. It may name that user's own devices, hosts and sessions, and of
other users only the number of held seats. What a terminal would obey, or nobody sees, is escaped in it: hooks show the
sentence to users as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from farmlease.domain.characters import shown
from farmlease.domain.duration import format_duration
from farmlease.domain.model import Blocker, Denial, Reason
from farmlease.domain.wording import moment

__all__ = [
    "NO_POLICY",
    "UNKNOWN_DOMAIN",
    "denial",
    "most_helpful",
    "no_place",
    "over_limit",
    "wait_was_cut",
    "wait_was_ended",
]

#: Sentences that say more than those of their reasons.
NO_POLICY = "This host does not know the policy of its farm yet; try again in a minute, or tell your administrator."
UNKNOWN_DOMAIN = "The domain of your account is not one of this farm; ask your administrator to add it."

#: One sentence for each reason. ``{free}`` says when the first claim ends, ``{when}`` when to try again.
_SENTENCES: Mapping[Reason, str] = {
    Reason.CAPACITY: "All seats of {subject} are taken{how_many}; {free}.",
    Reason.DEVICE_LIMIT: (
        "Your licence in {subject} is on {count} devices already, and {capacity} are allowed: {devices}; {free}."
    ),
    Reason.SESSION_LIMIT: (
        "You have {count} sessions in {subject}, and {capacity} are allowed: {sessions}; end one of them."
    ),
    Reason.RESERVED: "The free seats of {subject} are reserved for others; try again later.",
    Reason.QUARANTINED: "The free seats of {subject} were given back too recently; {free}.",
    Reason.WRONG_NODE: "The licence of {subject} belongs to other hosts; start the program on one of them.",
    Reason.NOT_ENTITLED: "You may not use {subject}; ask your administrator for the right to.",
    Reason.REVOKED: "An administrator has taken back your licence in {subject}; ask them why.",
    Reason.RECOVERING: "The licence store is recovering after a failure; try again {when}.",
    Reason.OFFLINE: (
        "The licence store cannot be reached from this host, and it holds no receipt that would let you in; "
        "try again {when}."
    ),
    Reason.DRAINING: "This host takes no new sessions; start again and the balancer will send you to another one.",
    Reason.UNKNOWN_POOL: "There is no licence {subject}; name another with --pool, or ask your administrator.",
    Reason.USER_LIMIT: "You have as much of {subject} as any user may have; end a session, and try again.",
    Reason.RECORD_REJECTED: (
        "Your licence record of {subject} could not be opened; it was kept for inspection. Tell your administrator."
    ),
}
#: The sentence where the record is in order, and its file cannot be put in place.
_NO_PLACE = "Your licence file of {subject} cannot be put in place on this host: {why}. Tell your administrator."
#: The sentences for a request that names no pool, and for which the policy has none.
_WITHOUT_POOL: Mapping[Reason, str] = {
    Reason.CAPACITY: "All seats are taken; try again later.",
    Reason.NOT_ENTITLED: "You may not use this; ask your administrator for the right to.",
    Reason.UNKNOWN_POOL: "There is no licence pool for this; name one with --pool, or ask your administrator.",
}
#: The sentences at what one user may have, by what blocks: the user's sessions, devices, or places in the queue.
_USER_LIMIT = {
    "sessions": "You have {held} sessions in {subject}, and nobody may have more; end one of them.",
    "devices": "Your licence in {subject} is on {held} devices, and nobody's may be on more; {free}.",
    "places": "{held} of your sessions wait for {subject}, and nobody may have more wait; try again later.",
}
#: The text of ``{free}`` where the store cannot name an instant.
_NO_INSTANT: Mapping[Reason, str] = {
    Reason.CAPACITY: "each is in use now",
    Reason.DEVICE_LIMIT: "none becomes free while they are in use",
    Reason.USER_LIMIT: "none becomes free while they are in use",
    Reason.QUARANTINED: "try again later",
}


def denial(
    reason: Reason,
    pool: str | None,
    *,
    retry_at: int | None = None,
    blocking: Sequence[Blocker] = (),
    held: int | None = None,
    capacity: int | None = None,
    sentence: str = "",
) -> Denial:
    """Return the denial with its sentence: the reason's own, unless another one is given."""
    at = None if retry_at is None else moment(retry_at)
    if reason is Reason.USER_LIMIT and not sentence and held is not None:
        sentence = _USER_LIMIT[_what_blocks(blocking)]
    sentence = sentence or (_SENTENCES[reason] if pool else _WITHOUT_POOL.get(reason, _SENTENCES[reason]))
    detail = sentence.format(
        subject=f"pool {shown(pool or '')}",
        capacity=capacity,
        held=held,
        how_many="" if held is None else f" ({held} of {capacity})",
        count=len(blocking),
        devices=", ".join(f"{shown(claim.device or '')} ({_until(claim)})" for claim in blocking),
        sessions=", ".join(f"{shown(claim.session or '')} on {shown(claim.node or '')}" for claim in blocking),
        free=_NO_INSTANT.get(reason, "") if at is None else f"the first becomes free at {at}",
        when="in a minute" if at is None else f"at {at}",
    )
    return Denial(
        reason=reason,
        pool=pool,
        detail=detail,
        retry_at=retry_at,
        blocking=tuple(blocking),
        held=held,
        capacity=capacity,
    )


def over_limit(pool: str, whom: str, *, retry_at: int | None, held: int, capacity: int) -> Denial:
    """Return the denial of a session that counts in a limit whose seats are all taken; ``whom``: those it is for."""
    named = shown(whom).replace("{", "{{").replace("}", "}}")
    sentence = f"All {{capacity}} seats that {{subject}} has for {named} are taken{{how_many}}; {{free}}."
    return denial(Reason.CAPACITY, pool, retry_at=retry_at, held=held, capacity=capacity, sentence=sentence)


def no_place(pool: str, why: str) -> Denial:
    """Return the denial of a user whose record is in order, and whose file cannot be put in place."""
    plain = shown(why).replace("{", "{{").replace("}", "}}")
    return denial(Reason.RECORD_REJECTED, pool, sentence=_NO_PLACE.replace("{why}", plain))


def most_helpful(denials: Sequence[Denial]) -> Denial:
    """Return the denial that its user can do most with: one that ends first, then one that can be acted on here."""
    return min(denials, key=lambda each: (each.reason is Reason.WRONG_NODE, each.retry_at is None, each.retry_at or 0))


def wait_was_cut(denied: Denial, longest_ms: int) -> Denial:
    """Return the denial at the end of a wait that the pool made shorter than its caller had asked for."""
    return replace(
        denied, detail=f"{denied.detail} A session waits for this pool for at most {format_duration(longest_ms)}."
    )


def wait_was_ended(pool: str) -> Denial:
    """Return the denial of a session that was ended by another call while it waited."""
    detail = f"The session was ended while it waited for a seat of pool {pool}."
    return Denial(reason=Reason.CAPACITY, pool=pool, detail=detail)


def _what_blocks(blocking: Sequence[Blocker]) -> str:
    if not blocking:
        return "places"
    return "sessions" if blocking[0].device is None else "devices"


def _until(claim: Blocker) -> str:
    return "in use now" if claim.until is None else f"until {moment(claim.until)}"
