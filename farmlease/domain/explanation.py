"""What a session start would be answered and why, as values. Nothing is asked of a store here.

``sentences`` of what would change the answer are for the administrator or the helpdesk, who read them to the user.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from farmlease.domain.denial_text import most_helpful
from farmlease.domain.identity import User
from farmlease.domain.identity_reading import Reading
from farmlease.domain.lease_document import LeaseDocument
from farmlease.domain.model import Decision, Denial, Grant, Reason, Restricted
from farmlease.domain.policy import Ruling
from farmlease.domain.pool import Pool
from farmlease.domain.wording import moment

__all__ = ["BoundedSet", "Explanation", "GroupSource", "How", "Place", "PoolExplanation", "changes", "decided"]


@dataclass(frozen=True, slots=True)
class BoundedSet:
    """How many claims are alive in a set, and how many there may be (None: any number)."""

    name: str  #: ``seats``, ``devices``, ``sessions`` and the others of explain.lua, ``limit of …`` of the policy
    held: int
    most: int | None


class How(StrEnum):
    """What a grant would do."""

    NEW = "new"  #: take a seat and begin a lease
    JOINED = "joined"  #: go on with the lease that the user has
    AGAIN = "again"  #: nothing: the session has its seat already
    MOVED = "moved"  #: move the session to the device
    RECEIPT = "receipt"  #: go by the node's own receipt, as the store is away


class GroupSource(StrEnum):
    """Where the groups of an explanation come from."""

    HOST = "host"  #: the host's accounts, and what the caller gave
    GIVEN = "given"  #: what the caller gave, and nothing else
    NOT_ASKED = "not_asked"  #: nothing in the policy asks for groups
    UNKNOWN = "unknown"  #: the host could not be asked: a rule that denies by groups matches, no other does


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the queue: the session would wait."""

    ahead: int  #: sessions that come before it


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolExplanation:
    """What one pool would answer, and what it holds before that."""

    pool: Pool
    answer: Grant | Denial | Place
    how: How | None = None  #: of a grant
    sets: tuple[BoundedSet, ...] = ()  #: none where the store is not asked
    lease: LeaseDocument | None = None  #: the user's
    lease_until: int | None = None  #: None while sessions keep it
    now: int = 0  #: by the store's clock; 0 where it is not asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a session start would be answered, and each thing that this rests on."""

    user: User
    reading: tuple[Reading, ...]
    groups: tuple[str, ...] | None
    groups_from: GroupSource
    node: str
    ruling: Ruling | None  #: None before a policy is known
    pools: tuple[PoolExplanation, ...]  #: in the order in which they are asked
    answer: Decision | Place

    @property
    def how(self) -> How | None:
        """What the grant would do; None for another answer."""
        return next((each.how for each in self.pools if each.answer is self.answer), None)


def decided(pools: Sequence[PoolExplanation]) -> Grant | Denial | Place:
    """Return the answer of a start that asks these pools in turn: the first that is none, else the most helpful denial.

    A record that cannot be trusted is an answer, and not a reason to go on to another pool.
    """
    denials: list[Denial] = []
    for each in pools:
        if not isinstance(each.answer, Denial) or each.answer.reason is Reason.RECORD_REJECTED:
            return each.answer
        denials.append(each.answer)
    return most_helpful(denials)


#: What would change a denial, by its reason.
_CHANGES: Mapping[Reason, tuple[str, ...]] = {
    Reason.CAPACITY: (
        "A seat that somebody gives back: see `farmlease lease list --pool {pool}`.",
        "More seats: capacity of pool {pool} in the policy, or seats of the limit that the answer names.",
    ),
    Reason.QUARANTINED: ("More seats, or a shorter quarantine, of pool {pool} in the policy.",),
    Reason.RESERVED: ("A reservation for this user, or fewer for others: reserve of pool {pool} in the policy.",),
    Reason.DEVICE_LIMIT: (
        "A device less: see `farmlease device release`, or `farmlease device replace` for one that is no more.",
    ),
    Reason.SESSION_LIMIT: ("The end of one of the user's sessions in pool {pool}.",),
    Reason.USER_LIMIT: ("The end of one of the user's sessions, a device less, or one waiting session less.",),
    Reason.WRONG_NODE: ("Another host: the licences of pool {pool} are for {hosts}.",),
    Reason.NOT_ENTITLED: ("Another rule, or other groups, apps or sites of the user: {rule} decides.",),
    Reason.REVOKED: (
        "The end of the revocation: `farmlease lease readmit {user} --pool {pool}` lets the user in again.",
        "`farmlease lease show {user}` says who revoked the seat, and why.",
    ),
    Reason.RECOVERING: ("The end of the recovery, when each node has restored what it has.",),
    Reason.OFFLINE: ("A store that this host reaches: see `farmlease doctor`.",),
    Reason.DRAINING: ("Another host, or `farmlease node undrain {node}`.",),
    Reason.UNKNOWN_POOL: ("The name of a pool that there is, or a rule that gives one: see `farmlease pool list`.",),
    Reason.RECORD_REJECTED: ("A record that opens: see `farmlease lease check`, and the key ring of this host.",),
}


def changes(explanation: Explanation) -> Iterator[str]:
    """Yield what would change the answer, each as one sentence."""
    answer = explanation.answer
    match answer:
        case Restricted():
            yield f"Only another rule: {_rule(explanation)} lets this session start without a licence."
        case Place():
            yield f"Nothing but time: {answer.ahead} sessions wait before this one."
        case Grant():
            yield from _of_grant(explanation, answer)
        case Denial():
            yield from _of_denial(explanation, answer)


def _of_grant(explanation: Explanation, grant: Grant) -> Iterator[str]:
    match explanation.how:
        case How.NEW:
            yield "Nothing is in the way: a start would take a seat, and begin a lease."
        case How.AGAIN:
            yield "Nothing: this session has its seat already, and asking again takes nothing."
        case How.RECEIPT:
            yield "The store, once it can be reached again: it decides anew then."
        case _:
            yield f"Nothing is in the way: a start goes on with the lease that the user has in pool {grant.pool}."
    if grant.overdraft:
        yield f"The seat is beyond the capacity of pool {grant.pool}: its overdraft would end that."


def _of_denial(explanation: Explanation, denial: Denial) -> Iterator[str]:
    if denial.retry_at is not None:
        yield f"Time: not before {moment(denial.retry_at)}."
    found = next((each.pool for each in explanation.pools if each.answer is denial), None)
    for sentence in _CHANGES.get(denial.reason, ()):
        yield sentence.format(
            pool=denial.pool,
            user=shlex.quote(explanation.user.canonical),
            node=explanation.node,
            rule=_rule(explanation),
            hosts=", ".join(found.nodes) if found is not None else "other hosts",
        )


def _rule(explanation: Explanation) -> str:
    return "the policy" if explanation.ruling is None else explanation.ruling.title
