"""One server, over one network connection that many calls use at once.

Commands sent in one turn of the event loop go out together, a few at a time, and each answer is handed to its caller:
answers come in the order of the commands. So fifty calls under way cost a few system calls, not fifty; server and agent
work at the same time; and a call that is cancelled disturbs no other: its answer is read all the same, and dropped.

The driver makes the network connection and shakes hands; from then on its bytes are read and written here, below the
driver's public interface (``socket.take_over``). What that buys: without the driver's two tasks and five waits for each
command, a pair of calls, one at a time, takes 13 to 15 % less wall time (commit e47a935, measured as P6 of the
benchmarks). Its price: a new major version of redis-py must be read before it is allowed.

This module must never send a command twice, and never hand an answer to another caller than the one whose it is.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from hiredis import HiredisError, Reader, pack_command
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError
from typing_extensions import override

from farmlease.store.connection.driver_errors import DRIVER_ERRORS, NotMaster, leads_elsewhere, like
from farmlease.store.connection.socket import (
    RENEW_EVERY,
    Channel,
    ConnectionPool,
    DriverConnection,
    Handshake,
    disconnect_idle,
    exclusive_channel,
    take_over,
)

__all__ = ["OneServer", "SharedChannel"]

Answer = TypeVar("Answer")
Command = tuple[bytes | str | int, ...]

#: Seconds that a renewal may take.
_RENEW_WITHIN = 5.0
#: Commands that are sent together at most: the server is to work on them while we make ready those behind them.
_AT_ONCE = 8
_INCOMPLETE = object()  #: in place of an answer that has not arrived as a whole


class OneServer:
    """A server that is where the URL says.

    Its calls share a network connection, which is made when it is needed, and again when it was lost, when the server
    answers that it is not the one to ask, and after ``RENEW_EVERY`` seconds, while the earlier one still serves. With
    ``exclusive`` each call has one of its own for as long as it takes, as it must where a call makes its connection
    wait (WAIT), which would make all others wait too.
    """

    def __init__(self, pool: ConnectionPool, handshake: Handshake, *, exclusive: bool) -> None:
        self._pool = pool
        self._handshake = handshake
        self._exclusive = exclusive
        self._shared: _SharedConnection | None = None
        self._open = set[_SharedConnection]()  #: all whose network connection is not closed yet
        self._connecting = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None
        self._renew_at = 0.0

    def use(
        self,
        keys: Sequence[str],  # noqa: ARG002 - one server has all keys
        exchange: Callable[[Channel], Awaitable[Answer]],
        *,
        asking: bool = False,
    ) -> Awaitable[Answer]:
        """Carry out an exchange with it; the driver's errors pass through."""
        shared = self._shared
        if shared is not None and not shared.spent:  # then nothing stands between the caller and its answer
            if asyncio.get_running_loop().time() > self._renew_at:
                self._renew_soon(shared)
            return exchange(SharedChannel(shared, asking=asking))
        return self._connect_and_use(exchange, asking=asking)

    async def refresh(self) -> None:
        """A call has failed: send nothing more over a connection that still owes an answer, for it may be dead."""
        if self._shared is not None and self._shared.owes:
            self._retire()

    async def disconnect(self) -> None:
        """Send what comes next over new connections, wherever they lead then."""
        self._retire()
        await disconnect_idle(self._pool)

    async def close(self) -> None:
        """End every network connection."""
        self._shared = None
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        await asyncio.gather(*(each.end() for each in self._open))
        await self._pool.aclose()

    async def _connect_and_use(self, exchange: Callable[[Channel], Awaitable[Answer]], *, asking: bool) -> Answer:
        if self._exclusive:
            async with exclusive_channel(self._pool, self._handshake, asking=asking) as channel:
                return await exchange(channel)
        async with self._connecting:  # one call connects for all
            shared = self._shared
            if shared is None or shared.spent:
                shared = self._shared = await self._connect()
        return await exchange(SharedChannel(shared, asking=asking))

    async def _connect(self) -> "_SharedConnection":
        connection = await self._pool.get_connection()  # type: ignore[no-untyped-call] # the driver's
        shared = _SharedConnection(connection, self._pool, self._handshake.life(connection))
        self._handshake.note_renewal(self._pool)
        self._renew_at = asyncio.get_running_loop().time() + RENEW_EVERY
        self._open.add(shared)
        shared.closed.add_done_callback(lambda _: self._open.discard(shared))
        return shared

    def _renew_soon(self, old: "_SharedConnection") -> None:
        """Have another connection take the place of an old one; no call waits for it."""
        self._renew_at = asyncio.get_running_loop().time() + RENEW_EVERY
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(old))

    async def _renew(self, old: "_SharedConnection") -> None:
        """Connect anew, to where the address leads now; while that fails, the old connection serves."""
        try:
            async with asyncio.timeout(_RENEW_WITHIN):
                shared = await self._connect()
        except NotMaster:  # the address leads elsewhere, or the server that answers is a master no more
            old.retire()
        except DRIVER_ERRORS as error:
            self._handshake.note_renewal(self._pool, error)
        else:
            if self._shared is old:
                self._shared = shared
                old.retire()
            else:  # a call has made another one meanwhile
                shared.retire()

    def _retire(self) -> None:
        """Send nothing more over the shared connection; calls under way still get their answers."""
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.retire()


class SharedChannel:
    """The shared connection, for one call."""

    def __init__(self, shared: "_SharedConnection", *, asking: bool) -> None:
        self._shared = shared
        self._asking = asking
        self.life = shared.life  #: of the server at the other end

    def execute(self, *command: bytes | str | int) -> Awaitable[Any]:
        """Send one command and return where the server's answer, or a driver's error, will be."""
        if self._asking:  # holds for the command right behind it only
            self._shared.send(("ASKING",)).cancel()
        return self._shared.send(command)


class _SharedConnection(asyncio.Protocol):
    """One network connection and the commands sent over it, in order."""

    def __init__(self, connection: DriverConnection, pool: ConnectionPool, life: str) -> None:
        self.life = life
        self.spent = False  #: no call that begins now may use it
        self._lost = False  #: nothing may be sent over it any more
        self._connection = connection
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._unsent: list[bytes] = []
        self._unanswered = deque[asyncio.Future[Any]]()
        self._answers = Reader(replyError=DefaultParser.parse_error, notEnoughData=_INCOMPLETE)
        self._over = asyncio.Event()
        self._transport = take_over(connection, self)
        self.closed = asyncio.ensure_future(self._close())

    @property
    def owes(self) -> bool:
        """Whether an answer is still to come, even if no caller waits for it any more."""
        return bool(self._unanswered)

    def send(self, command: Command) -> asyncio.Future[Any]:
        """Send a command with others of this turn of the event loop; return where its answer will be."""
        if self._lost:
            raise ConnectionLost("the connection was lost")
        packed = pack_command(command)  # type: ignore[arg-type] # its types know one word only
        self._unsent.append(packed)
        if len(self._unsent) == 1:
            self._loop.call_soon(self._write)
        elif len(self._unsent) == _AT_ONCE:
            self._write()
        answer = self._loop.create_future()
        self._unanswered.append(answer)
        if self.spent:  # of an exchange that had begun before
            answer.add_done_callback(lambda _: self._lose_if_idle())
        return answer

    def retire(self) -> None:
        """End as soon as no caller waits for an answer any more."""
        if self.spent:
            return
        self.spent = True
        for each in self._unanswered:
            each.add_done_callback(lambda _: self._lose_if_idle())
        self._lose_if_idle()

    def lose(self, error: Exception) -> None:
        """Give every caller that waits an error: no answer will come."""
        if self._lost:
            return
        self._lost = self.spent = True
        for each in self._unanswered:
            if not each.done():
                each.set_exception(like(error))
        self._over.set()

    async def end(self) -> None:
        """Wait until the network connection is closed."""
        self.lose(ConnectionLost("the connection was closed"))
        await self.closed

    @override
    def data_received(self, data: bytes) -> None:
        """Hand every answer that is complete to its caller."""
        self._answers.feed(data)
        try:
            while (answer := self._answers.gets()) is not _INCOMPLETE:
                self._hand_over(answer)
        except (RedisError, HiredisError) as error:
            self.lose(ConnectionLost(str(error)))

    @override
    def connection_lost(self, error: Exception | None) -> None:
        """Give every caller an error."""
        self.lose(error or ConnectionLost("the server hung up"))

    def _hand_over(self, answer: Any) -> None:  # noqa: ANN401 - a reply of the driver
        if not self._unanswered:
            raise ConnectionLost("the server sent an answer to no command")
        caller = self._unanswered.popleft()
        if not isinstance(answer, Exception):
            if not caller.done():  # else it was cancelled
                caller.set_result(answer)
            return
        if not caller.done():
            caller.set_exception(answer)
        if leads_elsewhere(answer):
            self.retire()

    def _write(self) -> None:
        packed, self._unsent = b"".join(self._unsent), []
        if packed and not self._lost:
            self._transport.write(packed)

    def _lose_if_idle(self) -> None:
        if all(each.done() for each in self._unanswered):
            self.lose(ConnectionLost("the connection was given up"))

    async def _close(self) -> None:
        await self._over.wait()
        with suppress(RedisError, OSError):
            await self._connection.disconnect(nowait=True)
        await self._pool.release(self._connection)
