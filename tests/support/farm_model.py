"""All the rules of a pool in plain Python, for the tests: claims and deadlines, settled whenever time moves.

It shares nothing with the scripts but the spelling of seats. Users are user indexes, nodes are node#incarnation.
"""

from dataclasses import dataclass, field
from math import inf
from typing import Any

__all__ = ["INF", "Model", "Rules"]

INF = inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A policy; spans in ms."""

    kind: str
    share: str
    capacity: int
    overdraft: int
    devices: int
    sessions: int
    lease: int
    quarantine: int
    linger: int
    max_hold: int
    queue: bool
    reserve: dict[str, int]
    timeout: int = 60_000
    most_uses: int = 256  #: of one user, whatever the policy says; so are these two
    most_devices: int = 64
    most_places: int = 16


@dataclass(slots=True)
class Session:
    """A session: what it sits on, and until when it is held."""

    device: str
    seat: str
    fence: int
    hold: float = 0


@dataclass(slots=True)
class Device:
    """A device slot: last use, and until when it is taken unless a session uses it."""

    seen: float
    until: float
    replaces: str = ""


@dataclass(slots=True)
class Leased:
    """A lease: until when its named seat and its lingering seats are held unless a session keeps them."""

    id: str
    contact: float
    named_until: float = 0
    back: bool = False
    replaced: list[int] = field(default_factory=list)
    devices: dict[str, Device] = field(default_factory=dict)
    lingering: dict[str, float] = field(default_factory=dict)
    charges: dict[str, str] = field(default_factory=dict)


def _owner(seat: str) -> str:
    """Return whose seat it is: a seat's name ends with its user, or is that."""
    return seat.rpartition("/")[2]


@dataclass(slots=True)
class Model:
    """A pool."""

    rules: Rules
    now: int
    fence: int = 0
    nodes: dict[str, float] = field(default_factory=dict)
    leases: dict[str, Leased] = field(default_factory=dict)
    sessions: dict[tuple[str, str, str], Session] = field(default_factory=dict)  #: by (user, node, session)
    hosts: set[str] = field(default_factory=set)  #: nodes whose own seat is in use
    queue: list[tuple[str, str, str]] = field(default_factory=list)
    places: dict[tuple[str, str, str], float] = field(default_factory=dict)
    barred: dict[str, float] = field(default_factory=dict)
    set_aside: dict[str, float] = field(default_factory=dict)  #: seats in quarantine whose lease the store has lost
    words: set[tuple[str, str, str, int, str]] = field(default_factory=set)  #: (node, session, user, fence, reason)

    # --- what is ------------------------------------------------------------------------------------------------------

    def of(self, user: str) -> dict[tuple[str, str, str], Session]:
        """Return the user's sessions."""
        return {key: each for key, each in self.sessions.items() if key[0] == user}

    def on_node(self, node: str) -> int:
        """Return how many sessions a node has."""
        return sum(key[1] == node for key in self.sessions)

    def words_for(self, node: str) -> set[tuple[str, str, int, str]]:
        """Return what a node has yet to acknowledge."""
        return {word[1:] for word in self.words if word[0] == node}

    def seats_of(self, user: str) -> dict[str, float]:
        """Return the seats a user holds, and until when."""
        lease = self.leases[user]
        seats = {seat: until for seat, until in lease.lingering.items() if until > self.now}
        if lease.named_until > self.now:
            seats[user] = max(lease.named_until, seats.get(user, 0))
        return seats | {each.seat: INF for each in self.of(user).values() if each.seat[0] != "@"}

    def held(self) -> dict[str, float]:
        """Return every seat that is held, and until when."""
        aside = {seat: until for seat, until in self.set_aside.items() if until > self.now}
        return (
            aside
            | {f"@{host}": INF for host in self.hosts}
            | {seat: until for user in self.leases for seat, until in self.seats_of(user).items()}
        )

    def devices(self, user: str) -> dict[str, float]:
        """Return the devices a user's lease is on, and until when."""
        used = {each.device for each in self.of(user).values()}
        slots = self.leases[user].devices if user in self.leases else {}
        held = {name: INF if name in used else slot.until for name, slot in slots.items()}
        return {name: until for name, until in held.items() if until > self.now}

    def lease_deadline(self, user: str) -> float:
        """Return when a user's lease ends."""
        lease = self.leases[user]
        return INF if self.of(user) else max([lease.named_until, *lease.lingering.values()])

    def used(self) -> dict[str, int]:
        """Return how many seats of each reservation are in use."""
        charges = [charge for each in self.leases.values() for charge in each.charges.values()]
        return {who: charges.count(who) for who in self.rules.reserve}

    def kept(self) -> int:
        """Return how many seats are kept for reservations that do not use them."""
        used = self.used()
        return sum(max(0, seats - used[who]) for who, seats in self.rules.reserve.items())

    def quarantined(self) -> int:
        """Return how many seats are in quarantine."""
        return sum(each.back for each in self.leases.values())

    def waiting(self) -> int:
        """Return how many wait."""
        return sum(until > self.now for until in self.places.values())

    def moments(self) -> list[int]:
        """Every deadline that is still to come."""
        ends = {*self.nodes.values(), *self.places.values(), *self.barred.values()}
        ends |= {each.hold for each in self.sessions.values()}
        for lease in self.leases.values():
            ends |= {lease.named_until, *lease.lingering.values(), *(slot.until for slot in lease.devices.values())}
        return sorted(int(end) for end in ends if self.now < end < INF)

    def check_room(self, before: dict[str, float]) -> None:
        """L1: a grant took a seat only within capacity and overdraft, and none that is kept for others.

        A session that moves gives the seat that it had for another, where the pool is shared otherwise by now.
        """
        now = self.held()
        taken, given = now.keys() - before.keys(), before.keys() - now.keys()
        is_exchange = sorted(map(_owner, taken)) == sorted(map(_owner, given))
        if self.rules.kind != "node_locked" and taken and not is_exchange:
            assert len(now) + self.kept() <= self.rules.capacity + self.rules.overdraft or set(self.rules.reserve)
            assert len(now) <= self.rules.capacity + self.rules.overdraft

    # --- what ends ----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """End what is over by now."""
        for key, each in list(self.sessions.items()):
            if max(self.nodes.get(key[1], 0), each.hold) <= self.now:
                self.take_away(key, "timeout")
        self.hosts &= {node.partition("#")[0] for _, node, _ in self.sessions}
        for user, lease in list(self.leases.items()):
            lease.devices = {name: slot for name, slot in lease.devices.items() if name in self.devices(user)}
            seats = self.seats_of(user)
            lease.charges = {seat: charge for seat, charge in lease.charges.items() if seat in seats}
            if self.lease_deadline(user) <= self.now:
                del self.leases[user]

    def drop(self, key: tuple[str, str, str], contact: float, ended: float) -> Session:
        """End a session that was last used at ``contact``."""
        user, each = key[0], self.sessions.pop(key)
        self.touch(user, each.device, each.seat, contact)
        if self.rules.kind == "floating" and self.rules.linger and each.seat[0] != "@":
            lingering = self.leases[user].lingering
            lingering[each.seat] = max(lingering.get(each.seat, 0), ended + self.rules.linger)
        return each

    def take_away(self, key: tuple[str, str, str], reason: str | None, moment: float | None = None) -> None:
        """End a session that its node did not end, and leave word."""
        node, hold = self.nodes.get(key[1], 0), self.sessions[key].hold
        contact = max(node - self.rules.timeout, min(hold, self.now)) if moment is None else moment
        ended = min(max(node, hold), self.now) if moment is None else moment
        gone = self.drop(key, contact, ended)
        if reason:
            self.words.add((key[1], key[2], key[0], gone.fence, reason))

    def touch(self, user: str, device: str, seat: str, contact: float) -> None:
        """Note a contact."""
        lease, slot = self.leases[user], self.leases[user].devices[device]
        lease.contact, slot.seen = max(lease.contact, contact), max(slot.seen, contact)
        slot.until = max(slot.until, contact + self.rules.lease)
        if self.rules.kind == "named" and seat == user:
            lease.named_until = max(lease.named_until, contact + self.rules.lease)

    # --- the verbs ----------------------------------------------------------------------------------------------------

    def boot(self, old: str, new: str) -> None:
        """A node's next life."""
        for key in [key for key in self.sessions if key[1] == old]:
            self.take_away(key, None)
        self.nodes.pop(old, None)
        self.nodes[new] = self.now + self.rules.timeout
        self.settle()

    def leave_queue(self, member: tuple[str, str, str]) -> None:
        """Give a place up."""
        if member in self.places:
            del self.places[member]
            self.queue.remove(member)

    def seat_for(self, user: str, key: tuple[str, str], device: str) -> str:
        """Return the seat that a session sits on."""
        if self.rules.kind == "node_locked":
            return "@" + key[0].partition("#")[0]
        if self.rules.kind == "named" or self.rules.share == "user":
            return user
        return f"{user}/{device}" if self.rules.share == "user_device" else f"{user}/{key[0]}/{key[1]}"

    def acquire(
        self, user: str, key: tuple[str, str], device: str, *, fresh: str, vips: tuple[str, ...], wait: int
    ) -> Any:
        """Return (lease, fence, expiry, overdraft), (reason, when to retry), or how many wait before."""
        member = (user, *key)
        if member not in self.sessions or self.sessions[member].device != device:
            refused = self.refuse(user, device, moving=member in self.sessions)
            charge = None if refused else self.find_seat(member, device, vips)
            if charge is None and wait and self.rules.queue and not refused:
                return self.wait_for(member, wait)
            if charge is None:
                self.leave_queue(member)
                return refused or self.no_seat()
            self.take(member, device, fresh, charge)
        lease, taken = self.leases[user], self.sessions[member]
        named = self.rules.kind == "named" and taken.seat == user and lease.named_until
        expires = named or lease.contact + self.rules.timeout + self.rules.linger * (self.rules.kind == "floating")
        return lease.id, taken.fence, expires, lease.charges.get(taken.seat) == "+"

    def wait_for(self, member: tuple[str, str, str], wait: int) -> int | tuple[str, float]:
        """Return how many wait before, or why there is no place in the queue for one more of this user."""
        mine = [each for each, until in self.places.items() if each[0] == member[0] and until > self.now]
        if member not in self.places and len(mine) >= self.rules.most_places:
            return "user_limit", INF
        self.queue += [] if member in self.places else [member]
        self.places[member] = self.now + wait
        return self.queue.index(member)

    def refuse(self, user: str, device: str, *, moving: bool) -> tuple[str, float] | None:
        """Refuse who is barred or over a limit of his own."""
        if self.barred.get(user, 0) > self.now:
            return "revoked", self.barred[user]
        devices = self.devices(user)
        limit = self.rules.devices if self.rules.kind == "named" else 0
        if device not in devices:
            if limit and len(devices) >= limit:
                return "device_limit" if limit <= self.rules.most_devices else "user_limit", min(devices.values())
            if len(devices) >= self.rules.most_devices:
                return "user_limit", min(devices.values())
        if not moving:
            sessions, limit = len(self.of(user)), self.rules.sessions
            if limit and sessions >= limit:
                return "session_limit" if limit <= self.rules.most_uses else "user_limit", INF
            if sessions >= self.rules.most_uses:
                return "user_limit", INF
        return None

    def find_seat(self, member: tuple[str, str, str], device: str, vips: tuple[str, ...]) -> str | None:
        """Return what the seat is charged to; None if there is none."""
        if self.rules.kind == "node_locked":
            return ""
        held, used, most = self.held(), self.used(), self.rules.capacity + self.rules.overdraft
        seat = self.seat_for(member[0], member[1:], device)
        if seat not in held and (left := self.left(member, seat)):
            return self.leases[member[0]].charges.get(left, "")
        mine = next((who for who in vips if used.get(who, 0) < self.rules.reserve.get(who, 0)), None)
        if seat in held:
            lease = self.leases.get(member[0])  # none: the store has lost it, and its seat is in quarantine
            charge = lease.charges.get(seat, "") if lease else ""
            return charge if charge in self.rules.reserve else mine or charge.strip("vipbos")
        if mine and len(held) < most:
            return mine
        for gone in [each for each, until in self.places.items() if until <= self.now]:
            self.leave_queue(gone)
        ahead = self.queue.index(member) if member in self.places else len(self.queue)
        if most - self.kept() - len(held) > ahead:
            return "" if len(held) + self.kept() < self.rules.capacity else "+"
        return None

    def left(self, member: tuple[str, str, str], seat: str) -> str | None:
        """Return the seat that falls free as a session moves to another one."""
        moving = self.sessions.get(member)
        if moving is None or moving.seat == seat or (self.rules.kind == "floating" and self.rules.linger):
            return None
        others = [each.seat for key, each in self.sessions.items() if key != member]
        return None if moving.seat in others or moving.seat[0] == "@" else moving.seat

    def no_seat(self) -> tuple[str, float]:
        """Return why there is no seat, and when the first falls free."""
        held, most, kept = self.held(), self.rules.capacity + self.rules.overdraft, self.kept()
        until, first = min(((until, seat) for seat, until in held.items()), default=(INF, ""))
        if kept and len(held) < most <= len(held) + kept:
            return "reserved", until
        back = first in self.leases and self.leases[first].back
        return "quarantined" if back or first in self.set_aside else "capacity", until

    def take(self, member: tuple[str, str, str], device: str, fresh: str, charge: str) -> None:
        """Let a session start, or move to another device with its fence and its hold."""
        user, seat = member[0], self.seat_for(member[0], member[1:], device)
        lease = self.leases.setdefault(user, Leased(fresh, self.now))
        lease.back = False
        moving = self.drop(member, self.now, self.now) if member in self.sessions else None
        self.next_fence()
        lease.devices.setdefault(device, Device(self.now, self.now))
        self.touch(user, device, seat, self.now)
        lease.lingering.pop(seat, None)
        self.set_aside.pop(seat, None)
        lease.charges = {each: what for each, what in lease.charges.items() if each != seat}
        if charge:
            lease.charges[seat] = charge
        if seat[0] == "@":
            self.hosts.add(seat[1:])
        self.sessions[member] = Session(
            device, seat, moving.fence if moving else self.fence, moving.hold if moving else 0
        )
        self.leave_queue(member)
        if moving is not None:
            self.settle()

    def release(self, user: str, key: tuple[str, str], fence: int) -> None:
        """End a session."""
        member = (user, *key)
        self.words = {
            word for word in self.words if (word[2], word[0], word[1]) != member or (fence and word[3] > fence)
        }
        if fence:
            self.leave_queue(member)
        if member in self.sessions and self.sessions[member].fence <= fence:
            self.drop(member, self.now, self.now)
        self.settle()

    def next_fence(self) -> None:
        """Give the next fence: to a grant, or to a taking."""
        self.fence = max(self.fence + 1, self.now)

    def withdraw(self, user: str, why: str) -> tuple[float | None, float | None] | None:
        """Take a lease away; return until when its seat is in quarantine and its user kept out."""
        keeps_out = why == "revoked" and (self.rules.quarantine > 0 or self.barred.get(user, 0) > self.now)
        if user not in self.leases and not keeps_out:
            return None
        had = user in self.leases and not self.leases[user].back
        for key in self.of(user):
            self.take_away(key, why, self.now)
        lease = self.leases.get(user)
        if had or (keeps_out and self.barred.get(user, 0) <= self.now):
            self.next_fence()
        if lease:
            lease.lingering = {}
            if lease.named_until and not lease.back:
                lease.named_until = min(lease.named_until, lease.contact + self.rules.quarantine)
                lease.back = True
        self.settle()
        bar = None
        if keeps_out:
            self.barred = {each: until for each, until in self.barred.items() if until > self.now}
            bar = self.barred.setdefault(user, self.now + self.rules.quarantine)
        return (self.leases[user].named_until if user in self.leases else None), bar

    def rename(self, old: str, new: str, lease_id: str) -> str:
        """Move what stands under an index to another one of its user; return what became of that."""
        lease, there, bar = self.leases.get(old), self.leases.get(new), self.barred.get(old, 0)
        if lease is None and bar <= self.now:
            return "renamed" if there is not None and there.id == lease_id else "none"
        if (lease.id if lease else "") != lease_id:
            return "changed"
        if self.of(old):
            return "in_use"
        if lease and there and there.id != lease.id:
            return "taken"
        if bar > self.now and self.of(new):
            return "in_use"
        if lease:
            self.next_fence()
            del self.leases[old]
        if lease and there is None:
            self.next_fence()
            lease.lingering = {new + seat.removeprefix(old): until for seat, until in lease.lingering.items()}
            lease.charges = {new + seat.removeprefix(old): charge for seat, charge in lease.charges.items()}
            self.leases[new] = lease
        kept_out = max(bar, self.barred.get(new, 0))
        if kept_out > self.now:
            self.next_fence()
            self.barred[new] = kept_out
            self.barred.pop(old, None)
        return "renamed"

    def release_device(self, user: str, device: str) -> tuple[str, float | None]:
        """Free a device slot."""
        until = self.devices(user).get(device)
        if self.rules.kind != "named" or until is None:
            return "none", None
        if until == INF:
            return "in_use", None
        slot = self.leases[user].devices[device]
        before, slot.until = slot.until, min(slot.until, slot.seen + self.rules.quarantine)
        if slot.until <= self.now or slot.until < before:
            self.next_fence()
        self.settle()
        return "released", slot.until if slot.until > self.now else None

    def replace_device(self, user: str, old: str, new: str, *, override: bool) -> tuple[str, float | None]:
        """Move a device slot; one may be moved in 30 days."""
        devices = self.devices(user)
        if self.rules.kind != "named" or user not in self.leases:
            return "none", None
        lease = self.leases[user]
        if old not in devices:
            return "replaced" if new in devices and lease.devices[new].replaces == old else "none", None
        if new in devices:
            return "known", None
        if lease.replaced and not override:
            return "limit", lease.replaced[-1] + 30 * 24 * 3_600_000
        for key, each in self.of(user).items():
            if each.device == old:
                self.take_away(key, "replaced", self.now)
        if user in self.leases and self.lease_deadline(user) > self.now:  # it may be over with those sessions
            slot = lease.devices.pop(old)
            lease.devices[new] = Device(slot.seen, slot.until, old)
            lease.replaced.append(self.now)
            self.next_fence()
        self.settle()
        return "replaced", None
