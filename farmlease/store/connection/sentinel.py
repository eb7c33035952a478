"""The server that the Sentinels name as master: found, and left again when they name another one.

Guaranteed: a server in whose place the Sentinels have put another one gets no command any more two seconds later, even
if it still answers. Not guaranteed: that none is sent there before, or for as long as no Sentinel that knows can be
reached.

This module must never send the store's name and password to a Sentinel that did not refuse us without them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from redis import asyncio as driver
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import TimeoutError as NoAnswer
from typing_extensions import override

from farmlease.store.connection.driver_errors import NotMaster, SentinelsRefuse
from farmlease.store.connection.multiplexer import OneServer
from farmlease.store.connection.socket import Channel, ConnectionPool, Handshake, HostPort

__all__ = ["SentinelMaster"]

Answer = TypeVar("Answer")

#: Seconds after which the Sentinels are asked again for the master, and for which a call relies on an older answer
#: while that is under way. The recovery window must be longer by far: when it ends at a new master, no node may still
#: get grants from the old one.
_ASK_EVERY, _NEVER_OLDER = 1.0, 2.0


class _MasterConnections(SentinelConnectionPool):
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
        """Take a connection back; one that leads to an earlier master is not used again."""
        if not self._leads_there(connection):
            connection.mark_for_reconnect()
        await super().release(connection)

    def _leads_there(self, connection: SentinelManagedConnection) -> bool:
        return (connection.host, connection.port) == self.master_address


class _SentinelClient(driver.Redis):
    """A client of one Sentinel, which has ``patience`` seconds to answer. Its pool ends with it.

    Not by a timeout of the driver's: with one, it may swallow a cancellation on Python 3.11, and the call may then wait
    for ever.
    """

    def __init__(self, pool: ConnectionPool, patience: float) -> None:
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True
        self._patience = patience

    @override
    async def sentinel_masters(self) -> Any:
        """Return the state of each master, as this Sentinel knows it."""
        try:
            async with asyncio.timeout(self._patience):
                return await super().sentinel_masters()
        except TimeoutError as error:
            raise NoAnswer("the Sentinel does not answer") from error  # the driver's, which asks the next one then


@dataclass(frozen=True, slots=True, order=True)
class _MasterReport:
    """What a Sentinel reports of the master. The greater one is the newer one."""

    epoch: int  #: grows with each change of the master
    settled: bool  #: not while this Sentinel carries a change out: it names the new master to the other Sentinels first
    master: HostPort = field(compare=False)
    sentinel: _SentinelClient = field(compare=False)  #: that reported it


class SentinelMaster(OneServer):
    """The server that the Sentinels name as master.

    The driver asks one Sentinel after the other when a network connection is made, and first the one that has answered
    last. That is not enough while connections last: a master that was replaced, but does not know it, goes on
    answering. So all Sentinels are asked again every second. A Sentinel that does not answer, or knows less than the
    others, is ignored until the next time.
    """

    def __init__(
        self,
        master: str,
        sentinels: Sequence[Sequence[ConnectionPool]],
        handshake: Handshake,
        *,
        patience: float,
        exclusive: bool,
        **given: Any,  # noqa: ANN401 - the driver's own options
    ) -> None:
        """Take the pools for each Sentinel: the later ones are for a Sentinel that refuses the earlier ones.

        ``patience``: seconds that a Sentinel has to answer.
        """
        self._master = master
        self._sentinels = [[_SentinelClient(pool, patience) for pool in pools] for pools in sentinels]
        clients = (client for tier in zip(*self._sentinels, strict=True) for client in tier)
        self._masters = _MasterConnections(master, _sentinel_manager(*clients), **given)  # type: ignore[no-untyped-call] # the driver's
        self._confirmed = float("-inf")
        self._refused = False  #: by each Sentinel that answered, when they were asked last
        self._confirming = asyncio.Lock()
        super().__init__(self._masters, handshake, exclusive=exclusive)

    @override
    async def use(
        self, keys: Sequence[str], exchange: Callable[[Channel], Awaitable[Answer]], *, asking: bool = False
    ) -> Answer:
        """Carry out an exchange with the master that the Sentinels named lately."""
        age = asyncio.get_running_loop().time() - self._confirmed
        if age > _NEVER_OLDER or (age > _ASK_EVERY and not self._confirming.locked()):
            async with self._confirming:  # one call asks for all
                await self._confirm()
        try:
            return await super().use(keys, exchange, asking=asking)
        except MasterNotFoundError as error:
            raise (SentinelsRefuse() if self._refused else error) from error

    @override
    async def refresh(self) -> None:
        """Give up all connections: they lead to the master of the time when they were made."""
        await self.disconnect()

    @override
    async def close(self) -> None:
        """End every network connection, also those to the Sentinels."""
        await super().close()
        await _sentinel_manager(*(client for clients in self._sentinels for client in clients)).aclose()

    async def _confirm(self) -> None:
        """Ask every Sentinel, rely on the newest reports only, and leave a server that is no master by them."""
        now = asyncio.get_running_loop().time()
        if now - self._confirmed <= _ASK_EVERY:
            return  # another call has asked meanwhile
        answers = await asyncio.gather(*map(self._report, self._sentinels))
        reports = [report for report in answers if isinstance(report, _MasterReport)]
        self._refused = not reports and False in answers
        self._confirmed, newest = now, max(reports, default=None)
        self._masters.sentinel_manager = _sentinel_manager(*(each.sentinel for each in reports if each == newest))
        if newest is not None and self._masters.master_address not in {None, newest.master}:
            self._masters.master_address = newest.master
            await self.disconnect()

    async def _report(self, clients: Sequence[_SentinelClient]) -> _MasterReport | Literal[False] | None:
        """Ask a Sentinel; None if it reports nothing of the master, False if it does not because of who asks."""
        for client in clients:
            try:
                masters = await client.sentinel_masters()
            except (AuthenticationError, ResponseError):
                continue  # it wants name and password
            except (RedisError, OSError):
                return None
            if (state := masters.get(self._master)) is None:
                return None
            settled = "failover_in_progress" not in state["flags"]
            return _MasterReport(state["config-epoch"], settled, (state["ip"], state["port"]), client)
        return False


def _sentinel_manager(*clients: _SentinelClient) -> Sentinel:
    """Return what asks these for the master; a new one each time, as it reorders them while it asks."""
    manager = Sentinel([])  # type: ignore[no-untyped-call] # the driver's
    manager.sentinels = [*clients]
    return manager
