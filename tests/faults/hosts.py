"""Session hosts for the faults: the production agent with its real journal, clock and connection, driven as the daemon does.

All agents of a run live in the test's own process, so that what each of them says, and when, can be noted to the
millisecond. Nothing of an agent is replaced: its book, its memory and what talking to the store brought to light are
listened to.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from farmlease.clock import SystemClock
from farmlease.config.model import Config
from farmlease.crypto.keyring import KeyRing
from farmlease.crypto.seal import Sealer
from farmlease.domain.health import health
from farmlease.domain.identity import User
from farmlease.domain.model import Denial, Grant, SessionRequest, Source
from farmlease.domain.session_states import SessionEvent, SessionState
from farmlease.errors import StoreError
from farmlease.farm import Farm
from farmlease.node.agent import Agent
from farmlease.node.build import Node, compose
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.sync.events import Event, SeatLost
from farmlease.store.answers.session import Beat, Lost
from farmlease.store.connection.connection import StoreAddress, open_connection
from farmlease.store.keys import node_member
from farmlease.store.lease_store import LeaseStore
from tests.faults.history import History, Spell
from tests.support.patience import within

__all__ = ["HEARTBEAT", "PATIENCE", "TIMEOUT_MS", "Answer", "Host", "Plan", "Worker", "farm_at", "running_host"]

HEARTBEAT = 0.3  #: seconds
LOOK = 0.5  #: seconds
SAMPLE = 0.02  #: seconds between two looks at a node's health
TIMEOUT_MS = 400  #: of one try
PATIENCE = 20.0  #: seconds after which a call is given up for hung


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run goes by."""

    farm: str
    ring: KeyRing = field(repr=False)
    pool: str
    capacity: int
    share: str  #: named, or what a floating seat covers
    kept: float  #: seconds for which a seat stays its user's after his last session
    window: float  #: seconds
    queue: float = 0.0  #: seconds for which a session may wait for a seat
    hold: float = 0.0  #: seconds for which a session may be held
    replicas: int = 0  #: that must have a grant before it is answered

    def seat(self, node: str, session: str, user: str) -> str:
        """Return which seat a session takes."""
        return f"{node}/{session}" if self.share == "session" else user


@dataclass(frozen=True, slots=True)
class Answer:
    """What a user was told. ``fence`` None: no seat. ``by_store``: and it was the store that said so."""

    fence: int | None = None
    by_store: bool = False


class Worker(Protocol):
    """A session host as users see it, and as the harness looks at it afterwards."""

    @property
    def name(self) -> str:
        """The node's name."""

    @property
    def member(self) -> str | None:
        """What the store calls the node, where that is known."""

    async def start(self, user: User, session: str, wait: float = 0.0) -> Answer:
        """Ask for a session and note what was said."""

    async def end(self, session: str) -> None:
        """End a session."""

    async def hold(self, session: str) -> None:
        """Have a session's seat kept, whatever its node does."""

    async def active(self) -> dict[str, tuple[str, int]]:
        """Return every session with a seat, by what the agent says: user and fence."""

    async def unsettled(self) -> str | None:
        """Return what is still under way on this host."""


@dataclass(slots=True)
class Host:
    """One session host."""

    name: str
    plan: Plan
    history: History
    agent: Agent
    node: Node
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self, user: User, session: str, wait: float = 0.0) -> Answer:
        """Ask for a session and note what was said."""
        name, asked = f"{self.name} {session}", time.time()
        self.history.note(f"{name}: start?{' or wait' if wait else ''}")
        request = SessionRequest(user=user, session=session, wait_ms=round(wait * 1000))
        decision = await self._timed(self.agent.start_session(request))
        match decision:
            case Grant():
                self._granted(decision, asked)
                self.history.note(f"{name}: granted {decision.fence} ({decision.source}, again={decision.again})")
                return Answer(decision.fence, by_store=decision.source is Source.STORE)
            case Denial():
                self.history.note(f"{name}: denied ({decision.reason})")
            case None:
                self.history.violate("bounded", f"{name}: start did not end within {PATIENCE} s")
        return Answer()

    async def end(self, session: str) -> None:
        """End a session."""
        self.history.close_spell(self.name, session)
        self.history.note(f"{self.name} {session}: end?")
        if await self._timed(self.agent.end_session(session)) is None:
            self.history.violate("bounded", f"{self.name} {session}: end did not end within {PATIENCE} s")

    async def hold(self, session: str) -> None:
        """Have a session's seat kept, whatever its node does."""
        with suppress(StoreError):
            held = await self._timed(self.agent.hold_session(session, None))
            self.history.note(f"{self.name} {session}: held {held}")

    @property
    def member(self) -> str | None:
        """What the store calls the node."""
        return node_member(self.name, self.node.state.journal.incarnation)

    async def active(self) -> dict[str, tuple[str, int]]:
        """Return every session with a seat, by what the agent says: user and fence."""
        return {
            each.id: (each.user.canonical, each.grant.fence)
            for each in self.agent.all_uses()
            if each.state is SessionState.ACTIVE and each.grant is not None
        }

    async def unsettled(self) -> str | None:
        """Return what is still under way on this host."""
        facts = self.agent.facts()
        status = health(facts)
        if status.status != "pass":
            return f"{self.name}: " + "; ".join(check.output for check in status.checks if check.status != "pass")
        states = {each.id: each.state for each in self.node.state.sessions}
        odd = {
            name: state.value for name, state in states.items() if state not in {SessionState.ACTIVE, SessionState.LOST}
        }
        if facts.owed or odd:
            return f"{self.name}: owes {facts.owed}, {odd}"
        counted = [each.id for each in self.agent.all_uses() if each.grant and each.grant.source is Source.RECEIPT]
        return (
            f"{self.name}: uncounted {counted}"
            if any(states[each] is SessionState.ACTIVE for each in counted)
            else None
        )

    def begin(self) -> None:
        """Listen to the agent, and keep it going as the daemon does."""
        self._listen()
        self.agent.adopt()
        for work in (self._beating(), self._looking(), self._watching(), self._sampling()):
            self.tasks.append(asyncio.create_task(work))

    def _granted(self, grant: Grant, asked: float) -> None:
        """A grant was answered. Its session may have lost the seat, or have ended, in the same moment."""
        found = next(iter(self.agent.uses(grant.session)), None)
        user, seat = grant.user.canonical, self.plan.seat(self.name, grant.session, grant.user.canonical)
        running = [each for each in self.history.of(self.name, grant.session) if each.until == float("inf")]
        if running:
            return
        if found is not None and found.state is SessionState.ACTIVE and found.user == grant.user:
            counted = 0.0 if grant.source is Source.STORE else float("inf")
            spell = Spell(self.name, grant.session, user, seat, asked, time.time(), counted=counted)
            self.history.open_spell(spell, grant.fence)
        if self.plan.share == "named" and grant.source is Source.STORE:
            until = grant.lease.expires_at / 1000
            self.history.leases.append(
                Spell(self.name, f"{grant.session} (lease)", user, seat, asked, time.time(), until, until)
            )

    async def _timed(self, call: Coroutine[Any, Any, Any]) -> Any:
        began = time.monotonic()
        try:
            async with asyncio.timeout(within(PATIENCE)):
                return await call
        except TimeoutError:
            return None
        finally:
            self.history.calls += 1
            self.history.slowest = max(self.history.slowest, time.monotonic() - began)

    # --- listening ----------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        book, memory, events = self.node.state.sessions, self.node.state.store_state, self.node.sync.events
        step, beaten, added = book.step, memory.note_beat, events.add

        def stepped(session: NodeSession, event: SessionEvent, **changes: Any) -> NodeSession:
            after = step(session, event, **changes)
            self._stepped(session, event, after)
            return after

        def knows(pool: str, lost: Lost) -> None:
            """From here on the node knows, and what it says next is that."""
            found = book.find(lost.session, pool)
            if found is None or found.grant is None or found.grant.fence <= lost.fence:
                self.history.hear(self.name, lost.session, lost.fence)

        def heard(pool: str, beat: Beat) -> bool:
            for lost in beat.lost:
                knows(pool, lost)
            told = beaten(pool, beat)
            self.history.promise(self.name, beat.deadline / 1000)
            return told

        def came(event: Event) -> None:
            if isinstance(event, SeatLost):  # by a recovery too: what a later beat promises is not to this session
                knows(event.pool, event.lost)
            added(event)

        book.step = stepped  # type: ignore[method-assign] # listened to, not replaced
        memory.note_beat = heard  # type: ignore[method-assign] # likewise
        events.add = came  # type: ignore[method-assign] # likewise

    def _stepped(self, before: NodeSession, event: SessionEvent, after: NodeSession) -> None:
        name, user = after.id, after.user.canonical
        seat = self.plan.seat(self.name, name, user)
        if event is SessionEvent.SEAT_LOST and after.lost_because is not None:
            self.history.lose(self.name, name, seat, after.lost_because)
        elif event is SessionEvent.GAVE_UP and before.state is SessionState.INVALID and before.lost_because is None:
            self.history.lose(self.name, name, seat, after.lost_because or "?")
        elif event is SessionEvent.REACQUIRED:
            self.history.note(f"{self.name} {name}: has a seat again")
            self.history.open_spell(Spell(self.name, name, user, seat, time.time() - 2, time.time()))
        elif event in {SessionEvent.SEAT_LOST, SessionEvent.END_ASKED}:
            self.history.close_spell(self.name, name)
        elif event is SessionEvent.RELEASED:
            self.history.close_spell(self.name, name, gone=True)

    # --- what the daemon does -----------------------------------------------------------------------------------------

    async def _beating(self) -> None:
        while True:
            await self.node.loops.beat()
            await asyncio.sleep(HEARTBEAT)

    async def _looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            await self.node.loops.look()

    async def _watching(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self.node.loops.watch()

    def _note_counted(self) -> None:
        """Note which sessions that a receipt let in are counted by now."""
        for spell in self.history.spells:
            if spell.node == self.name and spell.counted == spell.until == float("inf"):
                uses = self.agent.uses(spell.session)
                if any(each.grant is not None and each.grant.source is Source.STORE for each in uses):
                    spell.counted = time.time()

    async def _sampling(self) -> None:
        seen = self.history.health.setdefault(self.name, [])
        while True:
            self._note_counted()
            status = health(self.agent.facts()).status.value
            if not seen or seen[-1][1] != status:
                seen.append((time.time(), status))
                self.history.note(f"{self.name} health: {status}")
            await asyncio.sleep(SAMPLE)


@asynccontextmanager
async def farm_at(url: str, plan: Plan, timeout_ms: int = TIMEOUT_MS, replicas: int = 0) -> AsyncIterator[Farm]:
    """Open a run's farm at a store."""
    address = StoreAddress(url=url, timeout_ms=timeout_ms, wait_replicas=replicas)
    async with await open_connection(address) as connection:
        yield Farm(plan.farm, LeaseStore(connection, plan.farm), Sealer(plan.ring, plan.farm))


@asynccontextmanager
async def running_host(name: str, url: str, plan: Plan, history: History, folder: Path) -> AsyncIterator[Host]:
    """Run an agent on a store until this ends."""
    config = Config.model_validate({
        "farm": plan.farm, "node": name, "agent": {"state_dir": folder / name, "heartbeat": f"{HEARTBEAT * 1000:.0f}ms"},
        "recovery": {"window": f"{plan.window * 1000:.0f}ms"},
    })  # fmt: skip
    async with farm_at(url, plan, replicas=plan.replicas) as farm:
        with compose(config, farm, SystemClock()) as node:
            host = Host(name, plan, history, node.agent, node)
            host.begin()
            try:
                yield host
            finally:
                for task in host.tasks:
                    task.cancel()
                await asyncio.gather(*host.tasks, return_exceptions=True)
                async with asyncio.timeout(within(PATIENCE)):
                    await host.node.sessions.reacquisition.stop()
                    await host.agent.settled()
