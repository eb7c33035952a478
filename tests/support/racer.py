"""Nodes in a race for seats, each a process of its own, told over a socket what to ask for.

``python -m tests.support.racer URL FD …`` forks a process for each socket it inherits. A process reads one JSON object a line
and answers with one: ``{"ask": [users], "pool": {…}}`` asks for a session of each user and answers who was granted,
``{"end": …}`` ends what the last race was granted, and ``{"churn": seconds, …}`` starts and ends sessions for a while,
of 200 new users every quarter of a second.
"""

import asyncio
import random
import socket
import sys
import time
from typing import Any

from farmlease.domain.policy import Pool
from farmlease.errors import StoreUnavailable
from farmlease.store.answers.session import Beat, Claim, Taken, Taking
from farmlease.store.connection.connection import StoreAddress, open_connection
from farmlease.store.lease_store import LeaseStore
from tests.support.races import fork_each, obey
from tests.support.stores import index, named_pool

#: Fence of an end that ends whatever was taken for a question whose answer was lost.
ANY_FENCE = 2**53 - 1
AT_ONCE = 4


class Racer:
    """A node and its sessions."""

    def __init__(self, store: LeaseStore, node: str) -> None:
        self.store = store
        self.node = node
        self.granted: dict[str, Taken] = {}
        self.abandoned = 0
        self.random = random.Random(node)  # noqa: S311 - a race, not a secret

    async def told(self, order: dict[str, Any]) -> object:
        """Do as told; return what to answer."""
        pool = named_pool(**order["pool"])
        if "beat" in order:
            await self.beat(pool)
        if "ask" in order:
            await self.ask(pool, order["ask"])
        if "churn" in order:
            until = time.monotonic() + order["churn"]
            await asyncio.gather(*(self.churn(pool, until, lane) for lane in range(AT_ONCE)))
        if "end" in order:
            for user, taken in self.granted.items():
                await self.end(pool, user, user, taken.fence)
            self.granted = {}
        return {
            "granted": {user: (taken.lease.id, taken.fence) for user, taken in self.granted.items()},
            "abandoned": self.abandoned,
        }

    async def beat(self, pool: Pool) -> None:
        """Show that the node lives."""
        while True:
            try:
                assert isinstance(await self.store.heartbeat(pool, 1, self.node, None), Beat)
            except StoreUnavailable:
                continue
            return

    async def ask(self, pool: Pool, users: list[str]) -> None:
        """Ask for a session of each user, a few at once."""
        waiting = iter(users)

        async def lane() -> None:
            for user in waiting:
                taken = await self.start(pool, user, user)
                if taken is not None:
                    self.granted[user] = taken

        await asyncio.gather(*(lane() for _ in range(AT_ONCE)))

    async def churn(self, pool: Pool, until: float, lane: int) -> None:
        """Start and end sessions until then."""
        while (now := time.monotonic()) < until:
            user, session = f"{now // 0.25:.0f} {self.random.randrange(200)}", f"{lane}"
            taken = await self.start(pool, user, session)
            if taken is not None:
                await asyncio.sleep(self.random.random() / 50)
                await self.end(pool, user, session, taken.fence)

    async def start(self, pool: Pool, user: str, session: str) -> Taken | None:
        """Ask for a session as an agent does: without any answer, whatever was taken is given back."""
        claim = Claim(user=index(user), node=self.node, session=session)
        lease_id = f"{self.node} {self.random.random()}"
        taking = Taking(device="citrix-a", lease_id=lease_id, record=b"x" * 300, name=b"name")
        try:
            answer = await self.store.acquire(pool, 1, claim, taking)
        except StoreUnavailable:
            self.abandoned += 1
            await self.end(pool, user, session, ANY_FENCE)
            return None
        return answer if isinstance(answer, Taken) else None

    async def end(self, pool: Pool, user: str, session: str, fence: int) -> None:
        """End a session, until the store has taken it."""
        while True:
            try:
                await self.store.release(pool.name, Claim(user=index(user), node=self.node, session=session), fence)
            except StoreUnavailable:
                continue
            return


async def race(url: str, node: str, line: socket.socket) -> None:
    """Obey until the line is closed."""
    async with await open_connection(StoreAddress(url=url, timeout_ms=10_000)) as connection:
        await obey(line, Racer(LeaseStore(connection, "citrix-a"), node).told)


if __name__ == "__main__":
    fork_each(race, sys.argv[1], sys.argv[2:])
