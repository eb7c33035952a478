"""What a run consists of, for those who strike, work and look."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from farmlease.domain.identity import Identities
from farmlease.domain.model import Withdrawal
from farmlease.domain.pool import Pool
from farmlease.errors import StoreError
from farmlease.farm import Farm
from tests.faults.grounds import Ground
from tests.faults.history import History
from tests.faults.hosts import Plan, Worker
from tests.faults.judge import Trouble
from tests.support.patience import within

__all__ = ["IDENTITIES", "SETTLES", "Kind", "Run", "pool_of"]

#: Seconds in which all is well again after the last fault, at most.
SETTLES = 12.0
#: Seconds after the end of a fault by which its nodes have told of it.
TOLD = 3.0
IDENTITIES = Identities({"CORP": "corp.example.com"})


@dataclass(slots=True)
class Run:
    """A run under way; what strikes gets this."""

    seed: int
    random: random.Random
    plan: Plan
    ground: Ground
    farm: Farm
    history: History
    silence: float  #: seconds for which the store keeps a silent node
    hosts: list[Worker] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    taken: Withdrawal | None = None  #: how an administrator took a lease back
    quiet: asyncio.Event = field(default_factory=asyncio.Event)
    struck: int = 0
    struck_at: float = float("inf")  #: when a fault struck first

    async def pause(self, shortest: float, longest: float) -> None:
        """Let some time pass."""
        await asyncio.sleep(self.random.uniform(shortest, longest))

    def strike(self, text: str) -> float:
        """Note that a fault strikes; return when."""
        self.struck += 1
        self.history.note(f"FAULT {text}")
        self.struck_at = min(self.struck_at, time.time())
        return time.time()

    def ended(self, what: str, since: float, at_least: int | None = None) -> None:
        """Note that a fault is over, and that all nodes (or ``at_least`` so many) must have told of it by then."""
        self.history.note(f"FAULT OVER {what}")
        names = tuple(host.name for host in self.hosts)
        needed = len(names) if at_least is None else at_least
        self.troubles.append(Trouble(what, since, time.time() + within(TOLD), names, needed))

    @property
    def pool_keys(self) -> str:
        """A key of the run's shard."""
        return f"fl:{{{self.plan.farm}/{self.plan.pool}/0}}:meta"


async def pool_of(run: Run) -> Pool:
    """Return the run's pool, by the policy in force."""
    found = (await run.farm.policy()).pool(run.plan.pool)
    if found is None:
        raise StoreError("the policy is not back yet")
    return found


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: where it strikes and how. ``lines``: each host has a proxy."""

    name: str
    ground: str
    strike: Callable[[Run], Awaitable[None]]
    options: tuple[str, ...] = ()
    lines: bool = False
    #: Seconds for which the store keeps a silent node, one of which the seed takes.
    silences: Sequence[float] = (1.5, 20.0)
    #: Leases without a session are counted as in use. Not where a host is away for longer than the recovery window.
    leases: bool = True
    #: What happens before anybody works.
    prepare: Callable[[Run], Awaitable[None]] | None = None
    #: Nothing is lost by it, so that no session may be.
    lossless: bool = False
