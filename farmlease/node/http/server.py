"""How the agent is reached: its listening sockets, its token, and the servers on them.

Sockets are made here, not by the HTTP server, so that an address in use is one clear error, and a Unix socket that a
killed agent left behind is removed, and one on which another process listens is not.
"""

import contextlib
import errno
import ipaddress
import json
import os
import secrets
import socket
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import filelock
import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from farmlease import private_file
from farmlease.config.source import UNIX, split_address
from farmlease.errors import ConfigError, FarmleaseError
from farmlease.node.concurrency import Actor
from farmlease.node.http.api_protocol import IDLE, ApiProtocol, log_no_request_twice
from farmlease.node.http.door import Bounds, Door, at_most
from farmlease.node.http.probe_server import MOST_GUESTS
from farmlease.node.logs import Log
from farmlease.private_file import Flaw, NotPrivate

__all__ = ["hosts_of", "listening_socket", "own_token", "serving"]

#: Connections of the API. Each request of a command has one of its own.
MOST_CALLERS = 1024
#: Of these, what only root and the agent's own user get on a Unix socket.
FOR_ROOT = 32
#: Connections of any other user on a Unix socket. A session that waits in a queue keeps one.
OF_ONE_USER = 32
#: Descriptors that are kept for the store, the journal and hooks, beside those of health and agent-check.
KEPT = 64
_SECONDS_TO_FINISH = 1
_MAX_TOKEN = 4096  #: bytes
_LOOKS_FOR = 5.0  #: seconds for which an agent waits while another one takes the place of its socket

_FULL = json.dumps(
    {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "the agent has as many connections as it takes; try again in a moment",
    }
).encode()
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_FULL), _FULL)
)


class _Server(uvicorn.Server):
    """A server of the connections that a door lets in; it leaves the process's signals to the daemon."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, log: Log) -> None:
        super().__init__(config)
        self._door = Door(listener, _bounds(), lambda place: ApiProtocol(config, self.server_state, place), log)

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: the run group interrupts the server."""
        yield

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the door."""
        self.servers = []
        self._door.open()
        self.started = True

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door; then let requests end for a moment."""
        await self._door.close()
        await super().shutdown(sockets)


def serving(app: ASGIApp, listener: socket.socket, log: Log) -> Actor:
    """Return the actor that serves ``app`` on a listening socket until it is interrupted."""
    config = uvicorn.Config(
        app,
        http=H11Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(IDLE),
        timeout_graceful_shutdown=_SECONDS_TO_FINISH,
    )
    log_no_request_twice()
    server = _Server(config, listener, log)

    async def run() -> None:
        await server.serve()

    def interrupt() -> None:
        server.should_exit = True

    return Actor(run, interrupt)


def _bounds() -> Bounds:
    return Bounds(
        "api",
        most=MOST_CALLERS,
        kept=KEPT + 2 * at_most(MOST_GUESTS),
        of_one_user=OF_ONE_USER,
        for_root=FOR_ROOT,
        refusal=_REFUSAL,
    )


def listening_socket(address: str, beside: Collection[str] = ()) -> socket.socket:
    """Return a socket that listens on ``host:port`` or ``unix:/path``; FarmleaseError if the address is taken.

    ``[::]:port`` takes IPv4 too where the system can, unless an IPv4 address ``beside`` it has the port.
    """
    try:
        if address.startswith(UNIX):
            return _unix_socket(Path(address.removeprefix(UNIX)))
        return _tcp_socket(*split_address(address), [split_address(each) for each in beside])
    except PermissionError as error:
        raise FarmleaseError(
            f"cannot listen on {address} (Permission denied): start the agent as root or by its systemd unit, or "
            "choose a place of this user's own in [agent] listen"
        ) from error
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror  # one without the address
        raise FarmleaseError(
            f"cannot listen on {address} ({why}); is another program there? Choose another address"
        ) from error


def _tcp_socket(host: str, port: int, beside: Collection[tuple[str, int]]) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    of_ipv4 = {number for name, number in beside if ":" not in name}
    dual = _means_every(host) and port not in of_ipv4 and socket.has_dualstack_ipv6()
    listener = socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=dual)
    # An answer is two small writes; without this the second waits 40 ms for the first to be acknowledged.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _means_every(host: str) -> bool:
    """Whether this means every IPv6 address of the host, however it is written."""
    with contextlib.suppress(ValueError):
        return ipaddress.IPv6Address(host).is_unspecified
    return False


def hosts_of(address: str) -> frozenset[str]:
    """Return the values of ``Host`` that mean an agent at this address."""
    if address.startswith(UNIX):
        return frozenset({"localhost", "farmlease"})
    host, port = split_address(address)
    names = {host, "localhost", "127.0.0.1", "::1"}
    return frozenset(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in names)


def own_token(path: Path) -> str:
    """Return the token callers over TCP must show, made with mode 0600 if there is none yet.

    ConfigError if somebody else can read or has made it: whoever knows it can act for every user.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        if not os.path.lexists(path):
            private_file.create([path], f"{secrets.token_urlsafe(32)}\n".encode())
        token = private_file.read(path, _MAX_TOKEN).decode("utf-8-sig").strip()
    except NotPrivate as error:
        if error.flaw is Flaw.MODE:
            raise ConfigError(
                f"{path}: others can read the token; delete it, and the agent makes another one"
            ) from None
        raise ConfigError(f"{path}: is not a file of the agent's own; see who made it, then delete it") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read or made ({error.strerror}); correct [agent] token_file") from error
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isascii():
        raise ConfigError(f"{path}: holds no token; delete it, and the agent makes another one")
    return token


if sys.platform == "win32":

    def _unix_socket(path: Path) -> socket.socket:
        raise ConfigError(f"{path}: Windows has no Unix sockets for this; listen on 127.0.0.1")

else:

    def _unix_socket(path: Path) -> socket.socket:
        """Return a socket on which any user may connect: the kernel names the caller, who may act for himself only.

        A socket on which nobody listens any more is in the way and goes. Two agents that start at once do this one
        after the other, so that none takes away the socket that the other one has just made.
        """
        _make_folder(path.parent)
        with _lock(path):
            if _is_left_over(path):
                path.unlink()
            listener = socket.socket(socket.AF_UNIX)
            try:
                listener.bind(str(path))
                path.chmod(0o666)
                listener.listen(2048)
            except OSError:
                listener.close()
                raise
            return listener

    def _make_folder(folder: Path) -> None:
        """Make the folder of a socket, and those above it, if they are missing, so that all users get through."""
        for each in reversed((folder, *folder.parents)):
            if not each.is_dir():
                each.mkdir(exist_ok=True)
                each.chmod(0o755)  # whatever the umask is

    @contextlib.contextmanager
    def _lock(path: Path) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            lock = filelock.FileLock(f"{path}.lock", mode=0o600, timeout=_LOOKS_FOR)
            try:
                stack.enter_context(lock)
            except filelock.Timeout:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from None
            yield

    def _is_left_over(path: Path) -> bool:
        """Whether this is a socket without a listener. One whose listener is too busy to answer has one."""
        if not path.is_socket():
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(0)
            return probe.connect_ex(str(path)) == errno.ECONNREFUSED
