"""The doors for balancers: what they understand, whom they throw out, and that one guest harms no other."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from farmlease.node.concurrency import Actor
from farmlease.node.http import probe_server
from farmlease.node.http.door import Bounds, Place
from farmlease.node.http.door import Door as ListeningDoor
from farmlease.node.http.probe_answers import Answer
from farmlease.node.http.probe_server import agent_checking, probing
from farmlease.node.http.server import listening_socket
from farmlease.node.logs import Log
from tests.support.patience import within
from tests.support.ports import distant_port

Door = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Knock = Callable[[], "asyncio.Future[Door]"]
PATIENCE = 0.3


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience of a fraction of a second, so that the tests see its end."""
    monkeypatch.setattr(probe_server, "PATIENCE", within(PATIENCE / 2))
    monkeypatch.setattr(probe_server, "FAREWELL", within(PATIENCE / 2))


@pytest.fixture(autouse=True)
def _no_fault(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing here may leave a fault in the log: asyncio tells of what a connection raised, and of no more."""
    yield
    assert [] == [record.message for record in caplog.records if record.name == "asyncio"]


@asynccontextmanager
async def served(serve: Callable[..., Actor]) -> AsyncIterator[Callable[[], "asyncio.Future[Door]"]]:
    """Run a listener; yields what connects to it. All connections are closed at the end."""
    port = distant_port()
    doors: list[Door] = []
    with listening_socket(f"127.0.0.1:{port}") as listener:
        actor = serve(listener, Log())
        running = asyncio.ensure_future(actor.run())

        async def knock() -> Door:
            door = await asyncio.open_connection("127.0.0.1", port)
            doors.append(door)
            return door

        try:
            yield lambda: asyncio.ensure_future(knock())
        finally:
            actor.interrupt()
            await running
            for _, writer in doors:
                writer.close()


def said(method: str, path: str, accept: str) -> Answer:
    """Answer with what was asked."""
    return Answer(200, "text/plain", f"{method} {path} {accept}\n".encode())


@pytest.fixture
async def knock() -> AsyncIterator[Knock]:
    """A way to connect to a listener that says what it was asked."""
    async with served(partial(probing, said)) as way:
        yield way


async def ask(door: Door, request: bytes) -> bytes:
    """Send a request on an open connection and read one whole answer."""
    reader, writer = door
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return head + (b"" if request.startswith(b"HEAD") else await reader.readexactly(length))


async def to_the_end(door: Door, request: bytes) -> bytes:
    """Send a request; return all that comes until the other side closes, however it does that."""
    reader, writer = door
    got = b""
    try:
        writer.write(request)
        while chunk := await reader.read(65_536):
            got += chunk
    except ConnectionResetError:
        pass
    return got


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /readyz HTTP/1.0\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n",
        b"GET /readyz?x=1 HTTP/1.0\n\n",
        b"OPTIONS /readyz HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
        b"GET http://node:8732/readyz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n",
        b"GET HTTP://[2001:db8::11]:8732/readyz?x=http://y/ HTTP/1.0\r\n\r\n",
        b"GET https://node/readyz HTTP/1.1\r\nConnection: Upgrade, Close\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\nConnection:keep-alive,close , upgrade\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\nConnection: close\r\nConnection: upgrade\r\n\r\n",
        b"GET /readyz HTTP/1.0\r\nConnection: upgrade, x\r\n\r\n",
    ],
)
async def test_a_balancers_request(knock: Knock, request_: bytes) -> None:
    """Any version, either kind of line end, with or without Host: one answer, then the end."""
    answer = await to_the_end(await knock(), request_)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nDate: ")
    assert b"\r\nConnection: close" in head
    assert request_.split()[0] + b" /readyz \n" == body


async def test_head_has_no_body_and_says_how_long_it_were(knock: Knock) -> None:
    """The same head as that of GET."""
    answer = await to_the_end(await knock(), b"HEAD /livez HTTP/1.0\r\nAccept: a/b\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (True, b"") == (f"Content-Length: {len('HEAD /livez a/b?')}".encode() in head, body)


@pytest.mark.parametrize(
    "how",
    [
        b"HTTP/1.1\r\nHost: n",
        b"HTTP/1.1\r\nConnection: Keep-Alive",
        b"HTTP/1.1\r\nConnection: closed, x-close",
        b"HTTP/1.0\r\nConnection: keep-alive",
        b"HTTP/1.0\r\nConnection: upgrade , Keep-Alive",
    ],
)
async def test_one_connection_for_many(knock: Knock, how: bytes) -> None:
    """Who keeps the connection may ask again on it."""
    door = await knock()
    for path in (b"/livez", b"/readyz", b"/metrics"):
        assert (await ask(door, b"GET " + path + b" " + how + b"\r\n\r\n")).endswith(b"GET " + path + b" \n")


async def test_several_requests_at_once_are_answered_in_order(knock: Knock) -> None:
    """Pipelining, as far as it is HTTP."""
    requests = b"".join(f"GET /{number} HTTP/1.1\r\nHost: n\r\n\r\n".encode() for number in range(9))
    answer = await to_the_end(await knock(), requests + b"GET /9 HTTP/1.0\r\n\r\n")
    assert [f"/{number}".encode() for number in range(10)] == [
        line.split()[1] for line in answer.split(b"\r\n") for line in line.split(b"\n") if line.startswith(b"GET")
    ]


async def test_a_request_that_comes_in_pieces(knock: Knock) -> None:
    """Wherever it is cut."""
    request = b"GET /readyz HTTP/1.1\r\nHost: node\r\n\r\n"
    for cut in range(1, len(request), 5):
        door = await knock()
        door[1].write(request[:cut])
        await door[1].drain()
        await asyncio.sleep(0)
        assert (await ask(door, request[cut:])).endswith(b"GET /readyz \n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /readyz\r\n\r\n", b"400"),
        (b"GET readyz HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\n\r\n", b"400"),
        (b"GET http:///readyz HTTP/1.1\r\n\r\n", b"400"),
        (b"GET ftp://node/readyz HTTP/1.1\r\n\r\n", b"400"),
        (b"GET ?x HTTP/1.1\r\n\r\n", b"400"),
        (b"GET * HTTP/1.1\r\n\r\n", b"400"),
        (b"GET http://node/readyz#x y HTTP/1.1\r\n\r\n", b"400"),
        (b"get / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 9000, b"431"),
        (b"\r\n" * 5000, b"431"),
    ],
)
async def test_what_is_no_request(knock: Knock, request_: bytes, status: bytes) -> None:
    """One answer that says so, and the end; never a fault in the log."""
    assert (await to_the_end(await knock(), request_)).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    ("target", "path"),
    [(b"http://node", b"/"), (b"http://node?x=/livez", b"/"), (b"http://node/a?b", b"/a"), (b"*", b"*")],
)
async def test_a_targets_path(knock: Knock, target: bytes, path: bytes) -> None:
    """What follows the address, and a slash if nothing does; of the server as a whole it is a star."""
    answer = await to_the_end(await knock(), b"OPTIONS " + target + b" HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nOPTIONS " + path + b" \n")


async def test_a_field_that_comes_twice_is_one_list(knock: Knock) -> None:
    """As HTTP has it."""
    answer = await to_the_end(await knock(), b"GET / HTTP/1.0\r\nAccept: a/b\r\naccept: c/d\r\n\r\n")
    assert answer.endswith(b"GET / a/b,c/d\n")


@pytest.mark.parametrize("count", [1, 3, 200])
async def test_who_sends_no_more_is_answered(knock: Knock, count: int) -> None:
    """To all he has asked, and the connection ends with the last answer, whatever he said of keeping it."""
    reader, writer = await knock()
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: node\r\n\r\n" * count)
    writer.write_eof()
    async with asyncio.timeout(within(PATIENCE * 20)):
        got = await reader.read(-1)
    assert count == got.count(b"\r\n\r\nGET /readyz \n")


async def test_who_sends_no_more_after_half_a_request_is_let_go(knock: Knock, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: it will never be whole. The whole one before it is answered."""
    monkeypatch.setattr(probe_server, "PATIENCE", 60)
    reader, writer = await knock()
    writer.write(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\nHo")
    writer.write_eof()
    async with asyncio.timeout(within(PATIENCE * 20)):
        got = await reader.read(-1)
    assert (1, True) == (got.count(b"HTTP/1.1 200"), got.endswith(b"GET /1 \n"))


async def test_a_body_and_then_no_more(knock: Knock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection ends as soon as the caller has said that it is all."""
    monkeypatch.setattr(probe_server, "PATIENCE", 60)
    reader, writer = await knock()
    writer.write(b"POST /1 HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
    assert b"HTTP/1.1 200 OK\r\n" == await reader.readline()
    writer.write(b"x" * 9)
    writer.write_eof()
    async with asyncio.timeout(within(PATIENCE * 20)):
        assert (await reader.read(-1)).endswith(b"POST /1 \n")


async def test_who_sends_no_more_and_reads_slowly_gets_it_all() -> None:
    """His answers wait for him as another's do."""
    async with served(partial(probing, lambda *_: Answer(200, "text/plain", b"x" * 300_000))) as knock:
        reader, writer = await knock()
        writer.transport.pause_reading()  # type: ignore[attr-defined] # a stream's transport is a read transport
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 20)
        writer.write_eof()
        await asyncio.sleep(probe_server.PATIENCE / 3)
        writer.transport.resume_reading()  # type: ignore[attr-defined] # as above
        async with asyncio.timeout(within(PATIENCE * 20)):
            assert 20 == (await reader.read(-1)).count(b"HTTP/1.1 200")


async def test_a_body_is_read_away(knock: Knock) -> None:
    """Whoever sends one gets his answer, and no second request is found in it."""
    body = b"GET /evil HTTP/1.1\r\n\r\n" * 10
    request = b"POST /readyz HTTP/1.1\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    answer = await to_the_end(await knock(), request)
    assert (1, False) == (answer.count(b"HTTP/1.1 200"), b"evil" in answer)


@pytest.mark.parametrize("whole", [0, 1, 3])
@pytest.mark.parametrize("half", [b"", b"GET /", b"GET /readyz HTTP/1.1\r\nHo"])
async def test_half_a_request_is_dropped(
    knock: Knock, monkeypatch: pytest.MonkeyPatch, half: bytes, whole: int
) -> None:
    """After a few seconds, whether it is the first of its connection or comes behind some that were answered."""
    monkeypatch.setattr(probe_server, "IDLE", PATIENCE if not half else 60)
    async with asyncio.timeout(within(PATIENCE * 20)):
        answer = await to_the_end(await knock(), b"GET /readyz HTTP/1.1\r\nHost: n\r\n\r\n" * whole + half)
    assert whole == answer.count(b"HTTP/1.1 200")


async def drip(door: Door, drop: bytes, pause: float) -> None:
    """Send a drop now and then until the other side has had enough: ConnectionError."""
    reader, writer = door
    while not reader.at_eof():
        writer.write(drop)
        await writer.drain()
        await asyncio.sleep(pause)
    raise ConnectionResetError


async def test_dripping_buys_no_time(knock: Knock) -> None:
    """The time is the request's, not its bytes'."""
    async with asyncio.timeout(within(PATIENCE * 20)):
        with pytest.raises(ConnectionError):
            await drip(await knock(), b"G", probe_server.PATIENCE / 10)


async def test_who_comes_last_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all places are taken, the one that has been here longest without a request goes."""
    monkeypatch.setattr(probe_server, "MOST_GUESTS", 3)
    monkeypatch.setattr(probe_server, "PATIENCE", 60)
    async with served(partial(probing, said)) as knock:
        regular = await knock()
        await ask(regular, b"GET /1 HTTP/1.1\r\n\r\n")
        silent = [await knock() for _ in range(2)]
        await ask(regular, b"GET /2 HTTP/1.1\r\n\r\n")
        for number in range(20):
            assert (await to_the_end(await knock(), b"GET /3 HTTP/1.0\r\n\r\n")).endswith(b"GET /3 \n"), number
        assert b"" == await to_the_end(silent[0], b"")
        assert (await ask(regular, b"GET /4 HTTP/1.1\r\n\r\n")).endswith(b"GET /4 \n")


async def test_who_does_not_take_his_answers_gets_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither memory nor time is spent on a connection that is not read; it is dropped, and others are served."""
    asked: list[int] = []

    def long(*_: str) -> Answer:
        asked.append(1)
        return Answer(200, "text/plain", b"x" * 1_000_000)

    async with served(partial(probing, long)) as knock:
        reader, writer = await knock()
        writer.transport.pause_reading()  # type: ignore[attr-defined] # a stream's transport is a read transport
        for _ in range(100):
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await writer.drain()
        assert b"200" in (await to_the_end(await knock(), b"GET / HTTP/1.0\r\n\r\n"))[:20]
        await asyncio.sleep(probe_server.PATIENCE * 2)
        assert len(asked) < 20
        writer.transport.resume_reading()  # type: ignore[attr-defined] # as above
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(100_000_000)


# --- the agent-check --------------------------------------------------------------------------------------------------


@pytest.fixture
async def check() -> AsyncIterator[Knock]:
    """A way to connect to an agent-check."""
    async with served(partial(agent_checking, lambda: b"up 80%\n")) as way:
        yield way


@pytest.mark.parametrize("sent", [b"", b"be_rds/ctx-01\n", b"no line end", b"x" * 4000])
async def test_one_line_and_the_end(check: Knock, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever agent-send says, the line arrives whole and the connection ends at once."""
    monkeypatch.setattr(probe_server, "PATIENCE", 600)
    monkeypatch.setattr(probe_server, "FAREWELL", 600)
    async with asyncio.timeout(within(PATIENCE * 20)):
        assert b"up 80%\n" == await to_the_end(await check(), sent)


async def test_who_sends_no_more_has_the_line(check: Knock) -> None:
    """Also where he says so before he has read it."""
    reader, writer = await check()
    writer.write(b"be_rds/ctx-01\n")
    writer.write_eof()
    assert b"up 80%\n" == await reader.read(-1)


@pytest.mark.parametrize(("drop", "pause"), [(b"x" * 1000, 0.001), (b"x", PATIENCE / 10)])
async def test_who_goes_on_sending_is_cut_off(check: Knock, drop: bytes, pause: float) -> None:
    """It does not read for ever, neither much nor long, even from one who has not heard that it is over."""
    door = await check()
    assert b"up 80%\n" == await door[0].readline()
    async with asyncio.timeout(within(PATIENCE * 20)):
        with pytest.raises(ConnectionError):
            await until_refused(door, drop, pause)


async def until_refused(door: Door, drop: bytes, pause: float) -> None:
    """Go on sending after the other side has said that it is done."""
    while True:
        door[1].write(drop)
        await door[1].drain()
        await asyncio.sleep(pause)


@pytest.mark.parametrize("serve", [partial(probing, said), partial(agent_checking, lambda: b"up 80%\n")])
async def test_who_resets_the_connection_leaves_no_fault(serve: Callable[..., Actor]) -> None:
    """A balancer that hangs up hard, before or after the line: nobody is told of it, and the next one is served."""
    async with served(serve) as way:
        port = (await way())[1].get_extra_info("peername")[1]
        for _ in range(30):  # gone before the listener has had its turn
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(b"POST / HTTP/1.0\r\nContent-Length: 9\r\n\r\n")
        assert (await to_the_end(await way(), b"GET / HTTP/1.0\r\n\r\n")).endswith(b"\n")


class Gone(asyncio.Transport):
    """A connection that is reset between the line and its end, which no client can do on purpose."""

    aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take it."""

    def write_eof(self) -> None:
        """Find that nobody is there."""
        raise OSError(107, "Transport endpoint is not connected")

    def abort(self) -> None:
        """End it."""
        self.aborted = True


async def test_who_is_gone_between_line_and_end_is_let_go() -> None:
    """That is no fault, and the place is free."""
    gone = Gone()
    with socket.socket() as listener:
        door = ListeningDoor(listener, Bounds("agent_check", most=1, kept=0), lambda _: asyncio.Protocol(), Log())
        guest = probe_server._AgentCheck(Place(door, None), lambda: b"up 80%\n")
        guest.connection_made(gone)
        guest.connection_lost(None)
    assert gone.aborted


async def test_places_at_the_agent_check_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stays is thrown out for who comes."""
    monkeypatch.setattr(probe_server, "MOST_GUESTS", 2)
    async with served(partial(agent_checking, lambda: b"up 80%\n")) as check:
        stayed = [await check() for _ in range(10)]
        for reader, _ in stayed:
            assert b"up 80%\n" == await reader.readline()
        assert b"up 80%\n" == await to_the_end(await check(), b"")


async def test_interrupted_it_ends_with_its_guests() -> None:
    """The listener's end is not held up by who is there."""
    async with served(partial(probing, said)) as knock:
        reader, _ = await knock()
    assert b"" == await reader.read()
