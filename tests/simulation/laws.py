"""The laws that are judged by what people were told: each is one function, and one sentence that says what must hold.

They read what the agents show and what the ledger knows; no function of farmlease decides anything here. What the store
itself answered is judged in ``ledger.py``.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Protocol

from farmlease.domain.model import Decision, Denial, Grant, Reason, SessionRequest
from farmlease.domain.session_states import SessionState
from farmlease.node.journal.sessions import NodeSession
from tests.simulation.host import Host
from tests.simulation.ledger import Account, Key, Ledger
from tests.simulation.memory import Memory

__all__ = [
    "Told",
    "adopted",
    "as_asked",
    "by_receipt",
    "counted_in",
    "explained",
    "heard_of_loss",
    "in_this_life",
    "in_time",
    "kept_lease",
    "nothing_leaks",
    "one_lease",
    "told",
    "within_capacity",
]

#: A denial may be this old, in ms, when its user hears it.
_ON_THE_WAY = 10_000
#: What the store's clock may be off, in ms, before anybody has to notice.
_CLOCKS_DIFFER = 70_000

Use = tuple[str, str]  #: session id and pool


class Farm(Protocol):
    """What the laws look at."""

    hosts: list[Host]
    ledger: Ledger

    @property
    def blows(self) -> Any:
        """How often the store lost writes (``losses``), and its clock was set (``clocks``)."""

    @property
    def now(self) -> float:
        """Seconds since the run began."""

    @property
    def now_ms(self) -> int:
        """The store's clock."""

    def key(self, host: Host, session: NodeSession) -> Key:
        """Return how the store knows a session."""

    def hears(self, host: Host) -> bool:
        """Whether a host could reach the store for long enough to have told what it has."""

    def was_taken(self, host: Host, session: NodeSession) -> bool:
        """Whether an administrator has taken the lease since a session of it was granted."""

    def has_had(self, host: Host, session: NodeSession) -> bool:
        """Whether a session is to be counted before anything its host asks."""


@dataclass(frozen=True, slots=True)
class Told:
    """A session that its host shows as active now, and that nothing has ended rightfully."""

    key: Key
    fence: int
    seat: str
    lease: str
    host: Host
    by_receipt: bool
    settled: bool  #: its host asks for nothing before it is counted


def told(farm: Farm, pool: str) -> Iterator[Told]:
    """Every session of a pool that its user may rely on now."""
    account = farm.ledger.pools[pool]
    for host in farm.hosts:
        if not host.up:
            continue
        for session in host.book:
            if session.pool != pool or session.state is not SessionState.ACTIVE or session.grant is None:
                continue
            key, fence = farm.key(host, session), session.grant.fence
            if account.ended.get(key, 0) >= fence or account.heard.get(key[1], 0) <= farm.now:
                continue
            if farm.was_taken(host, session):
                continue
            seat = account.model.seat_for(key[0], key[1:], session.device)
            if (
                session.grant.source == "receipt"
                and key not in account.model.sessions
                and seat not in account.model.held()
            ):
                continue  # vouched for by a receipt while an administrator took the seat: it is told when it can be
            by_receipt = session.grant.source == "receipt"
            yield Told(key, fence, seat, session.grant.lease.id, host, by_receipt, farm.has_had(host, session))


def within_capacity(farm: Farm, pool: str, account: Account) -> str | None:
    """L1: at no instant do more seats carry sessions that were granted and go on than capacity and overdraft allow."""
    if account.model.rules.kind == "node_locked":
        return None
    found = [
        each
        for each in told(farm, pool)
        # What the store lost and nobody could restore is not known to it: that much is not promised.
        if not farm.blows.losses or each.key in account.model.sessions or farm.hears(each.host)
    ]
    seats = {each.seat for each in found}
    admitted = [account.admitted.get(seat, (0, 0)) for seat in seats]
    _, most = max(admitted, default=(0, 0))
    if farm.blows.losses:  # what was lost may have been given again under other limits, in another order
        most = max((each for _, each in admitted), default=0)
    if len(seats) > most:
        return f"{len(seats)} seats of {pool} are in use, {most} were allowed when the last of them was taken"
    return None


def one_lease(farm: Farm, pool: str, account: Account) -> str | None:
    """L2: all sessions of a user in a pool belong to one lease, on whatever node they are.

    One that a receipt let in is only as good as that until the store has heard of it.
    """
    del account
    leases: dict[str, set[str]] = {}
    for each in told(farm, pool):
        if each.by_receipt and not farm.hears(each.host):
            continue
        leases.setdefault(each.key[0], set()).add(each.lease)
    several = [user for user, found in leases.items() if len(found) > 1]
    return f"{len(several)} users have sessions of two leases in {pool}" if several else None


def explained(farm: Farm, request: SessionRequest, decision: Decision) -> str | None:
    """L8: a denial names its reason and speaks a sentence, and says what blocks, or when to try again, where it can."""
    del farm, request
    if not isinstance(decision, Denial):
        return None
    if not decision.detail or decision.reason not in set(Reason):
        return f"a denial without words: {decision}"
    wants_time = decision.reason in {Reason.OFFLINE, Reason.QUARANTINED, Reason.RECOVERING}
    if wants_time and decision.retry_at is None:
        return f"a denial for {decision.reason} that does not say when to try again"
    if decision.reason in {Reason.DEVICE_LIMIT, Reason.SESSION_LIMIT} and not decision.blocking:
        return f"a denial for {decision.reason} that does not say what blocks"
    return None


def in_time(farm: Farm, request: SessionRequest, decision: Decision) -> str | None:
    """L8: when to try again is to come, by the store's time; without a store nobody knows that."""
    if not isinstance(decision, Denial) or decision.retry_at is None or decision.reason is Reason.OFFLINE:
        return None
    if decision.reason is Reason.RECOVERING and farm.blows.clocks:
        return None  # the store is about to take the time that its nodes counted
    ago = farm.ledger.now_ms(decision.pool or "", farm.now_ms) - decision.retry_at
    return f"retry at {decision.retry_at}, which was {ago} ms ago ({decision.reason})" if ago > _ON_THE_WAY else None


def as_asked(farm: Farm, request: SessionRequest, decision: Decision) -> str | None:
    """L3: a grant answers the question it was given for, with a fence that the store gave for it."""
    del farm
    if not isinstance(decision, Grant):
        return None
    if (decision.user, decision.session) != (request.user, request.session):
        return f"asked for session {request.session}, and was told of another's"
    return (
        None if request.pool in {None, decision.pool} else f"asked for {request.pool}, and was told of {decision.pool}"
    )


def by_receipt(farm: Farm, request: SessionRequest, decision: Decision) -> str | None:
    """L5: a receipt lets in only while its lease lasts, by the store's time and not by the host's.

    Who was let in before is told so again for as long as the session goes on.
    """
    if not isinstance(decision, Grant) or decision.source != "receipt" or decision.again:
        return None
    late = farm.ledger.now_ms(decision.pool or "", farm.now_ms) - decision.lease.expires_at
    lapsed = decision.kind == "named" and late > _CLOCKS_DIFFER and not farm.blows.clocks
    return f"a receipt let somebody in {late} ms after its lease had ended" if lapsed else None


def in_this_life(host: Host, decision: Decision, granted_in: str | None) -> str | None:
    """L4: a receipt lets in only while its host has not been booted since the store granted the lease there."""
    if not isinstance(decision, Grant) or decision.source != "receipt" or decision.again or not host.up:
        return None
    if granted_in in {None, host.member}:
        return None
    return f"a receipt of {granted_in} let somebody in on {host.member}"


def kept_lease(farm: Farm, pool: str, homes: AbstractSet[str], expires_at: int) -> str | None:
    """L7: a named lease that somebody was told of is there until it ends, session or not, if there is room for it.

    ``homes``: the user's indexes, of which it may stand under one.
    """
    account = farm.ledger.pools[pool]
    rules, model = account.model.rules, account.model
    full = len(model.held()) >= rules.capacity + rules.overdraft
    if full or homes & model.leases.keys() or expires_at <= farm.ledger.now_ms(pool, farm.now_ms):
        return None
    return f"the lease of {sorted(homes)} in {pool} is gone, and was good until {expires_at}"


def adopted(before: Mapping[Use, tuple[str, int]], after: Mapping[Use, tuple[str, int]]) -> str | None:
    """L7: what an agent showed when it was killed, the next one of the same boot shows too."""
    lost = sorted(use for use, known in before.items() if after.get(use) != known)
    return f"sessions {lost} did not survive the agent: {before} became {after}" if lost else None


def heard_of_loss(host: Host, lost: set[tuple[str, str, int]]) -> str | None:
    """L4: who lost a claim (pool, session and fence) before a heartbeat is not shown as active after it."""
    still = [
        each.id
        for each in host.book
        if each.state is SessionState.ACTIVE and each.grant and (each.pool, each.id, each.grant.fence) in lost
    ]
    return f"{host.name} goes on with {sorted(still)}, lost before its last heartbeat" if still else None


def counted_in(farm: Farm, pool: str, newcomer: Key, *, awaited: bool) -> str | None:
    """L7: nobody new is let in while a session that goes on, on a host that can be heard, is not counted.

    A host that asks for somebody new itself, and waits for the answer, can be heard.
    """
    account = farm.ledger.pools[pool]
    missing = [
        each
        for each in told(farm, pool)
        if each.key not in account.model.sessions
        and each.key != newcomer
        and ((each.host.member == newcomer[1] and awaited and each.settled) or farm.hears(each.host))
        and (each.host.member == newcomer[1] or not each.by_receipt)  # those of a receipt before others of their host
    ]
    if newcomer in {each.key for each in told(farm, pool)} or not missing:
        return None
    return f"{newcomer[2]} on {newcomer[1]} was let into {pool} before {len(missing)} live sessions were counted again"


def nothing_leaks(farm: Farm, memory: Memory) -> Iterator[str]:
    """L3: when all is quiet, the store's sessions are exactly those its agents show, with the same fences."""
    for pool, account in farm.ledger.pools.items():
        tag = f"fl:{{citrix-a/{pool}/0}}:".encode()
        shown = {
            farm.key(host, each): each.grant.fence
            for host in farm.hosts
            for each in host.book
            if each.pool == pool and each.state is SessionState.ACTIVE and each.grant is not None
        }
        kept = {key: session.fence for key, session in account.model.sessions.items()}
        if shown != kept:
            more, less = kept.items() - shown.items(), shown.items() - kept.items()
            yield f"in {pool} the store counts {sorted(more)} too many and {sorted(less)} too few"
        # Earlier lives never ask for theirs.
        members = tuple(f"#{called}/".encode() for host in farm.hosts for called in host.called)
        words = [name for name in memory.scores(tag + b"sessions") if name.startswith(members)]
        if words:
            yield f"{len(words)} words of lost sessions in {pool} were never acknowledged"
        former = tuple(f"{called}/".encode() for host in farm.hosts for called in host.called[:-1])
        known = (*memory.scores(tag + b"sessions"), *(node + b"/" for node in memory.scores(tag + b"nodes")))
        if left := [name for name in known if name.startswith(former)]:
            yield f"in {pool} {sorted(left)} stand under a former name of their host"
        if any(until > farm.now_ms for until in memory.scores(tag + b"waits").values()):
            yield f"somebody waits in the queue of {pool} for ever"
    for host in farm.hosts:
        states = sorted({each.state.value for each in host.book} - {"active", "lost"})
        if states:
            yield f"{host.name} has sessions that are still {', '.join(states)}"
        if owed := host.agent.facts().owed:
            yield f"{host.name} still owes the store {owed} messages"
