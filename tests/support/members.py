"""One redis-server that is killed, stopped and started again, with its own port and folder; and several at once."""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.patience import turns, within
from tests.support.ports import quiet_ports
from tests.support.servers import require, wait_ready

__all__ = ["Member", "fresh_folder", "on_quiet_ports", "running", "wait_until"]

#: Seconds; a test that waits longer than this for servers has found something.
PATIENCE = 30.0
#: How often other ports are tried where somebody else took one before its server did, and what that server says then.
TRIES = 5
TAKEN = "Address already in use"

Found = TypeVar("Found")


def wait_until(ask: Callable[[], Found | None], what: str) -> Found:
    """Ask until there is an answer; a server that is away in the meantime has none yet."""
    for _ in turns(PATIENCE):
        with suppress(redis.RedisError, OSError):
            if (found := ask()) is not None:
                return found
        time.sleep(0.02)
    raise TimeoutError(f"not within {PATIENCE:.0f} s: {what}")


class Member:
    """One redis-server with its own port and folder, which it keeps when it is started again."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        port: int,
        config: str = "",
        sentinel: bool = False,
        tls: Sequence[str] = (),
        password: str | None = None,
    ) -> None:
        """``password``: by which it is asked."""
        folder.mkdir()
        (folder / "conf").write_text(config)
        self.port = port
        self.folder = folder
        self._password = password
        self._socket = folder / "redis.sock"
        self._arguments = (
            require("redis-server"), str(folder / "conf"), *(("--sentinel",) if sentinel else ()),
            *(("--port", "0", "--tls-port", str(port), "--tls-replication", "yes", "--tls-cluster", "yes", *tls) if tls else ("--port", str(port))),
            "--unixsocket", str(self._socket), "--dir", str(folder), "--bind", "127.0.0.1",
            *options,
        )  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; ``ready`` waits until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._arguments, stdout=log, stderr=log)

    def ready(self) -> None:
        """Return when it answers, its data loaded."""
        assert self.process is not None
        wait_ready(self.process, self._socket, self.folder / "log")

    def kill(self) -> None:
        """End it as a loss of power would; ``restart`` brings it back. Killing it again is fine."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def shut_down(self) -> None:
        """End it in order, with all its data written; ``restart`` brings it back."""
        assert self.process is not None
        with suppress(redis.ConnectionError):  # it hangs up instead of answering
            self.ask("SHUTDOWN", "SAVE")
        self.process.wait(within(10))
        self.process = None

    def restart(self, *, empty: bool = False) -> None:
        """Start it again with the data it had, or without."""
        self.kill()
        if empty:
            for kept in (*self.folder.glob("appendonly*"), *self.folder.glob("*.rdb")):
                shutil.rmtree(kept) if kept.is_dir() else kept.unlink()
        self.start()
        self.ready()

    def stop(self) -> None:
        """Let it stand still, as a machine that swaps, with every connection open; ``resume`` lets it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def client(self, **options: Any) -> redis.Redis:
        """Return a plain client of this member, to look behind farmlease's back. It waits a second at most."""
        given = {"password": self._password} | options
        return redis.Redis(
            unix_socket_path=str(self._socket), socket_timeout=1, protocol=2, retry=Retry(NoBackoff(), 0), **given
        )

    def ask(self, *command: str | int) -> Any:
        """Send one command and return what the server says, unparsed by the client but for INFO."""
        with self.client(decode_responses=True) as client:
            client.response_callbacks.clear()
            return client.execute_command(*command)

    def told(self) -> dict[str, str]:
        """Return what it says of its replication."""
        lines = str(self.ask("INFO", "replication")).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def is_master(self) -> bool:
        """Tell whether it takes itself for a master, or is away."""
        try:
            return self.told()["role"] == "master"
        except (redis.RedisError, OSError):
            return False

    def replicates(self, master: "Member") -> bool:
        """Tell whether it has all that ``master`` has sent so far."""
        told = self.told()
        return (
            told["role"] == "slave"
            and told["master_port"] == str(master.port)
            and told["master_link_status"] == "up"
            and told["slave_repl_offset"] >= master.told()["master_repl_offset"]
        )


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """Make a folder with a short path (Unix sockets allow 107 bytes), which is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fl-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(members: Iterable[Member]) -> Iterator[None]:
    """Start all at once, and end them whatever happens, also those that stand still."""
    members = list(members)
    try:
        for each in members:
            each.start()
        for each in members:
            each.ready()
        yield
    finally:
        for each in members:
            each.kill()


@contextmanager
def on_quiet_ports(count: int, make: Callable[[Path, list[int]], Sequence[Member]]) -> Iterator[list[Member]]:
    """Run what ``make`` makes in a fresh folder of so many ports; where one is taken by then, of other ports."""
    with ExitStack() as stack:
        for more in reversed(range(TRIES)):
            ports = stack.enter_context(quiet_ports(count))
            members = list(make(stack.enter_context(fresh_folder()), ports))
            try:
                stack.enter_context(running(members))
            except RuntimeError as error:
                if not more or TAKEN not in str(error):
                    raise
            else:
                break
        yield members
