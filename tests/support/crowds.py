"""Crowds at an agent's doors: connections of another user of this host, or of anybody, that stay and say little.

``python -m tests.support.crowds ADDRESS UID COUNT HEX`` opens so many, says so, and keeps them until its end.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["crowd"]

#: Runs alone and as any user, who may not be able to read our sources or to start our Python.
_PROGRAM = """
import os, resource, select, socket, sys, time
address, uid, count, said, again = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4]), sys.argv[5]
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
if uid:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(uid)

def come():
    host, _, port = address.rpartition(":")
    try:
        if address.startswith("unix:"):
            one = socket.socket(socket.AF_UNIX)
            one.settimeout(10)
            one.connect(address[5:])
        else:
            one = socket.create_connection((host, int(port)), 10)
        one.sendall(said)
        if again == "answered":
            one.recv(1)
    except OSError:
        pass
    return one

guests = {}
poll = select.poll()

def more():
    one = come()
    guests[one.fileno()] = one
    poll.register(one, select.POLLHUP | select.POLLERR | select.POLLRDHUP)

for _ in range(count):
    more()
print("here", flush=True)
while True:
    time.sleep(0.3)
    for number, _ in poll.poll(0) if again == "again" else ():
        poll.unregister(number)
        guests.pop(number).close()
        more()
"""


@contextmanager
def crowd(address: str, said: bytes, count: int, *, uid: int = 0, then: str = "") -> Iterator[None]:
    """Keep so many connections to an address open that have sent this, of a user of this host (only root can).

    ``then``: "again", where one is ended another one comes; "answered", each waits for its answer before the next comes.
    """
    words = [address, str(uid), str(count), said.hex(), then]
    with subprocess.Popen([sys.executable, "-I", "-c", _PROGRAM, *words], cwd="/", stdout=subprocess.PIPE) as people:
        try:
            assert people.stdout is not None
            assert b"here\n" == people.stdout.readline()
            yield
        finally:
            people.kill()
