"""The connection to the store: from an address in the configuration to scripts that run.

Guaranteed: a call ends within twice the timeout, with the script's own answer or with one ``StoreError``; the answer
to a call that was cancelled or timed out reaches no other call. With ``wait_replicas`` a grant is answered only when so
many replicas have it.
Not guaranteed: that a call which ended with ``StoreUnavailable`` changed nothing. It may have been carried out and only
its answer lost, or have reached too few replicas; every script may therefore be repeated.

This module must never repeat a command in two places (redis-py's own repetitions are off), and never put a password
into a text.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import SplitResult, unquote

import tenacity
from redis import asyncio as driver
from redis.exceptions import NoScriptError

from farmlease.errors import ConfigError, KeyDamaged, StoreUnavailable
from farmlease.store.connection.address import StoreAddress, split_url
from farmlease.store.connection.driver_errors import DRIVER_ERRORS, store_error
from farmlease.store.connection.embedded import EmbeddedServer, embedded_store
from farmlease.store.connection.multiplexer import OneServer
from farmlease.store.connection.renewals import Renewals
from farmlease.store.connection.routes import one_server, route_to
from farmlease.store.connection.routing import Route
from farmlease.store.connection.server_life import what_it_says
from farmlease.store.connection.socket import MAX_CONNECTIONS, Channel, Handshake, driver_options
from farmlease.store.connection.wrong_type import key_damaged, wrong_types
from farmlease.store.script import LIFE, Argument, Script

__all__ = ["MAX_CONNECTIONS", "Connection", "ServerInfo", "StoreAddress", "open_connection"]

Sleep = Callable[[float], Awaitable[None]]
Exchange = Callable[[Channel], Awaitable[Any]]

#: The one retry policy: at most this many attempts, with these waits (seconds) between them.
MAX_TRIES = 4
FIRST_WAIT, LONGEST_WAIT, JITTER = 0.05, 0.45, 0.05
#: Answers by which a script grants something. ``wait_replicas`` is for these: a denial may be forgotten.
GRANTS = {
    "acquire": frozenset({b"granted", b"again", b"moved"}),
    "import": frozenset({b"imported", b"known"}),
    "restore": frozenset({b"restored"}),
}


class _TooFewReplicas(StoreUnavailable):
    """Carried out, but not on enough replicas. Not repeated within the call: that would not bring more of them."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What the server reports of itself."""

    name: str  #: redis or valkey
    version: str
    run_id: str  #: another one after every restart
    role: str  #: master or slave
    mode: str  #: standalone, sentinel or cluster


class Connection:
    """A connection to the store. Made by ``open_connection``; to be closed by the caller of that.

    Network connections are made when they are needed: a store that is away when this is opened is no error yet.
    A driver's client in place of a route leads to one server, which is then used as it is, without a handshake.
    """

    def __init__(
        self,
        client: driver.Redis | Route,
        *,
        describe: str,
        timeout_ms: int,
        server: EmbeddedServer | None,
        sleep: Sleep,
        wait_replicas: int = 0,
        renewals: Renewals,
    ) -> None:
        self._route = (
            OneServer(client.connection_pool, Handshake(renewals), exclusive=True)
            if isinstance(client, driver.Redis)
            else client
        )
        self._describe = describe
        self._timeout = timeout_ms / 1000
        self._server = server
        self._sleep = sleep
        self._replicas = wait_replicas
        self._renewals = renewals
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._retry = tenacity.retry_if_exception(_is_transient)
        self._wait = tenacity.wait_exponential(FIRST_WAIT, LONGEST_WAIT) + tenacity.wait_random(0, JITTER)
        self._stop = tenacity.stop_after_attempt(MAX_TRIES) | tenacity.stop_before_delay(2 * self._timeout)

    @property
    def describe(self) -> str:
        """The address as texts show it, without user name and password."""
        return self._describe

    @property
    def not_renewed(self) -> Iterable[str]:
        """Why connections, passwords or certificates could not be renewed that still serve as they were."""
        return self._renewals.failures

    async def call(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> list[Any]:
        """Run ``script`` and return its answer: a list of bytes, integers, None and lists.

        An argument ``LIFE`` is filled in. Raises StoreUnavailable when all attempts failed or the time is up, or when a
        grant reached fewer replicas than ``wait_replicas``; and StoreRefused at once.
        """
        grants = GRANTS.get(script.name, frozenset()) if self._replicas else frozenset()

        async def evaluate(channel: Channel) -> list[Any]:
            tail = (len(keys), *keys, *(channel.life if each == LIFE else each for each in args))
            try:
                answer: list[Any] = await channel.execute("EVALSHA", script.sha, *tail)
            except NoScriptError:
                answer = await channel.execute("EVAL", script.text, *tail)
            if grants and answer[0] in grants:
                await self._wait_for_replicas(channel)
            return answer

        try:
            answer: list[Any] = await self._with_retries(evaluate, keys, script.text)
        except KeyDamaged:
            wrong = await self._with_retries(lambda channel: wrong_types(channel, keys), keys)
            if wrong:
                raise key_damaged(self._describe, wrong) from None
            raise
        return answer

    async def query(self, exchange: Exchange, keys: Sequence[str]) -> Any:  # noqa: ANN401 - what it returns
        """Let ``exchange`` send commands of its own to the server that has ``keys``; it must be repeatable."""
        return await self._with_retries(exchange, keys)

    async def ping(self) -> None:
        """Ask once whether the store answers; raise what is in the way."""
        await self._attempt(lambda channel: channel.execute("PING"), ())

    async def server_info(self) -> ServerInfo:
        """Ask the server what it is (INFO; an ACL user needs the right to it). Of a Cluster, one of its masters."""
        found = await self._with_retries(lambda channel: what_it_says(channel.execute))
        return ServerInfo(
            name=found.get("server_name", "redis"),
            version=found.get("valkey_version", found.get("redis_version", "")),
            run_id=found.get("run_id", ""),
            role=found.get("role", "master"),
            mode=found.get("server_mode", found.get("redis_mode", "standalone")),  # Valkey's name, and Redis'
        )

    async def close(self) -> None:
        """End the network connections, and the embedded server if this connection started it. Repeating it is fine."""
        try:
            await self._route.close()
        except DRIVER_ERRORS:
            pass  # a network connection that does not even close in order is closed all the same
        finally:
            if self._server is not None:
                await self._server.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _wait_for_replicas(self, channel: Channel) -> None:
        """Wait, for half an attempt, until enough replicas have all that this server had done when it answered last.

        That covers the answer to a repeated call, which wrote nothing itself: it comes after what the first one wrote.
        """
        found = await channel.execute("WAIT", self._replicas, int(self._timeout * 500))
        if found < self._replicas:
            raise _TooFewReplicas(
                f"the store {self._describe} has only {found} of {self._replicas} replicas that keep up: see INFO "
                "replication, or lower wait_replicas in [store]"
            )

    async def _with_retries(self, exchange: Exchange, keys: Sequence[str] = (), text: str = "") -> Any:  # noqa: ANN401 - a reply of the driver
        """Repeat until answered or refused, within twice the timeout. Safe because a repeated call changes nothing."""
        began = asyncio.get_running_loop().time()
        try:
            return await self._once(exchange, keys, text)
        except StoreUnavailable as error:
            failure = error
        outside = sys.exception()
        try:
            async with asyncio.timeout_at(began + 2 * self._timeout):
                await self._route.refresh()
                return await self._after(failure, exchange, keys, text)
        except DRIVER_ERRORS as error:
            raise store_error(self._describe, error, outside, keys, text) from error

    async def _after(self, failure: StoreUnavailable, exchange: Exchange, keys: Sequence[str], text: str) -> Any:  # noqa: ANN401 - a reply of the driver
        """Go on after a first attempt that failed. The policy begins with it: tenacity costs more than most calls."""
        failures = [failure]

        async def attempt() -> Any:  # noqa: ANN401 - a reply of the driver
            if failures:
                raise failures.pop()
            return await self._attempt(exchange, keys, text)

        policy = tenacity.AsyncRetrying(
            sleep=self._sleep, retry=self._retry, wait=self._wait, stop=self._stop, reraise=True
        )
        return await policy(attempt)

    async def _attempt(self, exchange: Exchange, keys: Sequence[str], text: str = "") -> Any:  # noqa: ANN401 - a reply of the driver
        try:
            return await self._once(exchange, keys, text)
        except StoreUnavailable:
            await self._route.refresh()
            raise

    async def _once(self, exchange: Exchange, keys: Sequence[str], text: str) -> Any:  # noqa: ANN401 - a reply of the driver
        outside = sys.exception()
        try:
            async with asyncio.timeout(self._timeout), self._slots:
                return await self._route.use(keys, exchange)
        except DRIVER_ERRORS as error:
            raise store_error(self._describe, error, outside, keys, text) from error


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, StoreUnavailable) and not isinstance(error, _TooFewReplicas)


async def open_connection(
    address: StoreAddress, *, state_dir: Path | None = None, owner: bool = False, sleep: Sleep = asyncio.sleep
) -> Connection:
    """Open the store at ``address``; only an embedded one is started or asked by that.

    ``embedded:`` without a folder means ``state_dir``/redis. With ``owner`` its server is started, and it ends with
    this connection or with this process, however that ends; AlreadyRunning if another process runs it. Without,
    a running one is joined, and if there is none it is started for the life of this connection.
    Raises ConfigError for an address with a fault, StoreError if an embedded server does not start.
    """
    url = split_url(address)
    if url.scheme == "embedded":
        return await _open_embedded(address, url, state_dir, owner=owner, sleep=sleep)
    renewals = Renewals()
    route, describe = route_to(address, url, renewals)
    return Connection(
        route,
        describe=describe,
        timeout_ms=address.timeout_ms,
        server=None,
        sleep=sleep,
        wait_replicas=address.wait_replicas,
        renewals=renewals,
    )


async def _open_embedded(
    address: StoreAddress, url: SplitResult, state_dir: Path | None, *, owner: bool, sleep: Sleep
) -> Connection:
    if not url.path and state_dir is None:
        raise ConfigError('[store] url = "embedded:" needs a folder here: write it as embedded:/path/of/the/folder')
    folder = Path(unquote(url.path)) if url.path else Path(state_dir or "") / "redis"
    store, renewals = await embedded_store(folder, owner=owner), Renewals()
    client: driver.Redis | Route = store.memory or one_server(
        Handshake(renewals), driver_options(address, db=0), driver.UnixDomainSocketConnection, path=str(store.socket)
    )
    describe = f"embedded:{folder}" if store.memory is None else "embedded: (in memory only)"
    return Connection(
        client,
        describe=describe,
        timeout_ms=address.timeout_ms,
        server=store.server,
        sleep=sleep,
        renewals=renewals,
    )
