"""explain.lua: what acquire would answer, told without taking or writing anything."""

import hashlib
from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
from redis import asyncio as driver

from farmlease.domain.lease_document import LeaseDocument
from farmlease.domain.model import Reason, Withdrawal
from farmlease.domain.policy import Pool
from farmlease.errors import StoreError, StoreRefused
from farmlease.store import lease_store as verbs
from farmlease.store.answers.session import NOTHING, Behind, Claim, Explained, Known, Refusal, Taken, Taking, Waiting
from farmlease.store.connection.connection import Connection
from farmlease.store.connection.renewals import Renewals
from farmlease.store.lease_store import Acquired, LeaseStore
from tests.store.test_rules_machine import STEPS, Stories
from tests.support.farm_model import Model
from tests.support.rules import office, pool_of
from tests.support.seats import FARM, NODE, OTHER, Desk, claim, desk
from tests.support.servers import RedisServer
from tests.support.stores import DAY, HOUR, NINE, TimedStore, index, named_pool, no_sleep
from tests.support.stories import opened_real, tell

#: What must be met for the stories to prove anything: so many states, and each of these answers in some of them.
STATES = 2000
ROUNDS = 40
ANSWERS = {
    "granted", "again", "moved", "waiting", "overdraft", "lapsed",
    "capacity", "reserved", "revoked", "device_limit", "session_limit",
}  # fmt: skip


def in_words(answer: Taken | Refusal | Waiting) -> dict[str, object]:
    """Return an answer without what a second question gets anew: the fence, and the id of a lease that is taken."""
    match answer:
        case Taken():
            document = LeaseDocument.parse(answer.document)
            return {
                "word": "moved" if answer.moved else "again" if answer.again else "granted",
                "lease": answer.lease, "fence": answer.fence, "overdraft": answer.overdraft, "user": answer.user,
                "version": answer.record_version, "record": answer.record, "document": document,
            }  # fmt: skip
        case Waiting():
            return {"word": "waiting", "ahead": answer.ahead}
        case Refusal():
            by_name = sorted(answer.blocking, key=str)
            return {
                "word": answer.reason.value, "retry": answer.retry_at, "held": answer.held,
                "capacity": answer.capacity, "blocking": by_name, "limit": answer.limit,
            }  # fmt: skip


class ExplainingStore(LeaseStore):
    """A store that has each question explained before it is asked, and compares."""

    def __init__(self, store: LeaseStore, look: Callable[[], object]) -> None:
        super().__init__(store.connection, store.farm)
        self._look = look
        self.met = Counter[str]()

    async def acquire(self, pool: Pool, version: int, claim: Claim, taking: Taking, known: Known = NOTHING) -> Acquired:
        """Explain, and then ask: the answer is the one that was explained, and explaining changed nothing."""
        before = self._look()
        explained = await self.explain(pool, version, claim, taking, known)
        assert before == self._look()
        answer = await super().acquire(pool, version, claim, taking, known)
        if answer is Behind.LAPSED:
            assert isinstance(explained, Explained)
            self.met["lapsed"] += 1
        elif isinstance(answer, Behind):
            assert answer is explained
        else:
            assert isinstance(explained, Explained)
            words = in_words(answer)
            assert words == in_words(explained.answer)
            self.met[str(words["word"])] += 1
            self.met["overdraft"] += bool(words.get("overdraft"))
        return answer


class ExplainedStories(Stories):
    """The same random stories, each start explained before it is asked for."""

    met: ClassVar[Counter[str]] = Counter()

    def __init__(self, opened: Callable[[], Any], server: RedisServer) -> None:
        super().__init__(opened)
        self._raw = server.client()
        self.store = ExplainingStore(self.store, partial(to_the_byte, self._raw))

    def everybody_has_what_the_model_says(self) -> None:
        """Nothing: test_rules_machine.py says so after each step of the same stories."""

    def teardown(self) -> None:
        """Leave nothing open."""
        ExplainedStories.met += self.store.met  # type: ignore[attr-defined] # it is the one set above
        self._raw.close()
        super().teardown()


def to_the_byte(raw: Any) -> object:
    """Return everything that a server holds, as it would be saved, and how many changes it has counted so far."""
    keys = sorted(raw.keys())
    with raw.pipeline(transaction=False) as asked:
        for key in keys:
            asked.dump(key).pttl(key)
        asked.info("persistence")
        *held, persistence = asked.execute()
    return keys, held, persistence["rdb_changes_since_last_save"]


def told(running: tuple[RedisServer, Path], stories: int, *, states: int, answers: AbstractSet[str]) -> None:
    """Tell so many stories, and again until so many states were explained and these answers are among what they got.

    That a start keeps every limit is shown by test_rules_machine.py; here it only has to be what was explained.
    """
    ExplainedStories.met.clear()
    met = ExplainedStories.met
    for lot in range(ROUNDS):
        with patch.object(Model, "check_room", lambda *_: None):
            tell(partial(ExplainedStories, server=running[0]), partial(opened_real, running), stories, STEPS, lot=lot)
        if sum(met.values()) - met["overdraft"] >= states and answers <= met.keys():
            return
    pytest.fail(f"too little was met: {dict(met)}")


@pytest.mark.timeout(900)
def test_explain_tells_what_acquire_then_answers(timed_server: tuple[RedisServer, Path]) -> None:
    """In 2,000 random states: word for word, to the fence; and Redis is the same to the byte after explain as before."""
    told(timed_server, 25, states=STATES, answers=ANSWERS)


@pytest.mark.usefixtures("one_at_a_time")
def test_however_little_a_call_may_sweep_explain_tells_the_same(
    timed_server: tuple[RedisServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each call of acquire ends one dead session and asks to be repeated, explain repeats it too."""
    text = verbs.EXPLAIN.text.replace("local PASSES = 4", "local PASSES = 100")
    assert text != verbs.EXPLAIN.text
    sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(verbs, "EXPLAIN", replace(verbs.EXPLAIN, text=text, sha=sha))
    told(timed_server, 10, states=100, answers={"granted"})


def test_explain_tells_what_one_user_may_have(
    timed_server: tuple[RedisServer, Path], little_for_a_user: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where nobody may have more than three uses, one device and one place in the queue."""
    monkeypatch.setattr(Stories, "most", little_for_a_user)
    told(timed_server, 10, states=100, answers={"user_limit"})


def question(
    device: str = FARM, *, wait_ms: int = 0, reservations: tuple[str, ...] = (), former: tuple[str, ...] = ()
) -> Taking:
    """Return what a session asks for."""
    return Taking(
        device=device, lease_id="new", record=b"", name=b"", reservations=reservations, wait_ms=wait_ms, former=former
    )  # fmt: skip


async def explained(pool: Desk, user: str, session: str = "1", node: str = NODE, device: str = FARM) -> Explained:
    """Have a session explained; everything is as before."""
    before = pool.contents()
    found = await pool.timed.store.explain(pool.pool, pool.version, claim(user, session, node), question(device))
    assert before == pool.contents()
    assert isinstance(found, Explained), found
    return found


def counts(found: Explained) -> dict[str, tuple[int, int | None]]:
    """Return the sets of an explanation by name."""
    return {each.name: (each.held, each.most) for each in found.sets}


async def test_it_tells_every_set_as_it_is_before_the_answer(timed: TimedStore) -> None:
    """Three seats: John has one with two sessions on two devices, Mary's is in quarantine, one is kept for the boss."""
    boss = [{"users": ["boss"], "seats": 1}]
    pool = Desk(timed, pool_of("named", name="qlikview", capacity=3, sessions_per_user=5, reserve=boss))
    await pool.beat()
    await pool.start("john")
    await pool.start("john", "2", device="nb-1")
    await pool.end("mary", await pool.start("mary"))
    await timed.store.withdraw("qlikview", index("mary"), Withdrawal.RETURNED, b"")
    found = await explained(pool, "john", "3")
    assert {
        "seats": (2, 3), "quarantined": (1, None), "reserved": (1, None), "devices": (2, 2), "sessions": (2, 5),
        "waiting": (0, None), "places": (0, 16),
    } == counts(found)  # fmt: skip
    assert found.lease is not None
    assert (2, None) == (len(found.lease.sessions), found.expires_at)
    assert isinstance(found.answer, Taken)
    assert isinstance((await explained(pool, "zoe")).answer, Refusal)
    assert None is (await explained(pool, "zoe")).lease


async def test_it_tells_the_limits_that_the_start_counts_in(timed: TimedStore) -> None:
    """Two of four seats are for interns, and both are held; who is none, and who counts in another, is told of his."""
    limit = [{"groups": ["interns"], "seats": 2}, {"groups": ["guests"], "seats": 1}]
    pool = await office(timed, "floating", capacity=4, limit=limit)
    interns, guests = pool.pool.limit
    for user in ("john", "mary"):
        await timed.store.acquire(pool.pool, 1, claim(user, "1"), question(reservations=(interns.id,)))
    asked = {who: question(reservations=(each.id,)) for who, each in (("jim", interns), ("zoe", guests))}
    told = {who: await timed.store.explain(pool.pool, 1, claim(who), each) for who, each in asked.items()}
    found = {who: each for who, each in told.items() if isinstance(each, Explained)}
    assert [(2, 2), None] == [counts(found["jim"]).get(each.id) for each in (interns, guests)]
    assert [None, (0, 1)] == [counts(found["zoe"]).get(each.id) for each in (interns, guests)]
    assert isinstance(refusal := found["jim"].answer, Refusal)
    assert (Reason.CAPACITY, interns.id) == (refusal.reason, refusal.limit)
    assert isinstance(found["zoe"].answer, Taken)
    assert not counts(await explained(pool, "anna")).keys() & {interns.id, guests.id}


async def test_a_quarantined_seat_is_told_as_acquire_tells_it(timed: TimedStore) -> None:
    """The one seat was given back: quarantined, until when."""
    pool = desk(timed, capacity=1)
    await pool.beat()
    await pool.end("john", await pool.start("john"))
    await timed.store.withdraw("qlikview", index("john"), Withdrawal.RETURNED, b"")
    found = await explained(pool, "mary")
    assert await pool.refused("mary") == found.answer
    assert Reason.QUARANTINED is found.answer.reason


async def test_sessions_of_a_dead_node_are_not_counted_and_not_ended(timed: TimedStore) -> None:
    """At 11:00 a node silent since 09:00 holds no floating seat for whoever asks; to explain ends none of its sessions."""
    pool = Desk(timed, pool_of("floating", name="qlikview", capacity=2))
    await pool.beat(NODE, OTHER)
    await pool.start("john", node=OTHER)
    await pool.start("mary", node=OTHER)
    timed.clock.advance(HOUR)
    await pool.beat(NODE)
    timed.clock.advance(HOUR)
    found = await explained(pool, "zoe")
    assert (0, 2) == counts(found)["seats"]
    assert isinstance(found.answer, Taken)


async def test_a_damaged_lease_is_told_as_acquire_would_take_it(timed: TimedStore) -> None:
    """A document that does not decode is waited for: recovering; to explain sets nothing aside."""
    pool = desk(timed)
    await pool.beat()
    await pool.start("john")
    timed.raw.hset("fl:{citrix-a/qlikview/0}:leases", index("john"), "{")
    found = await explained(pool, "john", "2")
    assert await pool.refused("john", "2") == found.answer
    assert Reason.RECOVERING is found.answer.reason


async def test_a_lease_under_a_former_name_is_found(timed: TimedStore) -> None:
    """John's lease stands under his former index: he has his seat, though all are taken."""
    pool = desk(timed, capacity=1)
    await pool.beat()
    await pool.start("john")
    asked = (pool.pool, 1, claim("corp john", "2"), question(former=(index("john"),)))
    found = await timed.store.explain(*asked)
    taken = await timed.store.acquire(*asked)
    assert isinstance(found, Explained)
    assert isinstance(taken, Taken)
    assert in_words(taken) == in_words(found.answer)
    assert index("john") == taken.user


async def test_a_device_in_another_spelling_is_the_same_device(timed: TimedStore) -> None:
    """A lease of 0.1.0 has NB-1: nb-1 takes no further slot; the lease gets the name at a start, and not here."""
    pool = desk(timed, devices_per_user=1)
    await pool.beat()
    await pool.start("john", device="NB-1")
    found = await explained(pool, "john", "2", device="nb-1")
    assert found.lease is not None
    assert {"nb-1"} == set(found.lease.devices)
    assert in_words(await pool.start("john", "2", device="nb-1")) == in_words(found.answer)


async def test_a_shard_without_the_limits_is_explained_by_the_new_ones(timed: TimedStore) -> None:
    """A policy that this pool did not hear of yet counts, as in a start; the pool still has not heard of it."""
    pool = desk(timed, capacity=1)
    await pool.beat()
    await pool.start("john")
    pool.pool, pool.version = named_pool(capacity=2), 2
    assert isinstance((await explained(pool, "mary")).answer, Taken)
    pool.version = 1
    assert isinstance((await explained(pool, "mary")).answer, Refusal)
    answer = await timed.store.explain(pool.pool, 0, claim("mary"), question())
    assert Behind.POLICY is answer


async def test_an_empty_store_is_explained_and_stays_empty(timed: TimedStore) -> None:
    """Nobody has ever asked: the node would beat, the pool get its limits, and the session its seat."""
    pool = desk(timed)
    assert isinstance((await explained(pool, "john")).answer, Taken)
    assert [] == timed.raw.keys()


async def test_another_store_than_the_node_knew_is_told(timed: TimedStore) -> None:
    """A node that knows of a later fence is sent to recover; explain opens no window."""
    pool = desk(timed)
    await pool.beat()
    await pool.start("john")
    before = pool.contents()
    answer = await timed.store.explain(pool.pool, 1, claim("john"), question(), Known(epoch=1, fence=NINE + DAY))
    assert Behind.STRANGE is answer
    assert before == pool.contents()


async def test_more_dead_sessions_than_a_call_may_look_at_are_told(timed: TimedStore) -> None:
    """300 sessions of a dead node: nothing can be told before heartbeats have ended some of them."""
    pool = desk(timed, capacity=1000)
    await pool.beat(NODE, OTHER)
    for number in range(300):
        await pool.start(f"user{number}", str(number), OTHER)
    timed.clock.advance(HOUR)
    await pool.beat(NODE)
    timed.clock.advance(HOUR)
    before = pool.contents()
    with pytest.raises(StoreRefused, match="dead nodes"):
        await timed.store.explain(pool.pool, 1, claim("zoe"), question())
    assert before == pool.contents()
    await pool.held()
    await explained(pool, "zoe")


async def test_the_server_is_sent_no_command_that_writes(
    timed_server: tuple[RedisServer, Path], timed: TimedStore
) -> None:
    """A user of the server who may read and nothing else explains, also where a sweep has much to do."""
    if timed.kind != "redis":
        return
    pool = desk(timed)
    await pool.beat(NODE, OTHER)
    for number in range(3):
        await pool.start(f"user{number}", str(number), OTHER)
    timed.clock.advance(HOUR)
    await pool.beat(NODE)
    timed.clock.advance(HOUR)
    timed.raw.execute_command("ACL", "SETUSER", "reader", "on", "nopass", "~*", "+@read", "+time", "+evalsha", "+eval")
    client = driver.Redis(unix_socket_path=str(timed_server[0].socket), username="reader")
    connection = Connection(
        client, describe="test", timeout_ms=10_000, server=None, sleep=no_sleep, renewals=Renewals()
    )
    store = LeaseStore(connection, FARM)
    assert isinstance(await store.explain(pool.pool, 1, claim("zoe"), question()), Explained)
    with pytest.raises(StoreError):
        await store.acquire(pool.pool, 1, claim("zoe"), question())
    await client.aclose()
    timed.raw.acl_deluser("reader")
