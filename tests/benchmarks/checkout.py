"""A checkout of farmlease as others meet it: its command, its agent and the store's own statistics.

Nothing of the package is imported here, for it may be an earlier one whose modules lie and are called otherwise.
"""

import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.patience import within
from tests.support.ports import distant_port
from tests.support.servers import RedisServer, redis_server

__all__ = ["WITNESS", "Checkout", "CheckoutAgent", "WrongPackageError", "agent_of", "configure"]

#: The command ``farmlease``; its process says first from where it has the package.
WITNESS = (
    "-c",
    (
        "import farmlease, runpy; print(farmlease.__file__, flush=True); "
        "runpy.run_module('farmlease', run_name='__main__', alter_sys=True)"
    ),
)
_READY_WITHIN, _ENDS_WITHIN = 20, 10  #: seconds


class WrongPackageError(AssertionError):
    """A process has imported farmlease from elsewhere."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder with a package ``farmlease`` in it."""

    folder: Path

    def command(self, *arguments: str, program: Sequence[str] = WITNESS) -> list[str]:
        """Return the command line of ``farmlease ARGUMENTS``. ``program`` runs it, and prints first from where it has it."""
        return [sys.executable, "-P", *program, *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """In which Python finds this package and no other, and compiled, as an installation has it."""
        strange = ("FARMLEASE_", "PYTHON")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
        return {**kept, "PYTHONPATH": str(self.folder)}

    def check(self, file: str) -> None:
        """Raise WrongPackageError if a process's ``farmlease.__file__`` is not this checkout's."""
        expected = self.folder / "farmlease" / "__init__.py"
        if Path(file.strip()) != expected:
            raise WrongPackageError(f"a process that was to use {expected} used {file.strip() or 'nothing'}")

    def run(self, *arguments: str, program: Sequence[str] = WITNESS) -> None:
        """Run ``farmlease ARGUMENTS``, which must succeed, and see that it was this one."""
        command = self.command(*arguments, program=program)
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"farmlease {' '.join(arguments)}: exit status {done.returncode}: {done.stderr}")
        self.check(done.stdout.partition("\n")[0])


@dataclass(frozen=True, slots=True)
class CheckoutAgent:
    """A running agent of a checkout, and its store."""

    checkout: Checkout
    pid: int
    port: int
    token: str
    config: Path
    store: RedisServer


@contextmanager
def agent_of(checkout: Checkout, *, program: Sequence[str] = WITNESS, **setting: Any) -> Iterator[CheckoutAgent]:
    """Start a redis-server and a checkout's agent in folders of their own, and end both.

    ``program`` as for ``Checkout.command``, ``setting`` as for ``configure``.
    """
    with tempfile.TemporaryDirectory(prefix="fl-checkout-") as name, redis_server() as server:
        folder, port, health = Path(name), distant_port(), distant_port()
        config = configure(folder, server.url, port, health, **setting)
        for arguments in (("key", "generate"), ("pool", "apply", str(folder / "pools.toml"), "--yes")):
            checkout.run("--config", str(config), *arguments)
        command = checkout.command("--config", str(config), "agent", program=program)
        with (folder / "agent.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=checkout.environment,
                text=True,
            )
        try:
            assert process.stdout is not None
            checkout.check(process.stdout.readline())
            _wait_ready(process, health, folder / "agent.log")
            token = (folder / "token").read_text().strip()
            yield CheckoutAgent(checkout, process.pid, port, token, config, server)
        finally:
            process.terminate()
            try:
                process.wait(within(_ENDS_WITHIN))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def configure(
    folder: Path, store: str, port: int, health: int, *, pools: int = 1, files: bool = False, heartbeat: str = "60s"
) -> Path:
    """Write the node's configuration and the farm's policy; return the first. ``files``: each pool has a vendor file."""
    config, home = folder / "farmlease.toml", folder / "home"
    config.write_text(
        f'farm = "citrix-a"\nnode = "ctx-01"\n[store]\nurl = "{store}"\n[keys]\nfile = "{folder}/keyring.json"\n'
        f'[agent]\nlisten = "127.0.0.1:{port}"\ntoken_file = "{folder}/token"\nstate_dir = "{folder}/state"\n'
        f'heartbeat = "{heartbeat}"\n[health]\nlisten = "127.0.0.1:{health}"\n'
        '[identity]\ndomains = { CORP = "corp.example.com" }\n'  # where a checkout of 0.1.0 reads it, and a later one too
    )
    (home / "john").mkdir(parents=True)
    line = f'files = ["{home}/{{user}}/BorrowedCalData.pgo"]\n' if files else ""
    (folder / "pools.toml").write_text(
        "".join(
            f'[[pool]]\nname = "pool-{number}"\nkind = "named"\ncapacity = 1000000\n{line}' for number in range(pools)
        )
    )
    return config


def _wait_ready(process: "subprocess.Popen[str]", port: int, log: Path) -> None:
    deadline = time.monotonic() + within(_READY_WITHIN)
    while time.monotonic() < deadline and process.poll() is None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection, suppress(OSError):
            connection.request("GET", "/readyz")
            if http.client.OK == connection.getresponse().status:
                return
        time.sleep(0.05)
    raise RuntimeError(f"the agent did not get ready: {log.read_text(errors='replace')}")
