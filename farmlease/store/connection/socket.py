"""One network connection to one server of the store: how it is made, greeted, lent for a call and given back.

Guaranteed: a connection that is greeted leads to a master, and knows which life of which server it leads to; a call
that is cancelled while it waits for an answer closes its connection, so that nobody else can read that answer.

This module must never send a command twice, and never wait without an end.
"""

import asyncio
import ssl
from asyncio import StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from redis import asyncio as driver
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelManagedConnection
from redis.backoff import NoBackoff
from typing_extensions import override

from farmlease.store.connection.address import StoreAddress
from farmlease.store.connection.driver_errors import NotMaster
from farmlease.store.script import LIFE

__all__ = [
    "MAX_CONNECTIONS",
    "Greeting",
    "Network",
    "OwnWire",
    "Pool",
    "SentinelTlsConnection",
    "TlsConnection",
    "Wire",
    "asking",
    "end_tls",
    "lent",
    "options",
    "taken_over",
    "told",
]

#: Calls under way at once from one process; more of them wait their turn within their own timeout.
MAX_CONNECTIONS = 64

Network = driver.connection.AbstractConnection
Pool = driver.ConnectionPool


class Greeting:
    """What each network connection to a server begins with, once; remembers what the server said of itself."""

    def __init__(self) -> None:
        self._lives = WeakKeyDictionary[Network, str]()

    async def greet(self, connection: Network) -> None:
        """Say who we are, and learn the server's life: the id that redis-server gives itself at each start.

        NotMaster if it is a replica: one that is promoted later would answer under this connection with a past in
        which the newest grants may be missing, and nobody would notice. In contrast to a replication id, a run id
        never changes under a connection.
        """
        await connection.on_connect()
        await connection.send_packed_command(
            connection.pack_commands([("INFO", "server"), ("INFO", "replication")])  # one round trip for both
        )
        server, replication = told(await connection.read_response()), told(await connection.read_response())
        if replication.get("role") != "master":
            raise NotMaster
        self._lives[connection] = server["run_id"]

    def life(self, connection: Network) -> str:
        """Return the life that a connection leads to, or ``LIFE`` of one that was never greeted."""
        return self._lives.get(connection, LIFE)


def told(answer: bytes) -> dict[str, str]:
    """Read what a server says of itself: lines of a name, a colon and a value."""
    lines = answer.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


class Wire(Protocol):
    """A network connection in the hands of one call."""

    life: str  #: of the server at the other end

    async def say(self, *command: bytes | str | int) -> Any:  # noqa: ANN401 - a reply of the driver
        """Send one command and return the server's answer; a driver's error otherwise."""


class OwnWire:
    """A network connection that is one call's alone."""

    def __init__(self, connection: Network, life: str, *, asking: bool = False) -> None:
        self._connection = connection
        self._asking = asking
        self.life = life  #: of the server at the other end

    async def say(self, *command: bytes | str | int) -> Any:  # noqa: ANN401 - a reply of the driver
        """Send one command and return the server's answer; a driver's error otherwise."""
        if self._asking:  # holds for one command only, and only on the same network connection
            await self._connection.send_command("ASKING")
            await self._connection.read_response()
        await self._connection.send_command(*command)
        return await self._connection.read_response()


@asynccontextmanager
async def lent(pool: Pool, greeting: Greeting, *, asking: bool = False) -> AsyncIterator[OwnWire]:
    """Take a connection from a pool, which makes it if need be, and give it back."""
    connection = await pool.get_connection()  # type: ignore[no-untyped-call] # the driver's
    try:
        yield OwnWire(connection, greeting.life(connection), asking=asking)
    finally:
        await pool.release(connection)


@asynccontextmanager
async def asking(socket: Path, seconds: float) -> AsyncIterator[driver.Redis]:
    """Ask the server on a Unix socket in the driver's words, for so many seconds in all; TimeoutError after that.

    Not by a timeout of the driver's: with one, it may swallow a cancellation on Python 3.11.
    """
    client = driver.Redis(unix_socket_path=str(socket), retry=Retry(NoBackoff(), 0), socket_timeout=None, protocol=2)
    try:
        async with asyncio.timeout(seconds):
            yield client
    finally:
        # Shielded: the driver closes in tasks of its own, and one that is cancelled before it has begun closes nothing.
        await asyncio.shield(client.aclose())


def options(address: StoreAddress, **given: Any) -> dict[str, Any]:  # noqa: ANN401 - the driver's own options
    """Say how every network connection is made, in the driver's words.

    - ``Retry(NoBackoff(), 0)``: the driver's default is to send every command up to eleven times.
    - No ``socket_timeout``: ``Connection`` sets one deadline over waiting, connecting, greeting and asking together;
      the driver's would begin anew with each of them.
    - RESP2: script answers look the same as in RESP3, and there is no greeting that an old server does not know.
    - The pool's limit is never met, as ``Connection`` lets no more calls through at once. The driver's own pool that
      waits (BlockingConnectionPool) forgets to wake the next caller when one that waits is cancelled.
    """
    return {
        "max_connections": MAX_CONNECTIONS,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,
        "socket_connect_timeout": address.timeout_ms / 1000,
        "protocol": 2,
        "client_name": "farmlease",
        "driver_info": None,
        "decode_responses": False,
        **given,
    }


def taken_over(connection: Network, protocol: asyncio.Protocol) -> asyncio.WriteTransport:
    """Hand a greeted connection over: what comes from now on goes to ``protocol``, and the driver only closes it.

    If the other end has hung up meanwhile, the driver has heard that, and ``protocol`` is told at once.
    """
    reader: Any = connection._reader  # noqa: SLF001 - the driver has no other way to it
    transport: asyncio.WriteTransport = connection._writer.transport  # type: ignore[union-attr] # noqa: SLF001 - the same
    transport.set_protocol(protocol)
    if reader.at_eof() or transport.is_closing():
        protocol.connection_lost(None)
    return transport


def end_tls(writer: StreamWriter) -> None:
    """Say good-bye and hang up. The other end's good-bye, for which a close waits half a minute, may never come.

    Nor may the event loop go on for so long, and what it has not closed by its end stays open.
    """
    writer.close()
    writer.transport.abort()


class TlsConnection(driver.SSLConnection):
    """A TLS connection with our own context: the driver's would trust the system's authorities besides ``ca_file``."""

    def __init__(self, *, context: ssl.SSLContext, **given: Any) -> None:  # noqa: ANN401 - the driver's own options
        super().__init__(**given)
        self.ssl_context.context = context

    @override
    async def disconnect(self, *given: Any, **named: Any) -> None:
        """Hang up, whatever the other end does."""
        if self._writer is not None:
            end_tls(self._writer)
        await super().disconnect(*given, **named)


class SentinelTlsConnection(SentinelManagedConnection, TlsConnection):
    """The same, to whichever server the Sentinels name."""
