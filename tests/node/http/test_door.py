"""The door of the API: how long a connection may wait for its caller, whom it makes room for, and what is logged."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from farmlease.node.http import api_protocol, door, server
from farmlease.node.http.door import Bounds, Door, Place, peer_uid
from farmlease.node.http.server import listening_socket, serving
from farmlease.node.logs import Log
from tests.support.patience import within

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no Unix sockets")

SHORT = 0.3
REQUEST = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Knock = Callable[[], Awaitable[Connection]]


@pytest.fixture(autouse=True)
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What is logged; and seconds that are short."""
    for name in ("HEAD", "BODY", "TAKEN"):
        monkeypatch.setattr(api_protocol, name, within(SHORT / 2))
    monkeypatch.setattr(door, "LOOK_EVERY", SHORT)
    with structlog.testing.capture_logs() as events:
        yield events  # type: ignore[misc] # of dictionaries


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read the body; answer at once, at great length, or when asked again."""
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/waits":
        await receive()
    answer = b"x" * (10_000_000 if scope["path"] == "/long" else 2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})


@pytest.fixture
async def knock(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Knock]:
    """A way to connect to the API's server on a Unix socket."""
    path = tmp_path_factory.mktemp("s") / "api.sock"
    connections: list[Connection] = []
    with listening_socket(f"unix:{path}") as listener:
        actor = serving(app, listener, Log())
        running = asyncio.ensure_future(actor.run())

        async def connect() -> Connection:
            connections.append(await asyncio.open_unix_connection(path))
            return connections[-1]

        yield connect
        actor.interrupt()
        await running
        for _, writer in connections:
            writer.close()


async def asked(connection: Connection, request: bytes = REQUEST) -> bytes:
    """Ask on an open connection; return the head of the answer."""
    connection[1].write(request)
    async with asyncio.timeout(within(20)):
        head = await connection[0].readuntil(b"\r\n\r\n")
        await connection[0].readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
    return head


async def rest(connection: Connection) -> bytes:
    """Read until the other side ends it, however it does."""
    got = b""
    async with asyncio.timeout(within(20)):
        try:
            while more := await connection[0].read(65_536):
                got += more
        except ConnectionError:
            pass
    return got


@pytest.mark.parametrize("place", ["first", "later", "behind"])
@pytest.mark.parametrize(
    ("half", "fault"),
    [
        (b"GET /quick HT", "listener.slow_head"),
        (b"POST /quick HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234", "listener.slow_body"),
        (b"POST /quick HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234", "listener.slow_body"),
    ],
)
async def test_half_a_request_is_dropped(
    knock: Knock, logged: list[dict[str, Any]], half: bytes, fault: str, place: str
) -> None:
    """After its time, and the log says once what was late, where, and whose it was; also where it came too early."""
    for _ in range(3):
        connection = await knock()
        if place == "later":
            await asked(connection)
        before = REQUEST * 2 if place == "behind" else b""
        connection[1].write(before + half)
        assert before.count(b"GET") == (await rest(connection)).count(b" 200 ")
    assert [{"event": fault, "listener": "api", "uid": os.getuid(), "times": 1, "log_level": "warning"}] == logged


async def test_a_request_has_its_own_time(knock: Knock) -> None:
    """What the agent takes for its answer counts for nobody's patience, nor do requests before."""
    connection = await knock()
    for _ in range(4):
        assert b"200" in await asked(connection)
        await asyncio.sleep(api_protocol.HEAD * 0.7)
    for before in (b"", REQUEST):
        waiting = await knock()
        waiting[1].write(before + b"GET /waits HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(api_protocol.HEAD * 4)
        assert not waiting[0].at_eof()


async def test_an_answer_that_nobody_reads(knock: Knock, logged: list[dict[str, Any]]) -> None:
    """It is given up: neither memory nor a place is kept for it for ever."""
    connection = await knock()
    connection[1].transport.pause_reading()  # type: ignore[attr-defined] # a stream's transport is a read transport
    connection[1].write(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.sleep(api_protocol.TAKEN * 4)
    connection[1].transport.resume_reading()  # type: ignore[attr-defined] # as above
    assert len(await rest(connection)) < 10_000_000
    assert ["listener.slow_answer"] == [each["event"] for each in logged]


async def test_what_is_no_http_is_answered_and_logged_once(knock: Knock, logged: list[dict[str, Any]]) -> None:
    """With its caller."""
    for _ in range(5):
        connection = await knock()
        connection[1].write(b"\x16\x03\x01\r\n\r\n")
        assert (await rest(connection)).startswith(b"HTTP/1.1 400")
    assert [("listener.invalid_request", os.getuid())] == [(each["event"], each["uid"]) for each in logged]


async def test_an_idle_connection_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After its time without a request; a fault it is not."""
    monkeypatch.setattr(server, "IDLE", 1)
    with listening_socket(f"unix:{tmp_path}/api.sock") as listener:
        actor = serving(app, listener, Log())
        running = asyncio.ensure_future(actor.run())
        connection = await asyncio.open_unix_connection(tmp_path / "api.sock")
        assert b"200" in await asked(connection)
        assert b"" == await rest(connection)
        connection[1].close()
        actor.interrupt()
        await running


# --- who makes room for whom ----------------------------------------------------------------------------------------------


class Crowd:
    """A door of six places, of which one is root's, with connections of users that the test makes up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.listener, self.ours = socket.socketpair()
        self.uids: dict[int, int | None] = {}
        monkeypatch.setattr(door, "peer_uid", lambda each: self.uids[each.fileno()])
        monkeypatch.setattr(door, "_own_uid", lambda: 77)
        bounds = Bounds("api", most=6, kept=0, of_one_user=3, for_root=1, refusal=b"503")
        self.door = Door(self.listener, bounds, self._welcomed, Log())
        self.places: list[Place] = []
        self._callers: list[socket.socket] = []

    def _welcomed(self, place: Place) -> asyncio.Protocol:
        self.places.append(place)

        class Guest(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                place.enter(transport)

            def connection_lost(self, _: Exception | None) -> None:
                place.free()

        return Guest()

    async def comes(self, uid: int | None, *, is_served: bool = False) -> socket.socket:
        """A connection of this user; return his end of it."""
        its, his = socket.socketpair()
        self.uids[its.fileno()] = uid
        its.settimeout(0)
        his.settimeout(within(5))
        self._callers.append(his)
        known = len(self.places)
        await self.door._welcome_in(its)
        await asyncio.sleep(0)
        if is_served and len(self.places) > known:
            self.places[-1].serve(lambda: False, lambda: None)
        return his

    async def go(self) -> None:
        """All connections end."""
        self.door.empty()
        await some_turns()
        for each in (self.listener, self.ours, *self._callers):
            each.close()


async def some_turns() -> None:
    """Let the event loop do all that it has to, however slow the machine is."""
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)


def is_open(connection: socket.socket) -> bool:
    """Whether the other side still has it."""
    connection.settimeout(0)
    try:
        return connection.recv(100) not in {b"", b"503"}
    except BlockingIOError:
        return True
    except OSError:
        return False


async def standing(*connections: socket.socket) -> list[bool]:
    """Which connections are open, once what is to happen has happened."""
    await some_turns()
    return [is_open(each) for each in connections]


@pytest.fixture
async def crowd(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Crowd]:
    """The door."""
    made = Crowd(monkeypatch)
    yield made
    await made.go()


async def test_a_share_is_used_up(crowd: Crowd) -> None:
    """The user's own oldest one makes room, and nobody else's; one that is served does not; then he is refused."""
    other, first = await crowd.comes(1), await crowd.comes(2, is_served=True)
    second, third, fourth = [await crowd.comes(2) for _ in range(3)]
    assert [True, True, False, True, True] == await standing(other, first, second, third, fourth)
    for _ in range(2):
        await crowd.comes(2, is_served=True)
    assert [True, True, False, False] == await standing(other, first, third, fourth)
    refused = await crowd.comes(2)
    assert b"503" == refused.recv(100)


async def test_all_places_are_taken(crowd: Crowd) -> None:
    """Who has most makes room for who has less; for one who has as many it is his own."""
    of_two = [await crowd.comes(2) for _ in range(3)]
    of_three = [await crowd.comes(3) for _ in range(2)]
    newcomer = await crowd.comes(4)
    assert [False, True, True, True, True, True] == await standing(*of_two, *of_three, newcomer)
    more = await crowd.comes(3)
    assert [False, True] == await standing(of_three[0], more)


async def test_root_and_the_agents_own_user_find_a_place(crowd: Crowd) -> None:
    """One is kept for them; after that anybody else's waiting one makes room, and theirs for no one else."""
    others = [await crowd.comes(uid, is_served=uid != 5) for uid in (2, 3, 4, 5, 6)]
    root, own = await crowd.comes(0), await crowd.comes(77)
    assert [True, True, True, False, True, True, True] == await standing(*others, root, own)
    refused = await crowd.comes(8)
    assert b"503" == refused.recv(100)
    assert [True, True] == await standing(root, own)


async def test_over_tcp_the_longest_silent_makes_room(crowd: Crowd) -> None:
    """Nobody is known there before he has asked."""
    first, second, *_ = [await crowd.comes(None) for _ in range(6)]
    crowd.places[0].asked()
    await crowd.comes(None)
    assert [True, False] == await standing(first, second)


async def test_descriptors_are_kept(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection on one of the last descriptors goes down to one that another gave up, or is refused."""
    first = await crowd.comes(0)
    number = max(crowd.uids) + 1
    monkeypatch.setattr(crowd.door, "_descriptors", number)
    second = await crowd.comes(0)
    assert [False, True] == await standing(first, second)
    crowd.places[-1].serve(lambda: False, lambda: None)
    refused = await crowd.comes(0)
    assert b"503" == refused.recv(100)


async def test_a_listener_without_descriptors_waits_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, logged: list[dict[str, Any]], tmp_path: Path
) -> None:
    """EMFILE is a line, not a stream of them: a waiting connection is ended, and the next try comes a little later."""
    loop = asyncio.get_running_loop()
    accept, faults = loop.sock_accept, 3

    async def failing(listener: socket.socket) -> tuple[socket.socket, Any]:
        nonlocal faults
        faults -= 1
        if faults >= 0:
            raise OSError(24, "Too many open files")
        return await accept(listener)

    monkeypatch.setattr(loop, "sock_accept", failing)
    with listening_socket(f"unix:{tmp_path}/api.sock") as listener:
        actor = serving(app, listener, Log())
        running = asyncio.ensure_future(actor.run())
        connection = await asyncio.open_unix_connection(tmp_path / "api.sock")
        assert b"200" in await asked(connection)
        connection[1].close()
        actor.interrupt()
        await running
    assert [("listener.accept_failed", "Too many open files")] == [(each["event"], each["why"]) for each in logged]


def test_sockets_that_tell_nothing() -> None:
    """No socket and a TCP socket have no peer uid."""
    with socket.socket() as tcp:
        assert (None, None) == (peer_uid(None), peer_uid(tcp))


def test_who_is_refused_gets_a_problem_document() -> None:
    """As any other 503 of the API."""
    head, _, body = server._REFUSAL.partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head
    assert 503 == json.loads(body)["status"]
