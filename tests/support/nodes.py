"""Whole nodes in the test's own process: the production agent on a store, a clock and disks that the test commands."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from farmlease.admin.leases import LeaseAdmin
from farmlease.config.model import Config
from farmlease.crypto.keyring import KeyRing
from farmlease.crypto.seal import Sealer
from farmlease.domain.identity import Identities, User
from farmlease.domain.model import Decision, Denial, Grant, LeaseView, SessionRequest
from farmlease.domain.policy import PolicyInForce, parse_policy
from farmlease.domain.record import decode
from farmlease.errors import StoreRefused, StoreUnavailable
from farmlease.farm import Farm
from farmlease.node.accounts.accounts import Accounts
from farmlease.node.accounts.database import Account
from farmlease.node.agent import Agent
from farmlease.node.build import Node, compose
from farmlease.node.journal.integrity import ReportedMark
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.sessions.per_use import NotDone
from farmlease.node.sessions.save import Saved
from farmlease.store.lease_store import LeaseStore, ScriptRunner
from farmlease.store.script import Argument, Script
from tests.support.patience import within
from tests.support.stores import StoreClock, TimedStore

__all__ = ["FARM", "JOHN", "MARY", "Host", "Line", "Site", "TestClock", "site"]

FARM = "citrix-a"
IDENTITIES = Identities({"CORP": "corp.example.com"})
JOHN = IDENTITIES.user(r"CORP\john")
MARY = IDENTITIES.user(r"CORP\mary")


class TestClock:
    """A host's clock that shows the store's time and does not wait."""

    __test__ = False

    def __init__(self, clock: StoreClock) -> None:
        self._clock = clock
        self.missed_ms = 0  #: what the store's clock did and this one did not
        self.wrong_ms = 0  #: by how much somebody has set the clock on the wall

    def now_ms(self) -> int:
        """The store's time."""
        return self._clock.now_ms - self.missed_ms + self.wrong_ms

    def monotonic(self) -> float:
        """The store's time, in seconds."""
        return (self._clock.now_ms - self.missed_ms) / 1000

    async def sleep(self, _: float) -> None:
        """Let the others run, and no time pass."""
        await asyncio.sleep(0)


@dataclass(slots=True)
class Line:
    """The way to the store, with faults. A script's name, or ``*`` for each, in a set makes it fail that way."""

    real: ScriptRunner
    cut: set[str] = field(default_factory=set)  #: not carried out
    deaf: set[str] = field(default_factory=set)  #: carried out, its answer is lost
    doubled: set[str] = field(default_factory=set)  #: its answer is lost, and it is asked again at once
    refused: set[str] = field(default_factory=set)  #: the store says no
    swallowed: set[str] = field(default_factory=set)  #: not carried out, and answered as if there were nothing to do
    held: dict[str, asyncio.Event] = field(default_factory=dict)  #: carried out, the answer waits for this
    waiting: int = 0  #: answers that are held now
    calls: list[str] = field(default_factory=list)  #: what was asked, in order

    async def call(self, script: Script, keys: tuple[str, ...], args: list[Argument]) -> list[Any]:
        """Ask the store, unless a fault is in the way."""
        self.calls.append(script.name)
        names = {script.name, "*"}
        if names & self.cut:
            raise StoreUnavailable("the store is away: the test cut the line")
        if names & self.refused:
            raise StoreRefused("the store refused: the test wanted it to")
        if names & self.swallowed:
            return [b"gone"]
        answer = await self.real.call(script, keys, args)
        if names & self.doubled:
            answer = await self.real.call(script, keys, args)
        if script.name in self.held:
            self.waiting += 1
            await self.held[script.name].wait()
            self.waiting -= 1
        if names & self.deaf:
            raise StoreUnavailable("the answer of the store was lost: the test wanted it to be")
        return answer

    @contextmanager
    def holding(self, name: str) -> Iterator[Callable[[], Awaitable[None]]]:
        """Hold back the answers of a script until this ends; yields what waits until one is held."""

        async def held() -> None:
            while not self.waiting:
                await asyncio.sleep(0.001)

        self.held[name] = asyncio.Event()
        try:
            yield held
        finally:
            self.held.pop(name).set()


@dataclass(slots=True)
class Host:
    """One session host. Its disk is there while it does something: all hosts of a site share their paths."""

    name: str
    site: "Site"
    line: Line
    farm: Farm
    folder: Path
    agent: Agent = field(init=False)
    node: Node = field(init=False)
    running: Any = field(init=False, default=None)
    clock: TestClock = field(init=False)

    def __post_init__(self) -> None:
        """Show the store's time."""
        self.clock = TestClock(self.site.timed.clock)

    def boot(self, reported: Sequence[ReportedMark] = ()) -> "Host":
        """Start the agent on its state folder. ``reported``: what the store remembers of the farm's nodes."""
        self.mount()
        accounts = Accounts(self.clock, self.site.people)
        self.running = compose(self.config, self.farm, self.clock, accounts=accounts, reported=reported)
        self.node = self.running.__enter__()
        self.agent = self.node.agent
        self.agent.adopt()
        return self

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Let the store's clock move, and this host's stand still."""
        before = self.site.timed.clock.now_ms
        yield
        self.clock.missed_ms += self.site.timed.clock.now_ms - before

    def kill(self) -> None:
        """End the agent without a word, as kill -9 does."""
        self.running.__exit__(None, None, None)

    def restart(self) -> "Host":
        """Kill the agent and start it again."""
        self.kill()
        return self.boot()

    @property
    def config(self) -> Config:
        """The node's configuration."""
        given = {"state_dir": self.folder / "state", "heartbeat": "60s"}
        return Config.model_validate(
            {
                "farm": FARM,
                "node": self.name,
                "agent": given,
                "recovery": {"window": self.site.window},
                "keys": {"file": self.ring_file},
            }
        )

    @property
    def ring_file(self) -> Path:
        """Where this host's key ring lies; nothing is there unless the test puts it there."""
        return self.folder / "keyring.json"

    async def start(self, user: User, session: str = "7", **more: Any) -> Decision:
        """Ask for a session."""
        self.mount()
        return await self.agent.start_session(SessionRequest(user=user, session=session, **more))

    async def granted(self, user: User, session: str = "7", **more: Any) -> Grant:
        """Ask for a session that must be granted."""
        decision = await self.start(user, session, **more)
        assert isinstance(decision, Grant), decision
        return decision

    async def denied(self, user: User, session: str = "7", **more: Any) -> Denial:
        """Ask for a session that must be denied."""
        decision = await self.start(user, session, **more)
        assert isinstance(decision, Denial), decision
        return decision

    async def end(self, session: str = "7") -> None:
        """End a session."""
        self.mount()
        assert await self.agent.end_session(session)

    async def save(self, session: str = "7") -> Saved:
        """Take the vendor's files back now."""
        self.mount()
        (saved,) = await self.agent.save_session(session)
        if isinstance(saved, NotDone):
            raise saved.error
        return saved

    async def hold(self, session: str = "7", span_ms: int | None = None) -> int:
        """Hold the seat of a session with one use; return until when."""
        (held,) = await self.agent.hold_session(session, span_ms)
        if isinstance(held, NotDone):
            raise held.error
        return held.until

    def use(self, session: str = "7") -> NodeSession | None:
        """Return what the API shows of a session with at most one use."""
        return next(iter(self.agent.uses(session)), None)

    async def beat(self) -> None:
        """One heartbeat, with everything it sets going."""
        self.mount()
        await self.node.loops.beat()
        await self.agent.settled()

    @property
    def states(self) -> dict[str, str]:
        """The sessions that the API shows, and their states."""
        return {each.id: each.state.value for each in self.agent.all_uses()}

    @property
    def kept(self) -> list[tuple[str, bytes]]:
        """What was kept for inspection: why, and the bytes."""
        folder = self.folder / "state" / "kept"
        files = [path for path in sorted(folder.iterdir()) if path.name != "versions"] if folder.exists() else []
        return [(path.name.split("Z-", 1)[1].partition("-u")[0], path.read_bytes()) for path in files]

    @property
    def superseded(self) -> list[tuple[str, list[bytes]]]:
        """The superseded versions of the pool that this host keeps, the oldest first: their names and their files."""
        found = sorted(self.node.state.versions.all(), key=lambda each: each.path.name)
        opened = [(each.label, decode(self.farm.sealer.unseal_record(each.binding, each.sealed))) for each in found]
        return [(label, [file.content for file in record.files]) for label, record in opened]

    def file(self, user: User = JOHN) -> Path:
        """Where a user's file lies on this host's disk."""
        return self.folder / "disk" / user.name / "cal.pgo"

    def write(self, content: bytes, user: User = JOHN) -> None:
        """Let the vendor's program write the user's file."""
        self.file(user).write_bytes(content)

    def read(self, user: User = JOHN) -> bytes | None:
        """The user's file, None if there is none."""
        return self.file(user).read_bytes() if self.file(user).exists() else None

    def mount(self) -> None:
        """Let the farm's common path lead to this host's disk."""
        new = self.site.disk.with_suffix(".new")
        new.symlink_to(self.folder / "disk")
        new.replace(self.site.disk)


@dataclass(slots=True)
class People:
    """The account database of all hosts of a site: nobody has an account unless the test gives one."""

    accounts: dict[str, Account] = field(default_factory=dict)  #: by name

    def add(self, name: str, uid: int, home: Path) -> None:
        """Give somebody an account."""
        self.accounts[name] = Account(name=name, uid=str(uid), home=home, groups=())

    def account(self, name: str) -> Account | None:
        """Return the account of this name."""
        return self.accounts.get(name)

    def name_of(self, uid: int) -> str | None:
        """Return the name of the account with this number."""
        return next((name for name, each in self.accounts.items() if each.uid == str(uid)), None)


@dataclass(slots=True)
class Site:
    """A farm in a folder: its keys, its store, and hosts as the test wants them."""

    folder: Path
    timed: TimedStore
    ring: KeyRing
    hosts: list[Host] = field(default_factory=list)
    people: People = field(default_factory=People)
    window: str = "0s"  #: recovery window of the hosts that are switched on from now on

    @property
    def disk(self) -> Path:
        """The path that leads to a host's disk."""
        return self.folder / "disk"

    @property
    def policy(self) -> str:
        """The usual policy. A lost seat is lost: who wants it re-acquired says so."""
        return (
            '[identity]\ndomains = { CORP = "corp.example.com" }\n'
            '[[pool]]\nname = "qlikview"\nkind = "named"\ncapacity = 3\nreacquire = { attempts = 0 }\n'
            f'files = ["{self.disk}/{{user}}/cal.pgo"]\n'
        )

    @property
    def farm(self) -> Farm:
        """The farm as an administrator sees it."""
        return Farm(FARM, self.timed.store, Sealer(self.ring, FARM))

    async def apply(self, text: str) -> PolicyInForce:
        """Put a policy in force."""
        return await self.farm.apply(parse_policy(text, "test"))

    def host(self, name: str = "ctx-01", ring: KeyRing | None = None) -> Host:
        """Return a host that was switched on."""
        folder = self.folder / f"{name}.{len(self.hosts)}"
        for user in (JOHN, MARY):
            (folder / "disk" / user.name).mkdir(parents=True)
        line = Line(self.timed.connection)
        farm = Farm(FARM, LeaseStore(line, FARM), Sealer(ring or self.ring, FARM))
        host = Host(name, self, line, farm, folder).boot()
        self.hosts.append(host)
        return host

    async def lease(self, user: User = JOHN, pool: str = "qlikview") -> LeaseView | None:
        """Return a user's lease."""
        found = (await self.farm.policy()).pool(pool)
        assert found is not None
        return await LeaseAdmin(self.farm).lease(found, user)

    async def sessions(self, user: User = JOHN, pool: str = "qlikview") -> list[tuple[str, str]]:
        """The sessions of a user that the store counts."""
        lease = await self.lease(user, pool)
        return [] if lease is None else [(each.node, each.session) for each in lease.sessions]

    async def record_version(self, user: User = JOHN) -> int:
        """The version of a user's record."""
        lease = await self.lease(user)
        assert lease is not None
        return lease.record_version


@pytest.fixture
async def site(timed: TimedStore, tmp_path: Path) -> AsyncIterator[Site]:
    """A farm with the usual policy in force and no host yet."""
    made = Site(tmp_path, timed, KeyRing.generate(timed.clock.now_ms))
    await made.apply(made.policy)
    yield made
    for host in made.hosts:
        await asyncio.wait_for(host.agent.settled(), within(5))
        host.kill()


@contextmanager
def booted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Let the host's boots be the test's: calling what this yields is a reboot for agents that start after it."""
    lives = itertools.count(1)
    with monkeypatch.context() as patch:

        def reboot() -> None:
            marker = f"life-{next(lives)}-{time.time_ns()}"
            patch.setattr("farmlease.node.journal.journal.boot_marker", lambda: marker)

        reboot()
        yield reboot
