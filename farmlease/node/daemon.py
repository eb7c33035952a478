"""The agent as a process: keeps it going, and ends in order.

On SIGTERM or SIGINT health asks balancers to send no new users, and the agent goes on for as long as is configured.
Then it starts no more sessions, delivers its outbox for at most three seconds, and exits with status 0.
Sessions are left open: they belong to their users, and the next agent of this boot adopts them.
"""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from farmlease.clock import SystemClock
from farmlease.config.model import Config
from farmlease.config.source import UNIX
from farmlease.farm import open_farm
from farmlease.node.agent import Agent
from farmlease.node.build import compose
from farmlease.node.concurrency import Actor, run_group
from farmlease.node.health.metrics import Metrics
from farmlease.node.http.api import create_app
from farmlease.node.http.auth import Access, Gate
from farmlease.node.http.door import raise_descriptor_limit
from farmlease.node.http.probe_answers import agent_line, answer
from farmlease.node.http.probe_server import agent_checking, probing
from farmlease.node.http.server import hosts_of, listening_socket, own_token, serving
from farmlease.node.logs import Log, log_loop_faults
from farmlease.node.loops import Loop, every
from farmlease.node.sync.node_report import reported_marks
from farmlease.node.sync.secrets_watch import LOOK_AT_SECRETS_EVERY, SecretsWatch
from farmlease.node.sync.store_watch import LOOK_EVERY, StoreWatch
from farmlease.node.systemd import ServiceManager

__all__ = ["run_agent"]

_log = structlog.get_logger(__name__)

#: Objects made, less those let go, after which the garbage collector looks at the newest: a session start makes some
#: hundreds that outlive each other, and with Python's own 700 one part in ten of all work was to look at them.
_LOOK_FOR_GARBAGE = 5_000
#: Seconds for delivering the outbox when the agent stops; it must have exited within five.
_LAST_DELIVERY = 3.0


@dataclass(frozen=True, slots=True)
class _Doors:
    """The listening sockets: of the API, of health, and of HAProxy's agent-check if there is to be one."""

    api: socket.socket
    health: Sequence[socket.socket]
    agent_check: Sequence[socket.socket]


async def run_agent(config: Config, log: Log) -> None:
    """Run this node's agent until a signal stops it. FarmleaseError if it cannot start. ``log``: where it logs."""
    clock = SystemClock()
    stop, again = _stop_signals()
    manager = ServiceManager()
    log_loop_faults(log)
    raise_descriptor_limit()
    token = None if config.agent.listen.startswith(UNIX) else own_token(config.agent.token_file)
    metrics = Metrics(clock)
    async with open_farm(config, owner=True) as (opened, connection):
        farm = metrics.measuring(opened)
        reported = await reported_marks(farm.nodes)  # before the journal is believed
        with compose(config, farm, clock, metrics, log=log, reported=reported) as node, _doors(config) as doors:
            node.agent.adopt()
            access = Access(
                token=token,
                hosts=hosts_of(config.agent.listen),
                policy=node.state.policy,
                accounts=node.runtime.accounts,
                trust=frozenset(config.agent.trust),
            )
            _log.info("agent.ready", node=config.node, listen=config.agent.listen, store=connection.describe)
            watch = StoreWatch(connection, config.farm, node.state, node.sync.damage)
            secrets = SecretsWatch(connection, config.store.address, node.sync.secrets, clock)
            _spare_the_collector()
            manager.ready()
            await run_group(
                [
                    serving(Gate(create_app(node.agent, node.loops), access), doors.api, log),
                    *(probing(partial(answer, node.monitor), door, log) for door in doors.health),
                    *(agent_checking(lambda: agent_line(node.monitor.health), door, log) for door in doors.agent_check),
                    *(_until_cancelled(every(clock, loop)) for loop in node.loops.table(config.agent.heartbeat_ms)),
                    _until_cancelled(every(clock, Loop(LOOK_EVERY, watch.look, at_once=True))),
                    _until_cancelled(every(clock, Loop(LOOK_AT_SECRETS_EVERY, secrets.look, at_once=True))),
                    _until_cancelled(node.loops.handle_events()),
                    _until_cancelled(manager.keep_informed(stop, clock)),
                    _until_cancelled(_ending(node.agent, (stop, again), config.agent.shutdown_delay_ms / 1000)),
                ]
            )
    _log.info("agent.stopped", node=config.node)


def _spare_the_collector() -> None:
    """Have the garbage collector leave alone what is there by now, for that stays, and look less often at the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_LOOK_FOR_GARBAGE)


@contextlib.contextmanager
def _doors(config: Config) -> Iterator[_Doors]:
    """Open the listening sockets, each until the end."""
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(listening_socket(config.agent.listen))
        health, agent_check = (
            [stack.enter_context(listening_socket(each, addresses)) for each in addresses]
            for addresses in (config.health.listen, config.health.agent_check)
        )
        yield _Doors(api, health, agent_check)


async def _ending(agent: Agent, signals: tuple[asyncio.Event, asyncio.Event], delay: float) -> None:
    """Wait for a signal, let the balancers learn of it first, then stop in order. A second signal: at once."""
    first, again = signals
    await first.wait()
    agent.leave()
    _log.info("agent.stopping", delay_s=delay)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(delay):
            await again.wait()
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


def _stop_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Return what the first SIGTERM or SIGINT from now on sets, and what the next (Windows: Ctrl-Break or Ctrl-C)."""
    first, again = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def note() -> None:
        (again if first.is_set() else first).set()

    if sys.platform == "win32":
        for each in (signal.SIGBREAK, signal.SIGINT):
            signal.signal(each, lambda *_: loop.call_soon_threadsafe(note))
    else:
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, note)
    return first, again
