"""The doors for balancers and monitors: the health listener's HTTP, and HAProxy's agent-check.

Any host in the network can connect here, so a caller gets little: a request has no body, a bounded head and a few
seconds to arrive; at most 256 connections are open, and a new one evicts the one idle longest. A request is answered
within some tens of microseconds: probes share the processor with logons, and a thousand of them a second must not slow
a logon down.

That is why requests are parsed by hand. With h11 0.16 as the parser, measured on 2026-11-29, a probe took 37 µs of CPU
instead of 19, in as many lines; and h11 refuses an HTTP/1.1 request without Host, which this listener answers.
"""

import asyncio
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus

from typing_extensions import override

from farmlease.node.concurrency import Actor
from farmlease.node.http.door import Bounds, Door, Place, at_most
from farmlease.node.http.probe_answers import Answer
from farmlease.node.logs import Log

__all__ = ["agent_checking", "probing"]

#: Connections of one listener. A balancer needs one at a time.
MOST_GUESTS = 256
#: Descriptors that they leave to the store, the journal and hooks. Callers of the API leave twice as many.
KEPT = 32
#: Seconds in which a request must be here, and an answer be taken.
PATIENCE = 5.0
#: Seconds for which a connection may wait for its next request.
IDLE = 30.0
#: Seconds for which who has the agent-check's line may go on sending.
FAREWELL = 1.0
_SLOW = "listener.slow_head"
_LONGEST_HEAD = 8 << 10  #: bytes of a request
_LONGEST_SENT = 4 << 10  #: bytes that HAProxy's agent-send may be long

_END = re.compile(rb"\r?\n\r?\n")
_REQUEST = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,2048}) HTTP/1\.([01])")
#: A target with the server's address in front, as a caller may write it and a proxy does: what follows is the path.
_ABSOLUTE = re.compile(rb"(?i:https?)://[^/?#]+(/[^?]*)?(?:\?.*)?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*(.*?)[ \t]*")
_BAD = Answer(400, "text/plain; charset=utf-8", b"not a request that can be understood\n")
_TOO_LONG = Answer(431, "text/plain; charset=utf-8", b"too long a request\n")

#: Method, path and ``Accept`` to what is answered.
Answering = Callable[[str, str, str], Answer]


class _Guest(asyncio.Protocol):
    """A connection that is thrown out when its time is over, or when others need its place."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._transport: asyncio.Transport

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream socket; for the type checker
        self._transport = transport
        self._place.enter(transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._place.free()

    def stay(self, seconds: float, *, fault: str = "") -> None:
        """Let the connection be for so long from now on; its end is logged as this ``fault``."""
        self._place.stay(seconds, fault=fault)

    def finish(self) -> None:
        """Say that nothing more comes. The other end may close when it likes."""
        try:
            self._transport.write_eof()
        except OSError:  # it has gone without a word
            self.leave()

    def leave(self) -> None:
        """End the connection at once, whatever it has not sent or taken yet."""
        self._place.leave()


class _Probe(_Guest):
    """HTTP/1.0 and 1.1, as far as probes need it."""

    def __init__(self, place: Place, answering: Answering) -> None:
        super().__init__(place)
        self._answering = answering
        self._head = b""
        self._full = False
        self._ended = False  #: the other end sends no more
        self._over = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.stay(PATIENCE, fault=_SLOW)

    @override
    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if not self._head:
            self.stay(PATIENCE, fault=_SLOW)
        self._head += data
        if len(self._head) > _LONGEST_HEAD:
            self._say(_TOO_LONG, last=True, more=True)
        else:
            self._answer_one()

    @override
    def pause_writing(self) -> None:
        """Who does not take its answers gets no more of them."""
        self._full = True
        self._transport.pause_reading()

    @override
    def resume_writing(self) -> None:
        self._full = False
        self._transport.resume_reading()
        self._answer_one()

    @override
    def eof_received(self) -> bool:
        """Answer what is here of a caller who sends no more; half a request will never be whole."""
        self._ended = True
        self._close_if_done()
        return not self._over

    def _close_if_done(self) -> None:
        if self._ended and not self._over and not _END.search(self._head):
            self._over, self._head = True, b""
            self.stay(PATIENCE)
            self._transport.close()

    def _answer_one(self) -> None:
        """Answer the next request, if all of it is here; others have their turn before the one after it."""
        end = None if self._full or self._over or self._transport.is_closing() else _END.search(self._head)
        if end is not None:
            head, self._head = self._head[: end.start()], self._head[end.end() :]
            self._answer(head.lstrip(b"\r\n"))
            self._close_if_done()
            if self._head:
                asyncio.get_running_loop().call_soon(self._answer_one)

    def _answer(self, head: bytes) -> None:
        line, *lines = re.split(rb"\r?\n", head)
        request, fields = _REQUEST.fullmatch(line), [_FIELD.fullmatch(each) for each in lines]
        path = "" if request is None else _path(request[1], request[2])
        if request is None or not path or not all(fields):
            self._place.report("listener.invalid_request")
            self._say(_BAD, last=True, more=True)
            return
        method = request[1].decode()
        given = _by_name(found.groups() for found in fields if found is not None)
        wishes = {wish.strip() for wish in given.get(b"connection", b"").lower().split(b",")}
        kept = b"close" not in wishes and (request[3] == b"1" or b"keep-alive" in wishes)
        has_body = b"transfer-encoding" in given or given.get(b"content-length", b"0") != b"0"
        answer = self._answering(method, path, given.get(b"accept", b"").decode("latin-1"))
        self._say(answer, last=has_body or not kept, more=has_body, without_body=method == "HEAD")

    def _say(self, answer: Answer, *, last: bool, more: bool = False, without_body: bool = False) -> None:
        """Write an answer; after the ``last`` one the connection ends. ``more``: its other end is still sending."""
        lines = [
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
            f"Date: {formatdate(usegmt=True)}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
            *(f"{name}: {value}" for name, value in answer.headers.items()),
            f"Connection: {'close' if last else 'keep-alive'}",
        ]
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        self._transport.write(head if without_body else head + answer.body)
        if last:
            self._over, self._head, more = True, b"", more and not self._ended
            self.stay(PATIENCE)
            # What is still being sent is read and dropped: closing on it would take the answer back.
            self.finish() if more else self._transport.close()
            return
        self._place.asked()
        self.stay(PATIENCE if self._head else IDLE, fault=_SLOW if self._head else "")


def _path(method: bytes, target: bytes) -> str:
    """Return the path that a request is about; empty if it is about none."""
    if (method, target) == (b"OPTIONS", b"*"):
        return "*"
    if target.startswith(b"/"):
        return target.partition(b"?")[0].decode()
    absolute = _ABSOLUTE.fullmatch(target)
    return "" if absolute is None else (absolute[1] or b"/").decode()


def _by_name(fields: Iterable[Sequence[bytes]]) -> Mapping[bytes, bytes]:
    """Return the value of each field by its name in small letters. One that comes again goes on with its list."""
    given: dict[bytes, bytes] = {}
    for name, value in fields:
        known = given.get(name.lower())
        given[name.lower()] = value if known is None else known + b"," + value
    return given


class _AgentCheck(_Guest):
    """One line, and good-bye. What HAProxy's agent-send sends is read: left unread it would cost the line."""

    def __init__(self, place: Place, line: Callable[[], bytes]) -> None:
        super().__init__(place)
        self._line = line
        self._read = 0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.stay(FAREWELL)
        self._transport.write(self._line())
        self.finish()

    @override
    def data_received(self, data: bytes) -> None:
        self._read += len(data)
        if self._read > _LONGEST_SENT:
            self.leave()


def probing(answering: Answering, listener: socket.socket, log: Log) -> Actor:
    """Return the actor that answers HTTP probes on a listening socket until it is interrupted."""
    return _serving(lambda place: _Probe(place, answering), "health", listener, log)


def agent_checking(line: Callable[[], bytes], listener: socket.socket, log: Log) -> Actor:
    """Return the actor that sends ``line()`` to each connection on a listening socket until it is interrupted."""
    return _serving(lambda place: _AgentCheck(place, line), "agent_check", listener, log)


def _serving(welcome: Callable[[Place], _Guest], name: str, listener: socket.socket, log: Log) -> Actor:
    over = asyncio.Event()

    async def run() -> None:
        door = Door(listener, Bounds(name, most=at_most(MOST_GUESTS), kept=KEPT), welcome, log)
        door.open()
        try:
            await over.wait()
        finally:
            await door.close()
            door.empty()

    return Actor(run, over.set)
