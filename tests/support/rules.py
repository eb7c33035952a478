"""What the stories of the rules are told with: a pool of any kind on virtual time, and sentences about it."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from farmlease.domain.model import Withdrawal
from farmlease.domain.policy import Pool, parse_policy
from farmlease.store.answers.admin import Withdrawn
from farmlease.store.answers.session import Behind, Count, Refusal, Taken, Taking, Waiting
from farmlease.store.lease_store import Acquired
from tests.support.seats import FARM, NODE, Desk, claim
from tests.support.stores import DAY, HOUR, NINE, TimedStore, index

__all__ = ["MINUTE", "Office", "office", "policy_of", "pool_of"]

MINUTE = 60_000


def policy_of(kind: str, **keys: Any) -> str:
    """Write a policy of one pool of one seat, but for ``keys`` as pools.toml has them."""
    given = {"name": "clearquest", "kind": kind} | ({} if kind == "node_locked" else {"capacity": 1}) | keys
    bounds = [(key, each) for key in ("reserve", "limit") for each in given.pop(key, [])]
    lines = [f"{key} = {json.dumps(value)}" for key, value in given.items()]
    for kind_of_bound, each in bounds:
        lines += [f"[[pool.{kind_of_bound}]]", *(f"{key} = {json.dumps(value)}" for key, value in each.items())]
    return "[[pool]]\n" + "\n".join(lines) + "\n"


def pool_of(kind: str, **keys: Any) -> Pool:
    """Return a pool of one seat, but for ``keys`` as pools.toml has them."""
    (pool,) = parse_policy(policy_of(kind, **keys), "test").pools
    return pool


@dataclass(slots=True)
class Office(Desk):
    """A pool whose users come and go by the clock on its wall: it is 09:00 on 5 January 2026 when a story begins."""

    async def at(self, time: str, *nodes: str, day: int = 0) -> None:
        """Let it become ``time`` on the ``day``-th day after; ``nodes`` beat meanwhile, all others are silent."""
        moment = datetime.strptime(time, "%H:%M:%S.%f" if "." in time else "%H:%M").replace(tzinfo=UTC)
        end = NINE - 9 * HOUR + day * DAY + round((moment - datetime(1900, 1, 1, tzinfo=UTC)).total_seconds() * 1000)
        while nodes and self.timed.clock.now_ms + HOUR < end:
            self.timed.clock.advance(HOUR)
            await self.beat(*nodes)
        self.timed.clock.set(end)
        if nodes:
            await self.beat(*nodes)

    async def want(
        self,
        user: str,
        session: str = "1",
        node: str = NODE,
        device: str = FARM,
        *,
        wait_ms: int = 0,
        reserved: bool = False,
        limited: bool = False,
    ) -> Acquired:
        """Ask for a session, waiting for a seat or not, entitled to the pool's reservations, or within its limits."""
        self.asked += 1
        taking = Taking(
            device=device,
            lease_id=f"lease {self.asked}",
            record=f"record {self.asked} of {user}".encode(),
            name=b"sealed name of " + user.encode(),
            reservations=tuple(each.id for each in (*self.pool.reserve * reserved, *self.pool.limit * limited)),
            wait_ms=wait_ms,
        )
        return await self.timed.store.acquire(self.pool, self.version, claim(user, session, node), taking)

    async def wait(self, user: str, session: str = "1", node: str = NODE, *, for_ms: int = 2000) -> int | Taken:
        """Ask for a session, ready to wait; return how many are before it, or its seat."""
        answer = await self.want(user, session, node, wait_ms=for_ms)
        if isinstance(answer, Waiting):
            return answer.ahead
        assert isinstance(answer, Taken), answer
        return answer

    async def favoured(self, user: str, session: str = "1", node: str = NODE) -> Taken | Refusal:
        """Ask for a session of somebody whom every reservation of the pool is for."""
        answer = await self.want(user, session, node, reserved=True)
        assert not isinstance(answer, Behind | Waiting)
        return answer

    async def hold(self, user: str, taken: Taken, span_ms: int, session: str = "1", node: str = NODE) -> int | None:
        """Hold a session: a form is open."""
        until = await self.timed.store.hold(self.pool.name, claim(user, session, node), taken.fence, span_ms)
        assert not isinstance(until, Behind)
        return until

    async def give_back(self, user: str, why: Withdrawal = Withdrawal.RETURNED) -> Withdrawn | None:
        """Let an administrator take a lease back."""
        return await self.timed.store.withdraw(self.pool.name, index(user), why, b"sealed note")

    async def count(self) -> Count:
        """Return how full the pool is."""
        count = await self.timed.store.count(self.pool.name)
        assert count is not None
        return count

    async def apply(self, kind: str, **keys: Any) -> "Office":
        """Put another policy in force; return the office under it."""
        new = replace(self, pool=pool_of(kind, **keys), version=self.version + 1)
        await self.timed.store.configure(new.pool, new.version)
        return new


async def office(timed: TimedStore, kind: str, *nodes: str, **keys: Any) -> Office:
    """Open an office at 09:00 whose ``nodes`` (default: the first) just beat."""
    opened = Office(timed, pool_of(kind, **keys))
    await opened.beat(*nodes)
    return opened
