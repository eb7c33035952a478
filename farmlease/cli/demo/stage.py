"""The demo's farm: a real redis-server, two real agents as processes, and everything they need in one folder.

Guaranteed: whatever happens in between, short of a kill -9, the processes have ended and the folder is removed when
``demo_farm`` returns. Nothing outside that folder is read or written, and no setting of the user's environment is used.
"""

import asyncio
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from farmlease.cli.client.agent import Answer, ask
from farmlease.cli.health import parse_url, probe
from farmlease.config.model import load_config
from farmlease.config.source import UNIX, Endpoint
from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.domain.policy import Pool, parse_policy
from farmlease.errors import AgentUnavailable, FarmleaseError
from farmlease.farm import Farm, open_farm
from farmlease.store.connection.embedded import EmbeddedServer
from farmlease.store.connection.embedded_binary import ServerProgram, server_program

__all__ = ["FARM", "NODES", "DemoFarm", "Host", "demo_farm", "needed_program"]

FARM = "citrix-a"
NODES = ("ctx-01", "ctx-02")
POOL = "qlikview"
POLICY = """\
[identity]
domains = {{ CORP = "corp.example.com" }}

[[pool]]
name = "qlikview"
kind = "named"
capacity = 3
devices_per_user = 2
lease = "30d"
quarantine = "24h"
session_timeout = "120m"
files = [{file}]
"""
CONFIG = """\
farm = "{farm}"
node = "{node}"

[store]
url = {store}

[keys]
file = {keyring}

[agent]
listen = {listen}
token_file = {token}
state_dir = {state}
heartbeat = "1s"

[health]
listen = "127.0.0.1:{port}"
"""
#: A Unix socket's path has room for 103 bytes on every system; the longest name in the folder takes 20 of them.
LONGEST_FOLDER = 80
READY_WITHIN = 15.0  #: seconds
END_WITHIN = 8.0  #: seconds; an agent promises five
POLL = 0.02


def needed_program() -> ServerProgram:
    """Return the redis-server the two agents will share; FarmleaseError with what to install if there is none."""
    program = None if sys.platform == "win32" else server_program()
    if program is None:
        raise FarmleaseError(
            "the demo needs a redis-server that two agents can share, and found none (an in-memory stand-in serves one "
            "process only): install redis-server 6.2 or later (apt install redis-server, brew install redis), or "
            "pip install 'farmlease[embedded]'; on Windows use WSL"
        )
    return program


@dataclass(slots=True)
class Host:
    """One session host of the farm: its configuration and its agent."""

    name: str
    config: Path
    endpoint: Endpoint
    health_url: str
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def launch(self) -> None:
        """Start the agent in a session of its own, so that only the demo receives Ctrl-C."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FARMLEASE_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - this very program
                [sys.executable, "-m", "farmlease", "--config", str(self.config), "agent"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    async def ready(self) -> None:
        """Return when the agent is ready for users; FarmleaseError if it ends or takes too long."""
        deadline = time.monotonic() + READY_WITHIN
        while self.running and time.monotonic() < deadline:
            if await asyncio.to_thread(self._passes):
                return
            await asyncio.sleep(POLL)
        raise FarmleaseError(f"the agent of {self.name} does not get ready: {self.last_log_line()}")

    async def ask(self, method: str, path: str, document: object = None) -> Answer:
        """Ask the agent as the host's own commands do."""
        return await asyncio.to_thread(ask, self.endpoint, method, path, document)

    async def store_failure(self) -> str:
        """Return the health listener's text on a store that is away; FarmleaseError if it reports none in time."""
        return await self._store_report(passes=False)

    async def store_recovered(self) -> None:
        """Return when the health listener reports that the store is well; FarmleaseError if that takes too long."""
        await self._store_report(passes=True)

    async def _store_report(self, *, passes: bool) -> str:
        """Poll the health listener, which checks once a second, until the store passes or not; return its text."""
        deadline, report = time.monotonic() + READY_WITHIN, ""
        while time.monotonic() < deadline:
            _, body = await asyncio.to_thread(probe, parse_url(self.health_url))
            (store,) = json.loads(body)["checks"]["store"]
            report = f"{store['status']}: {store['output']}"
            if (store["status"] == "pass") is passes:
                return report
            await asyncio.sleep(POLL)
        raise FarmleaseError(f"the agent of {self.name} still reports about its store: {report}")

    @property
    def running(self) -> bool:
        """Whether the agent's process lives."""
        return self.process is not None and self.process.poll() is None

    def last_log_line(self) -> str:
        """Return the last line of the agent's log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return lines[-1] if lines else "its log is empty"

    def _passes(self) -> bool:
        try:
            status, _ = probe(parse_url(self.health_url))
        except AgentUnavailable:
            return False
        return status == 200  # noqa: PLR2004 - an HTTP status


@dataclass(frozen=True, slots=True)
class DemoFarm:
    """The running store, agents and files of the demo."""

    folder: Path
    program: ServerProgram
    server: EmbeddedServer
    hosts: dict[str, Host]
    farm: Farm  #: as an administrator opens it
    pool: Pool

    def licence_file(self, user: str) -> Path:
        """Return where the vendor's program keeps a user's borrowed licence on the hosts."""
        return Path(self.pool.files[0].format(user=user))

    async def agent_end(self) -> FarmleaseError:
        """Wait until an agent ends; return the error with its last log line."""
        while all(host.running for host in self.hosts.values()):  # noqa: ASYNC110 - a process's end sets no event
            await asyncio.sleep(0.2)
        host = next(host for host in self.hosts.values() if not host.running)
        return FarmleaseError(f"the agent of {host.name} ended: {host.last_log_line()}")


@asynccontextmanager
async def demo_farm(program: ServerProgram) -> AsyncIterator[DemoFarm]:
    """Start the store and the agents; remove everything at the end, whatever happens in between."""
    async with AsyncExitStack() as stack:
        folder = _new_folder()
        stack.callback(shutil.rmtree, folder)
        server = EmbeddedServer(folder / "store", program)
        await server.start()
        stack.push_async_callback(server.stop)
        hosts = {
            node: _host(folder, node, server, port) for node, port in zip(NODES, _free_ports(len(NODES)), strict=True)
        }
        keyring_file.create(folder / "keyring.json", KeyRing.generate(time.time_ns() // 1_000_000))
        template = folder / "home" / "{user}" / ".qlikview" / "BorrowedCalData.pgo"
        template.parents[2].mkdir()
        policy = parse_policy(POLICY.format(file=json.dumps(str(template))), "the demo's policy")
        farm, _ = await stack.enter_async_context(open_farm(load_config(hosts[NODES[0]].config, {})))
        await farm.apply(policy)
        stack.push_async_callback(_stop, list(hosts.values()))
        for host in hosts.values():
            host.launch()
        await asyncio.gather(*(host.ready() for host in hosts.values()))
        yield DemoFarm(folder, program, server, hosts, farm, policy.pools[0])


def _new_folder() -> Path:
    """Make a folder for this demo, with a path short enough for Unix sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="farmlease-demo-"))
    if len(os.fsencode(folder)) > LONGEST_FOLDER:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="farmlease-demo-", dir="/tmp"))
    return folder


def _host(folder: Path, node: str, server: EmbeddedServer, port: int) -> Host:
    """Write a host's configuration."""
    listen = f"{UNIX}{folder / node}.sock"
    config = folder / f"{node}.toml"
    paths = {
        "store": f"unix://{server.socket}",
        "keyring": str(folder / "keyring.json"),
        "listen": listen,
        "token": str(folder / f"{node}.token"),
        "state": str(folder / node),
    }
    quoted = {name: json.dumps(path) for name, path in paths.items()}
    config.write_text(CONFIG.format(farm=FARM, node=node, port=port, **quoted), encoding="utf-8")
    return Host(node, config, Endpoint(listen, None), f"http://127.0.0.1:{port}/healthz", folder / f"{node}.log")


def _free_ports(wanted: int) -> list[int]:
    """Return unused ports, below the range of outgoing connections."""
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == wanted:
            return found
    raise FarmleaseError("found no free port between 20000 and 32000 on 127.0.0.1 for the agents' health listeners")


async def _stop(hosts: Sequence[Host]) -> None:
    """End the agents in order; one that does not end is killed."""
    running = [host.process for host in hosts if host.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + END_WITHIN
    while any(process.poll() is None for process in running) and time.monotonic() < deadline:  # noqa: ASYNC110 - a process's end sets no event
        await asyncio.sleep(POLL)
    for process in running:
        process.kill()
        process.wait()
