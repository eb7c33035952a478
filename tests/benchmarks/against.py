"""Two checkouts measured in turns: whether this tree costs the server and the agent more than an earlier commit did.

Both run at the same time, each with servers and agents of its own, and are asked in turns, so that they see the same
machine. Compared are CPU times, which other work on the machine changes little; wall times stand beside them. Both are
driven by what stays as it is when the code moves: the command, the HTTP interface and the server's own statistics.
Nothing of the package is imported here. Linux only.
"""

import asyncio
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.checkout import Checkout, CheckoutAgent, agent_of
from tests.benchmarks.figures import Missing, on_the_clients_core, on_the_servers_core
from tests.benchmarks.load import Question, load
from tests.support.patience import within

__all__ = [
    "ROUNDS", "TOLERANCE", "Comparison", "Quantity", "Scripts", "compare", "cpu_seconds", "git", "in_turns", "judgement", "show", "worktree",
]  # fmt: skip

ROOT = Path(__file__).parents[2]
#: Many short ones: other work on the machine comes and goes, and is to meet both alike.
ROUNDS = 40
#: By how much more than before the server or the agent may take.
TOLERANCE = 0.05
#: Seconds after which no further round is begun.
LONGEST = 240
CREATED, NO_CONTENT = 201, 204
POOLS, BEAT = 20, "100ms"
#: The commands by which scripts are run; what a script calls inside is in their time.
_SCRIPTS = ("evalsha", "fcall")

Turn = Callable[[CheckoutAgent, str], Awaitable[dict["Quantity", float]]]
Pairs = list[tuple[dict["Quantity", float], dict["Quantity", float]]]


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is measured. ``judged``: it is time of the server or the agent."""

    what: str
    unit: str
    judged: bool = True


ACQUIRE = Quantity("acquire, a new lease: time in the server", "µs")
RELEASE = Quantity("release: time in the server", "µs")
HEARTBEAT = Quantity("heartbeat of a pool: time in the server", "µs")
#: Sessions in flight to the three quantities of a start and its end.
START_AND_END = {
    clients: (
        Quantity(f"start and end of a session, {clients} in flight: CPU of the server", "ms"),
        Quantity(f"start and end of a session, {clients} in flight: CPU of the agent", "ms"),
        Quantity(f"start and end of a session, {clients} in flight: wall", "ms", judged=False),
    )
    for clients in (1, 50)
}
COMMAND_CPU = Quantity("the command session start: CPU", "ms", judged=False)
COMMAND_WALL = Quantity("the command session start: wall", "ms", judged=False)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity of both, round by round."""

    quantity: Quantity
    before: tuple[float, ...]
    here: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """What it is here, by what it was before; of the medians."""
        return median(self.here) / median(self.before)

    @property
    def spread(self) -> tuple[float, float]:
        """Between which ratios the middle half of the rounds lies; of a few rounds, all."""
        each = sorted(here / before for before, here in zip(self.before, self.here, strict=True))
        beyond = len(each) // 4
        return each[beyond], each[-1 - beyond]

    @property
    def is_slower(self) -> bool:
        """Whether server or agent take more than they may."""
        return self.quantity.judged and self.ratio > 1 + TOLERANCE


def compare(rev: str, rounds: int, scale: int) -> int:
    """Measure ``rev`` and this tree, print the table and return the exit status: 0 if server and agent are as before.

    Missing if there is no such revision. ``scale``: a tenth of everything is 10.
    """
    with _ended_in_order(), worktree(rev) as folder:
        found = asyncio.run(measure((Checkout(folder), Checkout(ROOT)), rounds, scale))
    show(rev, found)
    return int(any(each.is_slower for each in found))


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Have SIGTERM end this process as Ctrl-C does, so that servers, agents and the temporary checkout go with it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


async def measure(checkouts: tuple[Checkout, Checkout], rounds: int, scale: int) -> list[Comparison]:
    """Return each quantity, of an earlier checkout and of this one."""
    ends_at = time.monotonic() + LONGEST
    found: Pairs = []
    for setting, turn in (({"pools": POOLS, "heartbeat": BEAT}, heartbeats), ({}, sessions(scale))):
        with agents(checkouts, **setting) as both, on_the_clients_core():
            found += await in_turns(both, turn, rounds, ends_at)
    quantities = dict.fromkeys(quantity for before, _ in found for quantity in before)
    return [
        Comparison(
            quantity,
            tuple(before[quantity] for before, _ in found if quantity in before),
            tuple(here[quantity] for _, here in found if quantity in here),
        )
        for quantity in quantities
    ]


@contextmanager
def agents(checkouts: tuple[Checkout, Checkout], **setting: Any) -> Iterator[tuple[CheckoutAgent, CheckoutAgent]]:
    """Run an agent of each, on the servers' core."""
    with ExitStack() as stack:
        with on_the_servers_core():
            before, here = (stack.enter_context(agent_of(each, **setting)) for each in checkouts)
        yield before, here


async def in_turns(both: tuple[CheckoutAgent, CheckoutAgent], turn: Turn, rounds: int, ends_at: float) -> Pairs:
    """Measure both by turns, the order changing; the first round does not count, and one is always measured."""
    pairs: Pairs = []
    for number in range(rounds + 1):
        if number > 1 and time.monotonic() > ends_at:
            break
        measured: dict[int, dict[Quantity, float]] = {}
        for side in (1, 0) if number % 2 else (0, 1):
            measured[side] = await turn(both[side], f"round{number}")
        pairs.append((measured[0], measured[1]))
    return pairs[1:]


async def heartbeats(agent: CheckoutAgent, _: str) -> dict[Quantity, float]:
    """Leave an agent to itself, which beats ten times a second for many pools."""
    run = Scripts(agent)
    await asyncio.sleep(within(0.3))
    return {HEARTBEAT: run.micros(POOLS)}


def sessions(scale: int) -> Turn:
    """Return the turn in which sessions are started and ended, over HTTP and by the command."""

    async def turn(agent: CheckoutAgent, name: str) -> dict[Quantity, float]:
        found: dict[Quantity, float] = {}
        for clients, count in ((1, max(10, 25 // scale)), (50, 400 // scale)):
            found |= await starts_and_ends(agent, f"{name}-{clients}", clients, count)
        return found | logon(agent, name)

    return turn


async def starts_and_ends(agent: CheckoutAgent, prefix: str, clients: int, count: int) -> dict[Quantity, float]:
    """Start as many sessions of new users, then end them."""
    names = [f"{prefix}-{number}" for number in range(count)]
    starts = [Question("POST", "/v1/sessions", CREATED, {"user": name, "session": name}) for name in names]
    ends = [Question("DELETE", f"/v1/sessions/{name}", NO_CONTENT) for name in names]
    processes = (agent.store.process.pid, agent.pid)
    took, scripts = [0.0] * 3, dict[Quantity, float]()
    for questions, script in ((starts, ACQUIRE), (ends, RELEASE)):
        run, before = Scripts(agent), [*map(cpu_seconds, processes), time.perf_counter()]
        await load(agent.port, agent.token, questions, clients)
        after = [*map(cpu_seconds, processes), time.perf_counter()]
        took = [sum(each) - began for *each, began in zip(took, after, before, strict=True)]
        scripts[script] = run.micros(count)
    found = dict(zip(START_AND_END[clients], (each * 1000 / count for each in took), strict=True))
    return found | scripts if clients > 1 else found


def logon(agent: CheckoutAgent, name: str) -> dict[Quantity, float]:
    """Start a session by the command."""
    began, spent = time.perf_counter(), _childrens_cpu()
    agent.checkout.run("--config", str(agent.config), "session", "start", name, "--session", name)
    return {
        COMMAND_CPU: (_childrens_cpu() - spent) * 1000,
        COMMAND_WALL: (time.perf_counter() - began) * 1000,
    }


class Scripts:
    """The scripts that an agent's server runs from now on."""

    def __init__(self, agent: CheckoutAgent) -> None:
        self._store = agent.store
        with self._store.client() as raw:
            raw.config_resetstat()

    def micros(self, at_least: int) -> float:
        """Return the median time of a call in the server, by its histogram; there must have been so many."""
        with self._store.client() as raw:
            counts, times = raw.info("commandstats"), raw.info("latencystats")
        run = max(_SCRIPTS, key=lambda name: counts.get(f"cmdstat_{name}", {"calls": 0})["calls"])
        calls = counts.get(f"cmdstat_{run}", {"calls": 0})["calls"]
        assert calls >= at_least, f"the server ran {calls} scripts, where {at_least} were to be run"
        if (name := f"latency_percentiles_usec_{run}") not in times:
            raise Missing("the redis-server keeps no histograms of its calls' times; Redis 7 does")
        return float(times[name]["p50"])


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, its ended threads included, to the nanosecond: clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)


def _childrens_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def worktree(rev: str) -> Iterator[Path]:
    """Check a revision out into a temporary folder; Missing if there is none of that name."""
    commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{rev}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="fl-against-") as name:
        folder = Path(name) / "checkout"
        git("worktree", "add", "--detach", str(folder), commit)
        try:
            yield folder
        finally:
            git("worktree", "remove", "--force", str(folder))


def git(*arguments: str) -> str:
    """Run git in this repository; return what it prints. Missing, with its words, if it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Missing(f"git {' '.join(arguments)}: {done.stderr.strip() or 'there is no such revision'}")
    return done.stdout.strip()


def show(rev: str, found: list[Comparison]) -> None:
    """Print the table and the judgement."""
    table = Table("figure", "", rev, "here", "here / before", "spread", "")
    for column in table.columns[2:5]:
        column.justify = "right"
    for each in found:
        verdict = "slower" if each.is_slower else "as before" if each.quantity.judged else "reported"
        low, high = each.spread
        values = (f"{median(side):.3g}" for side in (each.before, each.here))
        table.add_row(
            each.quantity.what, each.quantity.unit, *values, f"{each.ratio:.3f}", f"{low:.2f} … {high:.2f}", verdict
        )
    console = Console(width=140)
    console.print(table)
    console.print(judgement(rev, found), soft_wrap=True)


def judgement(rev: str, found: list[Comparison]) -> str:
    """Say whether server and agent take what they took."""
    slower = [f"{each.quantity.what} ({each.ratio:.3f})" for each in found if each.is_slower]
    rounds = min(len(each.here) for each in found if each.quantity.judged)
    if not slower:
        return f"server and agent are within {TOLERANCE:.0%} of {rev}, by the medians of {rounds} rounds"
    return f"more than {TOLERANCE:.0%} above {rev}, by the medians of {rounds} rounds: {'; '.join(slower)}"
