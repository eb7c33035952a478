"""L11: what was taken back stays so, unless the store lost that and no living node had heard of it.

Judged by what administrators were answered, and by nothing that farmlease keeps about it: no tombstone is read here.

Taken are: a lease (returned or revoked, or moved to another name of its user), a device (released or replaced), a name
(forgotten), and a revocation (its user was let in again). A lease or device that is granted anew, a name that comes with
a later start, and a revocation that is made anew, are taken no more. A
lease has one home: under one index, in the store and on each node that has heard where. A node has heard of what was taken once a
heartbeat that began later is over, until its journal loses what was written last.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from typing_extensions import override

from farmlease.domain.model import Decision, Grant, SessionRequest
from farmlease.node.journal.receipts import Receipts
from tests.simulation.ledger import Key, Ledger
from tests.simulation.memory import Memory
from tests.simulation.server import Carried
from tests.support.farm_model import INF

__all__ = ["Taking", "Takings"]

#: Words of a start that takes what it names.
_TAKES = frozenset({"granted", "moved"})


@dataclass(slots=True)
class Taking:
    """Something that was taken back. ``until``: ms; until when it may stay, in quarantine."""

    #: lease, moved (it is another index's), device, name, bar (the user is kept out), or readmission (is so no longer)
    kind: str
    pool: str
    user: str
    lease: str
    device: str
    at: float  #: seconds of the run
    moment: int  #: of the store's memory: whoever goes back behind it has lost this
    until: float = 0
    fence: int = 0  #: of the taking: what was granted up to it is over
    lost: bool = False  #: the store has forgotten it
    knowers: set[str] = field(default_factory=set)  #: once it is lost: the hosts that had heard of it before

    @override
    def __str__(self) -> str:
        what = f"device {self.device} of lease {self.lease}" if self.device else f"{self.kind} {self.lease}".strip()
        return f"{what} of {self.user[:8]} in {self.pool}, taken at {self.at:.0f} s"


class Takings:
    """What was taken back in one run. ``complain`` is called with what was seen."""

    def __init__(self, ledger: Ledger, memory: Memory, complain: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._memory = memory
        self._complain = complain
        self._all: list[Taking] = []
        self._ever: list[Taking] = []  #: every taking of a lease or device, though it was granted anew since
        self._heard: dict[str, dict[str, float]] = {}  #: by host and pool: what was taken before that is known there
        self._spoken: dict[str, dict[str, float]] = {}  #: likewise, by the heartbeat under way
        self._taken_at: dict[tuple[str, str], int] = {}  #: by pool and user: later fences than this are of later grants
        self._order: dict[tuple[str, str], list[str]] = {}  #: by pool and user: every lease, in the order of its grant

    # --- what is told -------------------------------------------------------------------------------------------------

    def before(self, carried: Carried) -> Callable[[], None]:
        """Look at a script that was carried out, before the ledger does; return what judges it afterwards."""
        if not carried.pool or carried.pool not in self._ledger.pools:
            return lambda: None
        self._note_taking(carried)
        match carried.name, carried.word:
            case "acquire", word if word in _TAKES:
                self._granted(carried)
            case "heartbeat", "alive":
                self._spoken.setdefault(carried.by, {})[carried.pool] = carried.at
            case "put_back", word:
                if word == "put":
                    self._known_again(carried)
                sessions = self._sessions_of(carried)
                return lambda: self._put_back(carried, sessions)
            case "restore", "ended":
                self._ended(carried)
            case "restore", "restored":
                held = self._standing_lease(carried)
                return lambda: self._restored(carried, held)
        return lambda: None

    def _note_taking(self, carried: Carried) -> None:
        given = carried.arguments
        match carried.name, carried.word:
            case "withdraw", "withdrawn":
                self._note_lease(carried)
                if carried.answer[2]:
                    self._drop("readmission", carried)
                    self._note("bar", carried, until=float(carried.answer[2]))
            case "readmit", "readmitted":
                self._drop("bar", carried)
                self._drop("readmission", carried)
                self._note("readmission", carried)
            case "release_device", "released":
                self._note("device", carried, given["device"], float(carried.answer[1] or 0))
            case "replace_device", "replaced":
                self._note("device", carried, given["old"])
                anew = carried.pool, given["user"], given["new"]  # whatever became of that device before
                self._all = [each for each in self._all if (each.pool, each.user, each.device) != anew]
            case "rename", "renamed":
                self._note_rename(carried)
            case "forget", "page" if carried.answer[3] in {b"name", b"both"}:
                self._note("name", carried)

    def _known_again(self, carried: Carried) -> None:
        """A store that had lost a bar keeps its user out again, from here on."""
        for taking in self._of(carried.pool, carried.arguments["user"]):
            if taking.kind == "bar" and taking.lost and "/" in json.loads(carried.arguments["graves"]):
                taking.lost, taking.moment = False, carried.until

    def beaten(self, host: str) -> dict[str, float]:
        """A heartbeat of a host is over: return what it could hear of, for ``hears``."""
        return self._spoken.pop(host, {})

    def hears(self, host: str, spoken: dict[str, float]) -> None:
        """Note what a host has heard of by now."""
        self._heard.setdefault(host, {}).update(spoken)

    def forget(self, host: str) -> None:
        """A host lost what it had written last."""
        self._heard.pop(host, None)
        self._spoken.pop(host, None)
        for taking in (*self._all, *self._ever):
            taking.knowers.discard(host)

    def lost(self, *, everything: bool) -> None:
        """The store lost writes."""
        for taking in (*self._all, *self._ever):
            if not taking.lost and (everything or taking.moment > self._memory.written):
                taking.knowers = {host for host in self._heard if self._knows(host, taking)}
                taking.lost = True

    def took(self, host: str, pool: str, user: str, lease: str, fence: int) -> bool:
        """Whether a lease was taken from its user since this grant: its sessions are over, counted then or not.

        Not if the store has forgotten that it was taken, and the session's host had not heard of it.
        """
        return any(
            (each.pool, each.user, each.lease) == (pool, user, lease)
            and fence <= each.fence
            and (not each.lost or host in each.knowers)
            for each in self._ever
            if each.kind == "lease"
        )

    # --- what is judged -----------------------------------------------------------------------------------------------

    def decided(self, host: str, index: str, request: SessionRequest, device: str, decision: Decision) -> str | None:
        """No receipt lets somebody in on what was taken and its node had heard of."""
        if not isinstance(decision, Grant) or decision.source != "receipt" or decision.again:
            return None
        for taking in self._of(decision.pool, index):
            own = taking.lease == decision.lease.id and taking.device in {"", device}
            stays = taking.kind == "device" and taking.until > self._ledger.pools[decision.pool].model.now
            if taking.kind in {"lease", "moved", "device"} and own and not stays and self._knows(host, taking):
                return f"session {request.session} on {host} was let in by a receipt on the {taking}"
        return None

    def left(self) -> Iterator[str]:
        """Yield what is there though it was taken: to be asked when all is quiet."""
        for taking in self._all:
            known = [host for host in self._heard if self._knows(host, taking)]
            if (not taking.lost or known) and self._is_there(taking):
                yield f"the {taking}, is there; {', '.join(known) or 'no host'} had heard of that"

        for pool, account in self._ledger.pools.items():
            homes: dict[str, list[str]] = {}
            for user, lease in account.model.leases.items():
                homes.setdefault(lease.id, []).append(user)
            yield from (f"lease {lease} in {pool} stands under {found}" for lease, found in homes.items() if found[1:])

    def kept(self, host: str, receipts: Receipts) -> Iterator[str]:
        """Yield what a host keeps of what it has heard was taken."""
        for taking in self._all:
            receipt = receipts.find(taking.user, taking.pool) if self._knows(host, taking) else None
            if receipt is None:
                continue
            if taking.kind == "name" and receipt.name:
                yield f"{host} has heard of the {taking}, and has it in a receipt"
            if taking.kind == "moved" and receipt.lease.id == taking.lease and receipt.document:
                yield f"{host} has heard of the {taking}, and has a receipt of it there"

    def _restored(self, carried: Carried, held: str) -> None:
        pool, user = carried.pool, carried.arguments["user"]
        for taking in self._of(pool, user):
            knew = carried.awaited and self._knows(carried.by, taking)
            anew = taking.kind == "device" and self._ledger.vouches(pool, user)  # by who was let in by a receipt
            if anew and self._is_there(taking):
                self._all.remove(taking)
            elif (not taking.lost or knew) and self._is_there(taking):
                self._complain(f"{carried.by} brought back the {taking}")
                self._all.remove(taking)
        known, now_held = self._order.get((pool, user), []), self._lease_of(carried)
        if (
            self._ledger.clock_is_sound
            and held in known
            and now_held in known
            and known.index(held) > known.index(now_held)
        ):
            self._complain(f"{carried.by} restored lease {now_held}, and {held} is the later one")

    def _ended(self, carried: Carried) -> None:
        """Nobody is told that a lease is over which goes on: the last one of its user, and taken by nobody."""
        pool, user, known = carried.pool, carried.arguments["user"], json.loads(carried.arguments["lease"])
        sessions = json.loads(carried.arguments["sessions"]).values()
        standing = any(not each.get("over") for each in sessions)
        goes_on = standing or known.get("until", 0) > self._ledger.now_ms(pool, carried.now_ms)
        granted = max([known.get("fence", 0), *(each["fence"] for each in sessions)])
        taken = any(each.kind in {"lease", "moved", "bar"} for each in self._of(pool, user))
        taken = taken or granted <= self._taken_at.get((pool, user), 0)
        if not self._ledger.clock_is_sound:  # leases of one instant: which is the later?
            return
        if carried.awaited and goes_on and not taken and self._order.get((pool, user), [])[-1:] == [known["id"]]:
            self._complain(f"{carried.by} was told that lease {known['id']} of {user[:8]} is over; nobody took it")

    def _put_back(self, carried: Carried, sessions: Mapping[Key, int]) -> None:
        """A store that lost it is told again of what was taken, and of nothing else."""
        gone = sorted(sessions.keys() - self._sessions_of(carried).keys())
        whose = carried.pool, carried.arguments["user"]
        taken = max([each.fence for each in self._ever if (each.pool, each.user) == whose], default=0)
        if any(sessions[key] > taken for key in gone):
            self._complain(f"{carried.by} put back what nobody took, and ended {gone} by it")
        for ended in [each for each in self._of(*whose) if each.kind == "readmission"]:
            if self._knows(carried.by, ended) and self._is_there(ended):
                self._complain(f"{carried.by} put back a revocation, and had heard of the {ended}")

    # --- how ----------------------------------------------------------------------------------------------------------

    def _of(self, pool: str, user: str) -> list[Taking]:
        return [each for each in self._all if (each.pool, each.user) == (pool, user)]

    def _knows(self, host: str, taking: Taking) -> bool:
        if taking.lost:
            return host in taking.knowers
        return self._heard.get(host, {}).get(taking.pool, 0) > taking.at

    def _lease_of(self, carried: Carried) -> str:
        lease = self._ledger.pools[carried.pool].model.leases.get(carried.arguments["user"])
        return lease.id if lease else ""

    def _standing_lease(self, carried: Carried) -> str:
        """Return the lease unless it is over by now: the model knows one until it settles."""
        user, model = carried.arguments["user"], self._ledger.pools[carried.pool].model
        now = self._ledger.now_ms(carried.pool, carried.now_ms)
        return self._lease_of(carried) if user in model.leases and model.lease_deadline(user) > now else ""

    def _sessions_of(self, carried: Carried) -> dict[Key, int]:
        """Return the sessions of the user that a script is about, with their fences."""
        user, model = carried.arguments["user"], self._ledger.pools[carried.pool].model
        return {key: each.fence for key, each in model.of(user).items()}

    def _note_lease(self, carried: Carried) -> None:
        lease = self._ledger.pools[carried.pool].model.leases.get(carried.arguments["user"])
        if lease is not None and not lease.back:
            self._note("lease", carried, until=float(carried.answer[1] or 0))
            model = self._ledger.pools[carried.pool].model
            self._taken_at[carried.pool, carried.arguments["user"]] = max(carried.now_ms, model.fence + 1)

    def _note(self, kind: str, carried: Carried, device: str = "", until: float = 0) -> None:
        lease, pool, user = self._lease_of(carried), carried.pool, carried.arguments["user"]
        slots = self._ledger.pools[pool].model.devices(user)
        if kind == "device" and (device not in slots or until >= slots[device]):
            return  # answered again, or it is kept for as long as before: the quarantine is longer than a lease
        fence = max(self._ledger.pools[pool].model.fence + 1, int(self._ledger.now_ms(pool, carried.now_ms)))
        taking = Taking(kind, pool, user, lease, device, carried.at, carried.until, until, fence)
        self._all.append(taking)
        if kind in {"lease", "device"}:
            self._ever.append(taking)

    def _drop(self, kind: str, carried: Carried) -> None:
        """Forget what is of this kind, and of the user that a script is about."""
        mine = [each for each in self._of(carried.pool, carried.arguments["user"]) if each.kind == kind]
        self._all = [each for each in self._all if each not in mine]

    def _note_rename(self, carried: Carried) -> None:
        """A lease, and what was taken of it, are another index's from now on; so is who is kept out."""
        pool, given = carried.pool, carried.arguments
        old, new, lease = given["old"], given["new"], given["lease"]
        if any(each.kind == "bar" for each in self._of(pool, old)):  # kept out under the new one, too
            ended = [each for each in self._of(pool, new) if each.kind == "readmission"]
            self._all = [each for each in self._all if each not in ended]
        for each in self._of(pool, old):
            if each.kind == "bar" or (each.kind in {"lease", "device"} and each.lease == lease):
                each.user = new
        model = self._ledger.pools[pool].model
        if lease and old in model.leases and model.leases[old].id == lease:
            self._all = [
                each
                for each in self._all
                if (each.pool, each.user, each.lease, each.kind) != (pool, new, lease, "moved")
            ]
            fence = max(model.fence + 1, int(self._ledger.now_ms(pool, carried.now_ms)))
            moved = Taking("moved", pool, old, lease, "", carried.at, carried.until, 0, fence)
            self._all.append(moved)
            self._ever.append(moved)
            self._order.pop((pool, old), None)  # which is the later one is not told by the grants any more
            self._order.pop((pool, new), None)

    def _granted(self, carried: Carried) -> None:
        pool, user, lease = carried.pool, carried.arguments["user"], carried.answer[1].decode()
        device = carried.arguments["device"]
        leases = self._order.setdefault((pool, user), [])
        if lease not in leases:
            leases.append(lease)

        def revived(taking: Taking) -> bool:
            if (taking.pool, taking.user) != (pool, user):
                return False
            if taking.kind == "readmission":
                return False
            if taking.kind in {"name", "bar"}:  # what a store grants that has lost a bar is of later than the bar
                return taking.kind == "name" or taking.lost
            return taking.lease == lease and taking.device in {"", device}

        self._all = [each for each in self._all if not revived(each)]

    def _is_there(self, taking: Taking) -> bool:
        """Whether the store has what was taken."""
        model = self._ledger.pools[taking.pool].model
        if taking.kind == "name":
            return taking.user.encode() in self._memory.fields(f"fl:{{citrix-a/{taking.pool}/0}}:names".encode())
        if taking.kind == "readmission":
            return model.barred.get(taking.user, 0) > model.now
        lease = model.leases.get(taking.user)
        own = lease is not None and (lease.id == taking.lease or taking.kind == "bar")
        if lease is None or not own or model.lease_deadline(taking.user) <= model.now:
            return False
        if taking.kind in {"moved", "bar"}:
            return taking.kind == "moved" or (not lease.back and model.now < taking.until)
        if taking.kind == "device":
            # A store that had lost the last use of a slot counted the quarantine from an earlier one.
            lossy = taking.until and not self._ledger.is_whole
            longest = max(taking.until, taking.fence + model.rules.quarantine) if lossy else taking.until
            return model.devices(taking.user).get(taking.device, 0) > longest
        seats = model.seats_of(taking.user)
        return not lease.back or max(seats.values(), default=0) > taking.until or INF in seats.values()
