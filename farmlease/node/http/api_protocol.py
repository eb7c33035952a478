"""HTTP/1.1 as the agent's API speaks it: uvicorn's, within the bounds of its door.

A request's head and its body have a few seconds each to arrive, however slowly they drip; so has an answer to be
taken. Between two requests a connection may be idle for a while. Only the time that the agent itself takes for an
answer has no bound here: a session may wait in a queue.

uvicorn is used below its public interface; tests on real sockets hold it to that.
"""

import asyncio
import logging

import h11
import uvicorn
from typing_extensions import override
from uvicorn.server import ServerState

from farmlease.node.http.auth import PEER, PEER_PID
from farmlease.node.http.door import Place, peer_pid
from farmlease.node.http.half_closed import HalfClosedProtocol

__all__ = ["IDLE", "ApiProtocol", "log_no_request_twice"]

_INVALID = "Invalid HTTP request received."

#: Seconds in which the head of a request must be here.
HEAD = 5.0
#: Seconds after that in which its body must be here: at most 64 KiB on this host.
BODY = 5.0
#: Seconds in which what the system has not taken of an answer must have been read.
TAKEN = 10.0
#: Seconds for which a connection may wait for its next request.
IDLE = 30.0


class ApiProtocol(HalfClosedProtocol):
    """A connection of the API. On a Unix socket the application gets the caller's uid and pid instead of an address."""

    def __init__(self, config: uvicorn.Config, server_state: ServerState, place: Place) -> None:
        super().__init__(config, server_state, {})
        self._place = place
        self._waits_for: tuple[str, object] = "", None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        """Begin to wait for a request."""
        super().connection_made(transport)
        if self._place.uid is not None:
            pid = peer_pid(transport.get_extra_info("socket"))
            self.client = (PEER if pid is None else f"{PEER}{PEER_PID}{pid}", self._place.uid)
        transport.set_write_buffer_limits(0)  # so that it is noticed when an answer is not read
        self._place.enter(transport)
        self._set_time()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self._place.free()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        """Read on, and give the connection the time of what it waits for now."""
        super().data_received(data)
        self._set_time()

    @override
    def pause_writing(self) -> None:
        """Wait for a caller who does not read, but not for ever."""
        super().pause_writing()
        self._wait_for("answer", TAKEN)

    @override
    def resume_writing(self) -> None:
        """Go on: the caller has read."""
        super().resume_writing()
        self._set_time()

    @override
    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._place.report("listener.invalid_request")
        super().send_400_response(msg)

    def _set_time(self) -> None:
        """Find what the connection waits for. Bytes that drip in buy no time."""
        state = self.conn.their_state
        asked: object = self.cycle  # the last request; None before the first, whatever uvicorn's types say
        if state is h11.SEND_BODY:
            self._wait_for("body", BODY)
        elif self._is_answering():
            self._waits_for = "", None
            self._place.serve(self._waits, self._set_time)
        elif state is h11.IDLE and (asked is None or self.conn.trailing_data[0]):
            self._wait_for("head", HEAD)
        elif state is not h11.IDLE:  # its last answer, or what is no HTTP: the connection is being closed
            self._wait_for("answer", TAKEN)
        else:
            self._wait_for("", IDLE)

    def _waits(self) -> bool:
        return not self._is_answering()

    def _wait_for(self, what: str, seconds: float) -> None:
        if self._waits_for != (what, self.cycle) or not what:
            self._waits_for = what, self.cycle
            self._place.stay(seconds, fault=f"listener.slow_{what}" if what else "")


def log_no_request_twice() -> None:
    """Leave out what uvicorn logs of each request that is no HTTP: the door logs it, with its caller."""
    logging.getLogger("uvicorn.error").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return record.msg != _INVALID
