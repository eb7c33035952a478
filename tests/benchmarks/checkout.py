"""A checkout of farmlease as others meet it: its command, its agent and the store's own statistics.

Nothing of the package is imported here, for it may be an earlier one whose modules lie and are called otherwise.
"""

import http.client
import json
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
from tests.support.servers import RedisServer, free_port, redis_server

__all__ = ["WITNESS", "Checkout", "CheckoutAgent", "WrongPackageError", "agent_of"]

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

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of ``farmlease ARGUMENTS``."""
        return [sys.executable, "-P", "-m", "farmlease", *arguments]

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
        """Run ``farmlease ARGUMENTS``, which must succeed, and see that it was this one. ``program`` as for ``agent_of``."""
        command = [sys.executable, "-P", *program, *arguments]
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

    def ask(self, method: str, path: str, body: Any = None) -> int:
        """Ask its HTTP interface; return the status."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status


@contextmanager
def agent_of(checkout: Checkout, *, program: Sequence[str] = WITNESS, files: bool = False) -> Iterator[CheckoutAgent]:
    """Start a redis-server and a checkout's agent in folders of their own, and end both.

    ``program`` runs the command and says from where on its first line; ``files``: the pool has one vendor file.
    """
    with tempfile.TemporaryDirectory(prefix="fl-checkout-") as name, redis_server() as server:
        folder, port, health = Path(name), free_port(), free_port()
        config = _configure(folder, server.url, port, health, files=files)
        for arguments in (("key", "generate"), ("pool", "apply", str(folder / "pools.toml"), "--yes")):
            checkout.run("--config", str(config), *arguments)
        command = [sys.executable, "-P", *program, "--config", str(config), "agent"]
        with (folder / "agent.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=checkout.environment,
                cwd=folder, text=True,
            )  # fmt: skip
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


def _configure(folder: Path, store: str, port: int, health: int, *, files: bool) -> Path:
    """Write the node's configuration and the farm's policy; return the first."""
    config, home = folder / "farmlease.toml", folder / "home"
    config.write_text(
        f'farm = "citrix-a"\nnode = "ctx-01"\n[store]\nurl = "{store}"\n[keys]\nfile = "{folder}/keyring.json"\n'
        f'[agent]\nlisten = "127.0.0.1:{port}"\ntoken_file = "{folder}/token"\nstate_dir = "{folder}/state"\n'
        f'[health]\nlisten = "127.0.0.1:{health}"\n[identity]\ndomains = {{ CORP = "corp.example.com" }}\n'
    )
    (home / "john").mkdir(parents=True)
    line = f'files = ["{home}/{{user}}/BorrowedCalData.pgo"]\n' if files else ""
    (folder / "pools.toml").write_text(f'[[pool]]\nname = "qlikview"\nkind = "named"\ncapacity = 1000000\n{line}')
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
