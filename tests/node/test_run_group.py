"""The life of a process as a group of actors."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from farmlease.node.concurrency import Actor, run_group


def until_told(log: list[str], name: str, work: Callable[[], Awaitable[None]] | None = None) -> Actor:
    """An actor that runs ``work``, or until it is interrupted, and writes down what happens to it."""
    told = asyncio.Event()

    async def run() -> None:
        await (work() if work else told.wait())
        log.append(f"{name} ended")

    def interrupt() -> None:
        log.append(f"{name} interrupted")
        told.set()

    return Actor(run, interrupt)


async def at_once() -> None:
    """End."""


async def fails() -> None:
    """Fail."""
    raise ZeroDivisionError


async def test_the_first_to_stop_interrupts_all() -> None:
    """The group ends when all have, and everyone was told."""
    log: list[str] = []
    await run_group([until_told(log, "one"), until_told(log, "two", at_once), until_told(log, "three")])
    assert {"one interrupted", "two interrupted", "three interrupted"} <= set(log)
    assert {"one ended", "three ended"} == set(log[-2:])


async def test_what_the_first_raised_is_raised() -> None:
    """A failure ends the group, after the others have ended in order."""
    log: list[str] = []
    with pytest.raises(ZeroDivisionError):
        await run_group([until_told(log, "one"), until_told(log, "two", fails)])
    assert "one ended" == log[-1]


async def test_a_failure_while_ending_is_raised_too() -> None:
    """An actor that fails when it is interrupted does not fail in silence."""
    told = asyncio.Event()

    async def run() -> None:
        await told.wait()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run_group([Actor(run, told.set), until_told([], "two", at_once)])


async def test_a_cancelled_group_ends_its_actors() -> None:
    """Who cancels the group waits until all of it has ended."""
    log: list[str] = []
    group = asyncio.create_task(run_group([until_told(log, "one")]))
    await asyncio.sleep(0)
    group.cancel()
    with pytest.raises(asyncio.CancelledError):
        await group
    assert ["one interrupted", "one ended"] == log
