"""A listening socket and the connections it lets in: how many, whose, and for how long each may wait.

Anybody who can connect may do so as often as he likes and say nothing, or half a request. So each connection has a
time, no listener has more than its number of connections, and on a Unix socket no user has more than a share of them.
Where one more comes, a connection that waits for its caller makes room: of the same user if it is his share that is
used up, else of the user who has most of them. A connection whose request is being answered is left alone. Root and
the agent's own user are served before others. Where nobody can make room the newcomer is refused.

The last descriptors of the process are kept for others than callers: the store, the journal, hooks, health. The system
always gives the lowest free descriptor, so the number of a new one says how many are in use at least.

What a caller can repeat at will is logged once a minute, with its number.
"""

import asyncio
import contextlib
import os
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from farmlease.node.logs import Log

__all__ = ["Bounds", "Door", "Place", "at_most", "peer_pid", "peer_uid", "raise_descriptor_limit"]

#: Seconds between two looks whether a request that was being answered is.
LOOK_EVERY = 1.0
#: Seconds before the next try where a connection cannot be accepted.
_PAUSE = 0.2
#: Bytes that are read from a refused connection, so that closing it does not take the refusal back.
_READ_AWAY = 64 << 10
_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED = 0, 1, 80


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one listener allows. ``name`` is what the log calls it."""

    name: str
    most: int  #: connections
    kept: int  #: descriptors that connections of this listener leave to the rest of the process
    of_one_user: int = sys.maxsize  #: connections of one uid on a Unix socket
    for_root: int = 0  #: connections on a Unix socket, and as many descriptors, that only root and the agent's user get
    refusal: bytes = b""  #: what a connection is sent that is refused


class Place:
    """The place of one connection. Its protocol says for how long it may be kept, and whether it waits for its caller.

    ``uid``: of the caller on a Unix socket; None elsewhere.
    """

    def __init__(self, door: "Door", uid: int | None) -> None:
        self._door = door
        self.uid = uid
        self._waits: Callable[[], bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def enter(self, transport: asyncio.BaseTransport) -> None:
        """Note the connection whose place it is."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream socket; for the type checker
        self._transport = transport

    @property
    def waits(self) -> bool:
        """Whether the connection waits for its caller: it may be ended for another one."""
        return self._waits is None or self._waits()

    def stay(self, seconds: float, *, fault: str = "") -> None:
        """Let the connection wait for its caller for so long from now on; its end is logged as this ``fault``."""
        self._waits = None
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire, fault)

    def serve(self, waits: Callable[[], bool], then: Callable[[], None]) -> None:
        """Let the connection be until it ``waits`` for its caller again; ``then`` gives it its time, a second later.

        That is looked up now and then: the answer itself is not held up by it.
        """
        self._waits = waits
        self._look_soon(then)
        self.asked()

    def asked(self) -> None:
        """Note that a request has come: of this caller's connections, it is the last that makes room for another."""
        self._door.move_back(self)

    def report(self, fault: str) -> None:
        """Log what the caller did."""
        self._door.report(fault, self.uid)

    def leave(self) -> None:
        """End the connection at once, whatever it has not sent or taken yet."""
        self.free()
        if self._transport is not None:
            self._transport.abort()

    def free(self) -> None:
        """Give the place back: its connection is at its end."""
        self._stop_timer()
        self._door.forget(self)

    def _expire(self, fault: str) -> None:
        if fault:
            self.report(fault)
        self.leave()

    def _look_soon(self, then: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look, then)

    def _look(self, then: Callable[[], None]) -> None:
        if self.waits:
            then()
        else:
            self._look_soon(then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Door:
    """Accepts connections of one listening socket, each with a place, between ``open`` and ``close``.

    ``welcome`` makes the protocol of a connection.
    """

    def __init__(
        self, listener: socket.socket, bounds: Bounds, welcome: Callable[[Place], asyncio.BaseProtocol], log: Log
    ) -> None:
        self._listener = listener
        self._bounds = bounds
        self._welcome = welcome
        self._log = log
        self._places: dict[int | None, dict[Place, None]] = {}  # of each uid, who asked longest ago first
        self._count = 0
        self._descriptors = _descriptor_limit()
        self._accepting: asyncio.Future[None] | None = None

    def open(self) -> None:
        """Let callers in from now on."""
        self._listener.settimeout(0)
        self._accepting = asyncio.ensure_future(self._accept())

    async def close(self) -> None:
        """Let nobody in any more, and close the listening socket. Connections stay."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        self._listener.close()

    def empty(self) -> None:
        """End all connections."""
        for places in [*self._places.values()]:
            for place in [*places]:
                place.leave()

    def move_back(self, place: Place) -> None:
        """Note that a connection has asked: of its user's, it is the last that is to make room."""
        places = self._places.get(place.uid, {})
        if places.pop(place, place) is None:
            places[place] = None

    def forget(self, place: Place) -> None:
        """Note that a connection is no more."""
        places = self._places.get(place.uid, {})
        if places.pop(place, place) is None:
            self._count -= 1
            if not places:
                del self._places[place.uid]

    def report(self, fault: str, uid: int | None = None, **facts: object) -> None:
        """Log what a caller did, or what befell the listener: once a minute, with its number."""
        facts |= {} if uid is None else {"uid": uid}
        self._log.fault(fault, listener=self._bounds.name, **facts)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except ConnectionError:  # whoever came is gone by now
                continue
            except OSError as error:  # no descriptor, or no memory
                self.report("listener.accept_failed", why=error.strerror)
                self._make_room(None)
                await asyncio.sleep(_PAUSE)
                continue
            try:
                await self._welcome_in(connection)
            except OSError as error:
                self.report("listener.accept_failed", why=error.strerror)
            await asyncio.sleep(0)  # where callers queue there is no other wait, and others have their turn

    async def _welcome_in(self, connection: socket.socket) -> None:
        """Let a new connection in, if need be for another one; or refuse it."""
        uid = peer_uid(connection)
        if self._is_over_share(uid) or self._is_full(connection, uid):
            if self._make_room(uid, only_own=self._is_over_share(uid)):
                self.report("listener.made_room", uid)
                await asyncio.sleep(0)  # the other's descriptor is free now
                connection = _moved_down(connection)
            if self._is_over_share(uid) or self._is_full(connection, uid):
                self.report("listener.refused", uid)
                _refuse(connection, self._bounds.refusal)
                return
        place = Place(self, uid)
        self._places.setdefault(uid, {})[place] = None
        self._count += 1
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: self._welcome(place), connection)
        except OSError:
            connection.close()
            place.free()
            raise

    def _is_over_share(self, uid: int | None) -> bool:
        return not _is_trusted(uid) and len(self._places.get(uid, ())) >= self._bounds.of_one_user

    def _is_full(self, connection: socket.socket, uid: int | None) -> bool:
        """Whether there are too many connections, or this one's descriptor is one of those that are kept for others."""
        kept = 0 if _is_trusted(uid) else self._bounds.for_root
        below = self._descriptors - self._bounds.kept - kept
        return self._count >= self._bounds.most - kept or connection.fileno() >= below

    def _make_room(self, uid: int | None, *, only_own: bool = False) -> bool:
        """End a connection that waits for its caller in favour of this user; whether there is one.

        His own, or one of whoever has most of them and more than he; root's is ended for root alone.
        """
        own = len(self._places.get(uid, ()))
        for other, places in sorted(self._places.items(), key=lambda each: len(each[1]), reverse=True):
            may = not _is_trusted(other) and not only_own and (_is_trusted(uid) or len(places) > own)
            if other == uid or may:
                for place in places:
                    if place.waits:
                        place.leave()
                        return True
        return False


def at_most(connections: int) -> int:
    """Return so many connections, or as many as an eighth of the descriptors, so that other listeners have room."""
    return int(min(connections, _descriptor_limit() // 8))


def _is_trusted(uid: int | None) -> bool:
    """Whether a caller is root or the agent's own user, or comes over TCP, where all are alike."""
    return uid is None or uid == 0 or uid == _own_uid()


def _moved_down(connection: socket.socket) -> socket.socket:
    """Return the connection with the lowest descriptor that is free."""
    with connection:
        moved = connection.dup()
    moved.settimeout(0)
    return moved


def _refuse(connection: socket.socket, words: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.recv(_READ_AWAY)
    with contextlib.suppress(OSError):
        connection.send(words)
        connection.shutdown(socket.SHUT_WR)
    connection.close()


def peer_uid(connection: Any) -> int | None:  # noqa: ANN401 - asyncio's TransportSocket is no socket.socket
    """Return the uid at the other end of a Unix socket, as the kernel has it; None for another kind of socket."""
    if sys.platform == "win32" or connection is None or connection.family != socket.AF_UNIX:
        return None
    elif sys.platform == "linux":  # noqa: RET505 - mypy judges each platform by its branch
        size = struct.calcsize("3i")
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return int(uid)
    else:  # NOT TRIED: by the headers of macOS and FreeBSD, whose xucred begins with its version and the uid
        _, uid = struct.unpack_from("Ii", connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED))
        return int(uid)


def peer_pid(connection: Any) -> int | None:  # noqa: ANN401 - as above
    """Return the number that whoever is at the other end of a Unix socket has in this PID namespace; 0: none."""
    if sys.platform != "linux" or connection is None or connection.family != socket.AF_UNIX:
        return None
    else:  # noqa: RET505 - mypy judges each platform by its branch
        size = struct.calcsize("3i")
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return int(pid)


if sys.platform == "win32":

    def raise_descriptor_limit() -> None:
        """Do nothing: Windows has no such limit."""

    def _descriptor_limit() -> float:
        return float("inf")

    def _own_uid() -> int:
        return -1

else:
    import resource

    _own_uid = os.getuid

    def raise_descriptor_limit() -> None:
        """Let this process have as many descriptors as its hard limit allows; as many as before where it may not."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def _descriptor_limit() -> float:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return float("inf") if soft == resource.RLIM_INFINITY else soft
