"""Scripts that are not farmlease's, to try connections with."""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import NoReturn

import pytest

from farmlease.store.connection.connection import Connection
from farmlease.store.script import Script
from tests.support.topologies import Member

__all__ = [
    "ADD",
    "ECHO",
    "SLOW",
    "WRITE",
    "cancel_every_other_call",
    "evaluations",
    "forbid_wait_for",
    "script",
]


def script(text: str) -> Script:
    """Make a script of a text."""
    return Script("test", text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), (), ())


ECHO = script("return {ARGV[1]}")
#: Sets its keys to its argument.
WRITE = script("for _, key in ipairs(KEYS) do redis.call('SET', key, ARGV[1]) end return {'done'}")
#: Adds one to each of its keys: what is done twice shows.
ADD = script("local last for _, key in ipairs(KEYS) do last = redis.call('INCR', key) end return {last}")
#: Some 200 ms of nothing, then the argument.
SLOW = script("local x = 0 for i = 1, 1.2e7 do x = x + i % 3 end return {ARGV[1]}")


def evaluations(member: Member) -> int:
    """How many scripts a server has carried out since it was started; what it refused does not count."""
    with member.client() as client:
        found = client.info("commandstats")
    return sum(int(found.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("eval", "evalsha"))


async def cancel_every_other_call(connection: Connection, keys: Sequence[str]) -> None:
    """Cancel every other one of twenty calls at thirty moments; the others must have their own answers."""
    for round_ in range(30):
        calls = [
            asyncio.create_task(connection.call(ECHO, keys[number % len(keys) :][:1] if keys else [], [number]))
            for number in range(20)
        ]
        await asyncio.sleep(0.0005 * round_)
        for call in calls[::2]:
            call.cancel()
        answers = await asyncio.gather(*calls[1::2])
        assert [str(number).encode() for number in range(1, 20, 2)] == [answer[0] for answer in answers]


def forbid_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every asyncio.wait_for fail, ours and the driver's, which waits so where it is given a ``socket_timeout``."""

    def forbidden(*_: object, **__: object) -> NoReturn:
        raise AssertionError("asyncio.wait_for may forget a cancellation")

    monkeypatch.setattr(asyncio, "wait_for", forbidden)
