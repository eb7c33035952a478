"""The store against a model of a few lines, under random stories; law by law, after every step.

``FARMLEASE_EXAMPLES=2000 pytest tests/store/test_model.py`` tells so many stories instead of a few.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from typing_extensions import override

from farmlease.store.answers.session import Beat, Behind, Claim, Conflict, Refusal, Saved, Taken, Taking
from farmlease.store.answers.stored_lease import StoredLease
from farmlease.store.connection.connection import Connection
from farmlease.store.lease_store import LeaseStore
from tests.support.servers import RedisServer
from tests.support.stores import NINE, index, named_pool, no_sleep
from tests.support.stories import EXAMPLES, opened_fake, opened_real, tell

STEPS = 50
TIMEOUT = 60_000
FARM = "citrix-a"
USERS = ["john", "mary", "zoe", "paul"]
DEVICES = [FARM, "nb-1", "nb-2"]
HOSTS = ["ctx-01", "ctx-02"]

# Telling takes half a minute; finding the shortest story that goes wrong may take five. 0 is no limit.
pytestmark = pytest.mark.timeout(0 if EXAMPLES else 1800)


@dataclass(slots=True)
class Leased:
    """The model of a lease: until when seat and devices are held unless a session keeps them."""

    id: str
    record: bytes
    version: int = 1
    contact: int = 0
    until: float = 0
    devices: dict[str, float] = field(default_factory=dict)
    sessions: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)  #: (device, fence)

    def touch(self, device: str, contact: int, span: int) -> None:
        """Note a contact: seat and device are held for a span from then, and no shorter than before."""
        self.contact = max(self.contact, contact)
        self.until = max(self.until, contact + span)
        self.devices[device] = max(self.devices.get(device, 0), contact + span)

    def deadlines(self, now: int) -> dict[str, float]:
        """Return the devices held now, and until when."""
        used = {device for device, _ in self.sessions.values()}
        held = {device: inf if device in used else until for device, until in self.devices.items()}
        return {device: until for device, until in held.items() if until > now}


@dataclass(slots=True)
class Model:
    """What named pools are: the whole of the rules, in plain Python."""

    capacity: int
    devices: int
    sessions: int
    lease: int
    now: int = NINE
    fence: int = 0
    nodes: dict[str, int] = field(default_factory=dict)
    leases: dict[str, Leased] = field(default_factory=dict)

    def settle(self) -> None:
        """End what is over by now."""
        for lease in self.leases.values():
            for key in [key for key in lease.sessions if self.nodes.get(key[0], 0) <= self.now]:
                device, _ = lease.sessions.pop(key)
                lease.touch(device, self.nodes[key[0]] - TIMEOUT, self.lease)
        self.leases = {user: each for user, each in self.leases.items() if each.sessions or each.until > self.now}

    def acquire(self, user: str, key: tuple[str, str], device: str, fresh: Leased) -> Leased | tuple[str, float]:
        """Return the lease that was taken or joined, or the reason and when the first claim ends."""
        lease = self.leases.get(user)
        moving = lease.sessions.get(key) if lease else None
        if lease is None or moving is None or moving[0] != device:
            held = lease.deadlines(self.now) if lease else {}
            if self.devices and device not in held and len(held) >= self.devices:
                return "device_limit", min(held.values())
            if lease and not moving and self.sessions and len(lease.sessions) >= self.sessions:
                return "session_limit", inf
            if lease is None and len(self.leases) >= self.capacity:
                return "capacity", min(inf if each.sessions else each.until for each in self.leases.values())
            lease = self.leases.setdefault(user, fresh)
            if moving:
                lease.touch(moving[0], self.now, self.lease)
            self.fence = max(self.fence + 1, self.now)  # of a move too, though its session keeps its own
            lease.touch(device, self.now, self.lease)
            lease.sessions[key] = (device, moving[1] if moving else self.fence)
        return lease

    def moments(self) -> list[int]:
        """Every deadline that is still to come."""
        ends = {*self.nodes.values()}
        for lease in self.leases.values():
            ends |= {int(lease.until), *map(int, lease.devices.values())}
        return sorted(end for end in ends if end > self.now)


class Stories(RuleBasedStateMachine):
    """Random stories, told to the store and to the model."""

    def __init__(self, opened: Callable[[], Any]) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = ExitStack()
        self.client, self.clock = self.stack.enter_context(opened())
        connection = Connection(self.client, describe="test", timeout_ms=10_000, server=None, sleep=no_sleep)
        self.store = LeaseStore(connection, FARM)
        self.lives = dict.fromkeys(HOSTS, 0)
        self.version = 1
        self.questions = 0
        self.saved: dict[str, int] = {}  #: lease id to when its record was saved last

    @override
    def teardown(self) -> None:
        """Leave nothing open."""
        self.run(self.client.aclose())
        self.stack.close()
        self.loop.close()

    def run(self, asked: Awaitable[Any]) -> Any:
        """Ask the store."""
        return self.loop.run_until_complete(asked)

    @initialize(
        capacity=st.integers(1, 3),
        devices=st.integers(0, 2),
        sessions=st.integers(0, 2),
        lease=st.sampled_from([TIMEOUT // 2, TIMEOUT, 5 * TIMEOUT]),
    )
    def begin(self, capacity: int, devices: int, sessions: int, lease: int) -> None:
        """An empty pool under some policy, its nodes alive."""
        self.model = Model(capacity, devices, sessions, lease)
        self.write_policy()
        for host in HOSTS:
            self.beat(host)

    def write_policy(self) -> None:
        """Go by the model's limits from now on."""
        self.pool = named_pool(
            capacity=self.model.capacity,
            devices_per_user=self.model.devices,
            sessions_per_user=self.model.sessions,
            lease=f"{self.model.lease // 1000}s",
            session_timeout=f"{TIMEOUT // 1000}s",
        )

    def member(self, host: str) -> str:
        """Return the present life of a host."""
        return f"{host}#{self.lives[host]}"

    def live_sessions(self, node: str) -> int:
        """Return how many sessions a node has by the model."""
        return sum(key[0] == node for lease in self.model.leases.values() for key in lease.sessions)

    @rule(host=st.sampled_from(HOSTS), times=st.integers(1, 2))
    def beat(self, host: str, times: int = 1) -> None:
        """A heartbeat; its answer may be lost."""
        node = self.member(host)
        for _ in range(times):
            beat = self.run(self.store.heartbeat(self.pool, self.version, node, None))
            assert isinstance(beat, Beat)
        self.model.nodes[node] = self.model.now + TIMEOUT
        assert (self.model.now + TIMEOUT, self.live_sessions(node)) == (beat.deadline, beat.sessions)

    @rule(host=st.sampled_from(HOSTS))
    def boot(self, host: str) -> None:
        """A host's next life."""
        old = self.member(host)
        self.lives[host] += 1
        beat = self.run(self.store.heartbeat(self.pool, self.version, self.member(host), old))
        assert isinstance(beat, Beat)
        assert (0, ()) == (beat.sessions, beat.lost)
        for lease in self.model.leases.values():
            for key in [key for key in lease.sessions if key[0] == old]:
                device, _ = lease.sessions.pop(key)
                lease.touch(device, self.model.nodes[old] - TIMEOUT, self.model.lease)
        self.model.nodes.pop(old, None)
        self.model.nodes[self.member(host)] = self.model.now + TIMEOUT
        self.model.settle()

    @rule(
        user=st.sampled_from(USERS),
        host=st.sampled_from(HOSTS),
        session=st.sampled_from(["1", "2"]),
        device=st.sampled_from(DEVICES),
        times=st.integers(1, 2),
    )
    def start(self, user: str, host: str, session: str, device: str, times: int) -> None:
        """A session start; its answer may be lost and the question asked again."""
        node = self.member(host)
        for _ in range(times):
            self.questions += 1
            lease_id, record = f"lease {self.questions}", f"record {self.questions}".encode()
            answer = self.run(
                self.store.acquire(
                    self.pool,
                    self.version,
                    Claim(user=index(user), node=node, session=session),
                    Taking(device=device, lease_id=lease_id, record=record, name=b"name"),
                )
            )
            if self.model.nodes.get(node, 0) <= self.model.now:
                assert Behind.LAPSED is answer
                continue
            known = (node, session) in (self.model.leases[user].sessions if user in self.model.leases else {})
            match self.model.acquire(user, (node, session), device, Leased(lease_id, record)):
                case Leased() as lease:
                    assert isinstance(answer, Taken), answer
                    assert (lease.id, lease.record, lease.version, lease.until) == (
                        answer.lease.id,
                        answer.record,
                        answer.record_version,
                        answer.lease.expires_at,
                    )
                    assert (lease.sessions[node, session][1], known) == (answer.fence, answer.again)
                case reason, retry:
                    assert isinstance(answer, Refusal), answer
                    assert (reason, None if retry == inf else retry) == (answer.reason, answer.retry_at)

    @rule(data=st.data(), off=st.sampled_from([-1, 0, 1]), user=st.sampled_from(USERS), host=st.sampled_from(HOSTS))
    def start_around_a_deadline(self, data: st.DataObject, off: int, user: str, host: str) -> None:
        """A session start in the very millisecond in which something ends, or in one beside it."""
        self.wait_for_a_deadline(data, off)
        self.start(user, host, "1", FARM, 1)

    @rule(
        user=st.sampled_from(USERS),
        host=st.sampled_from(HOSTS),
        session=st.sampled_from(["1", "2"]),
        later=st.sampled_from([-1, 0, 1]),
        times=st.integers(1, 2),
    )
    def end(self, user: str, host: str, session: str, later: int, times: int) -> None:
        """A session's end, perhaps with an older or a later fence than its grant's; the answer may be lost."""
        key = (self.member(host), session)
        lease = self.model.leases.get(user)
        device, fence = lease.sessions.get(key, ("", NINE)) if lease else ("", NINE)
        for _ in range(times):
            self.run(
                self.store.release(self.pool.name, Claim(user=index(user), node=key[0], session=session), fence + later)
            )
        if lease and device and later >= 0:
            del lease.sessions[key]
            lease.touch(device, self.model.now, self.model.lease)

    @rule(user=st.sampled_from(USERS), version=st.integers(1, 4), old_lease=st.booleans(), times=st.integers(1, 2))
    def save(self, user: str, version: int, *, old_lease: bool, times: int) -> None:
        """A record comes back, made from some version, perhaps for a lease that is over; the answer may be lost."""
        self.questions += 1
        record = f"record {self.questions}".encode()
        lease = None if old_lease else self.model.leases.get(user)
        claim = Claim(user=index(user), node=self.member(HOSTS[0]), session="1")
        if lease and lease.version == version - 1:
            lease.version, lease.record = version, record
            self.saved[lease.id] = self.model.now
        for _ in range(times):
            answer = self.run(self.store.save(self.pool.name, claim, lease.id if lease else "old", version, record))
            if lease is None:
                assert None is answer
            elif lease.record == record:
                assert Saved(version=version) == answer
            else:
                assert isinstance(answer, Conflict)
                known = (answer.version, answer.record, answer.saved_at)
                assert (lease.version, lease.record, self.saved.get(lease.id, 0)) == known

    @rule(data=st.data(), off=st.sampled_from([-1, 0, 1]))
    def wait_for_a_deadline(self, data: st.DataObject, off: int) -> None:
        """Time passes until a deadline, or until a millisecond before or after it."""
        moments = self.model.moments()
        if moments:
            self.wait(max(0, data.draw(st.sampled_from(moments)) + off - self.model.now))

    @rule(span=st.sampled_from([1, 1000, TIMEOUT // 3, TIMEOUT - 1]))
    def wait(self, span: int) -> None:
        """Time passes."""
        self.clock.advance(span)
        self.model.now = self.clock.now_ms
        self.model.settle()

    @rule(capacity=st.integers(1, 3), lease=st.sampled_from([TIMEOUT // 2, 5 * TIMEOUT]))
    def apply(self, capacity: int, lease: int) -> None:
        """Another policy."""
        self.version += 1
        self.model.capacity, self.model.lease = capacity, lease
        self.write_policy()
        self.run(self.store.configure(self.pool, self.version))

    @rule()
    def count(self) -> None:
        """Somebody counts, which ends what is over; whether that was done must make no difference."""
        count = self.run(self.store.count(self.pool.name))
        assert len(self.model.leases) == count.held

    @invariant()
    def everybody_has_what_the_model_says(self) -> None:
        """L1, L2, L5: each lease, device and session is there exactly while the model says so."""
        found = {lease.user: lease for lease in self.run(self.listed())}
        assert {index(user) for user in self.model.leases} == found.keys()
        for user, lease in self.model.leases.items():
            stored = found[index(user)]
            held = lease.deadlines(self.model.now)
            assert {device: None if until == inf else until for device, until in held.items()} == {
                each.device: each.until for each in stored.devices
            }
            assert {(*key, fence) for key, (_, fence) in lease.sessions.items()} == {
                (self.member(each.node), each.session, each.fence) for each in stored.sessions
            }
            assert (lease.id, lease.version) == (stored.lease.id, stored.record_version)
            if not lease.sessions:
                assert (lease.until, lease.contact) == (stored.lease.expires_at, stored.last_contact_at)

    async def listed(self) -> list[StoredLease]:
        """Return every lease as it stands."""
        return [lease async for lease in self.store.list(self.pool)]


def test_fakeredis_does_what_the_model_says() -> None:
    """L1, L2, L3, L5: who is granted, denied and until when, at any time and in any order, is what a few rules say."""
    tell(Stories, opened_fake, 20, STEPS)


def test_a_real_server_does_what_the_model_says(timed_server: tuple[RedisServer, Path]) -> None:
    """L1, L2, L3, L5: the same on a real redis-server."""
    tell(Stories, partial(opened_real, timed_server), 100, STEPS)


@pytest.mark.usefixtures("one_at_a_time")
def test_however_little_a_call_may_sweep_the_answers_are_the_same(timed_server: tuple[RedisServer, Path]) -> None:
    """L1, L2, L3, L5: the same where each call ends one session only: nothing depends on what was swept when."""
    tell(Stories, partial(opened_real, timed_server), 60, STEPS)
