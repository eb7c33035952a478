"""A store that moves behind its address: a proxy, a virtual address or a name leads to another server by now.

What a server says of itself then (that it is a replica, that it loads, that its master is away) belongs to the network
connection: the same call, or at the latest the next one, goes over a new connection to wherever the address leads.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hiredis import Reader

from farmlease.errors import StoreError, StoreRefused, StoreUnavailable
from farmlease.store.connection import multiplexer
from farmlease.store.connection import socket as connecting
from farmlease.store.connection.connection import Connection, StoreAddress, open_connection
from farmlease.store.script import LIFE
from tests.support.members import Member, on_quiet_ports, wait_until
from tests.support.patience import turns, within
from tests.support.ports import distant_port
from tests.support.proxy import Proxy, proxy
from tests.support.scripts import ADD, ECHO, WRITE

NAME = "store.farm.example"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Pair:
    """A master and its replica, and the way by which clients reach one of them."""

    old: Member
    new: Member
    way: Proxy

    @property
    def url(self) -> str:
        """How clients reach the store."""
        return f"redis://127.0.0.1:{self.way.port}/0"

    def switch(self, *, cut: bool = False) -> None:
        """Make the other one the master and the address lead to it; connections that are open stay open."""
        wait_until(lambda: self.new.replicates(self.old) or None, "a replica with all that its master has")
        self.new.ask("REPLICAOF", "NO", "ONE")
        self.old.ask("REPLICAOF", "127.0.0.1", self.new.port)
        self.way.lead_to(self.new.port)
        if cut:
            self.way.cut()
            self.way.mend()


@contextmanager
def pair() -> Iterator[Pair]:
    """Run two servers, one of them the other's replica."""
    given = ("--save", "", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")

    def make(folder: Any, ports: list[int]) -> list[Member]:
        config = f"replicaof 127.0.0.1 {ports[0]}\n"
        return [
            Member(folder / "old", *given, port=ports[0]),
            Member(folder / "new", *given, port=ports[1], config=config),
        ]

    with on_quiet_ports(2, make) as (old, new), proxy(old.port) as way:
        wait_until(lambda: new.replicates(old) or None, "a replica")
        yield Pair(old, new, way)


@pytest.mark.parametrize("exclusive", [False, True], ids=["shared", "exclusive"])
@pytest.mark.parametrize("stale", ["yes", "no"], ids=["READONLY", "MASTERDOWN"])
async def test_a_master_that_was_demoted_behind_its_address_is_left(stale: str, *, exclusive: bool) -> None:
    """Open connections still lead to it, and it refuses to write: the call that hears it is carried out by the new one."""
    with pair() as two:
        two.old.ask("CONFIG", "SET", "replica-serve-stale-data", stale)
        address = StoreAddress(url=two.url, wait_replicas=int(exclusive))
        async with await open_connection(address) as connection:
            calls = [connection.call(ADD, ["sum"], []) for _ in range(20)]  # with wait_replicas, as many connections
            assert list(range(1, 21)) == sorted(answer[0] for answer in await asyncio.gather(*calls))
            two.switch()
            if stale == "no":
                two.new.stop()  # its link to its master goes, so that it says MASTERDOWN
                two.old.ask("CLIENT", "KILL", "TYPE", "master")
                two.new.resume()
            began = time.monotonic()
            for expected in range(21, 41):
                assert [expected] == await connection.call(ADD, ["sum"], [])
            assert time.monotonic() - began < within(3)
        assert "40" == two.new.ask("GET", "sum")


async def test_forty_calls_under_way_when_the_master_is_demoted() -> None:
    """Each is answered, by one server or the other, within its own time."""
    with pair() as two:
        async with await open_connection(StoreAddress(url=two.url)) as connection:
            await connection.call(WRITE, ["k"], ["before"])

            async def work(number: int) -> None:
                for turn in range(10):
                    await connection.call(WRITE, [f"k{number}"], [f"{turn}"])
                    await asyncio.sleep(0.02)

            workers = [asyncio.create_task(work(number)) for number in range(40)]
            await asyncio.sleep(0.06)
            await asyncio.to_thread(two.switch)
            await asyncio.gather(*workers)
        assert ["9"] * 40 == [two.new.ask("GET", f"k{number}") for number in range(40)]


# --- a name


@dataclass(slots=True)
class Names:
    """A name of the tests' own, and where it leads."""

    to: str
    asked: int = 0


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Have a name resolved as the test says, at the seam where every resolution of this process passes."""
    real, held = socket.getaddrinfo, Names("127.0.0.1")

    def resolve(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if host != NAME:
            return real(host, port, *more, **named)
        held.asked += 1
        return real(held.to, port, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return held


@contextmanager
def twins() -> Iterator[tuple[Member, Member]]:
    """Run two servers on one port of two addresses, both masters."""
    with ExitStack() as stack:

        def make(folder: Any, ports: list[int]) -> list[Member]:
            second = Member(folder / "second", "--save", "", "--bind", "127.0.0.2", port=ports[0])
            return [Member(folder / "first", "--save", "", port=ports[0]), second]

        first, second = stack.enter_context(on_quiet_ports(1, make))
        yield first, second


async def test_a_name_is_resolved_anew_when_its_server_is_demoted(names: Names) -> None:
    """DNS that changes with a fail-over: the call that hears READONLY is carried out where the name leads by then."""
    with twins() as (first, _):
        async with await open_connection(StoreAddress(url=f"redis://{NAME}:{first.port}/0")) as connection:
            await connection.call(WRITE, ["k"], ["first"])
            assert 1 == names.asked
            names.to = "127.0.0.2"
            first.ask("REPLICAOF", "127.0.0.1", "1")
            await connection.call(WRITE, ["k"], ["second"])
    assert 2 == names.asked


@pytest.mark.parametrize("exclusive", [False, True], ids=["shared", "exclusive"])
async def test_a_name_that_leads_elsewhere_is_followed_although_its_server_answers(
    names: Names, monkeypatch: pytest.MonkeyPatch, *, exclusive: bool
) -> None:
    """A connection is made anew from time to time; meanwhile the earlier one serves, and no call fails or waits."""
    for module in (multiplexer, connecting):
        monkeypatch.setattr(module, "RENEW_EVERY", 0.3)
    with twins() as (first, second):
        address = StoreAddress(url=f"redis://{NAME}:{first.port}/0", wait_replicas=int(exclusive))
        async with await open_connection(address) as connection:
            lives = {run_id(each): each for each in (first, second)}
            assert first is lives[await life(connection)]
            names.to, before = "127.0.0.2", names.asked
            for _ in turns(3):
                if lives[await life(connection)] is second:
                    break
                await asyncio.sleep(0.02)
            else:
                raise AssertionError("the name is not followed")
            assert 1 <= names.asked - before <= 4


@pytest.mark.parametrize("exclusive", [False, True], ids=["shared", "exclusive"])
async def test_a_connection_that_cannot_be_renewed_serves(
    names: Names, monkeypatch: pytest.MonkeyPatch, *, exclusive: bool
) -> None:
    """Where the name leads nowhere for a while, the connection that is there goes on; the log says so once."""
    for module in (multiplexer, connecting):
        monkeypatch.setattr(module, "RENEW_EVERY", 0.05)
    told = list[str]()
    monkeypatch.setattr(connecting.log, "warning", lambda event, **more: told.append(f"{event}: {more['why']}"))
    with twins() as (first, _):
        address = StoreAddress(url=f"redis://{NAME}:{first.port}/0", wait_replicas=int(exclusive))
        async with await open_connection(address) as connection:
            before = await life(connection)
            names.to = "127.0.0.3"
            for number, _ in enumerate(turns(10)):
                assert before == await life(connection)
                if number > 30 and told:
                    break
                await asyncio.sleep(0.01)
    assert [f"store.connection_not_renewed: nothing listens at {NAME}:{first.port}: is the store running?"] == told


async def test_a_renewed_connection_to_a_replica_ends_the_earlier_one(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name leads to a replica: the earlier server is not asked any more, though it would answer."""
    monkeypatch.setattr(multiplexer, "RENEW_EVERY", 0.05)
    with twins() as (first, second):
        second.ask("REPLICAOF", "127.0.0.1", str(first.port))
        async with await open_connection(StoreAddress(url=f"redis://{NAME}:{first.port}/0")) as connection:
            await life(connection)
            names.to = "127.0.0.2"
            with pytest.raises(StoreUnavailable, match="is a replica"):
                await until_it_fails(connection)


async def until_it_fails(connection: Connection) -> None:
    """Ask for some seconds at most."""
    for _ in turns(3):
        await life(connection)
        await asyncio.sleep(0.02)


async def life(connection: Connection) -> str:
    """Return the life of the server that carries a script out."""
    (said, *_) = await connection.call(ECHO, [], [LIFE])
    return str(said.decode())


def run_id(server: Member) -> str:
    """Return a server's own."""
    return next(line[7:] for line in str(server.ask("INFO", "server")).splitlines() if line.startswith("run_id:"))


async def test_a_cluster_all_of_whose_members_have_moved(names: Names) -> None:
    """None that was known answers any more: the names in the address are asked, by the second call at the latest."""
    async with AsyncExitStack() as stack:
        silent = [
            await stack.enter_async_context(await asyncio.start_server(say_nothing, "127.0.0.1")) for _ in range(4)
        ]
        ports = [each.sockets[0].getsockname()[1] for each in silent]
        port = distant_port()
        await stack.enter_async_context(await asyncio.start_server(member_with(*ports), "127.0.0.1", port))
        await stack.enter_async_context(
            await asyncio.start_server(member_with(port, host="127.0.0.2"), "127.0.0.2", port)
        )
        address = StoreAddress(url=f"redis+cluster://{NAME}:{port}", timeout_ms=800)
        async with await open_connection(address) as connection:
            for key in ("a", "b", "c", "d"):  # all members are known, and none answers
                with pytest.raises(StoreUnavailable):
                    await connection.call(ECHO, [key], [])
            names.to = "127.0.0.2"
            with suppress(StoreUnavailable):
                await connection.call(ECHO, ["a"], [])
            assert [b"done"] == await connection.call(ECHO, ["a"], [])


async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a member that takes connections and never answers."""
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    writer.close()


def member_with(*ports: int, host: str = "127.0.0.1") -> Serve:
    """Return a member that says that the slots lie at these ports, and carries out scripts."""
    share = 16384 // len(ports)
    ranges = [(at * share, 16383 if port == ports[-1] else (at + 1) * share - 1, port) for at, port in enumerate(ports)]
    slots = b"*%d\r\n" % len(ranges) + b"".join(
        b"*3\r\n:%d\r\n:%d\r\n*2\r\n$9\r\n%b\r\n:%d\r\n" % (first, last, host.encode(), port)
        for first, last, port in ranges
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = Reader()
        while data := await reader.read(1 << 16):
            commands.feed(data)
            while command := commands.gets():
                match command:
                    case [b"INFO", _]:
                        writer.write(b"$21\r\nrun_id:1\r\nrole:master\r\n")
                    case [b"CLUSTER", b"SLOTS"]:
                        writer.write(slots)
                    case [b"EVALSHA", *_]:
                        writer.write(b"*1\r\n$4\r\ndone\r\n")
                    case _:
                        writer.write(b"+OK\r\n")
        writer.close()

    return serve


# --- every word


@dataclass(slots=True)
class Moved:
    """A server that says a word to the first scripts of its first connection, and carries out those of later ones."""

    word: bytes
    connections: int = 0
    heard: list[int] = field(default_factory=list)  #: the connection of each script


@asynccontextmanager
async def moved(word: bytes, *, scheme: str = "redis", slots: bool = False) -> AsyncIterator[tuple[str, Moved]]:
    """Listen as an address behind which another server answers from the second connection that runs scripts on."""
    told = Moved(word)
    here = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands, number = Reader(), 0
        while data := await reader.read(1 << 16):
            commands.feed(data)
            while command := commands.gets():
                match command:
                    case [b"INFO", _]:
                        writer.write(b"$21\r\nrun_id:1\r\nrole:master\r\n")
                    case [b"CLUSTER", b"SLOTS"]:
                        writer.write(b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % here)
                    case [b"EVALSHA", *_]:
                        if not number:
                            told.connections += 1
                            number = told.connections
                        told.heard.append(number)
                        writer.write(b"-%b\r\n" % told.word if number == 1 else b"*1\r\n$4\r\ndone\r\n")
                    case _:
                        writer.write(b"+OK\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        here = listening.sockets[0].getsockname()[1]
        yield f"{scheme}://127.0.0.1:{here}", told


ELSEWHERE = (
    b"READONLY You can't write against a read only replica.",
    b"ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write against a read only replica.",
    b"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    b"LOADING Redis is loading the dataset in memory",
    b"NOREPLICAS Not enough good replicas to write.",
    b"UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    b"CLUSTERDOWN The cluster is down",
    b"ERR WAIT cannot be used with replica instances.",
)


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
@pytest.mark.parametrize("exclusive", [False, True], ids=["shared", "exclusive"])
@pytest.mark.parametrize("word", ELSEWHERE, ids=lambda word: word.split()[0].decode())
async def test_a_server_that_is_not_the_one_to_ask_is_left(word: bytes, scheme: str, *, exclusive: bool) -> None:
    """The same call is sent over another network connection, and so to wherever the address leads by then."""
    async with moved(word, scheme=scheme) as (url, told):
        async with await open_connection(StoreAddress(url=url, wait_replicas=int(exclusive))) as connection:
            assert [b"done"] == await connection.call(ECHO, ["k"], [])
        assert [1, 2] == told.heard


@pytest.mark.parametrize("exclusive", [False, True], ids=["shared", "exclusive"])
@pytest.mark.parametrize("word", [b"MISCONF the disk", b"NOAUTH Authentication required."], ids=["MISCONF", "NOAUTH"])
async def test_what_is_refused_is_asked_elsewhere_by_the_next_call(word: bytes, *, exclusive: bool) -> None:
    """A refusal is told at once; the next call does not meet the same server if the address leads elsewhere."""
    async with moved(word) as (url, told):
        async with await open_connection(StoreAddress(url=url, wait_replicas=int(exclusive))) as connection:
            with pytest.raises(StoreRefused):
                await connection.call(ECHO, ["k"], [])
            assert [b"done"] == await connection.call(ECHO, ["k"], [])
        assert [1, 2] == told.heard


@pytest.mark.parametrize(
    "word", [b"OOM command not allowed", b"BUSY Redis is busy", b"TRYAGAIN Multiple keys", b"ERR no such thing"]
)
async def test_what_is_about_the_call_leaves_the_connection(word: bytes) -> None:
    """Another server would say nothing else, or it passes: no connection is made in vain."""
    async with moved(word) as (url, told), await open_connection(StoreAddress(url=url)) as connection:
        with pytest.raises(StoreError):
            await connection.call(ECHO, ["k"], [])
    assert {1} == set(told.heard)
