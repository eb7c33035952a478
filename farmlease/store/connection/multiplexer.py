"""One network connection that many calls use at once.

What is asked in one turn of the event loop is sent together, a few at a time, and the answers, which come in the order
of the questions, are handed to who asked. So fifty calls under way cost a few system calls, not fifty, server and agent
work at the same time, and who gives up waiting disturbs nobody: the answer is read all the same, and dropped.

This module must never send a question twice, and never hand an answer to anybody but who asked for it.
"""

import asyncio
from collections import deque
from contextlib import suppress
from copy import copy
from typing import Any

from hiredis import HiredisError, Reader, pack_command
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError
from typing_extensions import override

from farmlease.store.connection.socket import Greeting, Network, Pool, taken_over

__all__ = ["Multiplexer", "SharedWire"]

Answered = asyncio.Future[Any]
Command = tuple[bytes | str | int, ...]

#: Questions that are sent together at most: the server is to work on them while we make ready those behind them.
_AT_ONCE = 8
_MORE = object()  #: in place of an answer that is not whole yet


class Multiplexer:
    """The network connection to one server that its calls share; made when it is needed, and again when it was lost."""

    def __init__(self, pool: Pool, greeting: Greeting) -> None:
        self._pool = pool
        self._greeting = greeting
        self._line: _Line | None = None
        self._lines = set[_Line]()  #: all whose network connection is not closed yet
        self._making = asyncio.Lock()

    async def wire(self, *, asking: bool = False) -> "SharedWire":
        """Return a wire for one call; the driver's errors pass through."""
        line = self._line
        if line is None or line.lost:
            async with self._making:  # one makes it for all
                line = self._line
                if line is None or line.lost:
                    line = self._line = await self._new_line()
        return SharedWire(line, asking=asking)

    def suspect(self) -> None:
        """A call has failed: ask nothing more over a connection that still owes an answer, for it may be dead."""
        if self._line is not None and self._line.owes:
            self.retire()

    def retire(self) -> None:
        """Ask nothing more over this connection; who waits for an answer may still get it."""
        line, self._line = self._line, None
        if line is not None:
            line.retire()

    async def close(self) -> None:
        """End every connection."""
        self._line = None
        await asyncio.gather(*(each.end() for each in self._lines))

    async def _new_line(self) -> "_Line":
        connection = await self._pool.get_connection()  # type: ignore[no-untyped-call] # the driver's
        line = _Line(connection, self._pool, self._greeting.life(connection))
        self._lines.add(line)
        line.closed.add_done_callback(lambda _: self._lines.discard(line))
        return line


class SharedWire:
    """A shared connection in the hands of one call."""

    def __init__(self, line: "_Line", *, asking: bool) -> None:
        self._line = line
        self._asking = asking
        self.life = line.life  #: of the server at the other end

    async def say(self, *command: bytes | str | int) -> Any:  # noqa: ANN401 - a reply of the driver
        """Send one command and return the server's answer; a driver's error otherwise."""
        if self._asking:  # holds for the command right behind it only
            self._line.ask(("ASKING",)).cancel()
        return await self._line.ask(command)


class _Line(asyncio.Protocol):
    """One network connection and what was asked over it, in order.

    The driver makes the network connection and greets the server; from then on its bytes come and go here, without the
    tasks and timeouts that the driver has for each command.
    """

    def __init__(self, connection: Network, pool: Pool, life: str) -> None:
        self.life = life
        self.lost = False  #: nothing may be asked over it any more
        self._connection = connection
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._unsent: list[bytes] = []
        self._unanswered = deque[Answered]()
        self._replies = Reader(replyError=DefaultParser.parse_error, notEnoughData=_MORE)
        self._over = asyncio.Event()
        self._transport = taken_over(connection, self)
        self.closed = asyncio.ensure_future(self._close())

    @property
    def owes(self) -> bool:
        """Whether an answer is still to come, even if nobody waits for it any more."""
        return bool(self._unanswered)

    def ask(self, command: Command) -> Answered:
        """Send a command with others of this turn of the event loop; return where its answer will be."""
        if self.lost:
            raise ConnectionLost("the connection was lost")
        packed = pack_command(command)  # type: ignore[arg-type] # its types know one word only
        self._unsent.append(packed)
        if len(self._unsent) == 1:
            self._loop.call_soon(self._send)
        elif len(self._unsent) == _AT_ONCE:
            self._send()
        answer = self._loop.create_future()
        self._unanswered.append(answer)
        return answer

    def retire(self) -> None:
        """End as soon as nobody waits for an answer any more."""
        for each in self._unanswered:
            each.add_done_callback(lambda _: self._lose_if_idle())
        self._lose_if_idle()

    def lose(self, error: Exception) -> None:
        """Tell everybody who waits that no answer will come, and why."""
        if self.lost:
            return
        self.lost = True
        for each in self._unanswered:
            if not each.done():
                each.set_exception(_like(error))
        self._over.set()

    async def end(self) -> None:
        """Wait until the network connection is closed."""
        self.lose(ConnectionLost("the connection was closed"))
        await self.closed

    @override
    def data_received(self, data: bytes) -> None:
        """Hand every answer that is whole to who asked."""
        self._replies.feed(data)
        try:
            while (answer := self._replies.gets()) is not _MORE:
                self._hand_over(answer)
        except (RedisError, HiredisError) as error:
            self.lose(ConnectionLost(str(error)))

    @override
    def connection_lost(self, error: Exception | None) -> None:
        """Tell everybody."""
        self.lose(error or ConnectionLost("the server hung up"))

    def _hand_over(self, answer: Any) -> None:  # noqa: ANN401 - a reply of the driver
        if not self._unanswered:
            raise ConnectionLost("the server spoke without being asked")
        asked = self._unanswered.popleft()
        if asked.done():
            return  # whoever asked has gone
        if isinstance(answer, Exception):
            asked.set_exception(answer)
        else:
            asked.set_result(answer)

    def _send(self) -> None:
        packed, self._unsent = b"".join(self._unsent), []
        if packed and not self.lost:
            self._transport.write(packed)

    def _lose_if_idle(self) -> None:
        if all(each.done() for each in self._unanswered):
            self.lose(ConnectionLost("the connection was given up"))

    async def _close(self) -> None:
        await self._over.wait()
        with suppress(RedisError, OSError):
            await self._connection.disconnect(nowait=True)
        await self._pool.release(self._connection)


def _like(error: Exception) -> Exception:
    """Return an error like another one, for one more caller: an exception that is raised twice mixes up its causes."""
    another = copy(error)
    another.__cause__ = error
    return another
