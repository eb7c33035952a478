"""A session host of the simulation: the production agent on a disk, a clock and a line that can fail under it.

A killed agent never runs again: its tasks are dropped where they stand, what they would still do on their way out
meets a closed journal and a dead line, and the disk is put back as it was at that moment.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from typing_extensions import override

from farmlease.config.model import Config
from farmlease.crypto.seal import Sealer
from farmlease.domain.session_states import SessionEvent, SessionState
from farmlease.farm import Farm
from farmlease.node import build
from farmlease.node.accounts.accounts import Accounts
from farmlease.node.agent import Agent
from farmlease.node.journal import state
from farmlease.node.journal.outbox import NoteMessage, Outbox, ReleaseMessage, SaveMessage
from farmlease.node.journal.sessions import NodeSession, SessionTable
from farmlease.store.connection.connection import Connection
from farmlease.store.lease_store import LeaseStore
from tests.simulation.disk import Disk
from tests.simulation.loop import OWNER, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.server import EPOCH_MS

__all__ = ["FARM", "HEARTBEAT", "Host", "WatchedTable"]

FARM = "citrix-a"
HEARTBEAT = 840.0  #: seconds; just under half the session timeout
_LOOK_AROUND = 400.0  #: seconds between two looks for idle sessions
#: Seconds between two looks at whether the store is there and the one that was known. Where nothing befell the store
#: such a look shows nothing, so these are taken only after something did; and none while it is away, once that is known.
_LOOK_EVERY = 2.0
_CLEAR_EVERY = 600.0  #: seconds between two looks at files that no session needs; the agent looks each minute
_LOOKS = 2


class HostClock:
    """A host's clock; ``offset_ms`` is how wrong its wall clock is."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.offset_ms = 0

    def now_ms(self) -> int:
        """The wall clock."""
        return EPOCH_MS + int(self._loop.passed * 1000) + self.offset_ms

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._loop.passed

    async def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)


class WatchedTable(SessionTable):
    """The production table; each step is reported to the host it belongs to."""

    @override
    def step(self, session: NodeSession, event: SessionEvent, **changes: Any) -> NodeSession:
        """Take the step and report it."""
        after = super().step(session, event, **changes)
        OWNER.get().stepped(session.state, event, after)
        return after


class WatchedOutbox(Outbox):
    """The production outbox; each saved record is reported to the host that sends it."""

    @override
    def add(self, message: ReleaseMessage | SaveMessage | NoteMessage) -> None:
        """Add the message and report it."""
        super().add(message)
        if isinstance(message, SaveMessage):
            OWNER.get().owes(message)

    @override
    def replace(self, number: int, message: SaveMessage) -> None:
        """Write the message in the place of another one and report it."""
        super().replace(number, message)
        OWNER.get().owes(message)


class NoAccounts:
    """The account database of a host that knows nobody: a path is filled with the canonical name alone."""

    def account(self, _: str) -> None:
        """Answer that there is no such account."""

    def name_of(self, _: int) -> None:
        """Answer that there is no such account."""


class Host:
    """One host. ``stepped`` is called with each step of a session of it, ``owing`` with each record to be saved."""

    def __init__(
        self,
        name: str,
        loop: VirtualLoop,
        network: Network,
        sealer: Sealer,
        folder: Path,
        chance: Random,
        stepped: Callable[["Host", SessionState, SessionEvent, NodeSession], None],
        beaten: Callable[["Host"], None],
        owing: Callable[["Host", SaveMessage], None],
    ) -> None:
        self.name = name
        self.names = [name]  #: those that it has had, the present one last
        self._loop = loop
        self._network = network
        self._sealer = sealer
        self._stepped = stepped
        self._beaten = beaten
        self._owing = owing
        self._chance = chance
        self.stirred = asyncio.Event()  #: something may have befallen the store
        self.disk = Disk(folder, chance)
        self.clock = HostClock(loop)
        self.boots = 1
        self.up = False
        self.since = 0.0  #: when it was last started, or got its way to the store back
        self.lives = 0
        self.tasks: list[asyncio.Task[Any]] = []
        self.line = network.line(name)
        self._opened: Any = None
        self._loops: list[asyncio.Task[None]] = []
        self.node: build.Node
        self._folder = folder

    @property
    def agent(self) -> Agent:
        """The agent of the life that is, or was last."""
        return self.node.agent

    @property
    def marker(self) -> str:
        """What tells this boot from the others."""
        return f"{self.name} boot {self.boots}"

    @property
    def member(self) -> str:
        """What the judges call this life of the node."""
        return f"{self.name}#{self.node.state.journal.incarnation}"

    @property
    def called(self) -> tuple[str, ...]:
        """What the store has called this life of the node, by each of its names, the present one last."""
        return tuple(f"{name}#{self.node.state.journal.incarnation}" for name in self.names)

    def rename(self) -> str:
        """Give the host another name, while its agent does not run, and return it."""
        self.names.append(f"{self.name}-{len(self.names)}")
        return self.names[-1]

    @property
    def book(self) -> SessionTable:
        """The agent's sessions."""
        return self.node.state.sessions

    def start(self) -> None:
        """Start the agent and let it beat."""
        before = OWNER.set(self)
        try:
            self.tasks = []
            self.line = self._network.line(self.name)
            connection = Connection(self.line, describe="simulated", timeout_ms=2000, server=None, sleep=asyncio.sleep)
            farm = Farm(FARM, LeaseStore(connection, FARM), self._sealer)
            with patch.object(state, "SessionTable", WatchedTable), patch.object(state, "Outbox", WatchedOutbox):
                accounts = Accounts(self.clock, NoAccounts())
                config = Config.model_validate(
                    {
                        "farm": FARM,
                        "node": self.names[-1],
                        "agent": {"state_dir": self._folder, "heartbeat": f"{HEARTBEAT:.0f}s"},
                    }
                )
                self._opened = build.compose(config, farm, self.clock, accounts=accounts)
                self.node = self._opened.__enter__()
            self.up = True
            self.since = self._loop.passed
            self.lives += 1
            self.agent.adopt()
            self._loops = [
                self._loop.create_task(each)
                for each in (
                    self._beating(),
                    self._watching(),
                    self._looking(),
                    self._clearing(),
                    self.node.loops.handle_events(),
                )
            ]
        finally:
            OWNER.reset(before)

    def kill(self, *, torn: bool = False) -> None:
        """End the agent without a word."""
        self.line.dead = True
        self.disk.cut()
        self.node.state.journal.close()
        self.disk.left(torn=torn)
        self.up = False
        for task in self.tasks:
            task.cancel()

    async def stop(self) -> None:
        """End the agent in order, as on SIGTERM."""
        for task in self._loops:
            task.cancel()
        try:
            async with asyncio.timeout(3):
                await self.as_agent(self.agent.stop())
        except TimeoutError:
            pass
        finally:
            if self.up:
                self.kill()

    async def as_agent(self, work: Any) -> Any:
        """Run a verb of the agent as a task of its own; cancelled if nobody is there any more."""
        if not self.up:
            work.close()
            raise asyncio.CancelledError
        before = OWNER.set(self)
        try:
            task = self._loop.create_task(work)
        finally:
            OWNER.reset(before)
        return await task

    def stepped(self, before: SessionState, event: SessionEvent, after: NodeSession) -> None:
        """Pass on a step of a session; those of a life that has ended are not written down anywhere."""
        if self.up and not self.line.dead:
            self._stepped(self, before, event, after)

    def owes(self, debt: SaveMessage) -> None:
        """Pass on that the store is to be told of a record; not if nobody wrote that down any more."""
        if self.up and not self.line.dead:
            self._owing(self, debt)

    async def beat(self) -> None:
        """One heartbeat."""
        await self.node.loops.beat()
        self._beaten(self)

    async def _beating(self) -> None:
        while True:
            await self.beat()
            await self.clock.sleep(HEARTBEAT)

    async def _watching(self) -> None:
        while True:
            await self.clock.sleep(_LOOK_AROUND)
            await self.node.loops.watch()

    async def _clearing(self) -> None:
        while True:
            await self.clock.sleep(_CLEAR_EVERY)
            await self.node.loops.clear_leftovers()

    async def _looking(self) -> None:
        while True:
            await self.stirred.wait()
            self.stirred.clear()
            await self.clock.sleep(self._chance.uniform(0, _LOOK_EVERY))
            for _ in range(_LOOKS):
                await self.node.loops.look()
                await self.clock.sleep(_LOOK_EVERY)
                if self.node.sync.availability.is_away:
                    break
            if self.node.sync.availability.is_away and self._network.reaches(self.name):
                self.stirred.set()
