"""What a server says of itself, said by Redis, by Valkey and by those who leave something out."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from hiredis import Reader
from redis.exceptions import ResponseError

from farmlease.errors import StoreRefused, StoreUnavailable
from farmlease.store.connection.connection import StoreAddress, open_connection
from farmlease.store.connection.driver_errors import NotMaster, NotUnderstood
from farmlease.store.connection.server_life import life_of
from farmlease.store.script import LIFE
from tests.support.scripts import ECHO
from tests.support.servers import redis_server, require_valkey

REPLID = "8d5f1b0c9f0e4a7f8d5f1b0c9f0e4a7f8d5f1b0c"
SERVER = b"# Server\r\nredis_version:7.2.4\r\nredis_mode:standalone\r\nrun_id:abc\r\n"
REPLICATION = b"# Replication\r\nrole:master\r\nmaster_replid:" + REPLID.encode() + b"\r\n"
NO_SECTIONS = b"ERR wrong number of arguments for 'info' command"
BUSY = b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n"
MASTER = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
REPLICA = b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:1\r\n$9\r\nconnected\r\n:0\r\n"

Answers = Mapping[bytes, bytes]


def bulk(text: bytes) -> bytes:
    """Return a text as a server sends it."""
    return b"$%d\r\n%b\r\n" % (len(text), text)


@asynccontextmanager
async def server_that_says(answers: Answers) -> AsyncIterator[str]:
    """Listen as a server that answers these commands so, and carries out every script; yields its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = Reader()
        while data := await reader.read(1 << 16):
            commands.feed(data)
            while command := commands.gets():
                line = b" ".join(command)
                if command[0] == b"EVALSHA":
                    writer.write(b"*1\r\n" + bulk(command[-1]))
                elif line in answers:
                    writer.write(answers[line])
                else:
                    writer.write(b"-ERR unknown command\r\n" if command[0] in {b"INFO", b"ROLE"} else b"+OK\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0"


def sections(server: bytes, replication: bytes, **more: bytes) -> Answers:
    """Return the answers of a server that knows sections."""
    whole = {b"INFO server": bulk(server), b"INFO replication": bulk(replication), b"INFO": bulk(server + replication)}
    return whole | {name.encode(): answer for name, answer in more.items()}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (sections(SERVER, REPLICATION), "abc"),
        (sections(SERVER.replace(b"run_id:abc", b"x:y"), REPLICATION), REPLID),
        (sections(SERVER, b"# Replication\r\n", ROLE=MASTER), "abc"),
        (sections(SERVER.replace(b"run_id", b"x"), REPLICATION.replace(b"role", b"y"), ROLE=MASTER), REPLID),
        ({b"INFO": bulk(SERVER + REPLICATION)}, "abc"),
        ({b"INFO server": bulk(b""), b"INFO replication": bulk(b""), b"INFO": bulk(SERVER + REPLICATION)}, "abc"),
        ({b"INFO server": bulk(SERVER + REPLICATION), b"INFO replication": bulk(SERVER + REPLICATION)}, "abc"),
    ],
    ids=["all", "no run_id", "no role", "neither", "no sections", "empty sections", "all in each section"],
)
async def test_a_server_that_leaves_something_out_works_where_something_else_says_it(
    answers: Answers, expected: str
) -> None:
    """The role by ROLE, the life by the replication id, and the whole of INFO where it has no sections."""
    async with server_that_says(answers) as url, await open_connection(StoreAddress(url=url)) as connection:
        assert [expected.encode()] == await connection.call(ECHO, [], [LIFE])
        assert "standalone" == (await connection.server_info()).mode


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({}, "says neither by INFO nor by ROLE whether it is a master"),
        (sections(SERVER, b"", ROLE=b"-ERR unknown command\r\n"), "says neither by INFO nor by ROLE"),
        (
            sections(b"x:y", b"role:master"),
            "has neither run_id nor master_replid in INFO: a loss of its data would pass",
        ),
        (sections(b"run_id:", b"role:master\r\nmaster_replid:" + b"0" * 40), "has neither run_id nor master_replid"),
        ({b"ROLE": MASTER}, "has neither run_id nor master_replid"),
        (
            {b"INFO server": b"-NOPERM this user has no permissions to run the 'info' command\r\n", b"ROLE": MASTER},
            "denies this user the command INFO: grant it",
        ),
    ],
    ids=["nothing", "no role", "no life", "an empty life", "ROLE alone", "no right"],
)
async def test_a_server_that_does_not_say_enough_is_refused_in_a_sentence(answers: Answers, says: str) -> None:
    """A loss of its data, or its being a replica, would pass unnoticed: what is lacking is named, at once."""
    async with server_that_says(answers) as url, await open_connection(StoreAddress(url=url)) as connection:
        for _ in range(2):
            with pytest.raises(StoreRefused, match=says):
                await connection.call(ECHO, [], [LIFE])


async def test_a_replica_is_one_by_role_too() -> None:
    """Where INFO does not say it."""
    answers = sections(SERVER, b"# Replication\r\n", ROLE=REPLICA)
    async with server_that_says(answers) as url, await open_connection(StoreAddress(url=url)) as connection:
        with pytest.raises(StoreUnavailable, match="is a replica"):
            await connection.call(ECHO, [], [LIFE])


@pytest.mark.parametrize(("role", "error"), [("slave", NotMaster), ("replica", NotMaster), ("sentinel", NotUnderstood)])
async def test_who_is_no_master(role: str, error: type[Exception]) -> None:
    """Whatever it is called."""

    async def ask(*_: str) -> object:
        raise ResponseError("no more")

    with pytest.raises(error):
        await life_of(ask, b"run_id:1", f"role:{role}".encode())


@pytest.mark.parametrize(
    "answers",
    [
        {b"INFO server": BUSY, b"INFO replication": BUSY},
        {b"INFO server": bulk(SERVER), b"INFO replication": BUSY},
        {b"INFO server": b"-%b\r\n" % NO_SECTIONS, b"INFO replication": b"-%b\r\n" % NO_SECTIONS, b"INFO": BUSY},
        {b"INFO server": bulk(SERVER), b"INFO replication": bulk(b""), b"INFO": bulk(b""), b"ROLE": BUSY},
    ],
    ids=["each section", "one section", "the whole", "ROLE"],
)
async def test_a_server_that_cannot_say_it_now_is_asked_again(answers: Answers) -> None:
    """What keeps a server from answering is no word on what it is."""
    async with server_that_says(answers) as url, await open_connection(StoreAddress(url=url)) as connection:
        with pytest.raises(StoreUnavailable, match="is busy"):
            await connection.ping()


async def test_a_real_server_without_info() -> None:
    """INFO renamed away: a sentence, and no crash."""
    with redis_server("--rename-command", "INFO", "") as server:
        async with await open_connection(StoreAddress(url=server.url)) as connection:
            with pytest.raises(StoreRefused, match="has neither run_id nor master_replid in INFO"):
                await connection.ping()


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ((), "standalone"),
        (("--cluster-enabled", "yes"), "cluster"),
        (("--extended-redis-compatibility", "yes"), "standalone"),
    ],
    ids=["server_mode", "cluster", "as Redis"],
)
async def test_valkey_says_who_it_is(options: tuple[str, ...], mode: str) -> None:
    """Its own version, and its mode under its own name for it."""
    with redis_server(*options, program=require_valkey()) as server:
        async with await open_connection(StoreAddress(url=server.url)) as connection:
            told = await connection.server_info()
        with server.client() as client:
            expected = client.info("server")["run_id"]
    assert (expected, "master", mode) == (told.run_id, told.role, told.mode)
    if "--extended-redis-compatibility" not in options:
        assert ("valkey", "9") == (told.name, told.version.partition(".")[0])
