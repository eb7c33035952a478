"""The timelines of ``deploy/REFERENCE.md`` are played, line by line, against the store: what a line says happens, happens at that minute.

A block is a header, the pool's keys as pools.toml writes them, and lines ``[day N] HH:MM  who  what  outcome`` whose
columns are two or more spaces apart. Nodes beat every half hour until they fall silent.
"""

import re
import secrets
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from farmlease.domain.identity import device_name
from farmlease.domain.model import Withdrawal
from farmlease.domain.policy import Pool, parse_policy
from farmlease.domain.pool import QUEUE_PLACE_MS
from farmlease.store.answers.session import Beat, Behind, Claim, Refusal, Taken, Taking, Waiting
from farmlease.store.tombstone_store import TombstoneStore
from tests.support.stores import DAY, HOUR, NINE, TimedStore, index

REFERENCE = (Path(__file__).parent.parent / "deploy" / "REFERENCE.md").read_text(encoding="utf-8")
MIDNIGHT = NINE - 9 * HOUR
BLOCKS = re.findall(r"```timeline\n(.*?)```", REFERENCE, re.DOTALL)


@dataclass(slots=True)
class Player:
    """One block on one store."""

    timed: TimedStore
    pool: Pool
    version: int = 1
    beating: set[str] = field(default_factory=set)
    fences: dict[tuple[str, str], int] = field(default_factory=dict)

    async def play(self, line: str) -> None:
        """Do what a line says and compare what comes of it."""
        when, who, what, outcome = [*re.split(r"\s{2,}", line.strip()), ""][:4]
        await self.pass_time(moment(when))
        assert outcome == await self.do(who, what), line

    async def pass_time(self, until: int) -> None:
        """Let time go on, every node that is heard of beating meanwhile."""
        clock = self.timed.clock
        while clock.now_ms < until:
            clock.set(min(until, clock.now_ms + HOUR // 2))
            for node in sorted(self.beating):
                await self.beat(node)

    async def beat(self, node: str) -> Beat:
        """One heartbeat."""
        beat = await self.timed.store.heartbeat(self.pool, self.version, f"{node}#1", None)
        assert isinstance(beat, Beat)
        return beat

    async def do(self, who: str, what: str) -> str:
        """Carry out one event and return its outcome in words."""
        for pattern, act in ACTS.items():
            if found := re.fullmatch(pattern, what):
                return str(await act(self, who, *found.groups()))
        raise AssertionError(f"no such event: {what}")

    async def start(self, node: str, user: str, session: str, device: str | None, waits: str | None) -> str:
        """A session is asked for."""
        if node not in self.beating:
            self.beating.add(node)
            await self.beat(node)
        bounds = (*self.pool.reserve, *self.pool.limit)
        mine = tuple(each.id for each in bounds if user in each.users)
        taking = Taking(
            device=device_name(device or "citrix-a", "citrix-a"), lease_id=secrets.token_hex(6), record=b"record", name=b"name",
            reservations=mine, wait_ms=QUEUE_PLACE_MS if waits else 0,
        )  # fmt: skip
        claim = Claim(user=index(user), node=f"{node}#1", session=session)
        match await self.timed.store.acquire(self.pool, self.version, claim, taking):
            case Taken() as taken:
                self.fences[user, session] = taken.fence
                return "granted, beyond the capacity" if taken.overdraft else "granted"
            case Waiting() as waiting:
                return f"waits, {waiting.ahead} ahead"
            case Refusal() as refusal:
                until = f" until {told(refusal.retry_at)}" if refusal.retry_at else ""
                return f"denied: {refusal.reason}{until}"
            case other:
                return str(other)

    async def end(self, node: str, user: str, session: str) -> str:
        """A session ends."""
        claim = Claim(user=index(user), node=f"{node}#1", session=session)
        await self.timed.store.release(self.pool.name, claim, self.fences[user, session])
        return ""

    async def hold(self, node: str, user: str, session: str, span: str) -> str:
        """A form is opened."""
        claim = Claim(user=index(user), node=f"{node}#1", session=session)
        span_ms = int(span) * HOUR
        until = await self.timed.store.hold(self.pool.name, claim, self.fences[user, session], span_ms)
        assert not isinstance(until, Behind)
        return f"held until {told(until)}" if until else "gone"

    async def fall_silent(self, node: str) -> str:
        """A node is unheard of from now on."""
        self.beating.discard(node)
        return ""

    async def come_back(self, node: str) -> str:
        """A silent node beats again, and is told."""
        beat = await self.beat(node)
        self.beating.add(node)
        return "lost: " + ", ".join(lost.session for lost in beat.lost) if beat.lost else "lost nothing"

    async def withdraw(self, _: str, verb: str, user: str) -> str:
        """An administrator takes a lease back."""
        why = Withdrawal.RETURNED if verb == "returns" else Withdrawal.REVOKED
        done = await self.timed.store.withdraw(self.pool.name, index(user), why, b"note")
        if done is None:
            return "no lease"
        seat = f"seat free {told(done.quarantined_until)}" if done.quarantined_until else "seat free at once"
        return seat + (f", kept out until {told(done.barred_until)}" if done.barred_until else "")

    async def readmit(self, _: str, user: str) -> str:
        """An administrator ends a revocation."""
        done = await TombstoneStore(self.timed.connection, "citrix-a").readmit(self.pool.name, index(user))
        return "let in again" if done else "was not kept out"

    async def release_device(self, _: str, user: str, device: str) -> str:
        """An administrator frees a device slot."""
        done = await self.timed.store.release_device(self.pool.name, index(user), device_name(device, "citrix-a"))
        return f"slot free {told(done.taken_until)}" if done.taken_until else str(done.outcome)

    async def replace_device(self, _: str, user: str, old: str, new: str) -> str:
        """A broken notebook is replaced."""
        done = await self.timed.store.replace_device(
            self.pool.name, index(user), device_name(old, "citrix-a"), device_name(new, "citrix-a"), override=False,
            note=b"note",
        )  # fmt: skip
        return f"denied until {told(done.next_at)}" if done.next_at else str(done.outcome)

    async def held(self, _: str) -> str:
        """Somebody looks how full the pool is."""
        count = await self.timed.store.count(self.pool.name)
        assert count is not None
        return f"{count.held} of {count.capacity}"


ACTS: dict[str, Any] = {
    r"(\w+) starts (\S+)(?: from (\S+))?( and waits)?": Player.start,
    r"(\w+) ends (\S+)": Player.end,
    r"(\w+) holds (\S+) for (\d+)h": Player.hold,
    r"falls silent": Player.fall_silent,
    r"is heard of again": Player.come_back,
    r"(returns|revokes) the lease of (\w+)": Player.withdraw,
    r"readmits (\w+)": Player.readmit,
    r"releases (\S+) of (\w+)": lambda self, who, device, user: self.release_device(who, user, device),
    r"replaces (\S+) of (\w+) by (\S+)": lambda self, who, old, user, new: self.replace_device(who, user, old, new),
    r"seats held": Player.held,
}


def moment(when: str) -> int:
    """Milliseconds of ``09:31`` or ``day 2 09:31``."""
    found = re.fullmatch(r"(?:day (\d+) )?(\d\d):(\d\d)", when)
    assert found is not None, when
    return MIDNIGHT + (int(found[1] or 1) - 1) * DAY + int(found[2]) * HOUR + int(found[3]) * 60_000


def told(at_ms: int | None) -> str:
    """A moment as the reference writes it."""
    assert at_ms is not None
    days, rest = divmod(at_ms - MIDNIGHT, DAY)
    clock = f"{rest // HOUR:02}:{rest % HOUR // 60_000:02}"
    return clock if days == 0 else f"day {days + 1} {clock}"


def pool_of(header: str) -> Pool:
    """The pool of a block's first line."""
    (pool,) = parse_policy(f"pool = [{{ name = 'p', {header} }}]", "REFERENCE").pools
    return pool


def test_there_are_timelines() -> None:
    """A reference without any would let everything else here pass."""
    assert len(BLOCKS) >= 8
    assert all(tomllib.loads(f"pool = {{ {block.splitlines()[0]} }}") for block in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0][:60])
async def test_a_timeline_is_what_happens(timed: TimedStore, block: str) -> None:
    """What the reference says of the rules is what the store does."""
    header, *lines = block.strip().splitlines()
    timed.clock.set(MIDNIGHT)
    player = Player(timed, pool_of(header))
    await player.timed.store.configure(player.pool, player.version)
    for line in lines:
        await player.play(line)


def test_a_place_in_the_queue_lapses_when_the_reference_says_so() -> None:
    """The time for which agents have a place kept is the one that the reference names."""
    assert (5_000, True) == (QUEUE_PLACE_MS, "A place lapses five seconds after" in " ".join(REFERENCE.split()))
