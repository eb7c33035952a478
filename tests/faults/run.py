"""One run: users at work on a farm, faults that strike, everything settles, and the history is judged."""

import asyncio
import random
import tempfile
import time
from collections.abc import MutableMapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.domain.identity import User
from farmlease.domain.policy import parse_policy
from farmlease.errors import StoreError
from tests.faults.grounds import Ground
from tests.faults.history import CURRENT, History
from tests.faults.hosts import Answer, Plan, Worker, farm_at, running_host
from tests.faults.judge import judge, judge_nothing_lost
from tests.faults.processes import watched_agent
from tests.faults.settling import ask_all_again, settle
from tests.faults.stage import IDENTITIES, SETTLES, Kind, Run
from tests.faults.taking_back import judge_taken_back
from tests.support.patience import turns, within

__all__ = ["Outcome", "listen_to_logs", "perform"]

#: Seconds of work before the first fault and after the last one.
BEFORE, AFTER = 0.7, 0.6


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run."""

    kind: str
    seed: int
    struck: int
    violations: tuple[str, ...]
    calls: int
    grants: int
    losses: int
    seconds: float
    history: tuple[str, ...]


def listen_to_logs() -> None:
    """Write what farmlease logs into the history of the run it belongs to."""

    def noted(_: Any, method: str, event: MutableMapping[str, Any]) -> str:
        history = CURRENT.get()
        if history is not None:
            what = event.pop("event")
            fault = event.pop("exc_info", None)
            history.note(f"log {method}: {what} " + " ".join(f"{key}={value}" for key, value in event.items()))
            if fault:
                history.violate("unexpected", f"{what}: {fault!r}")
        raise structlog.DropEvent

    structlog.configure(processors=[noted])


async def perform(kind: Kind, seed: int, ground: Ground, history: History) -> Outcome:
    """Perform one run on a ground that is whole."""
    chance = random.Random(f"{kind.name}/{seed}")  # noqa: S311 - faults, not secrets
    CURRENT.set(history)
    plan, policy, silence = _planned(kind, seed, chance, ground)
    began = time.monotonic()
    struck = 0
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fl-faults-")))
        farm = await stack.enter_async_context(farm_at(ground.url, plan, timeout_ms=5000))
        await farm.apply(parse_policy(policy, "the run's policy"))
        run = Run(seed, chance, plan, ground, farm, history, silence)
        if ground.agents is not None:
            for agent in ground.agents:
                run.hosts.append(await stack.enter_async_context(watched_agent(agent, plan, history, silence)))
        else:
            for number in range(len(ground.lines) or chance.choice([2, 3])):
                url, name = ground.url_of(number), f"n{number}"
                run.hosts.append(await stack.enter_async_context(running_host(name, url, plan, history, folder)))
        await _ready(run)
        if kind.prepare is not None:
            await kind.prepare(run)
        await _work(run, kind)
        struck = run.struck
        await ask_all_again(run, since=await settle(run))
        await judge_taken_back(run)
        if ground.agents is not None:  # the next run finds them idle
            await asyncio.gather(*[host.end(name) for host in run.hosts for name in await host.active()])
    if not kind.leases:
        history.leases.clear()
    judge(history, plan.capacity, plan.kept, run.troubles)
    if kind.lossless:
        judge_nothing_lost(history, run.struck_at)
    if not struck:
        history.violate("harness", "no fault struck")
    return Outcome(
        kind.name, seed, struck, tuple(history.violations), history.calls, len(history.spells), len(history.losses),
        time.monotonic() - began, tuple(history.lines()),
    )  # fmt: skip


def _planned(kind: Kind, seed: int, chance: random.Random, ground: Ground) -> tuple[Plan, str, float]:
    share = chance.choice(["named", "user_device", "session", "user"])
    capacity, silence = chance.choice([2, 3]), chance.choice(kind.silences)
    kept = {"named": chance.choice([max(silence, 1.0) + 0.5, 60.0]) if silence < 5 else 60.0}.get(share, 0.0)
    if share == "named":
        rest = f'kind = "named"\nlease = "{kept * 1000:.0f}ms"\nquarantine = "0"\n'
    else:
        rest = f'kind = "floating"\nshare = "{share}"\n'
    queue, hold = chance.choice([0.0, 0.0, 2.0]), chance.choice([0.0, 0.0, 3.0])
    if queue and share != "named":
        rest += f'queue = "{queue * 1000:.0f}ms"\n'
    if hold:
        rest += f'max_hold = "{hold * 1000:.0f}ms"\n'
    attempts = chance.choice([0, 3])
    rest += f'reacquire = {{ attempts = {attempts}, every = "400ms" }}\n'
    pool = f"{kind.name}-{seed}"
    policy = f'[[pool]]\nname = "{pool}"\ncapacity = {capacity}\nsession_timeout = "{silence * 1000:.0f}ms"\n{rest}'
    farm, ring = f"{kind.name}-{seed}", KeyRing.generate(time.time_ns() // 1_000_000)
    if ground.agents is not None:
        (
            farm,
            ring,
        ) = "citrix-a", keyring_file.load(ground.agents.key_ring)
    plan = Plan(
        farm=farm, ring=ring, pool=pool,
        capacity=capacity, share=share, kept=kept, window=1.7, queue=queue, hold=hold,
        replicas=chance.choice([0, 0, 1]) if ground.watched or ground.members else 0,
    )  # fmt: skip
    return plan, policy, silence


async def _ready(run: Run) -> None:
    """Return when every host is well; a policy that nobody has read yet is nobody's to bring back."""
    async with asyncio.timeout(within(SETTLES)):
        while any([await host.unsettled() for host in run.hosts]):
            await asyncio.sleep(0.02)


# --- work -------------------------------------------------------------------------------------------------------------


async def _work(run: Run, kind: Kind) -> None:
    """Let users work while the faults strike; return when they have stopped."""
    run.history.note(f"{run.plan}, {len(run.hosts)} hosts, silence {run.silence}")
    users = [IDENTITIES.user(rf"CORP\u{number}") for number in range(run.random.randint(6, 10))]
    tasks = [asyncio.create_task(_user(run, user)) for user in users]
    counting = asyncio.create_task(_counting(run))
    try:
        await _begun(run)
        await kind.strike(run)
        await asyncio.sleep(AFTER)
        run.quiet.set()
        await asyncio.gather(*tasks)
    finally:
        counting.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, counting, return_exceptions=True)


async def _begun(run: Run) -> None:
    """Let users work for a moment: on a busy machine until somebody got in, or the fault would strike nobody."""
    known = len(run.history.spells)
    await asyncio.sleep(BEFORE)
    for _ in turns(SETTLES):
        if len(run.history.spells) > known:
            return
        await asyncio.sleep(0.02)


async def _user(run: Run, user: User) -> None:
    """Start, end and ask again, on any host, as people do."""
    chance = random.Random(f"{run.plan.pool}/{user.name}")  # noqa: S311 - faults, not secrets
    opened: dict[str, tuple[Worker, Answer]] = {}
    while not run.quiet.is_set():
        choice = chance.random()
        if opened and (choice < 0.3 or len(opened) > 1):
            session = chance.choice(sorted(opened))
            await opened.pop(session)[0].end(session)
        elif opened and choice < 0.5:
            session = chance.choice(sorted(opened))
            host, before = opened[session]
            opened[session] = host, await _again(run, host, user, session, before)
        else:
            host, session = chance.choice(run.hosts), f"{user.name}-{chance.randrange(3)}"
            if session not in opened:
                answer = await host.start(user, session, run.plan.queue if chance.random() < 0.3 else 0.0)
                if answer.fence is not None:
                    opened[session] = host, answer
                    if run.plan.hold and chance.random() < 0.2:
                        await host.hold(session)
        await asyncio.sleep(chance.uniform(0.05, 0.35))
    for session, (host, _) in opened.items():
        if chance.random() < 0.3:
            await host.end(session)


async def _again(run: Run, host: Worker, user: User, session: str, before: Answer) -> Answer:
    """L3: the same question again has the same answer, unless the seat was lost, or could be, in between."""
    began = time.time()
    answer = await host.start(user, session)
    lost = any((loss.node, loss.session) == (host.name, session) for loss in run.history.losses)
    kept = run.history.promised(host.name, began) > time.time()
    both = before.by_store and answer.by_store
    if both and before.fence != answer.fence and not lost and kept and not run.history.lapsed(host.name):
        run.history.violate("L3", f"{host.name} {session}: fence {before.fence}, asked again {answer.fence}")
    return answer if answer.fence is not None else before


async def _counting(run: Run) -> None:
    """L1: the store's own count is never above the capacity."""
    while True:
        with suppress(StoreError):
            count = await run.farm.leases.count(run.plan.pool)
            if count is not None and count.held > run.plan.capacity:
                run.history.violate("L1", f"the store counts {count.held} seats of {run.plan.capacity}")
        await asyncio.sleep(0.1)
