"""The agent as a process: keeps it going, and ends in order.

On SIGTERM or SIGINT: no new sessions, what is owed is delivered as far as the store lets us within three seconds, exit
status 0. Sessions are left open: they belong to their users, and the next agent of this boot adopts them.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Coroutine

import structlog

from farmlease.clock import Clock, SystemClock
from farmlease.config import Config
from farmlease.domain.health import Health, health
from farmlease.locate import UNIX
from farmlease.node.agent import Agent
from farmlease.node.api import create_app
from farmlease.node.balancer import create_health_app
from farmlease.node.composition import compose
from farmlease.node.gate import Access, Gate
from farmlease.node.group import Actor, run_group
from farmlease.node.listen import hosts_of, listening_socket, own_token, serving
from farmlease.node.logs import tell_of_loop_faults
from farmlease.node.notify import ServiceManager
from farmlease.node.ring import LOOK_EVERY
from farmlease.opening import open_farm

__all__ = ["run_agent"]

_log = structlog.get_logger(__name__)

#: Seconds between two looks at whether the store answers, so that health is true and debts are paid soon.
_LOOK_EVERY = 2.0
#: Seconds between two looks for sessions whose process is gone or that idle.
_WATCH_EVERY = 1.0
#: Seconds for which one look at the agent's health serves all probes.
_LOOK_LASTS = 0.25
#: Seconds for delivering what is owed when the agent is told to stop; it must be gone within five.
_LAST_DELIVERY = 3.0


async def run_agent(config: Config) -> None:
    """Run this node's agent until it is told to stop. Raises FarmleaseError if it cannot start."""
    clock = SystemClock()
    told = _told_to_stop()
    manager = ServiceManager()
    tell_of_loop_faults()
    access = Access(
        token=None if config.agent.listen.startswith(UNIX) else own_token(config.agent.token_file),
        hosts=hosts_of(config.agent.listen),
        identities=config.identities,
    )
    async with open_farm(config, owner=True) as (farm, connection):
        with (
            compose(config, farm, clock) as node,
            listening_socket(config.agent.listen) as api_socket,
            listening_socket(config.health.listen) as health_socket,
        ):
            node.agent.adopt()
            _log.info("agent.ready", node=config.node, listen=config.agent.listen, store=connection.describe)
            manager.ready()
            await run_group(
                [
                    serving(Gate(create_app(node.agent, access.identities), access), api_socket),
                    serving(create_health_app(_watcher(node.agent, clock)), health_socket),
                    _until_cancelled(_beating(node.agent, clock, config.agent.heartbeat_ms / 1000)),
                    _until_cancelled(_watching(node.agent, clock)),
                    _until_cancelled(_looking_after(node.agent, clock)),
                    _until_cancelled(_minding_keys(node.agent, clock)),
                    _until_cancelled(manager.accompany(told, clock)),
                    _until_cancelled(_ending(node.agent, told)),
                ]
            )
    _log.info("agent.stopped", node=config.node)


def _watcher(agent: Agent, clock: Clock) -> Callable[[], Health]:
    """Return a look at the agent's health that costs nothing however often it is asked within a quarter of a second."""
    seen: list[tuple[float, Health]] = []

    def look() -> Health:
        now = clock.monotonic()
        if not seen or now - seen[0][0] > _LOOK_LASTS:
            seen[:] = [(now, health(agent.facts()))]
        return seen[0][1]

    return look


async def _beating(agent: Agent, clock: Clock, every: float) -> None:
    while True:
        await agent.beat()
        await clock.sleep(every)


async def _looking_after(agent: Agent, clock: Clock) -> None:
    while True:
        await clock.sleep(_WATCH_EVERY)
        await agent.watch()


async def _watching(agent: Agent, clock: Clock) -> None:
    """Notice within seconds that the store went away, or lost its data, and when it is back beat at once."""
    while True:
        await clock.sleep(_LOOK_EVERY)
        await agent.look()


async def _minding_keys(agent: Agent, clock: Clock) -> None:
    """Notice within seconds that an administrator put another key ring here."""
    while True:
        await agent.look_at_keys()
        await clock.sleep(LOOK_EVERY)


async def _ending(agent: Agent, told: asyncio.Event) -> None:
    """Wait to be told, then stop in order."""
    await told.wait()
    _log.info("agent.stopping")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_DELIVERY):
            await agent.stop()


def _until_cancelled(work: Coroutine[None, None, None]) -> Actor:
    """Return the actor of a coroutine that is ended by cancelling it."""
    task = asyncio.ensure_future(work)

    async def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def stop() -> None:
        task.cancel()

    return Actor(run, stop)


def _told_to_stop() -> asyncio.Event:
    """Return what the first SIGTERM or SIGINT from now on sets (Windows: Ctrl-Break or Ctrl-C)."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    if sys.platform == "win32":
        for each in (signal.SIGBREAK, signal.SIGINT):
            signal.signal(each, lambda *_: loop.call_soon_threadsafe(told.set))
    else:
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, told.set)
    return told
