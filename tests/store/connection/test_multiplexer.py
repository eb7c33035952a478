"""One network connection for many calls: sent together, each answered with its own, whoever gives up or is cut off."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import redis
from hiredis import Reader
from redis import asyncio as driver
from typing_extensions import override

from farmlease.errors import StoreRefused, StoreUnavailable
from farmlease.store.connection.connection import Connection, StoreAddress, open_connection
from farmlease.store.connection.socket import take_over
from tests.support.patience import until
from tests.support.proxy import proxy
from tests.support.scripts import ADD, ECHO, SLOW
from tests.support.servers import RedisServer, redis_server


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Run a server on a port."""
    with redis_server(tcp=True) as running:
        yield running


def ours(server: RedisServer) -> list[str]:
    """Return the ids of our network connections to a server."""
    with server.client() as client:
        return sorted(each["id"] for each in client.client_list() if each["name"] == "farmlease")


async def said(connection: Connection, word: str) -> str:
    """Ask for a word, and return what comes back."""
    (answer,) = await connection.call(ECHO, [], [word])
    return str(answer.decode())


async def left(server: RedisServer, number: int) -> None:
    """Return when the server has noticed that only so many of our connections are still open."""
    await until(lambda: len(ours(server)) == number, f"not {number} connections")


async def test_many_calls_at_once_use_one_connection_and_few_messages(server: RedisServer) -> None:
    """Fifty calls of one turn of the event loop travel together, and each gets its own answer."""
    async with await open_connection(StoreAddress(url=server.url)) as connection:
        await said(connection, "first")
        with server.client() as client:
            before = client.info("stats")["total_reads_processed"]
            words = [f"word {number}" for number in range(50)]
            assert words == await asyncio.gather(*(said(connection, word) for word in words))
            reads = client.info("stats")["total_reads_processed"] - before
        assert 1 == len(ours(server))
    assert reads < 10, "of the server, the two questions of this test included"
    await left(server, 0)


async def test_who_gives_up_disturbs_nobody(server: RedisServer) -> None:
    """A cancelled call's answer is dropped; the calls before and behind it get theirs over the same connection."""
    async with await open_connection(StoreAddress(url=server.url, timeout_ms=20_000)) as connection:
        await connection.call(SLOW, [], ["a server that knows the script"])
        before = ours(server)
        with server.standing_still():
            slow = asyncio.create_task(connection.call(SLOW, [], ["slow"]))
            await asyncio.sleep(0)
            calls = [asyncio.create_task(said(connection, str(number))) for number in range(30)]
            await asyncio.sleep(0.05)
            slow.cancel()
            for call in calls[::3]:
                call.cancel()
        answers = await asyncio.gather(slow, *calls, return_exceptions=True)
        assert isinstance(answers.pop(0), asyncio.CancelledError)
        assert [str(number) for number in range(30) if number % 3] == [
            each for each in answers if isinstance(each, str)
        ]
        assert before == ours(server)


async def test_a_line_on_which_nothing_comes_back_is_left(server: RedisServer) -> None:
    """After a call waited in vain the next try uses another connection, and the dead one is closed with its last call."""
    with proxy(server.port) as between:
        address = StoreAddress(url=f"redis://127.0.0.1:{between.port}", timeout_ms=1500)
        async with await open_connection(address) as connection:
            await said(connection, "first")
            (first,) = ours(server)
            between.stuck_down = True
            lost = [asyncio.create_task(said(connection, str(number))) for number in range(5)]
            await asyncio.sleep(0.2)
            late = asyncio.create_task(said(connection, "late"))
            await until(lambda: {*ours(server)} - {first} != set(), "no other connection is tried")
            between.stuck_down = False
            assert ["0", "1", "2", "3", "4", "late"] == await asyncio.gather(*lost, late)
            await left(server, 1)
            assert [first] != ours(server)
    await left(server, 0)


async def test_a_connection_lost_while_idle_costs_no_try(server: RedisServer) -> None:
    """That the server hung up is noticed when it happens: the next call asks over a new connection at its first try."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with await open_connection(StoreAddress(url=server.url), sleep=sleep) as connection:
        await said(connection, "first")
        with server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        await left(server, 0)
        await asyncio.sleep(0.05)
        assert "second" == await said(connection, "second")
    assert [] == waits


async def test_a_lost_connection_tells_everybody_who_waits(server: RedisServer) -> None:
    """All calls under way hear of it at once, ask again over a new connection, and each was carried out."""
    async with await open_connection(StoreAddress(url=server.url, timeout_ms=20_000)) as connection:
        await said(connection, "first")
        with server.client() as client:
            client.delete("sum")
            slow = asyncio.create_task(connection.call(SLOW, [], ["slow"]))
            await asyncio.sleep(0)
            calls = [asyncio.create_task(connection.call(ADD, ["sum"], [1])) for _ in range(20)]
            await asyncio.sleep(0.02)
            hang_up(server)
            await asyncio.gather(slow, *calls)
            assert int(client.get("sum")) >= 20


def hang_up(server: RedisServer) -> None:
    """Let the server end all our connections, after the script that it is busy with."""
    with server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)


async def test_closing_ends_what_is_under_way(server: RedisServer) -> None:
    """Who still waits when the store is closed hears that it is lost, and no connection stays."""
    connection = await open_connection(StoreAddress(url=server.url, timeout_ms=20_000))
    await said(connection, "first")
    with server.standing_still():
        waiting = asyncio.create_task(connection.ping())
        await asyncio.sleep(0.05)
        await connection.close()
        with pytest.raises(StoreUnavailable, match="was lost"):
            await waiting
    await left(server, 0)


async def test_who_waits_for_replicas_makes_nobody_else_wait() -> None:
    """With ``wait_replicas`` each call has a connection of its own: WAIT stops only the connection it is said on."""
    with redis_server() as alone:
        async with await open_connection(StoreAddress(url=alone.url, wait_replicas=1)) as connection:
            await asyncio.gather(*(said(connection, str(number)) for number in range(5)))
            assert 5 == len(ours(alone))


@asynccontextmanager
async def odd_server(answer: Callable[[asyncio.StreamWriter, list[bytes]], None]) -> AsyncIterator[StoreAddress]:
    """Listen as a server that greets in order, and leaves every script to ``answer``."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = Reader()
        while data := await reader.read(1 << 16):
            commands.feed(data)
            while command := commands.gets():
                match command:
                    case [b"INFO", _]:
                        told = b"run_id:1\r\nrole:master\r\n"
                        writer.write(b"$%d\r\n%b\r\n" % (len(told), told))
                    case [b"EVALSHA", *_]:
                        answer(writer, command)
                    case _:
                        writer.write(b"+OK\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        yield StoreAddress(url=f"redis://127.0.0.1:{port}", timeout_ms=2_000)


def echoed(command: list[bytes]) -> bytes:
    """Return ECHO's answer."""
    return b"*1\r\n$%d\r\n%b\r\n" % (len(command[-1]), command[-1])


async def test_an_answer_in_pieces_is_one_answer() -> None:
    """However the network cuts an answer up, it is handed over when it is whole."""

    def piecemeal(writer: asyncio.StreamWriter, command: list[bytes]) -> None:
        whole = echoed(command)
        for at in range(len(whole)):
            asyncio.get_running_loop().call_later(0.002 * at, writer.write, whole[at : at + 1])

    async with odd_server(piecemeal) as address, await open_connection(address) as connection:
        assert "in pieces" == await said(connection, "in pieces")


async def test_an_error_is_its_caller_s_alone() -> None:
    """One call is refused, be it as by a server that still loads; the others of that moment have their answers."""

    def refuse_one(writer: asyncio.StreamWriter, command: list[bytes]) -> None:
        match command[-1]:
            case b"3":
                writer.write(b"-LOADING Redis is loading the dataset in memory\r\n")
            case b"5":
                writer.write(b"-MISCONF the disk\r\n")
            case _:
                writer.write(echoed(command))

    async with odd_server(refuse_one) as address, await open_connection(address) as connection:
        answers = await asyncio.gather(*(said(connection, str(number)) for number in range(8)), return_exceptions=True)
    assert ["0", "1", "2", "4", "6", "7"] == [each for each in answers if isinstance(each, str)]
    assert isinstance(answers[3], StoreUnavailable)
    assert isinstance(answers[5], StoreRefused)


@pytest.mark.parametrize("nonsense", [b"what?\r\n", b"$-7\r\n", b"*1\r\n$1\r\nx\r\n*1\r\n$1\r\nx\r\n"])
async def test_a_server_that_talks_nonsense_is_left(nonsense: bytes) -> None:
    """What is no answer, or one more than was asked for, ends the connection: no later call gets what is not its own."""
    heard: list[bytes] = []

    def once(writer: asyncio.StreamWriter, command: list[bytes]) -> None:
        heard.append(command[-1])
        writer.write(nonsense if len(heard) == 1 else echoed(command))

    async with odd_server(once) as address, await open_connection(address) as connection:
        await said(connection, "x")
        assert "second" == await said(connection, "second")


async def test_a_connection_that_ended_before_it_was_handed_over_is_lost(server: RedisServer) -> None:
    """The driver has heard of the end, and nobody will say it again: it must be told, or the first call waits in vain."""
    heard = list[Exception | None]()

    class Taker(asyncio.Protocol):
        @override
        def connection_lost(self, error: Exception | None) -> None:
            heard.append(error)

    pool = driver.ConnectionPool.from_url(server.url, client_name="farmlease")
    connection = await pool.get_connection()
    hang_up(server)
    await left(server, 0)
    await asyncio.sleep(0.05)
    take_over(connection, Taker())
    assert [None] == heard
    await connection.disconnect(nowait=True)


def test_the_driver_takes_what_we_pack() -> None:
    """A command packed for us is what the driver itself would send."""
    from hiredis import pack_command  # noqa: PLC0415 - what is compared

    words = ("EVALSHA", b"\xff\r\n", 12, "ärger", "")
    assert b"".join(redis.connection.Connection().pack_command(*words)) == pack_command(words)  # type: ignore[arg-type] # its types know one word only
