"""What explain.lua tells of one pool, as the explanation that a person reads."""

from collections.abc import Iterator
from dataclasses import replace

from farmlease.domain import denial_text
from farmlease.domain.explanation import BoundedSet, How, Place, PoolExplanation
from farmlease.domain.model import Denial, Grant, Reason, SessionRequest
from farmlease.domain.pool import Pool
from farmlease.store.answers.session import Explained, Refusal, Taken

__all__ = ["explained_pool", "other_hosts"]


def explained_pool(
    pool: Pool, request: SessionRequest, explained: Explained, *, node: str, device: str, opens: bool
) -> PoolExplanation:
    """Return what a pool would answer. ``opens``: whether the record that a grant would bring opens."""
    how, answer = None, explained.answer
    match answer:
        case Taken() if not opens:
            told: Grant | Denial | Place = denial_text.denial(Reason.RECORD_REJECTED, pool.name)
        case Taken():
            how = _how(answer, explained)
            told = Grant(
                user=request.user, pool=pool.name, kind=pool.kind, device=device, node=node, session=request.session,
                fence=answer.fence, lease=answer.lease, overdraft=answer.overdraft, again=answer.again,
            )  # fmt: skip
        case Refusal():
            told = answer.denial(pool)
        case waiting:
            told = Place(waiting.ahead)
    return PoolExplanation(
        pool=pool, answer=told, how=how, sets=tuple(_named(pool, explained)), lease=explained.lease,
        lease_until=explained.expires_at, now=explained.now,
    )  # fmt: skip


def other_hosts(pool: Pool) -> PoolExplanation:
    """Return the explanation of a pool that does not serve this node: the store is not asked."""
    return PoolExplanation(pool=pool, answer=denial_text.denial(Reason.WRONG_NODE, pool.name))


def _named(pool: Pool, explained: Explained) -> Iterator[BoundedSet]:
    """Yield the sets, each limit of the policy by those whom it is for."""
    limits = {each.id: f"limit of {each.whom}" for each in pool.limit}
    for each in explained.sets:
        yield replace(each, name=limits.get(each.name, each.name))


def _how(taken: Taken, explained: Explained) -> How:
    if taken.moved:
        return How.MOVED
    if taken.again:
        return How.AGAIN
    return How.NEW if explained.lease is None else How.JOINED
