"""What people do: users who come and go on any host, retry, reuse ids, hang up; administrators who intervene.

It knows nothing of limits: what may not be is tried all the same.
"""

import asyncio
import json
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from farmlease.admin.audit import AuditLog
from farmlease.admin.leases import LeaseAdmin
from farmlease.admin.renaming import DueRename, LeaseRenamer
from farmlease.domain.identity import Identities, User
from farmlease.domain.model import Decision, Denial, Grant, Reason, SessionRequest, Withdrawal
from farmlease.errors import FarmleaseError
from farmlease.node.journal.sessions import NodeSession
from farmlease.node.sessions.hold import Held
from farmlease.store.name_store import Rename
from tests.simulation.host import Host
from tests.simulation.uses import fences

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["IDENTITIES", "Stage", "Terms", "Workload"]

IDENTITIES = Identities({"CORP": "corp.example.com"})
MINUTE = 60_000
#: Ids of sessions, also such as terminals and Windows give them.
_IDS = ("1", "pts/2", "RDP-Tcp#3", "pts/2/RDP #4")
_CLICKS = 12
_NAMES = ("alice", "bob", "carol", "dave", "erin", "frank")
FARM_DEVICE = "citrix-a"
_DEVICES = ("nb-1", "NB-2")  # a machine is one whatever its spelling
FILE = "/home/{user}/cal.pgo"


class Terms:
    """The policy of one run: a named and a floating pool, small enough for every limit to be met."""

    def __init__(self, chance: Random) -> None:
        span = chance.choice
        self._named: dict[str, Any] = {
            "name": "named", "kind": "named", "capacity": span((1, 2, 3)), "overdraft": span((0, 0, 1)),
            "devices_per_user": span((1, 2)), "sessions_per_user": span((0, 0, 1, 2)), "lease": span(("10m", "25m", "1h", "3h", "30d")),
            "quarantine": span(("0s", "40m")), "files": span(([], [FILE], [FILE])), "replacements": 1,
        }  # fmt: skip
        self._floating: dict[str, Any] = {
            "name": "floating", "kind": "floating", "capacity": span((1, 2, 3)), "overdraft": span((0, 0, 1)),
            "share": span(("session", "user_device", "user")), "sessions_per_user": span((0, 0, 1, 2)),
            "linger": span(("0s", "0s", "5m")), "max_hold": span(("0s", "1h", "4h")), "queue": span(("0s", "0s", "10m")),
            "idle_timeout": span(("0s", "0s", "50m")),
        }  # fmt: skip
        for pool in (self._named, self._floating):
            if most := span((0, 0, 1, 2)):
                pool["limit"] = [{"users": [rf"CORP\{name}" for name in _NAMES[:3]], "seats": most}]
            pool |= {"session_timeout": "30m", "reacquire": {"attempts": span((0, 2)), "every": "2m"}}

    @property
    def pools(self) -> tuple[str, str]:
        """The names of the pools."""
        return "named", "floating"

    def change(self, chance: Random) -> None:
        """Let an administrator change how many seats and devices there are."""
        pool = chance.choice((self._named, self._floating))
        pool["capacity"], pool["overdraft"] = chance.choice((1, 2, 3)), chance.choice((0, 1))
        if chance.random() < 0.5:
            self._named["devices_per_user"] = 3 - self._named["devices_per_user"]

    @property
    def text(self) -> str:
        """The policy as an administrator writes it."""
        pools = "".join(f"[[pool]]\n{_toml(pool)}" for pool in (self._named, self._floating))
        return f'{pools}[[rule]]\npools = ["floating", "named"]\n'


def _toml(pool: dict[str, Any]) -> str:
    return "".join(f"{key} = {_inline(value)}\n" for key, value in pool.items())


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_inline(each)}" for key, each in value.items()) + " }"
    return f"[{', '.join(map(_inline, value))}]" if isinstance(value, list) else json.dumps(value)


class Stage(Protocol):
    """Where the workload plays."""

    hosts: list[Host]
    admin: Any

    def tell(self, kind: str, *words: object) -> None:
        """Write something down."""

    def asked(self, host: Host, request: SessionRequest, decision: Decision) -> None:
        """Judge a decision as its user heard it."""

    def held(self, host: Host, session: NodeSession) -> None:
        """Note that a user was told of a hold."""

    def starts(self, host: Host, request: SessionRequest) -> None:
        """Note that somebody asks for a session."""

    def ends(self, host: Host, session: str, pool: str | None) -> None:
        """Note that somebody asks for the end of a session, or of its use of one pool."""

    def ended(self, host: Host, session: str, before: frozenset[tuple[str, int]]) -> None:
        """Judge the end of a whole session: what it had before is over."""

    def is_cut_off(self, host: Host) -> bool:
        """Whether a host cannot reach the store now."""

    def gone(self) -> bool:
        """Whether this caller hangs up in the middle."""

    def devices(self, pool: str, user: User) -> Collection[str] | None:
        """Return the devices of a user's lease, as a list of leases shows them; None without one."""

    def is_idle(self, pool: str, user: User) -> bool:
        """Whether a list of leases shows one of this user without sessions."""


@dataclass(frozen=True, slots=True)
class Person:
    """A user, and the outside machine some of them have."""

    user: User
    notebook: str | None


class Workload:
    """The people of one run."""

    def __init__(self, stage: Stage, terms: Terms, chance: Random) -> None:
        self._stage = stage
        self._terms = terms
        self._chance = chance
        names = _NAMES[: chance.randint(4, 6)]
        self._people = [
            Person(IDENTITIES.user(rf"CORP\{name}"), chance.choice((None, *_DEVICES, *_DEVICES))) for name in names
        ]
        self.left: tuple[Host, SessionRequest] | None = None  #: who signed out last, and where
        self._revoked: list[tuple[User, str]] = []  #: who was kept out of which pool
        self._guests: dict[str, list[User]] = {}  #: by host, who had a session there
        self._ids = list(_IDS[: chance.randint(3, 5) - 1])
        self._acts: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (10, self._start), (3, self._retry), (1, self.rush), (4, self._come_back), (4, self._insist), (6, self._end), (4, self._save), (3, self._hold), (1, self._touch),
            (2, self._withdraw), (2, self._free_device), (1, self._replace_device), (1, self._forget), (1, self._drain),
            (1, self._readmit),
        ]  # fmt: skip

    async def act(self) -> None:
        """Let somebody do something."""
        weights = [weight for weight, _ in self._acts]
        (_, act) = self._chance.choices(self._acts, weights)[0]
        try:
            await act()
        except FarmleaseError as error:
            self._stage.tell("failed", type(error).__name__)

    def _host(self) -> Host | None:
        host = self._chance.choice(self._stage.hosts)
        return host if host.up else None

    def _request(self) -> SessionRequest:
        chance, person = self._chance, self._chance.choice(self._people)
        return SessionRequest(
            user=person.user,
            session=chance.choice(self._ids),
            pool=chance.choice((*self._terms.pools, *self._terms.pools, None)),
            device=person.notebook if chance.random() < 0.45 else None,
            wait_ms=chance.choice((0, 0, 0, 4000, 90_000)),
        )

    async def _start(self) -> None:
        if host := self._host():
            await self._ask(host, self._request())

    async def _retry(self) -> None:
        """Ask again for the same session: at the same time, or right after."""
        if host := self._host():
            request = self._request()
            if self._chance.random() < 0.5:
                await asyncio.gather(self._ask(host, request), self._ask(host, request))
            else:
                await self._ask(host, request)
                if host.up:
                    await self._ask(host, request)

    async def _come_back(self) -> None:
        """Somebody signs out and in again."""
        host = self._host()
        sessions = host.agent.all_uses() if host else []
        if host and sessions:
            session = self._chance.choice(sessions)
            await self._sign_out(host, session.id, None)
            if host.up:
                await self._ask(host, SessionRequest(user=session.user, session=session.id, pool=session.pool))

    async def _insist(self) -> None:
        """Where the store cannot be reached, those who have been there try all the same: some have a receipt."""
        away = [host for host in self._stage.hosts if host.up and self._stage.is_cut_off(host)]
        if away:
            host = self._chance.choice(away)
            for user in self._guests.get(host.name, [self._chance.choice(self._people).user]):
                if not host.up:  # it died under the one before
                    return
                session = str(self._chance.randint(10, 29))  # one that is in use could not be ended now
                await self._ask(host, SessionRequest(user=user, session=session, pool="named"))

    async def rush(self) -> None:
        """Everybody comes at nine."""
        hosts = [host for host in self._stage.hosts if host.up]
        if hosts:
            await asyncio.gather(*(self._ask(self._chance.choice(hosts), self._request()) for _ in self._people))

    async def dismiss(self) -> None:
        """Somebody who works with a named licence is dismissed: it is revoked, whatever the store has of it by now."""
        if places := self._places("named"):
            user = self._chance.choice(places)[1].user
            self._stage.tell("dismisses", user.name)
            self._revoked.append((user, "named"))
            with suppress(FarmleaseError):
                await LeaseAdmin(self._stage.admin).withdraw(await self._pool("named"), user, Withdrawal.REVOKED)

    async def hammer(self) -> None:
        """Who signed out last wants back in, and clicks again and again."""
        if self.left is not None and self.left[0].up:
            await asyncio.gather(*(self._ask(*self.left) for _ in range(_CLICKS)))

    async def knock(self, host: Host) -> None:
        """Three people try at one host, at once."""
        if host.up:
            await asyncio.gather(*(self._ask(host, self._request()) for _ in range(3)))

    async def _ask(self, host: Host, request: SessionRequest) -> None:
        self._stage.tell(
            "asks", host.name, request.user.name, request.session, request.pool, request.device or "-", request.wait_ms
        )
        self._stage.starts(host, request)
        decision = await self._verb(host, host.agent.start_session(request))
        if decision is not None:
            self._stage.asked(host, request, decision)
        offline = isinstance(decision, Denial) and decision.reason is Reason.OFFLINE
        if (decision is None or offline) and host.up and self._chance.random() < 0.5:  # they try again
            await asyncio.sleep(self._chance.choice((0, 1, 5)))
            await self._ask(host, request)
        if isinstance(decision, Grant) and request.user not in (guests := self._guests.setdefault(host.name, [])):
            guests.append(request.user)

    async def _end(self) -> None:
        if host := self._host():
            sessions = host.agent.all_uses()
            ids = [each.id for each in sessions] or self._ids
            session = self._chance.choice(ids)
            pool = self._chance.choice((None, None, *self._terms.pools))
            await self._sign_out(host, session, pool)

    async def _sign_out(self, host: Host, session: str, pool: str | None) -> None:
        self._stage.tell("ends", host.name, session, pool or "-")
        self._stage.ends(host, session, pool)
        before = fences(host, session)
        uses = host.agent.uses(session, pool)
        ended = await self._verb(host, host.agent.end_session(session, pool=pool))
        if ended and uses:
            self.left = host, SessionRequest(user=uses[0].user, session=session, pool=uses[0].pool)
        if ended and pool is None and host.up:
            self._stage.ended(host, session, before)

    async def _save(self) -> None:
        """A user's programs write the licence file, on every host where the user is; not all of them wait to save."""
        places = self._places("named")
        if not places:
            return
        user = self._chance.choice(places)[1].user
        await asyncio.gather(*(self._write(host, each.id, user) for host, each in places if each.user == user))

    def _places(self, pool: str) -> list[tuple[Host, NodeSession]]:
        """Every session of a pool, with its host."""
        running = [host for host in self._stage.hosts if host.up]
        return [(host, each) for host in running for each in host.agent.all_uses() if each.pool == pool]

    async def _write(self, host: Host, session: str, user: User) -> None:
        content = f"{user.name} on {host.name} {self._chance.random()}".encode()
        host.disk.files[user.name, FILE] = content
        self._stage.tell("saves", host.name, session, user.name)
        if self._chance.random() < 0.7:
            await self._verb(host, host.agent.save_session(session))

    async def _hold(self) -> None:
        if places := self._places("floating"):
            host, session = self._chance.choice(places)
            self._stage.tell("holds", host.name, session.id)
            span = self._chance.choice((None, 3 * MINUTE, 20 * MINUTE))
            held = await self._verb(host, host.agent.hold_session(session.id, span, pool=session.pool))
            if any(isinstance(each, Held) for each in held or ()):
                self._stage.held(host, session)

    async def _touch(self) -> None:
        if host := self._host():
            host.agent.touch(self._chance.choice(self._ids))

    async def _drain(self) -> None:
        if host := self._host():
            on = not host.agent.draining and self._chance.random() < 0.5
            self._stage.tell("drains", host.name, on)
            host.agent.drain(on=on)

    async def _withdraw(self) -> None:
        why = self._chance.choice((Withdrawal.RETURNED, Withdrawal.REVOKED))
        pool = self._chance.choice(self._terms.pools)
        user = self._holder(pool)
        self._stage.tell("withdraws", user.name, pool, why.value)
        await LeaseAdmin(self._stage.admin).withdraw(await self._pool(pool), user, why, "left")
        if why is Withdrawal.REVOKED:
            self._revoked.append((user, pool))
        if self._chance.random() < 0.2:  # a person who leaves
            await self._erase(user, pool)

    async def _readmit(self) -> None:
        """A revocation was a mistake."""
        if self._revoked:
            user, pool = self._revoked.pop(self._chance.randrange(len(self._revoked)))
            self._stage.tell("readmits", user.name, pool)
            await LeaseAdmin(self._stage.admin).readmit(await self._pool(pool), user)

    async def _free_device(self) -> None:
        user = self._holder("named")
        device = self._device(user)
        self._stage.tell("frees", user.name, device)
        await LeaseAdmin(self._stage.admin).release_device(await self._pool("named"), user, device)

    async def _replace_device(self) -> None:
        user = self._holder("named")
        old, new = self._device(user), self._chance.choice((FARM_DEVICE, *_DEVICES))
        self._stage.tell("replaces", user.name, old, new)
        await LeaseAdmin(self._stage.admin).replace_device(await self._pool("named"), user, old, new, note="")

    async def _forget(self) -> None:
        """An administrator erases a name; one who has a lease keeps it."""
        await self._erase(self._chance.choice(self._people).user, self._chance.choice(self._terms.pools))

    async def _erase(self, user: User, pool: str) -> None:
        admin = self._stage.admin
        self._stage.tell("forgets", user.name, pool)
        await AuditLog(admin).forget(pool, admin.sealer.user_index(user))

    async def rename(self) -> bool:
        """An administrator gives somebody another name, or the former one back; who has a session then keeps the name.

        At times the former name is erased too. False if nothing was moved.
        """
        people = [*enumerate(self._people)]
        idle = [each for each in people if self._stage.is_idle("named", each[1].user)]
        at, person = self._chance.choice(idle if idle and self._chance.random() < 0.8 else people)
        old = person.user
        plain, _, later = old.canonical.partition("-")
        new = IDENTITIES.user(plain if later else f"{plain}-{self._chance.randint(2, 3)}")
        self._stage.tell("FAULT", "user renamed", old.name, new.name)
        admin, outcomes = self._stage.admin, set[Rename]()
        for pool in self._terms.pools:
            due = DueRename(pool=pool, index=admin.sealer.user_index(old), name=old.canonical, user=new)
            outcomes.add(await LeaseRenamer(admin).move(due))
        if outcomes <= {Rename.RENAMED, Rename.NONE}:
            self._people[at] = replace(person, user=new)
            if self._chance.random() < 0.3:
                for pool in self._terms.pools:
                    await self._erase(old, pool)
        return Rename.RENAMED in outcomes

    def _holder(self, pool: str) -> User:
        """Somebody whom the list of leases shows, as a rule."""
        users = [each.user for each in self._people]
        holders = [each for each in users if self._stage.devices(pool, each) is not None]
        return self._chance.choice(holders if holders and self._chance.random() < 0.8 else users)

    def _device(self, user: User) -> str:
        """A device that the list shows for a user, as a rule."""
        devices = sorted(self._stage.devices("named", user) or ())
        if devices and self._chance.random() < 0.8:
            return self._chance.choice(devices)
        return self._chance.choice((FARM_DEVICE, *_DEVICES))

    async def _pool(self, name: str) -> Any:
        found = (await self._stage.admin.policy()).pool(name)
        if found is None:
            raise FarmleaseError("no policy")
        return found

    async def _verb(self, host: Host, work: Any) -> Any:
        """Run a verb; None if the agent died under it or its caller went away."""
        task = asyncio.ensure_future(host.as_agent(work))
        if self._stage.gone():
            await asyncio.wait({task}, timeout=self._chance.choice((0, 0.001, 0.003, 1)))
            if not task.done():
                task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            self._stage.tell("gone", host.name)
            return None
