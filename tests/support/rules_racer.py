"""Nodes in a race by the rules, each a process of its own, told over a socket what to do.

``python -m tests.support.rules_racer URL FD …`` forks a process for each socket it inherits. A process reads one JSON object a
line, ``{"act": "mix"|"queue", "seconds": …, "policy": …}``, and answers what it was granted: fence, number of arrival in
the queue (null: it did not wait) and whether as a VIP.
"""

import asyncio
import random
import socket
import sys
import time
from typing import Any

import redis.asyncio as driver

from farmlease.domain.policy import Pool, parse_policy
from farmlease.store.answers.session import Beat, Claim, Refusal, Taken, Taking, Waiting
from farmlease.store.connection.connection import Connection
from farmlease.store.connection.renewals import Renewals
from farmlease.store.keys import Shard
from farmlease.store.lease_store import Acquired, LeaseStore
from tests.support.races import fork_each, obey

#: Fence of an end that ends whatever there is: here a place in the queue.
ANY_FENCE = 2**53 - 1
LANES = 3
Granted = list[tuple[int, int | None, bool]]


class Racer:
    """A node and its sessions."""

    def __init__(self, client: driver.Redis, node: str) -> None:
        self.client = client
        self.store = LeaseStore(
            Connection(
                client, describe="race", timeout_ms=30_000, server=None, sleep=asyncio.sleep, renewals=Renewals()
            ),
            "citrix-a",
        )
        self.node = node
        self.random = random.Random(node)  # noqa: S311 - a race, not a secret
        self.number = 0

    async def told(self, order: dict[str, Any]) -> Granted:
        """Do as told; return what was granted."""
        (pool,) = parse_policy(order["policy"], "race").pools
        assert isinstance(await self.store.heartbeat(pool, 1, self.node, None), Beat)
        granted: Granted = []
        until = time.monotonic() + order["seconds"]
        lane = self.queue if order["act"] == "queue" else self.mix
        await asyncio.gather(*(lane(pool, until, granted) for _ in range(LANES)))
        return granted

    def claim(self) -> Claim:
        """Return a session nobody had before."""
        self.number += 1
        return Claim(user=f"{self.node.partition('#')[0]}-{self.number}", node=self.node, session=f"{self.number}")

    async def ask(self, pool: Pool, claim: Claim, *, vip: bool, wait_ms: int) -> Acquired:
        """Ask once."""
        ids = tuple(each.id for each in pool.reserve) if vip else ()
        taking = Taking(
            device="citrix-a", lease_id=claim.user, record=b"x" * 300, name=b"n", reservations=ids, wait_ms=wait_ms
        )
        return await self.store.acquire(pool, 1, claim, taking)

    async def mix(self, pool: Pool, until: float, granted: Granted) -> None:
        """Start and end sessions: VIPs, who come and go, who wait, and who give up waiting."""
        while time.monotonic() < until:
            claim, vip, patience = self.claim(), self.random.random() < 0.2, self.random.randrange(6)
            for _ in range(patience + 1):
                answer = await self.ask(pool, claim, vip=vip, wait_ms=1000 if patience else 0)
                if not isinstance(answer, Waiting):
                    break
                await asyncio.sleep(0.01)
            if isinstance(answer, Taken):
                granted.append((answer.fence, None, vip))
                await asyncio.sleep(self.random.random() / 50)
            else:
                assert isinstance(answer, Waiting | Refusal)
            fence = answer.fence if isinstance(answer, Taken) else ANY_FENCE
            await self.store.release(pool.name, claim, fence)

    async def queue(self, pool: Pool, until: float, granted: Granted) -> None:
        """Wait for a seat until it comes, keep it for a moment, end it, and wait again."""
        (queue,) = (key for key in Shard("citrix-a", pool.name).keys() if key.endswith(":queue"))  # noqa: SIM118 - not a dict
        while time.monotonic() < until:
            claim, arrived = self.claim(), None
            while not isinstance(answer := await self.ask(pool, claim, vip=False, wait_ms=60_000), Taken):
                assert isinstance(answer, Waiting)
                if arrived is None:
                    score = await self.client.zscore(queue, f"{claim.node}/{claim.session}/{claim.user}")
                    assert score is not None
                    arrived = int(score)
                await asyncio.sleep(0.002 * min(answer.ahead, 20))
            granted.append((answer.fence, arrived, False))
            await self.store.release(pool.name, claim, answer.fence)


async def race(url: str, node: str, line: socket.socket) -> None:
    """Obey until the line is closed."""
    async with driver.Redis.from_url(url) as client:
        await obey(line, Racer(client, node).told)


if __name__ == "__main__":
    fork_each(race, sys.argv[1], sys.argv[2:])
