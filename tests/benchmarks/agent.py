"""What a session start costs a user: through the agent's HTTP interface, and through the command at every logon."""

import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.benchmarks.numbers import Number, middle, p99
from tests.benchmarks.store import SERVER
from tests.servers import free_port, redis_server

__all__ = ["agent_numbers"]

ROOT = Path(__file__).parents[2]
STARTS = 2_000
ROUNDS = 21
#: What any command of this kind costs: the interpreter, the option parser and an HTTP client.
BARE = [sys.executable, "-c", "import click, http.client"]
CREATED, OK = 201, 200


@dataclass(frozen=True, slots=True)
class RunningAgent:
    """A real agent on a real store."""

    port: int
    token: str
    command: list[str]  #: ``farmlease --config FILE``


def agent_numbers(scale: int) -> list[Number]:
    """Measure one agent."""
    with running_agent() as agent:
        return [*post_numbers(agent, STARTS // scale), *command_numbers(agent, max(5, ROUNDS // scale))]


def post_numbers(agent: RunningAgent, starts: int) -> list[Number]:
    """Time POST /v1/sessions on loopback, one after another on one connection: new leases, then the same again."""
    with closing(http.client.HTTPConnection("127.0.0.1", agent.port, timeout=30)) as connection:
        for number in range(50):
            post(connection, agent, f"warm{number}", f"warm-{number}")
        new = [post(connection, agent, f"user{number}", str(number)) for number in range(starts)]
        again = [post(connection, agent, f"user{number}", str(number), OK) for number in range(starts)]
    return [
        Number("POST /v1/sessions, new lease, p50", median(new), "ms", f"{starts:,} requests, one at a time"),
        Number("POST /v1/sessions, new lease, p99", p99(new), "ms", f"{starts:,} requests, one at a time"),
        Number("POST /v1/sessions, asked again, p50", median(again), "ms", f"{starts:,} requests, one at a time"),
        Number("POST /v1/sessions, asked again, p99", p99(again), "ms", f"{starts:,} requests, one at a time"),
    ]


def post(
    connection: http.client.HTTPConnection, agent: RunningAgent, user: str, session: str, status: int = CREATED
) -> float:
    """Start a session; return how long that took, in ms."""
    body = json.dumps({"user": user, "session": session})
    headers = {"Authorization": f"Bearer {agent.token}", "Content-Type": "application/json"}
    began = time.perf_counter()
    connection.request("POST", "/v1/sessions", body, headers)
    response = connection.getresponse()
    content = response.read()
    took = (time.perf_counter() - began) * 1000
    assert status == response.status, content
    return took


def command_numbers(agent: RunningAgent, rounds: int) -> list[Number]:
    """Time the command and the bare interpreter in turns, so that both see the same machine."""
    start = [*agent.command, "session", "start", r"CORP\logon"]
    bare, whole = [], []
    for number in range(rounds + 1):
        bare.append(wall(BARE))
        whole.append(wall([*start, "--session", f"logon-{number}"]))
    bare, whole = bare[1:], whole[1:]  # the first of each reads the disk
    ratios = [mine / theirs for mine, theirs in zip(whole, bare, strict=True)]
    return [
        middle('wall time of python -c "import click, http.client"', bare, "ms", 0),
        middle("wall time of farmlease session start", whole, "ms", 0),
        middle("… over the bare interpreter", ratios, "x"),
    ]


def wall(command: list[str]) -> float:
    """Run a command that must succeed; return how long it took, in ms."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return (time.perf_counter() - began) * 1000


@contextmanager
def running_agent() -> Iterator[RunningAgent]:
    """Start store and agent in folders of their own; end both."""
    with tempfile.TemporaryDirectory(prefix="fl-bench-") as name, redis_server(program=SERVER) as server:
        folder, port, health = Path(name), free_port(), free_port()
        config, policy = folder / "farmlease.toml", folder / "pools.toml"
        config.write_text(
            f'farm = "citrix-a"\nnode = "ctx-01"\n[store]\nurl = "{server.url}"\n'
            f'[keys]\nfile = "{folder}/keyring.json"\n'
            f'[agent]\nlisten = "127.0.0.1:{port}"\ntoken_file = "{folder}/token"\nstate_dir = "{folder}/state"\n'
            f'[health]\nlisten = "127.0.0.1:{health}"\n'
            '[identity]\ndomains = { CORP = "corp.example.com" }\n'
        )
        policy.write_text('[[pool]]\nname = "qlikview"\nkind = "named"\ncapacity = 100000\n')
        installed = Path(sys.executable).with_name("farmlease")
        farmlease = [str(installed)] if installed.exists() else [sys.executable, "-m", "farmlease"]
        command = [*farmlease, "--config", str(config)]
        for arguments in (["key", "generate"], ["pool", "apply", str(policy), "--yes"]):
            subprocess.run([*command, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        agent = subprocess.Popen([*command, "agent"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        try:
            wait_ready(health)
            yield RunningAgent(port, (folder / "token").read_text().strip(), command)
        finally:
            agent.terminate()
            agent.wait(10)


def wait_ready(port: int) -> None:
    """Return when the agent says it can serve a logon."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            try:
                connection.request("GET", "/readyz")
                if OK == connection.getresponse().status:
                    return
            except OSError:
                pass
        time.sleep(0.05)
    raise RuntimeError("the agent did not get ready within 20 s")
