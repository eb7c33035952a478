"""The trial of ``farmlease bench``: all users log on, the nodes beat, all users log off.

The calls are those of the agents, sealing included, from this one process. After each step the effect is checked in the
store, so that no figure is of calls that failed. It measures; it decides and prints nothing.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from farmlease.crypto.keyring import KeyRing
from farmlease.crypto.seal import Sealer
from farmlease.domain.identity import Identities, User
from farmlease.domain.model import Kind, Reason
from farmlease.domain.pool import Pool
from farmlease.errors import FarmleaseError
from farmlease.farm import Farm
from farmlease.store.answers.recovery import Remains
from farmlease.store.answers.session import Beat, Claim, Refusal, Taken, Taking
from farmlease.store.inspect.bench_shard import POOL, BenchShard, ServerUsage
from farmlease.store.keys import node_member

__all__ = ["Advance", "Measured", "Step", "measure", "most_calls"]

#: Concurrent calls, as many as a busy agent makes.
IN_FLIGHT = 50
#: Seconds after which a step ends, finished or not.
LONGEST_STEP = 60.0
#: Least number of heartbeats measured, however few the nodes.
LEAST_BEATS = 200
VERSION = 1
LATEST = 2**52  #: a fence later than any
#: With fewer leases the server's own fluctuation hides their memory.
LEAST_LEASES = 500

Job = Callable[[], Awaitable[None]]
#: Called after each finished call, with the number of calls.
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Step:
    """The figures of one kind of call. ``store_us``: the server's own time, µs a call; None if not available."""

    name: str
    calls: int
    per_second: float
    p50_ms: float
    p99_ms: float
    store_us: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of a trial."""

    users: int  #: users who got a seat; fewer than requested if the time limit was reached
    nodes: int
    steps: tuple[Step, ...]
    #: with a session and its audit entries; None if the server does not report it, or with too few leases
    bytes_per_lease: int | None


async def measure(trial: BenchShard, users: int, nodes: int, advance: Advance) -> Measured:
    """Let ``users`` log on over ``nodes``, and off again. The trial's shard must be empty; the caller removes it.

    FarmleaseError if an answer or its effect is wrong; StoreError.
    """
    crowd = _Crowd(trial, users, nodes)
    await crowd.arrive()
    await trial.limit_life()
    before = await trial.spent()
    logon = await _timed("logon", trial, map(crowd.logon, range(1, users)), advance)
    after = await trial.spent()
    await crowd.check_seats(logon.calls + 1)
    beats = itertools.chain.from_iterable(map(crowd.heartbeat, range(nodes)) for _ in range(_rounds(nodes)))
    heartbeat = await _timed("heartbeat", trial, beats, advance)
    logoff = await _timed("logoff", trial, map(crowd.logoff, range(1, logon.calls + 1)), advance)
    await crowd.check_sessions(logon.calls + 1 - logoff.calls)
    return Measured(
        users=logon.calls + 1,
        nodes=nodes,
        steps=(logon, heartbeat, logoff),
        bytes_per_lease=_bytes_each(before.memory, after.memory, logon.calls),
    )


def most_calls(users: int, nodes: int) -> int:
    """Return how many calls ``measure`` makes if no time limit is reached."""
    return 2 * (users - 1) + nodes * _rounds(nodes)


def _rounds(nodes: int) -> int:
    """Return how many heartbeats of each node are measured."""
    return -(-LEAST_BEATS // nodes)


class _Crowd:
    """Users and nodes of a farm that exists for this trial only, with keys of its own."""

    def __init__(self, trial: BenchShard, users: int, nodes: int) -> None:
        self._store = trial.store
        self._farm = Farm(trial.farm, trial.store, Sealer(KeyRing.generate(0), trial.farm))
        self._pool = Pool(name=POOL, kind=Kind.NAMED, capacity=users)
        self._people = Identities({})
        self._nodes = [node_member(f"bench-{number}", secrets.token_hex(6)) for number in range(nodes)]
        self._users = users

    async def arrive(self) -> None:
        """Let every node beat and the first user log on, which writes the pool's limits and loads the scripts."""
        for number in range(len(self._nodes)):
            await self.heartbeat(number)()
        await self.logon(0)()

    def heartbeat(self, number: int) -> Job:
        """Return the heartbeat of a node."""

        async def job() -> None:
            await self._beat(self._nodes[number])

        return job

    def logon(self, number: int) -> Job:
        """Return the session start of a user without a lease; it must be granted as a new lease."""

        async def job() -> None:
            answer = await self._ask(number)
            if not isinstance(answer, Taken) or answer.again:
                raise _unexpected("a logon", answer)

        return job

    def logoff(self, number: int) -> Job:
        """Return the end of a user's session; the session must exist."""

        async def job() -> None:
            answer = await self._store.release(POOL, self._claim(number), LATEST)
            if not isinstance(answer, Remains):
                raise _unexpected("a logoff", answer)

        return job

    async def check_seats(self, granted: int) -> None:
        """Check that each grant holds a seat, and that the limit denies one more user."""
        count = await self._store.count(POOL)
        held = count.held if count else 0
        if held != granted:
            raise _unexpected(f"{granted} logons", f"{held} seats held")
        if granted == self._users:
            answer = await self._ask(self._users)
            if not isinstance(answer, Refusal) or answer.reason is not Reason.CAPACITY:
                raise _unexpected("a logon over the limit", answer)

    async def check_sessions(self, expected: int) -> None:
        """Check how many sessions all nodes have, as counted by their heartbeats."""
        counted = sum([(await self._beat(node)).sessions for node in self._nodes])
        if counted != expected:
            raise _unexpected("the logoffs", f"{counted} sessions counted, not {expected}")

    async def _beat(self, node: str) -> Beat:
        answer = await self._store.heartbeat(self._pool, VERSION, node, None)
        if not isinstance(answer, Beat):
            raise _unexpected("a heartbeat", answer)
        return answer

    async def _ask(self, number: int) -> object:
        user, lease_id = self._user(number), secrets.token_urlsafe(12)
        record = self._farm.sealer.seal_first_record(
            self._pool.name, user, device=self._farm.name, lease_id=lease_id, borrowed_at=0
        )
        name = self._farm.sealer.seal_name(self._farm.sealer.user_index(user), user.canonical)
        taking = Taking(device=self._farm.name, lease_id=lease_id, record=record, name=name)
        return await self._store.acquire(self._pool, VERSION, self._claim(number), taking)

    def _user(self, number: int) -> User:
        return self._people.user(f"bench-{number}")

    def _claim(self, number: int) -> Claim:
        index = self._farm.sealer.user_index(self._user(number))
        return Claim(user=index, node=self._nodes[number % len(self._nodes)], session=f"bench-{number}")


async def _timed(name: str, trial: BenchShard, jobs: Iterable[Job], advance: Advance) -> Step:
    """Run the jobs, IN_FLIGHT at once, until all are done or the time limit is reached."""
    waiting, times = iter(jobs), list[float]()
    failure: FarmleaseError | None = None
    before, began = await trial.spent(), time.perf_counter()

    async def client() -> None:
        while time.perf_counter() - began < LONGEST_STEP and (job := next(waiting, None)) is not None:
            sent = time.perf_counter()
            await job()
            times.append((time.perf_counter() - sent) * 1000)
            advance(1)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(client())
    except* FarmleaseError as errors:
        failure = next(_leaves(errors))
    if failure is not None:  # raised here: some Pythons make a group of what an `except*` raises
        raise failure from failure.__cause__
    took = time.perf_counter() - began
    times.sort()
    return Step(
        name=name,
        calls=len(times),
        per_second=len(times) / took,
        p50_ms=_quantile(times, 0.50),
        p99_ms=_quantile(times, 0.99),
        store_us=_store_time(before, await trial.spent()),
    )


def _leaves(errors: BaseExceptionGroup[FarmleaseError]) -> Iterator[FarmleaseError]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _quantile(times: Sequence[float], share: float) -> float:
    """Return the time that this share of them does not exceed; 0 if there are none."""
    return times[min(len(times) - 1, int(len(times) * share))] if times else 0.0


def _store_time(before: ServerUsage, after: ServerUsage) -> float | None:
    """Return the server's own time for a script meanwhile, in µs a call."""
    if before.micros is None or after.micros is None or before.calls is None or after.calls is None:
        return None
    return (after.micros - before.micros) / (after.calls - before.calls) if after.calls > before.calls else None


def _bytes_each(before: int | None, after: int | None, count: int) -> int | None:
    if before is None or after is None or count < LEAST_LEASES:
        return None
    return max(0, (after - before) // count)


def _unexpected(what: str, found: object) -> FarmleaseError:
    # Of an answer only its type: its content may be long.
    got = found if isinstance(found, str) else getattr(found, "reason", None) or type(found).__name__
    return FarmleaseError(
        f"{what} had an unexpected result ({got}): is another trial running in this store with the same --prefix?"
    )
