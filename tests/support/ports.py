"""TCP ports for what a test starts: none that an outgoing connection or another test is given meanwhile."""

import os
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache

__all__ = ["distant_port", "quiet_ports"]

#: Ports that no outgoing connection is given, so that a server finds its own free when it starts, and starts again.
QUIET_PORTS = range(12_000, 32_000)


@cache
def _choice() -> random.Random:
    """Return a choice of ports of this process's own, so that others who test meanwhile choose others."""
    return random.Random(os.getpid())  # noqa: S311 - ports, not secrets


@contextmanager
def quiet_ports(count: int) -> Iterator[list[int]]:
    """Yield so many ports on which nobody listens, kept from others who choose here until this ends.

    Also while nobody listens on them, as between two lives of a server: a socket that is bound and never listens stands
    in the way of whoever does not say SO_REUSEADDR. Servers do.
    """
    with ExitStack() as stack:
        found = list[int]()
        while len(found) < count:
            port = _choice().choice(QUIET_PORTS)
            keeper = stack.enter_context(socket.socket())
            with suppress(OSError):
                keeper.bind(("127.0.0.1", port))
                keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                found.append(port)
        yield found


def distant_port() -> int:
    """Return a port nobody listens on, apart from those that the system gives to outgoing connections of other tests."""
    with quiet_ports(1) as (port,):
        return port
