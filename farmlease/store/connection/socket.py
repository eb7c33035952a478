"""One network connection to one server of the store: how it is made, begins, is used by a call and given back.

Guaranteed: a connection whose handshake is done leads to a master, and to a known life of a known server; a call that
is cancelled while it waits for an answer on a connection of its own closes it, so that no other call reads that answer.

This module must never send a command twice, and never wait without an end.
"""

import asyncio
from asyncio import StreamWriter
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import structlog
from redis import asyncio as driver
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from typing_extensions import override

from farmlease.store.connection.address import StoreAddress
from farmlease.store.connection.credential_files import TlsFiles
from farmlease.store.connection.driver_errors import DRIVER_ERRORS, NotMaster, leads_elsewhere, store_error
from farmlease.store.connection.renewals import Renewals
from farmlease.store.connection.server_life import life_of
from farmlease.store.script import LIFE

__all__ = [
    "MAX_CONNECTIONS",
    "RENEW_EVERY",
    "Channel",
    "ConnectionPool",
    "DriverConnection",
    "ExclusiveChannel",
    "Handshake",
    "HostPort",
    "SentinelTlsConnection",
    "TlsConnection",
    "disconnect_idle",
    "driver_options",
    "end_tls",
    "exclusive_channel",
    "take_over",
    "unix_client",
]

log = structlog.get_logger()

#: Calls under way at once from one process; more of them wait their turn within their own timeout.
MAX_CONNECTIONS = 64
#: Seconds that closing idle connections may take; then they are cut off.
_DISCONNECT_WITHIN = 0.5
#: Seconds within which a new connection shows whether it can take an old one's place.
_PROBE_WITHIN = 0.5
#: Seconds after which a connection is made anew while the old one still serves: a name may lead to another server by
#: then although the earlier one answers, a certificate or a password may have been replaced.
RENEW_EVERY = 30.0

DriverConnection = driver.connection.AbstractConnection
ConnectionPool = driver.ConnectionPool
HostPort = tuple[str, int]


class Handshake:
    """What each network connection to a server begins with, once; keeps to which life it led, and when."""

    def __init__(self, renewals: Renewals) -> None:
        self._lives = WeakKeyDictionary[DriverConnection, tuple[str, float]]()
        self._renewals = renewals

    async def perform(self, connection: DriverConnection) -> None:
        """Authenticate, and read the server's life: the id that redis-server gives itself at each start.

        NotMaster if it is a replica: one that is promoted later would answer over this connection from data in which
        the newest grants may be missing, unnoticed. In contrast to a replication id, a run id never changes during a
        connection.
        """
        await connection.on_connect()
        await connection.send_packed_command(
            connection.pack_commands([("INFO", "server"), ("INFO", "replication")])  # one round trip for both
        )
        told = [await _answer(connection), await _answer(connection)]

        async def ask(*command: str) -> Any:  # noqa: ANN401 - a reply of the driver
            await connection.send_command(*command)
            return await connection.read_response()

        self._lives[connection] = await life_of(ask, *told), asyncio.get_running_loop().time()

    def life(self, connection: DriverConnection) -> str:
        """Return the life that a connection leads to, or ``LIFE`` for one without a handshake."""
        return self._lives[connection][0] if connection in self._lives else LIFE

    def is_old(self, connection: DriverConnection) -> bool:
        """Return whether a connection was made so long ago that another one should take its place."""
        made = self._lives[connection][1] if connection in self._lives else float("inf")
        return asyncio.get_running_loop().time() - made > RENEW_EVERY

    async def can_be_renewed(self, connection: DriverConnection, pool: ConnectionPool) -> bool:
        """Try whether a new connection lets us in where an old one leads; if not, the old one serves for longer."""
        probe = pool.make_connection()  # type: ignore[no-untyped-call] # the driver's
        try:
            async with asyncio.timeout(_PROBE_WITHIN):  # less than the call that waits for it has
                await probe.connect()
        except NotMaster:
            pass  # it leads to another server than before, and is made anew to hear the same
        except DRIVER_ERRORS as error:
            self._lives[connection] = self.life(connection), asyncio.get_running_loop().time()
            self.note_renewal(pool, error)
            return False
        finally:
            await probe.disconnect(nowait=True)
        self.note_renewal(pool)
        return True

    def note_renewal(self, pool: ConnectionPool, error: BaseException | None = None) -> None:
        """Note whether a connection could be made anew while another one serves; a failure is logged once."""
        where = _place(pool)
        why = "" if error is None else str(store_error(where, error, None))
        if self._renewals.note(where, why):
            log.warning("store.connection_not_renewed", why=why, goes_by="the one before")


def _place(pool: ConnectionPool) -> str:
    """Return where the connections of a pool lead, as texts show it."""
    given = pool.connection_kwargs
    return f"{given['host']}:{given['port']}" if "host" in given else str(given.get("path", "behind the Sentinels"))


async def _answer(connection: DriverConnection) -> object:
    """Read an answer; an error that is one is returned: what follows it is to be read all the same."""
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


class Channel(Protocol):
    """A network connection, for one call."""

    life: str  #: of the server at the other end

    def execute(self, *command: bytes | str | int) -> Awaitable[Any]:
        """Send one command and return the server's answer; a driver's error otherwise."""


class ExclusiveChannel:
    """A network connection that no other call uses."""

    def __init__(self, connection: DriverConnection, life: str, *, asking: bool = False) -> None:
        self._connection = connection
        self._asking = asking
        self.life = life  #: of the server at the other end

    async def execute(self, *command: bytes | str | int) -> Any:  # noqa: ANN401 - a reply of the driver
        """Send one command and return the server's answer; a driver's error otherwise."""
        if self._asking:  # holds for one command only, and only on the same network connection
            await self._connection.send_command("ASKING")
            await self._connection.read_response()
        await self._connection.send_command(*command)
        return await self._connection.read_response()


@asynccontextmanager
async def exclusive_channel(
    pool: ConnectionPool, handshake: Handshake, *, asking: bool = False
) -> AsyncIterator[ExclusiveChannel]:
    """Take a connection from a pool, which makes it if need be, and give it back.

    One that is old is made anew first, and one that has led to a server that is not the one to ask is not used again.
    """
    moved = False
    connection = await pool.get_connection()  # type: ignore[no-untyped-call] # the driver's
    try:
        if handshake.is_old(connection) and await handshake.can_be_renewed(connection, pool):
            await connection.disconnect(nowait=True)
            await connection.connect()
        yield ExclusiveChannel(connection, handshake.life(connection), asking=asking)
    except RedisError as error:
        if moved := leads_elsewhere(error):
            connection.mark_for_reconnect()
        raise
    finally:
        await pool.release(connection)
        if moved:  # the idle ones lead to the same server
            await disconnect_idle(pool)


@asynccontextmanager
async def unix_client(socket: Path, seconds: float) -> AsyncIterator[driver.Redis]:
    """Give a client of the driver for a Unix socket, for so many seconds in all; TimeoutError after that.

    Not by a timeout of the driver's: with one, it may swallow a cancellation on Python 3.11.
    """
    client = driver.Redis(unix_socket_path=str(socket), retry=Retry(NoBackoff(), 0), socket_timeout=None, protocol=2)
    try:
        async with asyncio.timeout(seconds):
            yield client
    finally:
        # Shielded: the driver closes in tasks of its own, and one that is cancelled before it has begun closes nothing.
        await asyncio.shield(client.aclose())


def driver_options(address: StoreAddress, **given: Any) -> dict[str, Any]:  # noqa: ANN401 - the driver's own options
    """Return the driver's options for every network connection.

    - ``Retry(NoBackoff(), 0)``: the driver's default is to send every command up to eleven times.
    - No ``socket_timeout``: ``Connection`` sets one deadline over waiting, connecting, handshake and command together;
      the driver's would begin anew with each of them.
    - RESP2: script answers look the same as in RESP3, and there is no HELLO that an old server does not know.
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


def take_over(connection: DriverConnection, protocol: asyncio.Protocol) -> asyncio.WriteTransport:
    """Take a connection over from the driver after its handshake: what arrives from now on goes to ``protocol``.

    The driver only closes it. If the other end has hung up meanwhile, ``protocol`` loses the connection at once. Which
    measurement this buys is written in ``multiplexer``.
    """
    reader: Any = connection._reader  # noqa: SLF001 - the driver has no other way to it
    transport: asyncio.WriteTransport = connection._writer.transport  # type: ignore[union-attr] # noqa: SLF001 - the same
    transport.set_protocol(protocol)
    if reader.at_eof() or transport.is_closing():
        protocol.connection_lost(None)
    return transport


async def disconnect_idle(pool: ConnectionPool) -> None:
    """Close the idle connections of a pool."""
    try:
        async with asyncio.timeout(_DISCONNECT_WITHIN):
            await pool.disconnect(inuse_connections=False)
    except (RedisError, OSError, TimeoutError):
        pass
    except asyncio.CancelledError:
        # The driver reports a connection whose closing was cut short as if this call had been cancelled.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise


def end_tls(writer: StreamWriter) -> None:
    """Send our close notice and hang up: the other end's, for which a close waits half a minute, may never come.

    Nor may the event loop last for so long, and a connection that is open at its end stays open.
    """
    if not writer.is_closing():  # a second close would take the protocol from the transport, before Python 3.11.5
        writer.close()
    writer.transport.abort()


class TlsConnection(driver.SSLConnection):
    """A TLS connection with our own context: the driver's would trust the system's authorities besides ``ca_file``."""

    def __init__(self, *, files: TlsFiles, **given: Any) -> None:  # noqa: ANN401 - the driver's own options
        super().__init__(**given)
        self._files = files

    @override
    def _connection_arguments(self) -> Mapping[str, Any]:
        """Return what to connect with: the certificates as they are at this moment."""
        self.ssl_context.context = self._files.context()
        return super()._connection_arguments()

    @override
    async def disconnect(self, *given: Any, **named: Any) -> None:
        """Hang up, whatever the other end does."""
        if self._writer is not None:
            end_tls(self._writer)
        await super().disconnect(*given, **named)


class SentinelTlsConnection(SentinelManagedConnection, TlsConnection):
    """The same, to whichever server the Sentinels name."""
