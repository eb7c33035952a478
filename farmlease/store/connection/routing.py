"""Which server a call goes to: the one named, or the one that has the keys.

Guaranteed: within one try a script is sent to another server only where the one before has refused to carry it out
(MOVED, ASK). After ``forget`` the next try looks for the master anew and over new network connections.

This module must never ask again after an error that leaves open what was done; that is ``Connection``'s, in one place.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from redis import asyncio as driver
from redis.crc import key_slot
from redis.exceptions import AskError, AuthenticationError, ClusterDownError, MovedError, RedisError, ResponseError

from farmlease.store.connection.multiplexer import Multiplexer
from farmlease.store.connection.socket import Greeting, Pool, Wire, lent

__all__ = ["Cluster", "OneServer", "Place", "Route"]

Answer = TypeVar("Answer")
Place = tuple[str, int]  #: host and port

#: How often one try is sent on to another server: a slot is on its way from one to the next, seldom further.
_MOST_HOPS = 5
#: Seconds that closing idle connections may take; they are closed all the same, just without good-bye.
_GOODBYE = 0.5


class Route(Protocol):
    """A way from a call to a network connection."""

    async def carry(self, keys: Sequence[str], talk: Callable[[Wire], Awaitable[Answer]]) -> Answer:
        """Let ``talk`` talk to the server that has ``keys``; the driver's errors pass through."""

    async def forget(self) -> None:
        """Look for the server anew next time: what is known of it did not hold."""

    async def close(self) -> None:
        """End every network connection."""


class OneServer:
    """A server that is where the URL says.

    Its calls share a network connection, but for ``alone``: then each has one of its own for as long as it takes, as
    it must where a call makes its connection wait (WAIT), which would make all others wait too.
    """

    def __init__(self, pool: Pool, greeting: Greeting, *, alone: bool) -> None:
        self._pool = pool
        self._greeting = greeting
        self._shared = None if alone else Multiplexer(pool, greeting)

    async def carry(
        self,
        keys: Sequence[str],  # noqa: ARG002 - one server has all keys
        talk: Callable[[Wire], Awaitable[Answer]],
        *,
        asking: bool = False,
    ) -> Answer:
        """Talk to it."""
        if self._shared is not None:
            return await talk(await self._shared.wire(asking=asking))
        async with lent(self._pool, self._greeting, asking=asking) as wire:
            return await talk(wire)

    async def forget(self) -> None:
        """Keep what works: it is always the same server."""
        if self._shared is not None:
            self._shared.suspect()

    async def hang_up(self) -> None:
        """Ask over new connections next time, wherever they lead then."""
        if self._shared is not None:
            self._shared.retire()
        await _hang_up(self._pool)

    async def close(self) -> None:
        """End every network connection."""
        if self._shared is not None:
            await self._shared.close()
        await self._pool.aclose()


class Cluster:
    """The member of a Redis Cluster that has the keys of a call.

    The driver's own client for a Cluster is not used: it sends ASKING and the command that it is for over different
    network connections, does not say over which one it asked (WAIT must follow there), and when the Cluster is down
    it hangs up on every call under way.
    """

    def __init__(
        self,
        seeds: Sequence[Place],
        greeting: Greeting,
        patience: float,
        *,
        alone: bool,
        **given: Any,  # noqa: ANN401 - the driver's own options
    ) -> None:
        self._seeds = list(seeds)
        self._greeting = greeting
        self._patience = patience / (len(seeds) + 1)  # seconds for one member to say which slots are where
        self._alone = alone
        self._options = given
        self._members: dict[Place, OneServer] = {}
        self._slots: list[tuple[int, int, Place]] = []  # first slot, last slot, master
        self._learning = asyncio.Lock()

    async def carry(self, keys: Sequence[str], talk: Callable[[Wire], Awaitable[Answer]]) -> Answer:
        """Talk to who has the keys, and follow to where they are said to be by now."""
        place, asking = await self._home(keys), False
        for hop in range(_MOST_HOPS):
            try:
                return await self._member(place).carry(keys, talk, asking=asking)
            except AskError as elsewhere:
                if hop == _MOST_HOPS - 1:
                    raise
                asking = not isinstance(elsewhere, MovedError)
                if not asking:
                    await self.forget()
                place = (elsewhere.host or place[0], elsewhere.port)
        raise AssertionError  # the last hop has returned or raised

    async def forget(self) -> None:
        """Ask for the slots anew, and close idle connections: who was a replica may be a master now, and vice versa."""
        self._slots = []
        await asyncio.gather(*(member.hang_up() for member in self._members.values()))

    async def close(self) -> None:
        """End every network connection."""
        await asyncio.gather(*(member.close() for member in self._members.values()))

    def _member(self, place: Place) -> OneServer:
        if place not in self._members:
            host, port = place
            pool = driver.ConnectionPool(host=host, port=port, redis_connect_func=self._greeting.greet, **self._options)
            self._members[place] = OneServer(pool, self._greeting, alone=self._alone)
        return self._members[place]

    async def _home(self, keys: Sequence[str]) -> Place:
        """Return where the keys of a call are, which are all in one slot; without keys, any master."""
        async with self._learning:  # one asks for all
            if not self._slots:
                self._slots = await self._learn()
        slot = key_slot(keys[0].encode()) if keys else self._slots[0][0]
        for first, last, place in self._slots:
            if first <= slot <= last:
                return place
        self._slots = []
        raise ClusterDownError("nobody serves this slot")

    async def _learn(self) -> list[tuple[int, int, Place]]:
        """Ask one member after the other which slots are where, in no order, so that no single one is in the way."""
        known = list(dict.fromkeys([*self._members, *self._seeds]))
        random.shuffle(known)
        failure: Exception | None = None
        for place in known:
            try:
                async with asyncio.timeout(self._patience):
                    if slots := list(_slots(place, await self._ask(place, "CLUSTER", "SLOTS"))):
                        return slots
            except (RedisError, OSError, TimeoutError) as error:
                if not isinstance(failure, ResponseError | AuthenticationError):
                    failure = error  # what a server says tells more than that another one is away
        raise failure or ClusterDownError("nobody serves any slot")

    async def _ask(self, place: Place, *command: str) -> Any:  # noqa: ANN401 - a reply of the driver
        """Ask any member, master or not, over a connection of its own."""
        host, port = place
        pool = driver.ConnectionPool(host=host, port=port, **self._options)
        try:
            async with lent(pool, self._greeting) as wire:
                return await wire.say(*command)
        finally:
            await _hang_up(pool)


def _slots(asked: Place, answer: Sequence[Any]) -> Iterator[tuple[int, int, Place]]:
    """Read CLUSTER SLOTS: first slot, last slot, then master and replicas, each by host, port and more.

    A member that does not know its own name says nothing or ``?`` for it: it is the one that was asked.
    """
    for first, last, (host, port, *_), *_ in answer:
        yield first, last, (host.decode() if host and host != b"?" else asked[0], port)


async def _hang_up(pool: Pool) -> None:
    """Close the idle connections of a pool."""
    try:
        async with asyncio.timeout(_GOODBYE):
            await pool.disconnect(inuse_connections=False)
    except (RedisError, OSError, TimeoutError):
        pass
    except asyncio.CancelledError:
        # The driver tells of a connection whose closing was cut short as if this call had been cancelled.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
