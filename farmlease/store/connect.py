"""The way to the store: from an address in the configuration to scripts that run, and driver errors in our own words.

Guaranteed: a call ends within twice the timeout, with the script's own answer or with one ``StoreError``; a call that
is cancelled or times out takes its network connection with it, so that nobody else can read its answer.
Not guaranteed: that a call which ended with ``StoreUnavailable`` changed nothing. It may have been carried out and only
its answer lost; every script is therefore made to be asked again.

This module must never repeat a command in two places (redis-py's own repetitions are off), and never put a password
into a text.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import SplitResult, unquote

import tenacity
from redis import asyncio as driver
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from farmlease.errors import ConfigError, StoreError, StoreUnavailable
from farmlease.store.address import StoreAddress, credentials, database, split_url, tls_context
from farmlease.store.border import translated
from farmlease.store.embedded import EmbeddedServer, embedded_store
from farmlease.store.script import Argument, Script

__all__ = ["Connection", "ServerInfo", "StoreAddress", "open_connection", "translated"]

Sleep = Callable[[float], Awaitable[None]]

#: Calls under way at once from one process; more of them wait their turn within their own timeout.
MAX_CONNECTIONS = 64
#: The one policy for asking again: at most this many tries, with these waits (seconds) between them.
MAX_TRIES = 4
FIRST_WAIT, LONGEST_WAIT, JITTER = 0.05, 0.45, 0.05

DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What the server says of itself."""

    name: str  #: redis or valkey
    version: str
    run_id: str  #: another one after every restart
    role: str  #: master or slave
    mode: str  #: standalone, sentinel or cluster


class Connection:
    """A store that can be asked. Made by ``open_connection``; to be closed by who opened it.

    Network connections are made when they are needed: a store that is away when this is opened is no error yet.
    """

    def __init__(
        self, client: driver.Redis, *, describe: str, timeout_ms: int, server: EmbeddedServer | None, sleep: Sleep
    ) -> None:
        self._client = client
        self._command: Callable[..., Awaitable[Any]] = client.execute_command
        self._describe = describe
        self._timeout = timeout_ms / 1000
        self._server = server
        self._sleep = sleep
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)

    @property
    def describe(self) -> str:
        """The address for people, without user name and password."""
        return self._describe

    async def call(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> list[Any]:
        """Run ``script`` and return its answer: a list of bytes, integers, None and lists.

        Raises StoreUnavailable when all tries failed or the time is up, and StoreRefused at once.
        """

        async def evaluate() -> Any:  # noqa: ANN401 - a reply of the driver
            tail = (len(keys), *keys, *args)
            try:
                return await self._command("EVALSHA", script.sha, *tail)
            except NoScriptError:
                return await self._command("EVAL", script.text, *tail)

        answer: list[Any] = await self._asking_again(evaluate)
        return answer

    async def ping(self) -> None:
        """Ask once whether the store answers; raise what is in the way."""
        await self._try(lambda: self._command("PING"))

    async def server_info(self) -> ServerInfo:
        """Ask the server what it is (INFO; an ACL user needs the right to it)."""
        found = await self._asking_again(lambda: self._command("INFO", "SERVER"))
        role = await self._asking_again(lambda: self._command("INFO", "REPLICATION"))
        return ServerInfo(
            name=str(found.get("server_name", "redis")),
            version=str(found.get("valkey_version", found.get("redis_version", ""))),
            run_id=str(found.get("run_id", "")),
            role=str(role.get("role", "master")),
            mode=str(found.get("redis_mode", "standalone")),
        )

    async def close(self) -> None:
        """End the network connections, and the embedded server if this connection started it. Repeating it is fine."""
        try:
            with translated(self._describe):
                await self._client.aclose()
        except StoreError:
            pass  # a network connection that does not even close in order is closed all the same
        finally:
            if self._server is not None:
                await self._server.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _asking_again(self, ask: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - a reply of the driver
        """Try until answered or refused, within twice the timeout. Safe because asking again changes nothing."""
        policy = tenacity.AsyncRetrying(
            sleep=self._sleep,
            retry=tenacity.retry_if_exception_type(StoreUnavailable),
            wait=tenacity.wait_exponential(FIRST_WAIT, LONGEST_WAIT) + tenacity.wait_random(0, JITTER),
            stop=tenacity.stop_after_attempt(MAX_TRIES) | tenacity.stop_before_delay(2 * self._timeout),
            reraise=True,
        )
        with translated(self._describe):
            async with asyncio.timeout(2 * self._timeout):
                return await policy(self._try, ask)

    async def _try(self, ask: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - a reply of the driver
        with translated(self._describe):
            async with asyncio.timeout(self._timeout), self._places:
                return await ask()


async def open_connection(
    address: StoreAddress, *, state_dir: Path | None = None, owner: bool = False, sleep: Sleep = asyncio.sleep
) -> Connection:
    """Open the store at ``address``; only an embedded one is touched by that.

    ``embedded:`` without a folder means ``state_dir``/redis. With ``owner`` its server is started, and it ends with
    this connection or with this process, however that ends; AlreadyRunning if another process runs it. Without,
    a running one is joined, and if there is none it is started for the life of this connection.
    Raises ConfigError for an address that cannot be meant, StoreError if an embedded server does not start.
    """
    url = split_url(address)
    if url.scheme == "embedded":
        return await _open_embedded(address, url, state_dir, owner=owner, sleep=sleep)
    path = unquote(url.path)
    if url.scheme == "unix":
        describe = f"unix://{path}"
        place: dict[str, Any] = {"connection_class": driver.UnixDomainSocketConnection, "path": path}
    else:
        host, port = url.hostname or "localhost", url.port or DEFAULT_PORT
        describe = f"{url.scheme}://{host}:{port}" if ":" not in host else f"{url.scheme}://[{host}]:{port}"
        place = {"host": host, "port": port}
        if url.scheme == "rediss":
            place |= {"connection_class": _TlsConnection, "context": tls_context(address)}
    place |= {"db": database(url), **credentials(address, url)}
    return Connection(
        _client(address.timeout_ms, **place),
        describe=f"{describe}/{place['db']}" if url.scheme != "unix" else f"{describe}?db={place['db']}",
        timeout_ms=address.timeout_ms,
        server=None,
        sleep=sleep,
    )


async def _open_embedded(
    address: StoreAddress, url: SplitResult, state_dir: Path | None, *, owner: bool, sleep: Sleep
) -> Connection:
    if not url.path and state_dir is None:
        raise ConfigError('[store] url = "embedded:" needs a folder here: write it as embedded:/path/of/the/folder')
    folder = Path(unquote(url.path)) if url.path else Path(state_dir or "") / "redis"
    if not folder.is_absolute():
        raise ConfigError(f"[store] url: the folder of an embedded store must be an absolute path, not {folder}")
    store = await embedded_store(folder, owner=owner)
    client = store.memory or _client(
        address.timeout_ms, connection_class=driver.UnixDomainSocketConnection, path=str(store.socket), db=0
    )
    describe = f"embedded:{folder}" if store.memory is None else "embedded: (in memory only)"
    return Connection(client, describe=describe, timeout_ms=address.timeout_ms, server=store.server, sleep=sleep)


def _client(timeout_ms: int, **place: Any) -> driver.Redis:  # noqa: ANN401 - the driver's own options
    """Make a client that never repeats a command by itself and never waits without an end.

    - ``Retry(NoBackoff(), 0)``: the driver's default is to send every command up to eleven times.
    - No ``socket_timeout``: ``Connection`` sets one deadline over waiting, connecting, greeting and asking together;
      the driver's would begin anew with each of them.
    - RESP2: script answers look the same as in RESP3, and there is no greeting that an old server does not know.
    - The pool's limit is never met, as ``Connection`` lets no more calls through at once. The driver's own pool that
      waits (BlockingConnectionPool) forgets to wake the next caller when one that waits is cancelled.
    """
    return driver.Redis.from_pool(
        driver.ConnectionPool(
            max_connections=MAX_CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=timeout_ms / 1000,
            protocol=2,
            client_name="farmlease",
            driver_info=None,
            decode_responses=False,
            **place,
        )
    )


class _TlsConnection(driver.SSLConnection):
    """A TLS connection with our own context: the driver's would trust the system's authorities besides ``ca_file``."""

    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:  # noqa: ANN401 - the driver's own options
        super().__init__(**options)
        self.ssl_context.context = context
