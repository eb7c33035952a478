"""Real agents for the tests: processes of their own on a given store, spoken to over HTTP, and always reaped."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from farmlease.config.model import load_config
from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.domain.policy import parse_policy
from farmlease.farm import open_farm
from tests.support.patience import turns, within
from tests.support.ports import quiet_ports

__all__ = ["Agents", "Reply", "RunningAgent", "agents_on", "soon"]

POLICY = """\
[identity]
domains = {{ CORP = "corp.example.com" }}

[[pool]]
name = "qlikview"
kind = "named"
capacity = 3
devices_per_user = 2
files = ["{home}/{{user}}/.qlikview/BorrowedCalData.pgo"]
"""
READY_WITHIN = 20.0  #: seconds
ENDS_WITHIN = 5.0  #: seconds; what an agent promises


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The JSON in it; None where there is no body."""
        return json.loads(self.body) if self.body else None


@dataclass(slots=True)
class RunningAgent:
    """One agent, by its configuration. ``process`` is its last life."""

    node: str
    config: Path
    listen: str
    token_file: Path
    state_dir: Path
    health_port: int
    log: Path
    ring: Path
    agent_check_port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None)
    sources: Path | None = None  #: where another version of farmlease lies that this host runs

    def launch(self) -> None:
        """Start the agent without waiting for it."""
        self.launch_by(lambda command: command)

    def launch_by(self, other: Callable[[list[str]], list[str]]) -> None:
        """Start the agent by ``other``, which makes another command of the usual one."""
        assert self.process is None or self.process.poll() is not None, "the agent's last life goes on"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FARMLEASE_")}
        command = [sys.executable, "-m", "farmlease", "--config", str(self.config), "agent"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                other(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
                cwd=self.sources,
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Return when /readyz says so; fail with the agent's log if it ends or takes too long."""
        for _ in turns(READY_WITHIN):
            if self.process is None or self.process.poll() is not None:
                break
            with suppress(OSError, http.client.HTTPException):
                if self.health().status == 200:
                    return
            time.sleep(0.02)
        raise AssertionError(f"{self.node} does not get ready:\n{self.log_text}")

    def start(self, user: str, session: str, **more: object) -> Reply:
        """Ask for a session."""
        return self.request("POST", "/v1/sessions", {"user": user, "session": session, **more})

    def end(self, session: str) -> Reply:
        """End a session."""
        return self.request("DELETE", f"/v1/sessions/{quote(session, safe='')}")

    def health(self, path: str = "/readyz") -> Reply:
        """Ask the health listener."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.health_port, timeout=within(10))) as connection:
            return answered(connection, "GET", path, None, {})

    def agent_check(self, sent: bytes = b"") -> bytes:
        """Ask as HAProxy's agent-check does; return all that is said."""
        with socket.create_connection(("127.0.0.1", self.agent_check_port), within(10)) as connection:
            connection.sendall(sent)
            return b"".join(iter(lambda: connection.recv(4096), b""))

    def request(
        self,
        method: str,
        path: str,
        document: object = None,
        *,
        headers: Mapping[str, str | None] | None = None,
        body: bytes | Iterable[bytes] | None = None,
    ) -> Reply:
        """Send one request with the agent's token. ``headers`` go over the usual ones; None leaves one out."""
        usual: dict[str, str | None] = {"Host": self.host, "Authorization": self.authorization}
        if document is not None:
            usual["Content-Type"] = "application/json"
            body = json.dumps(document).encode()
        sent = {name: value for name, value in {**usual, **(headers or {})}.items() if value is not None}
        with closing(self.connect()) as connection:
            return answered(connection, method, path, body, sent)

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection to the agent's API."""
        if not self.listen.startswith("unix:"):
            return http.client.HTTPConnection(self.listen, timeout=within(30))
        connection = http.client.HTTPConnection("localhost", timeout=within(30))
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(within(30))
        connection.sock.connect(self.listen.removeprefix("unix:"))
        return connection

    @property
    def host(self) -> str:
        """The Host header that means this agent."""
        return "localhost" if self.listen.startswith("unix:") else self.listen

    @property
    def authorization(self) -> str | None:
        """The header that proves who asks; none on a Unix socket."""
        return None if self.listen.startswith("unix:") else f"Bearer {self.token_file.read_text().strip()}"

    def terminate(self) -> int:
        """Tell the agent to stop and return its exit status; fail if it takes longer than it promises."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(within(ENDS_WITHIN))

    def kill(self) -> None:
        """End the agent with -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Let it do nothing for as long as this lasts, as if all of it happened between two of its looks."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    @property
    def log_text(self) -> str:
        """All that the agent's lives have written."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@dataclass(frozen=True, slots=True)
class Agents:
    """The agents of one farm and the folder they live in."""

    folder: Path
    by_node: Mapping[str, RunningAgent]

    def __iter__(self) -> Iterator[RunningAgent]:
        """Each agent, in the order of their nodes."""
        return iter(self.by_node.values())

    def __getitem__(self, node: str) -> RunningAgent:
        """The agent of a node."""
        return self.by_node[node]

    @property
    def key_ring(self) -> Path:
        """The farm's key ring file."""
        return self.folder / "keyring.json"

    @property
    def home(self) -> Path:
        """Where the users' files lie on every host, as the policy says."""
        return self.folder / "home"

    def licence_file(self, user: str) -> Path:
        """Where the usual policy has a user's file."""
        return self.home / user / ".qlikview" / "BorrowedCalData.pgo"


@contextmanager
def agents_on(
    store_url: str,
    *,
    nodes: Sequence[str] = ("ctx-01", "ctx-02"),
    policy: str = POLICY,
    listen: str = "tcp",
    heartbeat: str = "1s",
    own_rings: bool = False,
    settings: str = "",
    health: str = "",
    sources: Mapping[str, Path] | None = None,
) -> Iterator[Agents]:
    """Run an agent for each node on a store, with ``policy`` in force; ``{home}`` in it is where homes lie.

    ``listen`` is tcp or unix; with ``own_rings`` each node has a copy of the key ring of its own; ``settings`` are
    further lines of ``[agent]``, ``health`` of ``[health]``; ``sources``: of nodes that run another version. The folder
    has a short path (Unix sockets allow 107 bytes) and is open to look through.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder)
        folder.chmod(0o755)
        (folder / "home").mkdir()
        keyring_file.create(folder / "keyring.json", KeyRing.generate(time.time_ns() // 1_000_000))
        made = {
            node: written(
                folder,
                node,
                store_url,
                listen,
                heartbeat,
                stack.enter_context(quiet_ports(3)),
                own_ring=own_rings,
                settings=settings,
                health=health,
            )
            for node in nodes
        }
        for agent in made.values() if own_rings else ():
            shutil.copy2(folder / "keyring.json", agent.ring)
        asyncio.run(apply(made[nodes[0]].config, policy.format(home=folder / "home")))
        for agent in made.values():
            agent.sources = (sources or {}).get(agent.node)
            stack.callback(reap, agent)
            agent.launch()
        for agent in made.values():
            agent.wait_ready()
        yield Agents(folder, made)


async def apply(config: Path, policy: str) -> None:
    """Put a policy in force."""
    async with open_farm(load_config(config, {})) as (farm, _):
        await farm.apply(parse_policy(policy, "the test's policy"))


def written(
    folder: Path,
    node: str,
    store_url: str,
    listen: str,
    heartbeat: str,
    ports: Sequence[int],
    *,
    own_ring: bool = False,
    settings: str = "",
    health: str = "",
) -> RunningAgent:
    """Write an agent's configuration. ``ports``: of its health, of HAProxy's agent-check, and of its API over TCP."""
    ring = folder / (f"{node}.ring.json" if own_ring else "keyring.json")
    port, check, api = ports
    address = f"unix:{folder}/{node}.sock" if listen == "unix" else f"127.0.0.1:{api}"
    config = folder / f"{node}.toml"
    config.write_text(
        f'farm = "citrix-a"\nnode = "{node}"\n'
        f'[store]\nurl = "{store_url}"\n'
        f'[keys]\nfile = "{ring}"\n'
        f'[agent]\nlisten = "{address}"\ntoken_file = "{folder}/{node}.token"\nstate_dir = "{folder}/{node}"\n'
        f'heartbeat = "{heartbeat}"\n{settings}\n'
        f'[health]\nlisten = "127.0.0.1:{port}"\nagent_check = "127.0.0.1:{check}"\n{health}\n'
    )
    return RunningAgent(
        node, config, address, folder / f"{node}.token", folder / node, port, folder / f"{node}.log", ring, check
    )  # fmt: skip


def reap(agent: RunningAgent) -> None:
    """End an agent whatever became of it."""
    if agent.process is not None:
        agent.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            agent.process.wait(within(ENDS_WITHIN))
        agent.kill()


def soon(holds: Callable[[], bool], otherwise: str, seconds: float = 10) -> None:
    """Wait for something that another process does; fail after so many seconds, more on a busy machine."""
    for _ in turns(seconds):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError(otherwise)


def answered(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] | None,
    headers: Mapping[str, str],
) -> Reply:
    """Send a request and read its answer; one that refuses a body before it was all sent is an answer too.

    Raises OSError where nobody listens, or listens no more.
    """
    if connection.sock is None:
        connection.connect()  # reset in this moment, there is nobody whose answer could be read
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.request(method, path, body, dict(headers), encode_chunked="Transfer-Encoding" in headers)
    response = connection.getresponse()
    return Reply(response.status, dict(response.headers), response.read())
