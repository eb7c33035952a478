"""A TCP proxy that breaks on purpose: cuts, delays, half-open lines, and lost questions and replies.

It runs in a thread of its own, so that tests with and without an event loop can use it. What is lost is decided by a
seed; which question meets which decision depends on the order in which replies arrive.
"""

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.patience import within

__all__ = ["Proxy", "proxy"]

_CHUNK = 1 << 16
_STUCK = 0.02  #: seconds between two looks whether a line is mended


class Proxy:
    """Stands between clients and the server at ``target`` (a port of this host). Made by ``proxy``.

    A *reply* is what the server sends in one go, which for a client that waits for each answer is one answer.
    """

    def __init__(self, target: int, seed: int) -> None:
        self._target, self._host = target, "127.0.0.1"
        self._random = random.Random(seed)  # noqa: S311 - faults, not secrets
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._writers = set[asyncio.StreamWriter]()
        self._tasks = set[asyncio.Task[None]]()
        self._down = False
        self.port = 0
        self.lose = 0.0  #: share of replies that are lost, together with their connection
        self.lose_questions = 0.0  #: likewise of what clients ask, which the server then never hears
        self.delay = 0.0  #: seconds each reply takes longer
        self.jitter = 0.0  #: seconds by which that is more or less
        self.stuck_up = False  #: nothing reaches the server, and connections stay; what is on its way arrives later
        self.stuck_down = False  #: nothing reaches the clients, likewise
        self.passed = 0  #: replies that arrived
        self.lost = 0  #: replies that did not

    def cut(self) -> None:
        """End every connection and take no new ones."""
        self._down = True
        self._loop.call_soon_threadsafe(self._abort)

    def lead_to(self, target: int, host: str = "127.0.0.1") -> None:
        """Lead new connections to another port, or address of this host; those that are open stay where they are."""
        self._target, self._host = target, host

    def mend(self) -> None:
        """Be faultless again. What was stuck arrives now, unless its connection has ended at the sink's side."""
        self.lose = self.lose_questions = self.delay = self.jitter = 0.0
        self.stuck_up = self.stuck_down = self._down = False

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(to_client)
        try:
            if not self._down:
                await self._carry(from_client, to_client)
        except (OSError, asyncio.CancelledError):
            pass  # either side may go at any time, and so may the proxy
        finally:
            to_client.transport.abort()
            self._writers.discard(to_client)
            self._tasks.discard(task)

    async def _carry(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(self._host, self._target)
        self._writers.add(to_server)
        try:
            questions = asyncio.create_task(self._pass_on(from_client, to_server))
            try:
                await self._answer(from_server, to_client)
            finally:
                questions.cancel()
                with suppress(OSError, asyncio.CancelledError):
                    await questions
        finally:
            to_server.transport.abort()
            self._writers.discard(to_server)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(_CHUNK):
            while self.stuck_up:
                await asyncio.sleep(_STUCK)
            if self._random.random() < self.lose_questions:
                self.lost += 1
                sink.transport.abort()
                return
            sink.write(data)
            await sink.drain()
        sink.write_eof()

    async def _answer(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(_CHUNK):
            if self._random.random() < self.lose:
                self.lost += 1
                return
            if self.delay:
                await asyncio.sleep(self.delay + self._random.uniform(-self.jitter, self.jitter))
            while self.stuck_down:
                await asyncio.sleep(_STUCK)
            self.passed += 1
            sink.write(data)
            await sink.drain()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._stop())
        self._loop.close()


@contextmanager
def proxy(target: int, seed: int = 0) -> Iterator[Proxy]:
    """Run a proxy to the server at port ``target`` of this host; faultless until told otherwise."""
    between = Proxy(target, seed)
    started = threading.Event()
    thread = threading.Thread(target=between._run, args=(started,), daemon=True)
    thread.start()
    assert started.wait(within(10))
    try:
        yield between
    finally:
        between._loop.call_soon_threadsafe(between._loop.stop)
        thread.join(within(10))
