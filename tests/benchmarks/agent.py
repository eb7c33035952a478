"""What a session start costs a user: through the agent's HTTP interface, and through the command at every logon."""

import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from farmlease.store.keys import Shard
from tests.benchmarks.agent_with_empty_route import EMPTY
from tests.benchmarks.figures import ROUNDS, Figure, on_the_clients_core, on_the_servers_core, p99, ratios, side_by_side
from tests.benchmarks.load import Question, load
from tests.benchmarks.store import SERVER
from tests.support.ports import distant_port
from tests.support.servers import RedisServer, redis_server

__all__ = ["RunningAgent", "agent_figures", "running_agent", "starts"]

ROOT = Path(__file__).parents[2]
#: What any command of this kind costs: the interpreter, the option parser and an HTTP client.
BARE = [sys.executable, "-c", "import click, http.client"]
CREATED, NO_CONTENT = 201, 204
MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class RunningAgent:
    """A real agent on a real store."""

    process: psutil.Process
    port: int
    token: str
    command: list[str]  #: ``farmlease --config FILE``
    health: int  #: port of its health listener
    store: RedisServer

    def memory(self) -> float:
        """Return its resident memory in megabytes."""
        return float(self.process.memory_info().rss / MEGABYTE)

    def held(self) -> tuple[int, int]:
        """How many leases and how many sessions the store counts."""
        keys = Shard("citrix-a", "qlikview").keys()
        with self.store.client() as raw:
            return int(raw.hlen(keys[1])), int(raw.zcard(keys[6]))

    async def ask(self, questions: list[Question], clients: int) -> tuple[float, list[float]]:
        """Ask all; return how many a second that were, and how long each took in ms."""
        began = time.perf_counter()
        times = await load(self.port, self.token, questions, clients)
        return len(questions) / (time.perf_counter() - began), times


async def agent_figures(scale: int) -> list[Figure]:
    """Measure one agent, its own core to itself and its store."""
    return [
        await http_figure(2_000 // scale),
        await command_figure(max(ROUNDS, 21 // scale)),
        *await memory_figures(100_000 // scale),
    ]


def starts(prefix: str, count: int) -> list[Question]:
    """Return as many session starts of users who have no lease yet."""
    return [
        Question("POST", "/v1/sessions", CREATED, {"user": f"{prefix}-{number}", "session": f"{prefix}-{number}"})
        for number in range(count)
    ]


def ends(prefix: str, count: int) -> list[Question]:
    """Return the ends of these sessions."""
    return [Question("DELETE", f"/v1/sessions/{prefix}-{number}", NO_CONTENT) for number in range(count)]


async def http_figure(calls: int) -> Figure:
    """Compare session starts with a route of the same server that does nothing but answer 204."""
    turns = iter(range(1_000))
    times: list[float] = []
    with running_agent("-m", "tests.benchmarks.agent_with_empty_route") as agent:

        async def ours() -> float:
            prefix, before = f"round{next(turns)}", agent.held()[0]
            rate, took = await agent.ask(starts(prefix, calls), 50)
            times.extend(took)
            assert (before + calls, calls) == agent.held()
            await agent.ask(ends(prefix, calls), 50)
            return rate

        async def theirs() -> float:
            return (await agent.ask([Question("GET", EMPTY, NO_CONTENT)] * calls, 50))[0]

        mine, other = await side_by_side(ours, theirs)
    return Figure(
        id="P5",
        what="POST /v1/sessions a second, 50 in flight / an empty 204 route of the same server",
        rounds=ratios(mine, other),
        floor=0.35,
        goal=0.6,
        at_most=False,
        detail=f"{max(mine):,.0f} / {max(other):,.0f} a second at best, p99 {p99(times):.0f} ms; each was granted",
    )


async def command_figure(rounds: int) -> Figure:
    """Time the command and the bare interpreter in turns, so that both see the same machine."""
    with running_agent() as agent:
        numbers = iter(range(10_000))

        async def ours() -> float:
            return wall([*agent.command, "session", "start", r"CORP\logon", "--session", f"logon-{next(numbers)}"])

        async def theirs() -> float:
            return wall(BARE)

        mine, other = await side_by_side(ours, theirs, rounds)
        assert (1, rounds + 1) == agent.held()
    return Figure(
        id="P9",
        what='wall time: farmlease session start / python -c "import click, http.client"',
        rounds=ratios(mine, other),
        floor=2.0,
        goal=1.4,
        at_most=True,
        detail=f"{min(mine):.0f} ms / {min(other):.0f} ms at best",
    )


def wall(command: list[str]) -> float:
    """Run a command that must succeed, its modules compiled as an installation has them; return how long it took, in ms."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=environment)
    return (time.perf_counter() - began) * 1000


async def memory_figures(pairs: int) -> list[Figure]:
    """Look at the agent's memory with two hundred sessions, and whether starts and ends leave something behind."""
    batch = 1_000
    with running_agent() as agent:
        await agent.ask(starts("held", 200), 20)
        full = agent.memory()
        for number in range(5):  # what is made once: caches, pools of memory
            await agent.ask(starts(f"warm{number}", batch), 20)
            await agent.ask(ends(f"warm{number}", batch), 20)
        before = agent.memory()
        for number in range(pairs // batch):
            await agent.ask(starts(f"pair{number}", batch), 20)
            await agent.ask(ends(f"pair{number}", batch), 20)
        after = agent.memory()
        assert (200 + 5 * batch + pairs // batch * batch, 200) == agent.held()
    return [
        Figure(
            id="P11a",
            what="memory of an agent with 200 sessions, MB",
            rounds=(full,),
            floor=100,
            goal=60,
            at_most=True,
        ),
        Figure(
            id="P11b",
            what=f"growth of its memory over {pairs:,} starts and ends, %",
            rounds=(max(0.0, (after - before) / before * 100),),
            floor=2,
            goal=0,
            at_most=True,
            detail=f"{before:.1f} MB to {after:.1f} MB",
        ),
    ]


@contextmanager
def running_agent(*program: str) -> Iterator[RunningAgent]:
    """Start store and agent in folders of their own and on one core, measure from the other; end both.

    ``program``: what Python runs in place of the installed command.
    """
    with (
        tempfile.TemporaryDirectory(prefix="fl-bench-") as name,
        on_the_servers_core(),
        redis_server(program=SERVER) as server,
    ):
        folder, port, health = Path(name), distant_port(), distant_port()
        config, policy = folder / "farmlease.toml", folder / "pools.toml"
        config.write_text(
            f'farm = "citrix-a"\nnode = "ctx-01"\n[store]\nurl = "{server.url}"\n'
            f'[keys]\nfile = "{folder}/keyring.json"\n'
            f'[agent]\nlisten = "127.0.0.1:{port}"\ntoken_file = "{folder}/token"\nstate_dir = "{folder}/state"\n'
            f'[health]\nlisten = "127.0.0.1:{health}"\n'
        )
        policy.write_text(
            '[identity]\ndomains = { CORP = "corp.example.com" }\n'
            '[[pool]]\nname = "qlikview"\nkind = "named"\ncapacity = 1000000\n'
        )
        installed = Path(sys.executable).with_name("farmlease")
        farmlease = [str(installed)] if installed.exists() else [sys.executable, "-m", "farmlease"]
        if program:
            farmlease = [sys.executable, *program]
        command = [*farmlease, "--config", str(config)]
        for arguments in (["key", "generate"], ["pool", "apply", str(policy), "--yes"]):
            subprocess.run([*command, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        agent = subprocess.Popen([*command, "agent"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        try:
            wait_ready(health)
            with on_the_clients_core():
                token = (folder / "token").read_text().strip()
                yield RunningAgent(psutil.Process(agent.pid), port, token, command, health, server)
        finally:
            agent.terminate()
            agent.wait(20)


def wait_ready(port: int) -> None:
    """Return when the agent says it can serve a logon."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            try:
                connection.request("GET", "/readyz")
                if http.client.OK == connection.getresponse().status:
                    return
            except OSError:
                pass
        time.sleep(0.05)
    raise RuntimeError("the agent did not get ready within 20 s")
