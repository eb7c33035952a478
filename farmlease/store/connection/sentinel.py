"""The server that the Sentinels name as master: found, and left again when they name another one.

Guaranteed: a server in whose place the Sentinels have put another one is asked nothing any more two seconds later, even
if it still answers. Not guaranteed: that nothing is sent there before, or for as long as no Sentinel that knows can be
reached.

This module must never tell a Sentinel name and password that has not turned us away without.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from redis import asyncio as driver
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import TimeoutError as NoAnswer
from typing_extensions import override

from farmlease.store.connection.driver_errors import NotMaster
from farmlease.store.connection.routing import OneServer, Place
from farmlease.store.connection.socket import Greeting, Pool, Wire

__all__ = ["Watched"]

Answer = TypeVar("Answer")

#: Seconds after which the Sentinels are asked again who the master is, and for which a call goes by an older answer
#: while that is under way. The recovery window must be longer by far: when it ends at a new master, no node may still
#: be granting at the old one.
_ASK_EVERY, _NEVER_OLDER = 1.0, 2.0


class _Masters(SentinelConnectionPool):
    """Network connections to the server that the Sentinels name as master."""

    @override
    async def get_connection(self, *_: Any, **__: Any) -> Any:
        """Return a connection; NotMaster if the server was replaced while it was made."""
        connection = await super().get_connection()  # type: ignore[no-untyped-call] # the driver's
        if not self._leads_there(connection):
            await self.release(connection)
            raise NotMaster
        return connection

    @override
    async def release(self, connection: Any) -> None:
        """Take a connection back; one that leads to who was the master before is not used again."""
        if not self._leads_there(connection):
            connection.mark_for_reconnect()
        await super().release(connection)

    def _leads_there(self, connection: SentinelManagedConnection) -> bool:
        return (connection.host, connection.port) == self.master_address


class _Witness(driver.Redis):
    """A way to one Sentinel, which has ``patience`` seconds to answer. Its pool ends with it.

    Not by a timeout of the driver's: with one, it may swallow a cancellation on Python 3.11, and a call that has lost
    the end of its time so may wait for ever.
    """

    def __init__(self, way: Pool, patience: float) -> None:
        super().__init__(connection_pool=way)
        self.auto_close_connection_pool = True
        self._patience = patience

    @override
    async def sentinel_masters(self) -> Any:
        """Return what it knows of each master."""
        try:
            async with asyncio.timeout(self._patience):
                return await super().sentinel_masters()
        except TimeoutError as error:
            raise NoAnswer("the Sentinel does not answer") from error  # the driver's, which asks the next one then


@dataclass(frozen=True, slots=True, order=True)
class _Word:
    """What a Sentinel says of the master. The greater one is the newer one."""

    epoch: int  #: grows with each change of the master
    settled: bool  #: not while this Sentinel carries a change out: it names the new one to the other Sentinels first
    place: Place = field(compare=False)
    way: _Witness = field(compare=False)  #: on which it said so


class Watched(OneServer):
    """The server that the Sentinels name as master.

    The driver asks one Sentinel after the other when a network connection is made, and first the one that has answered
    last. That is not enough while connections last: a master that was replaced, but that nobody could tell, goes on
    answering. So all Sentinels are asked again every second. Who says nothing, or knows less than the others, is not
    heard until the next time.
    """

    def __init__(
        self,
        master: str,
        sentinels: Sequence[Sequence[Pool]],
        greeting: Greeting,
        *,
        patience: float,
        alone: bool,
        **given: Any,  # noqa: ANN401 - the driver's own options
    ) -> None:
        """Take the ways to each Sentinel; the later ones are for those who turn the earlier ones away.

        ``patience``: seconds that a Sentinel has to answer.
        """
        self._master = master
        self._sentinels = [[_Witness(way, patience) for way in ways] for ways in sentinels]
        watch = _watch(*(way for tier in zip(*self._sentinels, strict=True) for way in tier))
        self._masters = _Masters(master, watch, **given)  # type: ignore[no-untyped-call] # the driver's
        self._confirmed = float("-inf")
        self._confirming = asyncio.Lock()
        super().__init__(self._masters, greeting, alone=alone)

    @override
    async def carry(
        self, keys: Sequence[str], talk: Callable[[Wire], Awaitable[Answer]], *, asking: bool = False
    ) -> Answer:
        """Talk to the master, by what the Sentinels said lately."""
        age = asyncio.get_running_loop().time() - self._confirmed
        if age > _NEVER_OLDER or (age > _ASK_EVERY and not self._confirming.locked()):
            async with self._confirming:  # one asks for all
                await self._confirm()
        return await super().carry(keys, talk, asking=asking)

    @override
    async def forget(self) -> None:
        """Give up all connections: they lead to whoever was master when they were made."""
        await self.hang_up()

    @override
    async def close(self) -> None:
        """End every network connection, also those to the Sentinels."""
        await super().close()
        await _watch(*(way for ways in self._sentinels for way in ways)).aclose()

    async def _confirm(self) -> None:
        """Ask every Sentinel, hear only those who know most, and leave a server that is no master by their word."""
        now = asyncio.get_running_loop().time()
        if now - self._confirmed <= _ASK_EVERY:
            return  # another call has asked meanwhile
        words = await asyncio.gather(*map(self._word, self._sentinels))
        said = [word for word in words if word is not None]
        self._confirmed, newest = now, max(said, default=None)
        self._masters.sentinel_manager = _watch(*(word.way for word in said if word == newest))
        if newest is not None and self._masters.master_address not in {None, newest.place}:
            self._masters.master_address = newest.place
            await self.hang_up()

    async def _word(self, ways: Sequence[_Witness]) -> _Word | None:
        """Ask a Sentinel; None if it does not say anything."""
        for way in ways:
            try:
                masters = await way.sentinel_masters()
            except (AuthenticationError, ResponseError):
                continue  # it wants to know who asks
            except (RedisError, OSError):
                return None
            if (state := masters.get(self._master)) is None:
                return None
            settled = "failover_in_progress" not in state["flags"]
            return _Word(state["config-epoch"], settled, (state["ip"], state["port"]), way)
        return None


def _watch(*ways: _Witness) -> Sentinel:
    """Return what asks these for the master; a new one each time, as it moves them about while it asks."""
    watch = Sentinel([])  # type: ignore[no-untyped-call] # the driver's
    watch.sentinels = [*ways]
    return watch
