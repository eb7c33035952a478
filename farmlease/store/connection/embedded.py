"""A store without an installation: a real redis-server as a child of this process, for one host or for trying out.

Guaranteed: one owner per folder; the server ends when its owner does, also when that is killed with -9; what was
written more than about a second ago survives a kill of both. Not guaranteed: anything, where no redis-server is found:
then the store is this process's memory, and a warning says so.

How it ends with its owner: the server is started by a small shell script, the guard, whose standard input is a pipe
that only the owner holds. When that closes, for whatever reason, the guard ends the server. The server's standard
output is its log file, and on that open file lies a lock: as long as any part of an earlier life still runs, the lock
is held and no second server touches the data. If the guard is killed alone, its watcher still ends the server with the
owner; if guard and watcher are both killed, the server goes on until the next start in this folder ends it.

This module must never end a process it did not start, other than an earlier server of the same folder, which it asks
to shut down through the folder's own socket.
"""

import asyncio
import contextlib
import os
import signal
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import filelock
import structlog
from redis import asyncio as driver
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError

from farmlease import private_file
from farmlease.errors import AlreadyRunning, ConfigError, FarmleaseError, StoreUnavailable
from farmlease.store.connection.embedded_binary import OPTIONS, ServerProgram, server_program
from farmlease.store.connection.socket import unix_client

if sys.platform != "win32":
    import fcntl

__all__ = ["EmbeddedServer", "EmbeddedStore", "embedded_store"]

log = structlog.get_logger()

SOCKET = "redis.sock"
#: Longest path of a Unix socket in bytes, the closing NUL not counted (macOS has the least of all: 104 with it).
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
#: How long an owner waits (seconds) for another one to leave the folder: a command that only reads ends sooner.
OWNER_PATIENCE = 2.0
#: How long (seconds) a server may take to answer, to load its data, and to end.
ANSWER_WITHIN, LOAD_WITHIN, END_WITHIN = 10.0, 300.0, 10.0
#: How long (seconds) one reply may take, and until the next attempt.
REPLY_WITHIN, POLL = 1.0, 0.02
SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 30.0

#: TERM is redis-server's orderly end: it writes and syncs its file. A script of ours may keep it from that for a while.
GUARD = """
PATH=/usr/bin:/bin:$PATH
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
{
    # The watcher. It closes the log, whose lock stands for the server.
    exec >/dev/null 2>&1
    read -r nothing <&3
    kill -TERM "$server"
    tries=0
    while [ "$tries" -lt 50 ] && kill -0 "$server"; do sleep 0.1 || sleep 1; tries=$((tries + 1)); done
    kill -KILL "$server"
} &
watcher=$!
exec 3<&-
wait "$server"
status=$?
kill "$watcher"
exit "$status"
"""


@dataclass(frozen=True, slots=True)
class EmbeddedStore:
    """What a connection to a folder needs: its server's socket, or else a memory; and the server, if it is ours."""

    socket: Path
    server: "EmbeddedServer | None" = None  #: to be stopped with the connection
    memory: driver.Redis | None = None


async def embedded_store(folder: Path, *, owner: bool) -> EmbeddedStore:
    """Start the server of ``folder``, or join it if another process runs it and we need not be its owner.

    Raises AlreadyRunning (only with ``owner``), ConfigError for a folder that cannot serve, StoreUnavailable if the
    server does not start.
    """
    socket = folder / SOCKET
    if not owner and _belongs_to_another_user(folder):
        return EmbeddedStore(socket)  # root reading an agent's store must not leave files of its own there
    program = None if sys.platform == "win32" else await asyncio.to_thread(server_program)  # no Unix sockets there
    server = EmbeddedServer(folder, program)
    try:
        await server.start(patience=OWNER_PATIENCE if owner else 0)
    except AlreadyRunning:
        if owner:
            raise
        return EmbeddedStore(socket)
    if program is not None:
        return EmbeddedStore(socket, server)
    try:
        memory = _memory()
    except BaseException:
        await server.stop()
        raise
    log.warning("store.in_memory", folder=str(folder), hint="nothing is kept; install redis-server to keep it")
    return EmbeddedStore(socket, server, memory)


class EmbeddedServer:
    """The server of one folder, from ``start`` to ``stop``; started again should it die in between.

    Without a program it only holds the folder, so that there is one owner all the same.
    """

    def __init__(self, folder: Path, program: ServerProgram | None) -> None:
        self.folder = folder
        self.socket = folder / SOCKET
        self._program = program
        # Not in a thread: a lock that is taken there after a cancellation would stay taken for a while.
        self._lock = filelock.AsyncFileLock(
            folder / "owner.lock", mode=0o600, poll_interval=POLL, run_in_executor=False
        )
        self._guard: asyncio.subprocess.Process | None = None
        self._lifeline: int | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self, *, patience: float = 0) -> None:
        """Own the folder and return when the server answers.

        Raises AlreadyRunning if the folder still has another owner after ``patience`` seconds, ConfigError if the
        folder cannot serve, StoreUnavailable if the server does not start.
        """
        _prepare(self.folder)
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET_PATH:
            raise ConfigError(
                f"the embedded store's socket {self.socket} is longer than {LONGEST_SOCKET_PATH} bytes: "
                'name a shorter folder in [store] url = "embedded:/path"'
            )
        await self._take_lock(patience)
        try:
            if self._program is not None:
                await self._launch(self._program)
                self._keeper = asyncio.create_task(self._keep_running(self._program))
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the server, its data written and synced, and leave the folder. Repeating it is fine."""
        try:
            if self._keeper is not None:
                self._keeper.cancel()
                await asyncio.wait([self._keeper])
                self._keeper = None
            await self._end()
        finally:
            await self._lock.release()

    async def _take_lock(self, patience: float) -> None:
        try:
            await self._lock.acquire(timeout=patience)
        except filelock.Timeout:
            raise AlreadyRunning(
                f"another process runs the embedded store in {self.folder}: stop it, or name another folder in "
                "[store] url"
            ) from None

    async def _launch(self, program: ServerProgram) -> None:
        """Start guard and server and wait until it answers."""
        if program.version < (7,) and (self.folder / "appendonlydir").exists():
            raise ConfigError(
                f"the data in {self.folder} are of redis-server 7 or later, and {program.path} "
                f"{'.'.join(map(str, program.version))} would not see them: put the newer one on PATH"
            )
        output = await self._claim_output()
        try:
            # Both ends close on exec, so that no other child of this process keeps the server alive.
            guarded, self._lifeline = os.pipe()
            try:
                self._guard = await asyncio.create_subprocess_exec(
                    "/bin/sh", "-c", GUARD, "farmlease-redis", program.path, *OPTIONS,
                    "--dir", str(self.folder), "--unixsocket", str(self.socket),
                    stdin=guarded, stdout=output, stderr=output,
                    start_new_session=True,  # Ctrl-C at the owner's terminal is the owner's to handle
                )  # fmt: skip
            finally:
                os.close(guarded)
        finally:
            os.close(output)
        try:
            await self._answering(self._guard)
        except BaseException:
            await self._end()
            raise
        log.info("store.embedded_started", folder=str(self.folder), version=".".join(map(str, program.version)))

    async def _claim_output(self) -> int:
        """Open the log file and lock it, when the last thing of an earlier server's life has let go of it."""
        output = os.open(self.folder / "redis.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if not _locked(output):
                await _shut_down(self.socket)
            async with asyncio.timeout(END_WITHIN):
                while not _locked(output):  # noqa: ASYNC110 - another process's lock sets no event
                    await asyncio.sleep(POLL)
        except TimeoutError:
            os.close(output)
            raise AlreadyRunning(
                f"an earlier redis-server still runs in {self.folder}: end it with redis-cli -s {self.socket} shutdown"
            ) from None
        except BaseException:
            os.close(output)
            raise
        return output

    async def _answering(self, guard: asyncio.subprocess.Process) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ANSWER_WITHIN
        while guard.returncode is None and loop.time() < deadline:
            try:
                async with unix_client(self.socket, REPLY_WITHIN) as client:
                    await client.ping()
            except BusyLoadingError:
                deadline = max(deadline, loop.time() - ANSWER_WITHIN + LOAD_WITHIN)
            except (RedisError, OSError):
                pass
            else:
                return
            await asyncio.sleep(POLL)
        raise StoreUnavailable(f"the embedded redis-server did not start: see {self.folder / 'redis.log'}")

    async def _keep_running(self, program: ServerProgram) -> None:
        """Start the server again whenever it ends, after a pause that grows while it does not stay."""
        loop = asyncio.get_running_loop()
        pause = SHORTEST_PAUSE
        while self._guard is not None:
            since = loop.time()
            status = await self._guard.wait()
            log.error("store.embedded_ended", folder=str(self.folder), status=status)
            pause = SHORTEST_PAUSE if loop.time() - since > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
            self._close_lifeline()
            await asyncio.sleep(pause)
            try:
                await self._launch(program)
            except (FarmleaseError, OSError) as error:
                log.error("store.embedded_not_started", folder=str(self.folder), error=str(error))  # noqa: TRY400 - expected, and logged whole

    async def _end(self) -> None:
        """Close the lifeline, so that the guard ends the server; and should it not, end both."""
        self._close_lifeline()
        if self._guard is None:
            return
        try:
            async with asyncio.timeout(END_WITHIN):
                await self._guard.wait()
        except TimeoutError:
            _kill_group(self._guard.pid)
            await self._guard.wait()

    def _close_lifeline(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None


def _memory() -> driver.Redis:
    try:
        import fakeredis  # noqa: PLC0415 - wanted only where there is no server, and then it may be missing
    except ImportError:
        raise ConfigError(
            "an embedded store needs redis-server on PATH, or at least: pip install 'farmlease[embedded]'"
        ) from None
    return fakeredis.FakeAsyncRedis(
        server=fakeredis.FakeServer(version=(7, 0)), retry=Retry(NoBackoff(), 0), protocol=2
    )


def _prepare(folder: Path) -> None:
    """Make the folder, and refuse one that others can look into; its mode is not changed, for it may be meant."""
    try:
        for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise ConfigError(f"the embedded store's folder {folder} cannot be used: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"the embedded store's folder {folder} is not a folder")
    if _belongs_to_another_user(folder):
        raise ConfigError(f"the embedded store's folder {folder} belongs to another user: run this as that user")
    if private_file.is_open_to_others(found):
        raise ConfigError(f"the embedded store's folder {folder} is open to other users: chmod 700 {folder}")


def _belongs_to_another_user(folder: Path) -> bool:
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # not there yet, or not to be read: opening it will fail then
            return folder.stat().st_uid != os.geteuid()
    return False


def _locked(descriptor: int) -> bool:
    """Lock an open file if it is not locked; the lock ends with the last process that has this opening of it."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _kill_group(leader: int) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)


async def _shut_down(socket: Path) -> None:
    """Ask whichever server listens there to end; one that ends does not answer."""
    with contextlib.suppress(RedisError, OSError):
        async with unix_client(socket, REPLY_WITHIN) as client:
            await client.shutdown()
