"""``python -m tests.support.storm PORT SECONDS RATE``: a storm of probes on a health listener, and slow ones among them.

Each probe is a connection of its own, as balancers make them, evenly spread over time. Beside them stand connections
that sent half a request, or send one byte now and then, and connections that never read their answers; those that the
agent drops are made anew. Prints what came of it as JSON. ``raging`` runs it beside a test.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.patience import within

__all__ = ["Storm", "raging"]

ROOT = Path(__file__).parents[2]
HALF_SENT, DRIPPING, DEAF = 100, 50, 20
WHOLE = b"GET /readyz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"
HALF = b"GET /readyz HTTP/1.1\r\nHost: no"


@dataclass(slots=True)
class Storm:
    """A storm that rages. ``told`` once it is over: probes, answered, dropped (slow ones), seconds."""

    process: subprocess.Popen[bytes]
    told: dict[str, float]


@contextmanager
def raging(port: int, rate: int = 1_000) -> Iterator[Storm]:
    """Let a storm rage for as long as this lasts."""
    command = [sys.executable, "-m", "tests.support.storm", str(port), "600", str(rate)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    storm = Storm(process, {})
    try:
        assert b"raging\n" == process.stdout.readline()
        yield storm
    finally:
        said, _ = process.communicate(timeout=within(30))  # the end of its input ends it
        storm.told = json.loads(said)


def main() -> None:
    """Rage until the time is over or nobody holds the other end of standard input."""
    port, seconds, rate = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    os.set_blocking(0, False)
    slow = [Slow(port, number) for number in range(HALF_SENT + DRIPPING + DEAF)]
    sys.stdout.write("raging\n")
    sys.stdout.flush()
    began = time.monotonic()
    probes = answered = 0
    while (now := time.monotonic()) - began < seconds:
        if probes % 50 == 0 and over():
            break
        slow[probes % len(slow)].go_on()
        answered += probe(port)
        probes += 1
        # Who is late does not catch up by more than a tenth of a second: a burst is not a rate.
        began = max(began, now - probes / rate - 0.1) if now - began > probes / rate + 0.1 else began
        time.sleep(max(0.0, began + probes / rate - time.monotonic()))
    told = {"probes": probes, "answered": answered, "dropped": sum(each.dropped for each in slow)}
    sys.stdout.write(json.dumps({**told, "seconds": time.monotonic() - began}))


def over() -> bool:
    """Whether the other end of standard input was closed."""
    with contextlib.suppress(BlockingIOError):
        return not os.read(0, 1)
    return False


def probe(port: int) -> bool:
    """Send one probe; return whether it was answered well."""
    try:
        with socket.create_connection(("127.0.0.1", port), within(5)) as connection:
            connection.sendall(WHOLE)
            return b"".join(iter(lambda: connection.recv(4096), b"")).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


class Slow:
    """A connection that holds one up: by its number it sends half a request, drips, or does not read."""

    def __init__(self, port: int, number: int) -> None:
        self.dropped = 0
        self._port = port
        self._number = number
        self._connect()

    def go_on(self) -> None:
        """Send a little more, and come again if thrown out."""
        try:
            if self._number >= HALF_SENT + DRIPPING:
                self._connection.send(WHOLE.replace(b"Connection: close\r\n", b"") * 20)
            elif self._number >= HALF_SENT:
                self._connection.send(b"x")
            elif self._connection.recv(1) == b"":
                raise ConnectionResetError
        except BlockingIOError:
            pass
        except OSError:
            self.dropped += 1
            self._connection.close()
            self._connect()

    def _connect(self) -> None:
        self._connection = socket.create_connection(("127.0.0.1", self._port), within(5))
        self._connection.send(HALF)
        self._connection.setblocking(False)  # noqa: FBT003 - the library's own


if __name__ == "__main__":
    main()
