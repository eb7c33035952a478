"""Every rule at once, under random stories, against a model in plain Python; law by law, after every step.

``FARMLEASE_EXAMPLES=2000 pytest tests/store/test_rules_machine.py`` tells so many stories instead of a few.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from farmlease.domain.model import Withdrawal
from farmlease.store.answers.admin import DeviceRelease, DeviceReplacement, Release, Replacement
from farmlease.store.answers.session import Beat, Behind, Claim, Refusal, Taken, Taking, Waiting
from farmlease.store.connection.connection import Connection
from farmlease.store.connection.renewals import Renewals
from farmlease.store.keys import Shard
from farmlease.store.lease_store import LeaseStore
from farmlease.store.tombstone_store import TombstoneStore
from tests.support.farm_model import INF, Model, Rules
from tests.support.rules import pool_of
from tests.support.servers import RedisServer
from tests.support.stores import NINE, index, no_sleep
from tests.support.stories import opened_fake, opened_real, tell

STEPS = 60
FARM = "citrix-a"
USERS = ["john", "mary", "zoe"]
DEVICES = [FARM, "ws-1"]
HOSTS = ["ctx-01", "ctx-02"]
VIPS = ["vip", "boss"]

user_of = st.sampled_from(USERS)
host_of = st.sampled_from(HOSTS)
session_of = st.sampled_from(["1", "2"])
device_of = st.sampled_from(DEVICES)
span_of = st.sampled_from([0, 1, 20_000, 90_000])
times_of = st.integers(1, 2)
rules_of = st.builds(
    Rules,
    kind=st.sampled_from(["floating", "floating", "named", "named", "node_locked"]),
    share=st.sampled_from(["session", "user_device", "user"]),
    capacity=st.integers(2, 3),
    overdraft=st.integers(0, 1),
    devices=st.sampled_from([1, 2, 0]),
    sessions=st.sampled_from([0, 0, 2]),
    lease=st.sampled_from([300_000, 30_000]),
    quarantine=st.sampled_from([120_000, 50_000, 0]),
    linger=st.sampled_from([45_000, 0]),
    max_hold=st.sampled_from([150_000, 150_000, 0]),
    queue=st.sampled_from([True, True, False]),
    reserve=st.sampled_from([{}, {"vip": 1}, {"vip": 2}, {"vip": 1, "boss": 1}]),
    limit=st.sampled_from([{}, {"!staff": 1}, {"!staff": 2, "!guest": 1}]),
)


def _named(who: str) -> tuple[bool, tuple[str, ...]]:
    """Return whether this is a limit's name, and whom it is for."""
    return who[0] == "!", (who.removeprefix("!"),)


class Stories(RuleBasedStateMachine):
    """Random stories, told to the store and to the model."""

    #: What one user may have, as the model's rules call it, where that is not what farmlease ships.
    most: Mapping[str, int] = MappingProxyType({})

    def __init__(self, opened: Callable[[], Any]) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = ExitStack()
        self.client, self.clock = self.stack.enter_context(opened())
        connection = Connection(
            self.client, describe="test", timeout_ms=10_000, server=None, sleep=no_sleep, renewals=Renewals()
        )
        self.store = LeaseStore(connection, FARM)
        self.seats = next(key for key in Shard(FARM, "clearquest").keys() if key.endswith(":seats"))  # noqa: SIM118 - not a dict
        self.lives = dict.fromkeys(HOSTS, 0)
        self.version = 0
        self.questions = 0

    def teardown(self) -> None:
        """Leave nothing open."""
        self.run(self.client.aclose())
        self.stack.close()
        self.loop.close()

    def run(self, asked: Awaitable[Any]) -> Any:
        """Ask the store."""
        return self.loop.run_until_complete(asked)

    @initialize(rules=rules_of)
    def begin(self, rules: Rules) -> None:
        """An empty pool under some policy, its nodes alive."""
        rules = replace(rules, **self.most)
        self.model = Model(rules, NINE)
        self.apply(rules)
        for host in HOSTS:
            self.beat(host)

    @rule(rules=rules_of, convert=st.sampled_from([False, False, True]))
    def change(self, rules: Rules, *, convert: bool) -> None:
        """Another policy, perhaps of another kind."""
        old = self.model.rules
        self.apply(rules if convert else replace(rules, kind=old.kind, share=old.share))

    def apply(self, rules: Rules) -> None:
        """Put a policy in force."""
        self.version += 1
        rules = replace(rules, **self.most)
        self.model.rules = rules
        common = {
            "overdraft": rules.overdraft, "sessions_per_user": rules.sessions, "lease": f"{rules.lease}ms",
            "quarantine": f"{rules.quarantine}ms", "session_timeout": f"{rules.timeout}ms",
            "max_hold": f"{rules.max_hold}ms", "queue": "10m" if rules.queue else "0s",
        }  # fmt: skip
        own = {
            "named": {"capacity": rules.capacity, "devices_per_user": rules.devices},
            "floating": {"capacity": rules.capacity, "share": rules.share, "linger": f"{rules.linger}ms"},
            "node_locked": {"nodes": [f"ctx-{number}" for number in range(rules.capacity)]},
        }[rules.kind]
        reserve = [{"users": [who], "seats": seats} for who, seats in rules.reserve.items()]
        limit = [{"users": [who[1:]], "seats": seats} for who, seats in rules.limit.items()]
        bounds = {key: value for key, value in (("reserve", reserve), ("limit", limit)) if value}
        if rules.kind == "node_locked":
            bounds.pop("limit", None)
        self.pool = pool_of(rules.kind, **common, **own, **bounds)
        self.run(self.store.configure(self.pool, self.version))

    def ids(self, vips: tuple[str, ...]) -> tuple[str, ...]:
        """Return the ids of the reservations for these people."""
        bounds = (*self.pool.reserve, *self.pool.limit)
        return tuple(each.id for who in vips for each in bounds if (each.id[0] == "!", each.users) == _named(who))

    def member(self, host: str) -> str:
        """Return the present life of a host."""
        return f"{host}#{self.lives[host]}"

    def claim(self, user: str, host: str, session: str) -> tuple[tuple[str, str], Claim]:
        """Return a session as the model and as the store call it."""
        node = self.member(host)
        return (node, session), Claim(user=index(user), node=node, session=session)

    @rule(host=host_of, times=times_of)
    def beat(self, host: str, times: int = 1) -> None:
        """A heartbeat; its answer may be lost. L4: it tells exactly what was lost and not yet acknowledged."""
        node = self.member(host)
        for _ in range(times):
            beat = self.run(self.store.heartbeat(self.pool, self.version, node, None))
            assert isinstance(beat, Beat)
        self.model.nodes[node] = self.model.now + self.model.rules.timeout
        assert (self.model.nodes[node], self.model.on_node(node)) == (beat.deadline, beat.sessions)
        assert self.model.words_for(node) == {(each.session, each.user, each.fence, each.reason) for each in beat.lost}

    @rule(host=host_of)
    def boot(self, host: str) -> None:
        """A host's next life."""
        old = self.member(host)
        self.lives[host] += 1
        beat = self.run(self.store.heartbeat(self.pool, self.version, self.member(host), old))
        assert isinstance(beat, Beat)
        assert (0, ()) == (beat.sessions, beat.lost)
        self.model.boot(old, self.member(host))

    def drawn(self, data: st.DataObject) -> tuple[str, tuple[str, str], Claim]:
        """Return a session that somebody has, while there is one, else any."""
        if self.model.sessions and data.draw(st.integers(0, 3)):
            user, node, session = data.draw(st.sampled_from(sorted(self.model.sessions)))
            return user, (node, session), Claim(user=user, node=node, session=session)
        claim = self.claim(data.draw(user_of), data.draw(host_of), data.draw(session_of))
        return claim[1].user, *claim

    @rule(user=user_of, host=host_of, session=session_of, device=device_of)
    def plain_start(self, user: str, host: str, session: str, device: str) -> None:
        """A session start on a node that just beat."""
        self.beat(host)
        self.start(user=user, host=host, session=session, device=device, times=1, vips=(), wait=0)

    @rule(
        user=user_of, host=host_of, session=session_of, device=device_of, times=times_of,
        vips=st.sampled_from([(), (), ("vip",), ("boss", "vip"), ("!staff",), ("!staff", "!guest"), ("vip", "!guest")]), wait=st.sampled_from([0, 3000, 30_000]),
    )  # fmt: skip
    def start(
        self, *, user: str, host: str, session: str, device: str, times: int, vips: tuple[str, ...], wait: int
    ) -> None:
        """A session start; its answer may be lost and the question asked again (L3)."""
        key, claim = self.claim(user, host, session)
        model = self.model
        for _ in range(times):
            self.questions += 1
            taking = Taking(
                device=device, lease_id=f"lease {self.questions}", record=b"record", name=b"name",
                reservations=self.ids(vips), wait_ms=wait,
            )  # fmt: skip
            held = model.held()
            answer = self.run(self.store.acquire(self.pool, self.version, claim, taking))
            if model.nodes.get(key[0], 0) <= model.now:
                assert Behind.LAPSED is answer
                continue
            again = (index(user), *key) in model.sessions
            match model.acquire(index(user), key, device, fresh=taking.lease_id, vips=vips, wait=wait):
                case int(ahead):
                    assert Waiting(ahead) == answer
                case (str(reason), retry):
                    assert isinstance(answer, Refusal), answer
                    assert (reason, None if retry == INF else retry) == (answer.reason, answer.retry_at)
                case granted:
                    assert isinstance(answer, Taken), answer
                    assert granted == (answer.lease.id, answer.fence, answer.lease.expires_at, answer.overdraft)
                    assert again == answer.again
                    model.check_room(held)

    @rule(data=st.data(), later=st.sampled_from([-1, 0, 0, 0, 1, None]), times=times_of)
    def end(self, data: st.DataObject, later: int | None, times: int) -> None:
        """An end, perhaps with an older or a later fence than the grant's, or none at all; the answer may be lost."""
        _, key, claim = self.drawn(data)
        found = self.model.sessions.get((claim.user, *key))
        fence = 0 if later is None else (found.fence if found else NINE) + later
        for _ in range(times):
            self.run(self.store.release(self.pool.name, claim, fence))
        self.model.release(claim.user, key, fence)

    @rule(data=st.data(), later=st.sampled_from([-1, 0, 0, 0]), span=span_of)
    def hold(self, data: st.DataObject, later: int, span: int) -> None:
        """A form is opened, or closed."""
        _, key, claim = self.drawn(data)
        found = self.model.sessions.get((claim.user, *key))
        answer = self.run(self.store.hold(self.pool.name, claim, (found.fence if found else NINE) + later, span))
        if found and later == 0:
            found.hold = self.model.now + min(span, self.model.rules.max_hold)
            assert found.hold == answer
            self.model.settle()
        else:
            assert None is answer

    @rule(user=user_of, why=st.sampled_from(list(Withdrawal)), times=times_of)
    def withdraw(self, user: str, why: Withdrawal, times: int) -> None:
        """An administrator takes a lease away; the answer may be lost."""
        for _ in range(times):
            answer = self.run(self.store.withdraw(self.pool.name, index(user), why, b"note"))
            expected = self.model.withdraw(index(user), why)
            assert expected == (answer and (answer.quarantined_until, answer.barred_until))

    @rule(user=user_of, times=times_of)
    def readmit(self, user: str, times: int) -> None:
        """An administrator ends a revocation; the answer may be lost."""
        for _ in range(times):
            answer = self.run(TombstoneStore(self.store.connection, FARM).readmit(self.pool.name, index(user)))
            until = self.model.readmit(index(user))
            assert until == (answer and answer.kept_out_until)

    @rule(user=user_of, device=device_of, times=times_of)
    def release_device(self, user: str, device: str, times: int) -> None:
        """A device slot is freed."""
        for _ in range(times):
            answer = self.run(self.store.release_device(self.pool.name, index(user), device))
            outcome, until = self.model.release_device(index(user), device)
            assert DeviceRelease(outcome=Release(outcome), taken_until=until) == answer

    @rule(user=user_of, old=device_of, new=st.sampled_from(["ws-1", "nb-2"]), override=st.booleans())
    def replace_device(self, user: str, old: str, new: str, *, override: bool) -> None:
        """A device slot moves."""
        answer = self.run(
            self.store.replace_device(self.pool.name, index(user), old, new, override=override, note=b"note")
        )
        outcome, when = self.model.replace_device(index(user), old, new, override=override)
        assert DeviceReplacement(outcome=Replacement(outcome), next_at=when) == answer

    @rule(data=st.data(), off=st.sampled_from([-1, 0, 0, 1]))
    def wait_for_a_deadline(self, data: st.DataObject, off: int) -> None:
        """Time passes until a deadline, or until a millisecond before or after it."""
        moments = self.model.moments()
        if moments:
            self.wait(max(0, data.draw(st.sampled_from(moments)) + off - self.model.now))

    @rule(span=st.sampled_from([1, 1000, 20_000, 59_999]))
    def wait(self, span: int) -> None:
        """Time passes."""
        self.clock.advance(span)
        self.model.now = self.clock.now_ms
        self.model.settle()

    @rule()
    def count(self) -> None:
        """L1: somebody counts, which writes down as ended what is over; the seats are exactly the model's."""
        count = self.run(self.store.count(self.pool.name))
        held = self.model.held()
        assert (
            len(held), self.model.quarantined(), self.model.kept(), self.model.waiting(),
        ) == (count.held, count.quarantined, count.reserved, count.waiting)  # fmt: skip
        stored = self.run(self.client.zrange(self.seats, 0, -1, withscores=True))
        assert held == {seat.decode(): until for seat, until in stored if until > self.model.now}

    @invariant()
    def everybody_has_what_the_model_says(self) -> None:
        """L2, L4, L5: each lease, device and session is there exactly while the model says so."""
        model = self.model
        for user in map(index, USERS):
            stored = self.run(self.store.look_up(self.pool, user))
            lease = model.leases.get(user)
            assert (lease is None) == (stored is None), user
            if lease is None:
                continue
            assert {
                (node.partition("#")[0], session, each.fence)
                for (who, node, session), each in model.sessions.items() if who == user
            } == {(each.node, each.session, each.fence) for each in stored.sessions}  # fmt: skip
            assert {
                device: None if until == INF else until for device, until in model.devices(user).items()
            } == {each.device: each.until for each in stored.devices}  # fmt: skip
            until = model.lease_deadline(user)
            kept = self.pool.kept_ms
            assert (model.now + kept if until == INF else until) == stored.lease.expires_at
            assert (lease.id, lease.back, "+" in lease.charges.values()) == (
                stored.lease.id,
                stored.quarantined,
                stored.overdraft,
            )


def test_fakeredis_keeps_every_rule() -> None:
    """L1 to L5: all kinds, shares, reservations, queue, overdraft, holds and quarantine, in any order, as modelled."""
    tell(Stories, opened_fake, 8, STEPS)


def test_a_real_server_keeps_every_rule(timed_server: tuple[RedisServer, Path]) -> None:
    """L1 to L5: the same on a real redis-server."""
    tell(Stories, partial(opened_real, timed_server), 60, STEPS)


@pytest.mark.usefixtures("one_at_a_time")
def test_however_little_a_call_may_sweep_every_rule_is_kept(timed_server: tuple[RedisServer, Path]) -> None:
    """L1 to L5: the same where each call writes down one end only: nothing depends on what was swept when."""
    tell(Stories, partial(opened_real, timed_server), 30, STEPS)


def test_what_one_user_may_have_is_a_rule_like_the_others(
    timed_server: tuple[RedisServer, Path], little_for_a_user: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """L1, L8: the same where nobody may have more than three uses, one device and one place in the queue."""
    monkeypatch.setattr(Stories, "most", little_for_a_user)
    tell(Stories, partial(opened_real, timed_server), 30, STEPS)
