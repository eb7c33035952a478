"""Which server a call goes to; of a Redis Cluster, the member that has the keys.

Guaranteed: within one attempt a script is sent to another server only where the one before has refused to carry it out
(MOVED, ASK). After ``refresh`` the next attempt looks for the master anew and over new network connections.

This module must never repeat a command after an error that leaves open what was done: that is
``Connection``'s, in one place.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from redis import asyncio as driver
from redis.crc import key_slot
from redis.exceptions import AskError, AuthenticationError, ClusterDownError, MovedError, RedisError, ResponseError

from farmlease.store.connection.multiplexer import OneServer
from farmlease.store.connection.questions import Questions
from farmlease.store.connection.slot_homes import SlotHomes, Slots
from farmlease.store.connection.socket import Channel, Handshake, HostPort, disconnect_idle, exclusive_channel

__all__ = ["Cluster", "Route"]

Answer = TypeVar("Answer")

#: How often one attempt is redirected to another server: a slot moves from one to the next, seldom further.
_MOST_HOPS = 5


class Route(Protocol):
    """A way from a call to a network connection."""

    def use(self, keys: Sequence[str], exchange: Callable[[Channel], Awaitable[Answer]]) -> Awaitable[Answer]:
        """Carry out an exchange with the server that has ``keys``; the driver's errors pass through."""

    async def refresh(self) -> None:
        """Look for the server anew next time: what is known of it proved wrong."""

    async def close(self) -> None:
        """End every network connection."""


class Cluster:
    """The member of a Redis Cluster that has the keys of a call.

    The driver's own client for a Cluster is not used: it sends ASKING and the command that it is for over different
    network connections, does not report over which one it sent a script (WAIT must follow there), and ends the
    connection of every call under way when the Cluster is down.
    """

    def __init__(
        self,
        seeds: Sequence[HostPort],
        handshake: Handshake,
        patience: float,
        *,
        exclusive: bool,
        **given: Any,  # noqa: ANN401 - the driver's own options
    ) -> None:
        self._seeds = list(seeds)
        self._handshake = handshake
        self._patience = patience / (len(seeds) + 1)  # seconds for one member to answer which slots are where
        self._exclusive = exclusive
        self._options = given
        self._members: dict[HostPort, OneServer] = {}
        self._slots: Slots = []
        self._homes = SlotHomes(self._ask, _slots)
        self._learning = Questions[None, Slots](self._learn)
        self._in_vain = False  #: whether nobody answered when the slots were asked for last

    async def use(self, keys: Sequence[str], exchange: Callable[[Channel], Awaitable[Answer]]) -> Answer:
        """Carry out an exchange with the member that has the keys, and follow its redirections."""
        slot = key_slot(keys[0].encode()) if keys else None
        member, asking = await self._member_with(slot), False
        for hop in range(_MOST_HOPS):
            try:
                if slot is None:
                    return await self._server(member).use(keys, exchange, asking=asking)
                return await self._use(member, slot, exchange, asking=asking)
            except AskError as redirection:
                if hop == _MOST_HOPS - 1:
                    raise
                asking = not isinstance(redirection, MovedError)
                if not asking:
                    await self.refresh()
                member = (redirection.host or member[0], redirection.port)
        raise AssertionError  # the last hop has returned or raised

    async def _use(
        self, member: HostPort, slot: int, exchange: Callable[[Channel], Awaitable[Answer]], *, asking: bool
    ) -> Answer:
        """Carry out an exchange about a slot's keys with a member; it learns which life of which server has them."""
        if self._homes.is_moved(slot, member):
            await self._homes.follow(slot, member, asking=asking)

        async def about_slot(channel: Channel) -> Answer:
            answer = await exchange(self._homes.named(slot, member, channel))
            if not asking:
                self._homes.heard(slot, member, channel.life)
            return answer

        return await self._server(member).use((), about_slot, asking=asking)

    async def refresh(self) -> None:
        """Ask for the slots anew, and close idle connections: a replica may be a master now, and vice versa."""
        self._slots = []
        await asyncio.gather(*(member.disconnect() for member in self._members.values()))

    async def close(self) -> None:
        """End every network connection."""
        await self._learning.close()
        await self._homes.close()
        await asyncio.gather(*(member.close() for member in self._members.values()))

    def _server(self, member: HostPort) -> OneServer:
        if member not in self._members:
            host, port = member
            connect = self._handshake.perform
            pool = driver.ConnectionPool(host=host, port=port, redis_connect_func=connect, **self._options)
            self._members[member] = OneServer(pool, self._handshake, exclusive=self._exclusive)
        return self._members[member]

    async def _member_with(self, slot: int | None) -> HostPort:
        """Return the master that has a slot; without one, any master."""
        if not self._slots:
            self._slots = await self._learning.ask(None)
        for first, last, master in self._slots:
            if slot is None or first <= slot <= last:
                return master
        self._slots = []
        raise ClusterDownError("no member serves this slot")

    async def _learn(self, _: None) -> Slots:
        """Ask one member after the other which slots are where, in random order: none is always first.

        After nobody answered in time, those that the address names come first: all members may have moved, and their
        names lead to where they are.
        """
        async with asyncio.timeout(self._patience * (len(self._seeds) + 1)):  # no longer than who asked first waits
            slots = await self._ask_one_after_the_other()
        self._homes.learn(slots)
        return slots

    async def _ask_one_after_the_other(self) -> Slots:
        known = list(dict.fromkeys([*self._members, *self._seeds]))
        random.shuffle(known)
        if self._in_vain:
            known.sort(key=lambda member: member not in self._seeds)
        self._in_vain = True
        failure: Exception | None = None
        for member in known:
            try:
                async with asyncio.timeout(self._patience):
                    (answer,) = await self._ask(member, ("CLUSTER", "SLOTS"))
                    if slots := list(_slots(member, answer)):
                        self._in_vain = False
                        return slots
            except (RedisError, OSError, TimeoutError) as error:
                if not isinstance(failure, ResponseError | AuthenticationError):
                    failure = error  # a server's own error explains more than that another one is away
        raise failure or ClusterDownError("no member serves any slot")

    async def _ask(self, member: HostPort, *commands: Sequence[str]) -> list[Any]:
        """Send commands to any member, master or not, over a connection of its own, within its patience."""
        host, port = member
        pool = driver.ConnectionPool(host=host, port=port, **self._options)
        try:
            async with asyncio.timeout(self._patience), exclusive_channel(pool, self._handshake) as channel:
                return [await channel.execute(*command) for command in commands]
        finally:
            await disconnect_idle(pool)


def _slots(asked: HostPort, answer: Sequence[Any]) -> Iterator[tuple[int, int, HostPort]]:
    """Read CLUSTER SLOTS: first slot, last slot, then master and replicas, each by host, port and more.

    A member that does not know its own name answers nothing or ``?`` for it: it is the member that was asked.
    """
    for first, last, (host, port, *_), *_ in answer:
        yield first, last, (host.decode() if host and host != b"?" else asked[0], port)
