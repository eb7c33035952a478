"""The way between agents and the store: messages that are lost, late, doubled, out of order, or answered into the void.

A call that was sent goes its way whether or not its caller still waits. To the production ``Connection`` a line is
a route to the store.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from redis import exceptions

from farmlease.store.script import LIFE
from tests.simulation.faults import Mood
from tests.simulation.server import Server

__all__ = ["Line", "Network"]

#: Seconds of one way: least, and the mean of what comes on top.
_FASTEST, _SPREAD = 0.0002, 0.001
#: Seconds that a delay may add: less than the caller's patience. What comes after that is a fault of its own.
_LONGEST = 1.5
#: Seconds after which a late copy of a call comes: maybe when its caller has long given up.
_LATE = (0.1, 1, 10, 900)


class Network:
    """All lines to one server. ``refusing``: the server's host answers that nobody listens."""

    def __init__(self, server: Server, mood: Mood, chance: Random, tell: Callable[..., None]) -> None:
        self.server = server
        self.mood = mood
        self.chance = chance
        self.tell = tell
        self.cut: set[str] = set()  #: names of the hosts that cannot reach the server
        self.silent: set[str] = set()  #: of these, the ones that get no refusal either

    def reaches(self, name: str) -> bool:
        """Whether a host could reach the server now."""
        return self.server.up and name not in self.cut

    def line(self, name: str) -> "Line":
        """Return a new line for one life of an agent."""
        return Line(self, name)

    def way(self) -> float:
        """How long one way takes now, in seconds."""
        usual = _FASTEST + self.chance.expovariate(1 / _SPREAD)
        return usual + self.chance.uniform(0.05, _LONGEST) if self.mood.strikes("delayed") else usual


@dataclass(slots=True)
class _Call:
    """A call on its way."""

    number: int
    words: tuple[Any, ...]
    answer: asyncio.Future[Any]


class Line:
    """A route and the wire at its end, as ``farmlease.store.connection.connection.Connection`` uses them."""

    life = LIFE  #: the server fills it in when the call arrives

    def __init__(self, network: Network, name: str) -> None:
        self._network = network
        self.name = name
        self.dead = False  #: the agent was killed: nothing more is sent or heard
        self.sending = asyncio.Event()  #: set whenever something is sent
        self._sent = 0
        self._arrived = 0

    async def use(self, keys: Sequence[str], exchange: Callable[["Line"], Awaitable[Any]]) -> Any:  # noqa: ARG002 - one server has all keys
        """Carry out an exchange with the server."""
        return await exchange(self)

    async def refresh(self) -> None:
        """Keep the line."""

    async def execute(self, *words: Any) -> Any:
        """Send a command and wait for its answer; only the caller's patience ends that."""
        network, loop = self._network, asyncio.get_running_loop()
        if self.dead:
            await loop.create_future()
        if network.cut & {self.name}:
            if not network.silent & {self.name}:
                await asyncio.sleep(network.way())
                raise exceptions.ConnectionError("connection refused")
            await loop.create_future()
        self._sent += 1
        self.sending.set()
        call = _Call(self._sent, words, loop.create_future())
        if network.mood.strikes("request lost"):
            if network.chance.random() < 0.5:
                loop.call_later(network.way(), self._break, call)
        else:
            copies = 1 + network.mood.strikes("duplicated")
            arriving = network.way()
            for _ in range(copies):
                loop.call_later(arriving, self._arrive, call)
        if network.mood.strikes("duplicated late"):
            loop.call_later(network.chance.uniform(0, network.chance.choice(_LATE)), self._arrive, call)
        return await call.answer

    async def close(self) -> None:
        """End the line."""

    def _arrive(self, call: _Call) -> None:
        """The server gets the call, and its answer begins its way back."""
        network, loop = self._network, asyncio.get_running_loop()
        if not network.server.up:
            loop.call_later(network.way(), self._break, call)
            return
        if call.number < self._arrived and network.mood.knows("delayed"):
            network.mood.came["reordered"] += 1
        self._arrived = max(self._arrived, call.number)
        try:
            outcome = network.server.ask(self.name, call.words, awaited=not (call.answer.done() or self.dead))
        except exceptions.RedisError as error:
            outcome = error
        if network.mood.strikes("reply lost"):
            if network.chance.random() < 0.5:
                loop.call_later(network.way(), self._break, call)
        else:
            loop.call_later(network.way(), self._hear, call, outcome)

    def _hear(self, call: _Call, outcome: Any) -> None:
        if call.answer.done() or self.dead:
            return
        if isinstance(outcome, Exception):
            call.answer.set_exception(outcome)
        else:
            call.answer.set_result(outcome)

    def _break(self, call: _Call) -> None:
        with suppress(asyncio.InvalidStateError):
            if not self.dead:
                call.answer.set_exception(exceptions.ConnectionError("connection lost"))
