"""HTTP/1.1 for callers who say that they send no more before they have their answer (``shutdown(SHUT_WR)``).

uvicorn takes the end of what a caller sends for the end of the caller, and drops his answer. Here he is answered, and
then the connection ends. Whether he is still there can only be learned by sending him something: while he waits, that
is now and then an interim answer, ``100 Continue``, which each caller of HTTP/1.1 skips. If he has gone, the system
resets the connection, and a session that waits in a queue ends with it. HTTP/1.0 has no interim answers: such a caller
is taken to have gone after a few seconds, within which all answers come but those to who waits in a queue.
"""

from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

__all__ = ["HalfClosedProtocol"]

#: Seconds between two looks whether a caller who sends no more is there.
_LOOK_EVERY = 0.5
#: Seconds for which a caller of HTTP/1.0 who sends no more is taken to be there.
_OLD_CALLER = 10.0
_STILL_HERE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HalfClosedProtocol(H11Protocol):
    """A connection that stays for the answer of a whole request, though its other end sends no more.

    Nothing of this stands in the way of a caller who keeps his half open: no other event is looked at.
    """

    @override
    def eof_received(self) -> bool:  # type: ignore[override] # as asyncio has it: whether to stay open
        """Stay while a request is being answered. Half a request will never be whole."""
        if not self._is_answering():
            return False
        if not self.conn.trailing_data[0]:
            self.cycle.keep_alive = False  # as uvicorn's own end has it: this answer is the last
        if self.cycle.scope["http_version"] == "1.0":
            self.loop.call_later(_OLD_CALLER, self.transport.abort)
        else:
            self.loop.call_later(_LOOK_EVERY, self._look)
        return True

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.more_body and not cycle.response_complete

    def _look(self) -> None:
        """Learn whether the caller is there; end the connection after the last of several answers."""
        if not self._is_answering():
            self.transport.close()
        elif not self.transport.is_closing():
            if not self.cycle.response_started:
                self.transport.write(_STILL_HERE)
            self.loop.call_later(_LOOK_EVERY, self._look)
