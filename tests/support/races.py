"""Many nodes that race for seats: forks of one process, each told over a socket of its own what to do, all at once.

A line is one JSON object, and so is its answer. Forking costs far less than starting as many interpreters.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import redis

__all__ = ["RACERS", "Race", "fork_each", "obey"]

ROOT = Path(__file__).parents[2]
RACERS = 32


class Race:
    """The processes, which run ``module`` on the server of ``url``, and a client to watch them with."""

    def __init__(self, module: str, url: str, raw: redis.Redis) -> None:
        self.raw = raw
        pairs = [socket.socketpair() for _ in range(RACERS)]
        theirs = [other.fileno() for _, other in pairs]
        self._starter = subprocess.Popen(
            [sys.executable, "-m", module, url, *map(str, theirs)],
            cwd=ROOT, pass_fds=theirs, start_new_session=True,
        )  # fmt: skip
        for _, other in pairs:
            other.close()
        self._lines = [line.makefile("rw", encoding="utf-8") for line, _ in pairs]
        for line, _ in pairs:
            line.close()

    def all(self, orders: Sequence[dict[str, Any]]) -> list[Any]:
        """Tell each process what to do, all at once, and return what they answer."""
        for line, order in zip(self._lines, orders, strict=True):
            line.write(json.dumps(order) + "\n")
            line.flush()
        answers = [line.readline() for line in self._lines]
        assert all(answers), "a racer ended"
        return [json.loads(answer) for answer in answers]

    def close(self) -> None:
        """End the processes; they are a group of their own."""
        os.killpg(self._starter.pid, signal.SIGKILL)
        self._starter.wait()
        for line in self._lines:
            line.close()


def fork_each(
    race: Callable[[str, str, socket.socket], Coroutine[Any, Any, None]], url: str, descriptors: Sequence[str]
) -> None:
    """Run ``race`` with the URL, a node's name and a socket in a fork for each socket; return when all have ended."""
    lines = [socket.socket(fileno=int(descriptor)) for descriptor in descriptors]
    for number, line in enumerate(lines):
        if os.fork() == 0:
            try:
                for other in lines:
                    if other is not line:
                        other.close()
                asyncio.run(race(url, f"ctx-{number:02}#a", line))
            except BaseException:  # noqa: BLE001 - a fork must never return into its parent's code
                traceback.print_exc()
            finally:
                os._exit(0)
    for line in lines:
        line.close()
    for _ in lines:
        os.wait()


async def obey(line: socket.socket, told: Callable[[Any], Coroutine[Any, Any, object]]) -> None:
    """Answer every order with what ``told`` returns for it, until the line is closed, even if that is half-way."""
    reader, writer = await asyncio.open_connection(sock=line)
    order = await reader.readline()
    while order:
        following = asyncio.ensure_future(reader.readline())
        work = asyncio.ensure_future(told(json.loads(order)))
        await asyncio.wait({following, work}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():  # who told it has gone: nobody is to race on for ever
            work.cancel()
            return
        writer.write(json.dumps(work.result()).encode() + b"\n")
        await writer.drain()
        order = await following
