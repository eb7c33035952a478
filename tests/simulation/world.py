"""The world of one run: a farm of agents and a store in one process, on virtual time and one seed.

1. The policy is applied and the hosts are switched on. 2. People act and faults come until enough has happened.
3. The faults stop, everything is healed, some virtual hours pass, and nothing may be left over. 4. Everybody ends.
"""

import asyncio
import json
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from farmlease.crypto.keyring import Key as SealKey
from farmlease.crypto.keyring import KeyRing
from farmlease.crypto.seal import Sealer
from farmlease.domain.identity import User
from farmlease.domain.model import Decision, SessionRequest
from farmlease.domain.policy import parse_policy
from farmlease.domain.session_states import SessionEvent, SessionState
from farmlease.domain.stored_id import STORED
from farmlease.errors import FarmleaseError, StoreError
from farmlease.farm import Farm
from farmlease.node.journal.outbox import SaveMessage
from farmlease.node.journal.sessions import NodeSession
from farmlease.store.connection.connection import Connection
from farmlease.store.lease_store import LeaseStore
from tests.simulation import laws
from tests.simulation.blows import Blows
from tests.simulation.chance import dice
from tests.simulation.faults import PROFILES, Mood
from tests.simulation.history import History
from tests.simulation.host import FARM, HEARTBEAT, Host
from tests.simulation.ledger import Key, Ledger
from tests.simulation.loop import VirtualLoop
from tests.simulation.memory import Hash
from tests.simulation.monitoring import Monitoring
from tests.simulation.naming import HostNames
from tests.simulation.network import Network
from tests.simulation.owed import Owed
from tests.simulation.server import Carried, Server
from tests.simulation.takings import Takings
from tests.simulation.uses import Uses
from tests.simulation.workload import Terms, Workload

__all__ = ["World"]

#: Mean seconds between two acts of people.
_PACE = 40.0
#: Seconds for which at times nobody acts, and how often that is so.
_LULL, _LULLS = 3000.0, 0.01
#: Seconds of quiet after the faults: a session timeout, and every host's next heartbeat.
_QUIET = 1800 + HEARTBEAT + 120
#: Seconds after which every end has reached the store.
_ENDED = 60
#: Seconds within which an agent has done what a heartbeat's word of a lost session asks of it.
_PROMPT = 60.0
#: Seconds within which a host that reaches the store has told it what it has.
_HEARD_WITHIN = 20.0
_HOSTS = ("ctx-01", "ctx-02", "ctx-03", "ctx-04")


@cache
def _sealer() -> Sealer:
    """Seal with keys that never change: a replay must give the same bytes."""
    ring = KeyRing(primary="00000001", keys=(SealKey(id="00000001", created_at=0, secret=b"s" * 32),), index=b"i" * 32)
    return Sealer(ring, FARM)


_ENDS = frozenset({SessionState.ENDING, SessionState.ENDED})
_NEW = frozenset({SessionState.STARTING, SessionState.WAITING})
#: Seconds after which an answer that was on its way has come, or never will.
_ANSWERED = 10
#: What the store's clock may be off, in ms, before anybody has to notice.
_CLOCKS_DIFFER = 70_000


class World:
    """One farm. What its parts tell goes into ``history``."""

    def __init__(
        self, seed: int, loop: VirtualLoop, folder: Path, profile: str, prepare: Callable[["World"], None]
    ) -> None:
        self.seed = seed
        self.loop = loop
        self.chance = dice(seed, "world")
        self.history = History()
        self.mood = Mood(dice(seed, "mood"), PROFILES[profile])
        self.server = Server(loop.time, self._carried)
        self.network = Network(self.server, self.mood, dice(seed, "network"), self.tell)
        self.names = HostNames()
        self.ledger = Ledger(self.server.memory, self.broken, self._goes_on, self._vouches, self._owes_end, self.names)
        self.terms = Terms(dice(seed, "terms"))
        count = self.chance.choice((2, 3, 3, 4))
        self.hosts = [
            Host(
                name, loop, self.network, _sealer(), folder / name, dice(seed, name), self._stepped, self._beaten,
                self._owing,
            )
            for name in _HOSTS[:count]
        ]  # fmt: skip
        connection = Connection(
            self.network.line("admin"), describe="simulated", timeout_ms=2000, server=None, sleep=asyncio.sleep
        )
        self.admin = Farm(FARM, LeaseStore(connection, FARM), _sealer())
        self.monitoring = Monitoring(self.ledger, lambda: self.now, self.key)
        self.uses = Uses(self.ledger, lambda: self.now)
        self.takings = Takings(self.ledger, self.server.memory, partial(self.broken, "L11"))
        self.workload = Workload(self, self.terms, dice(seed, "workload"))
        self.blows = Blows(self, dice(seed, "blows"))
        self.forged: dict[tuple[str, str], bytes] = {}  #: by pool and user index, records that must not open
        self._acts: list[asyncio.Task[None]] = []
        self.owed = Owed()
        self._fences: dict[str, tuple[int, str]] = {}  #: by pool, the highest that was told, and by which host
        self._leases: dict[tuple[str, str], tuple[str, int]] = {}  #: pool and user to the host told last, and its end
        self._homes: dict[tuple[str, str], set[str]] = {}  #: by pool and user, once renamed: where the lease may be
        self._taken: dict[tuple[str, str], float] = {}  #: when an administrator took something of a user's lease
        self._tainted: set[tuple[str, Key, int]] = set()  #: pool, session and fence
        self._began: dict[tuple[str, Key], float] = {}  #: by pool and session
        #: Pool, session and fence to its hold's end, by true time; and those of which the user was told.
        self._granted_holds: dict[tuple[str, Key, int], float] = {}
        self._holds: dict[tuple[str, Key, int], float] = {}
        self._lives: dict[tuple[str, str, str], str] = {}  #: host, pool and user to the life that the store granted in
        self._over: dict[tuple[str, Key], int] = {}  #: by pool and session: the highest fence that its host ended
        self._indices: dict[str, str] = {}  #: user index by canonical name
        self._lost: dict[str, set[tuple[str, str, int]]] = {}  #: by host, of sessions: pool, id and fence
        prepare(self)

    # --- what the parts ask and tell ----------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the run began."""
        return self.loop.passed

    @property
    def now_ms(self) -> int:
        """The store's clock."""
        return self.server.now_ms

    def tell(self, kind: str, *words: object) -> None:
        """Write down something that happened."""
        self.history.tell(self.now, kind, *words)

    def broken(self, law: str, what: str) -> None:
        """Write down that a law did not hold."""
        self.history.break_law(self.now, law, what)

    def is_cut_off(self, host: Host) -> bool:
        """Whether a host cannot reach the store now."""
        return not self.network.reaches(host.name)

    def gone(self) -> bool:
        """Whether a caller hangs up in the middle."""
        return self.mood.strikes("caller gone")

    def key(self, host: Host, session: NodeSession) -> Key:
        """How the store knows a session."""
        return self.index_of(session.user), host.member, session.id.translate(STORED)

    def index_of(self, user: User) -> str:
        """How the store knows a user."""
        index = self._indices.get(user.canonical)
        if index is None:
            index = self._indices[user.canonical] = _sealer().user_index(user)
        return index

    def starts(self, host: Host, request: SessionRequest) -> None:
        """Somebody asks for a session."""
        self.uses.start_asked(host, self.index_of(request.user), request)

    def ends(self, host: Host, session: str, pool: str | None) -> None:
        """Somebody asks for the end of a session."""
        self.uses.end_asked(host, session, pool)

    def ended(self, host: Host, session: str, before: frozenset[tuple[str, int]]) -> None:
        """The end of a session was answered."""
        if what := self.uses.ended(host, session, before):
            self.broken("L3", what)

    def hears(self, host: Host) -> bool:
        """Whether a host could reach the store for long enough to have told what it has."""
        return self.network.reaches(host.name) and self.now - host.since > _HEARD_WITHIN

    def was_taken(self, host: Host, session: NodeSession) -> bool:
        """Whether an administrator has taken the lease since the store granted a session of it.

        Who was let in by a receipt is counted anew, if there is room.
        """
        grant = session.grant
        if grant is None or grant.source != "store":
            return False
        return self.takings.took(host.name, session.pool, self.index_of(session.user), grant.lease.id, grant.fence)

    def has_had(self, host: Host, session: NodeSession) -> bool:
        """Whether a session has been going on for long enough to be counted before anything its host asks.

        One whose id somebody has asked to start with is counted after that, if it goes on then.
        """
        began = self._began.get((session.pool, self.key(host, session)), 0)
        return self.now - began > _ANSWERED and not self.uses.is_start_under_way(host, session.id)

    def held(self, host: Host, session: NodeSession) -> None:
        """A user was told that a session is held: until then it lives, whatever becomes of store and host."""
        found = host.book.find(*session.key) if host.up else None
        held = None if found is None or found.grant is None else (found.pool, self.key(host, found), found.grant.fence)
        if held in self._granted_holds:
            self._holds[held] = self._granted_holds[held]

    def devices(self, pool: str, user: User) -> Collection[str] | None:
        """Return the devices of a user's lease, as a list of leases shows them; None without one."""
        index, account = self.index_of(user), self.ledger.pools.get(pool)
        return account.model.devices(index) if account and index in account.model.leases else None

    def is_idle(self, pool: str, user: User) -> bool:
        """Whether a list of leases shows one of this user without sessions."""
        account = self.ledger.pools.get(pool)
        return (
            account is not None
            and (index := self.index_of(user)) in account.model.leases
            and not account.model.of(index)
        )

    def rush(self) -> None:
        """Everybody tries at once: something was not there for a moment."""
        self._acts.append(self.loop.create_task(self.workload.rush()))

    def dismiss(self) -> None:
        """Somebody is dismissed, just now."""
        self._acts.append(self.loop.create_task(self.workload.dismiss()))

    def hammer(self) -> None:
        """Who signed out last wants back in."""
        self._acts.append(self.loop.create_task(self.workload.hammer()))

    def knock(self, host: Host) -> None:
        """Somebody tries at a host."""
        self._acts.append(self.loop.create_task(self.workload.knock(host)))

    def stir(self) -> None:
        """Something befell the store: the hosts, which look at it all the time, are about to notice."""
        for host in self.hosts:
            host.stirred.set()

    def forget(self, host: Host) -> None:
        """A host lost what it had written last: nothing of that can be asked of it."""
        self.owed.forget(host.name)
        self.takings.forget(host.name)
        self._over = {over: fence for over, fence in self._over.items() if over[1][1] != host.member}
        self._leases = {lease: told for lease, told in self._leases.items() if told[0] != host.name}
        self._fences = {pool: told for pool, told in self._fences.items() if told[1] != host.name}

    def asked(self, host: Host, request: SessionRequest, decision: Decision) -> None:
        """Judge a decision as its user heard it."""
        index = self.index_of(request.user)
        words = getattr(decision, "reason", None) or f"granted {getattr(decision, 'fence', '')}"
        self.tell("told", host.name, request.user.name, request.session, words)
        for number, law in (
            ("L8", laws.explained),
            ("L8", laws.in_time),
            ("L3", laws.as_asked),
            ("L5", laws.by_receipt),
        ):
            if what := law(self, request, decision):
                self.broken(number, what)
        if what := laws.in_this_life(
            host, decision, self._lives.get((host.name, getattr(decision, "pool", ""), index))
        ):
            self.broken("L4", what)
        device = (request.device or FARM).casefold()
        if what := self.takings.decided(host.name, index, request, device, decision):
            self.broken("L11", what)
        # Where data were lost, or a call was, the host could not know who has a seat.
        knows = host.up and not self.blows.losses and host.node.sync.availability.answers
        if what := self.uses.decided(host, index, request, decision, knows=knows):
            self.broken("L2", what)

    def _goes_on(self, pool: str, key: Key) -> bool:
        return any(
            self.hears(host) and (found := host.book.find(key[2], pool)) is not None
            and found.state is SessionState.ACTIVE and self.key(host, found) == key
            for host in self.hosts
            if host.up
        )  # fmt: skip

    def _vouches(self, pool: str, user: str) -> bool:
        return any(
            each.grant is not None and each.grant.source == "receipt" and each.claim.user == user
            for host in self.hosts if host.up for each in host.book if each.pool == pool
        )  # fmt: skip

    def _owes_end(self, node: str, pool: str, user: str) -> bool:
        return any(
            (each.pool, each.claim.user, each.state) == (pool, user, SessionState.ENDING)
            for host in self.hosts if host.up and host.member == node for each in host.book
        )  # fmt: skip

    def _carried(self, carried: Carried) -> None:
        carried = self.names.heard(carried)
        given = carried.arguments
        whom = " ".join(given[name] for name in ("node", "session", "fence", "version") if name in given)
        self.tell("store", carried.by, carried.name, carried.pool or "-", whom, _plain(carried.answer))
        self.uses.carried(carried)
        judge = self.takings.before(carried)
        self.ledger.hear(carried)
        self.monitoring.carried(carried.pool)
        judge()
        if carried.name == "heartbeat" and carried.word == "alive":
            self._note_lost(carried)
        if carried.name == "save" and (what := self.owed.settle(carried)):
            self.broken("L7", what)
        if carried.name == "restore" and (carried.word in {"full", "ended"} or b"capacity" in carried.answer):
            # Others were first, while its node was cut off from a store that was empty.
            self._released(carried.pool, given["user"])
        self._note_holds(carried)
        if carried.name == "rename" and carried.word == "renamed":
            self._note_rename(carried.pool, given["old"], given["new"])
        if carried.name in {"withdraw", "replace_device", "release_device"}:
            self._released(carried.pool, given["user"])
            self._taken[carried.pool, given["user"]] = self.now
        if carried.name == "acquire" and carried.word in {"granted", "again", "moved"}:
            self._note_record(carried)
            if carried.word == "granted":
                self._note_fence(carried.pool, int(carried.answer[4]))
                key = (given["user"], given["node"], given["session"])
                if what := laws.counted_in(self, carried.pool, key, awaited=carried.awaited):
                    self.broken("L7", what)

    def _note_rename(self, pool: str, old: str, new: str) -> None:
        """What was told of a user's lease is to be found under another index, or under this one if that was lost."""
        homes = self._homes.setdefault((pool, new), {new})
        homes |= self._homes.get((pool, old), {old})
        if (pool, old) in self._leases:
            self._leases[pool, new] = self._leases.pop((pool, old))

    def _released(self, pool: str, user: str) -> None:
        """What was told of a user's lease, under whichever index, is not to be there any more."""
        for lease in [*self._leases]:
            if lease[0] == pool and user in self._homes.get(lease, {lease[1]}):
                del self._leases[lease]

    def _note_lost(self, carried: Carried) -> None:
        """Remember which sessions a host shows though they have ended: its agent is being told now."""
        account, node = self.ledger.pools[carried.pool], carried.arguments["node"]
        for host in self.hosts:
            if host.up and host.member == node:
                self._lost.setdefault(host.name, set()).update(
                    (each.pool, each.id, each.grant.fence)
                    for each in host.book
                    if each.pool == carried.pool
                    and each.grant is not None
                    and (account.ended.get(self.key(host, each), 0) >= each.grant.fence or self.was_taken(host, each))
                )

    def _note_holds(self, carried: Carried) -> None:
        match carried.name, carried.word:
            case "hold", "held":
                self._note_hold(carried)
            case "release", "released":
                # A later session of this id may have the same fence: a receipt that lets it in knows no newer one.
                over = carried.pool, tuple(carried.arguments[name] for name in ("user", "node", "session"))
                self._holds = {held: until for held, until in self._holds.items() if held[:2] != over}
            case "restore", "restored":
                self._check_holds(carried)

    def _note_hold(self, carried: Carried) -> None:
        """Remember until when a session is held, by true time."""
        given = carried.arguments
        left = int(carried.answer[1]) - self.ledger.pools[carried.pool].model.now
        key = (given["user"], given["node"], given["session"])
        held, until = (carried.pool, key, int(given["fence"])), self.now + left / 1000
        self._granted_holds[held] = until
        if held in self._holds:  # a shorter one takes its place, though its user never heard of that
            self._holds[held] = min(self._holds[held], until)

    def _check_holds(self, carried: Carried) -> None:
        """L5: a session that is restored is held for as long as its user was told."""
        given, model = carried.arguments, self.ledger.pools[carried.pool].model
        for host in (each for each in self.hosts if each.up and each.member == given["node"]):
            for session, claim in json.loads(given["sessions"]).items():
                key = (given["user"], given["node"], session)
                left = 1000 * (self._holds.get((carried.pool, key, claim["fence"]), 0) - self.now)
                if key in model.sessions and left > max(0, model.sessions[key].hold - model.now) + _CLOCKS_DIFFER:
                    self.broken("L5", f"a hold of session {session} on {host.name} was lost when it was restored")

    def _note_fence(self, pool: str, fence: int) -> None:
        """L4: the fences of a pool only grow, or an older holder could not be told from a newer one."""
        told, by = self._fences.get(pool, (0, ""))
        witnesses = [host for host in self.hosts if host.name == by and host.up and self.hears(host)]
        if fence <= told and witnesses:  # what only a host knew that is cut off, nobody can restore
            self.broken("L4", f"a grant in {pool} got fence {fence}, and somebody was told {told} before")

    def _owing(self, host: Host, debt: SaveMessage) -> None:
        self.owed.note(host.name, debt)

    def _note_record(self, carried: Carried) -> None:
        """Remember which grants carry a record that must not open."""
        given = carried.arguments
        mark = carried.pool, (given["user"], given["node"], given["session"]), int(carried.answer[4])
        if carried.answer[6] == self.forged.get((carried.pool, given["user"])):
            self._tainted.add(mark)
        else:
            self._tainted.discard(mark)

    def _beaten(self, host: Host) -> None:
        """A heartbeat is over: what it told must show before long."""
        host.tasks = [task for task in host.tasks if not task.done()]
        lost, life = self._lost.pop(host.name, set()), host.lives
        spoken = self.takings.beaten(host.name)
        if host.node.sync.availability.answers:
            self.loop.call_later(_PROMPT, self._has_heard, host, life, spoken)
        if what := self.monitoring.beaten(host):
            self.broken("L9", what)
        if lost and host.node.sync.availability.answers:
            self.loop.call_later(_PROMPT, self._check_heard, host, life, lost)

    def _has_heard(self, host: Host, life: int, spoken: dict[str, float]) -> None:
        if host.up and host.lives == life:
            self.takings.hears(host.name, spoken)
            for what in self.takings.kept(host.name, host.node.state.receipts):
                self.broken("L11", what)

    def _check_heard(self, host: Host, life: int, lost: set[tuple[str, str, int]]) -> None:
        if host.up and host.lives == life and (what := laws.heard_of_loss(host, lost)):
            self.broken("L4", what)

    def _stepped(self, host: Host, before: SessionState, event: SessionEvent, after: NodeSession) -> None:
        fence = after.grant.fence if after.grant else "-"
        self.history.tell(self.now, "session", host.name, after.id, before.value, event.value, after.state.value, fence)
        if what := self.uses.stepped(host, before, event, after):
            self.broken("L3", what)
        use = after.pool, self.key(host, after)
        if before is SessionState.ACTIVE and after.state in _ENDS and after.grant is not None:
            self._over[use] = max(after.grant.fence, self._over.get(use, 0))
        if after.state is not SessionState.ACTIVE or event is SessionEvent.QUEUED or after.grant is None:
            return
        self._began[use] = self.now
        of_store = after.grant.source == "store"  # a receipt has the same fence, and a record of its own
        mark = after.pool, self.key(host, after), after.grant.fence
        if of_store and before is SessionState.STARTING and mark in self._tainted:
            self.broken("L6", f"session {after.id} on {host.name} began on a record that must not open")
        if of_store and before in _NEW and after.grant.fence <= self._over.get(use, 0):
            self.broken("L4", f"session {after.id} on {host.name} began on fence {after.grant.fence}, which had ended")
        lease = after.pool, use[1][0]
        if of_store:
            self._lives[host.name, *lease] = host.member
        # A grant that was on its way while an administrator took the lease says nothing of what is left of it.
        by_store = of_store and after.grant.kind == "named"
        if by_store and self.now - self._taken.get(lease, -_ANSWERED) >= _ANSWERED:
            self._leases[lease] = host.name, after.grant.lease.expires_at
        self._fences[after.pool] = max((after.grant.fence, host.name), self._fences.get(after.pool, (0, "")))
        self.loop.call_soon(self._check_told, after.pool)

    def _check_told(self, pool: str) -> None:
        account = self.ledger.pools.get(pool)
        if account is None:
            return
        if what := laws.within_capacity(self, pool, account):
            self.broken("L1", what)
        if not self.blows.losses and (what := laws.one_lease(self, pool, account)):
            self.broken("L2", what)

    # --- the run ------------------------------------------------------------------------------------------------------

    async def live(self, events: int) -> None:
        """All of it."""
        await self.apply()
        for host in self.hosts:
            host.start()
        await asyncio.sleep(5)
        blows = self.loop.create_task(self.blows.fall())
        while self.history.events < events:
            lull = _LULL if self.chance.random() < _LULLS else 0
            await asyncio.sleep(lull + self.chance.expovariate(1 / _PACE))
            self._acts = [task for task in self._acts if not task.done()]
            self._acts.append(self.loop.create_task(self.workload.act()))
        self.mood.over = True
        blows.cancel()
        with suppress(asyncio.CancelledError):
            await blows
        await self.blows.heal()
        await asyncio.gather(*self._acts, return_exceptions=True)
        await self._be_quiet()

    async def apply(self) -> None:
        """Put the policy in force; tried until it is."""
        policy = parse_policy(self.terms.text, "simulation")
        for _ in range(20):
            with suppress(StoreError):
                await self.admin.apply(policy)
                return
            await asyncio.sleep(5)

    async def _be_quiet(self) -> None:
        """Hours without faults; then nothing may be left over, and after everybody ended, nothing at all."""
        await asyncio.sleep(_QUIET)
        self._check_quiet()
        for host in self.hosts:
            if host.agent.draining:
                host.agent.drain(on=False)
            for session in host.agent.all_uses():
                self.ends(host, session.id, None)
                with suppress(FarmleaseError):
                    await host.as_agent(host.agent.end_session(session.id))
        await asyncio.sleep(_ENDED)
        self._check_quiet()
        for host in self.hosts:
            if host.agent.all_uses():
                self.broken("L3", f"{host.name} shows sessions after all were ended")

    def _check_quiet(self) -> None:
        self.tell("quiet")
        for pool, account in self.ledger.pools.items():
            self._check_told(pool)
            if what := laws.one_lease(self, pool, account):
                self.broken("L2", what)
        for what in laws.nothing_leaks(self, self.server.memory):
            self.broken("L3", what)
        for (pool, user), (_, expires_at) in sorted(self._leases.items()):
            homes = self._homes.get((pool, user), {user})
            if what := laws.kept_lease(self, pool, homes, expires_at):
                self.broken("L7", what)
        for what in self.takings.left():
            self.broken("L11", what)
        for host in self.hosts:
            for what in self.takings.kept(host.name, host.node.state.receipts):
                self.broken("L11", what)
        if missing := self.owed.left:
            self.broken("L7", f"{missing} records that were taken back never reached the store")

    def record(self, pool: str) -> Hash:
        """Return the sealed records of a pool."""
        return self.server.memory.fields(f"fl:{{{FARM}/{pool}/0}}:records".encode())


def _plain(answer: object) -> str:
    if not isinstance(answer, list):
        return str(answer)
    return " ".join(
        word.decode("ascii", "backslashreplace") if isinstance(word, bytes) and len(word) < 40 else "…"
        for word in answer
    )
