"""Devices compare without case; those that farmlease 0.1.0 stored in another spelling, from the user's next contact on.

Spellings are stored here as 0.1.0 did, by questions of devices that nobody folded.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from farmlease.domain.identity import device_name
from farmlease.domain.model import Reason, Withdrawal
from farmlease.domain.policy import parse_policy
from farmlease.store.answers.admin import Import, Importing, Release, Replacement
from farmlease.store.answers.recovery import Restored, Restoring
from farmlease.store.answers.session import NOTHING, Behind, Taken, Taking
from farmlease.store.connection.connection import Connection
from farmlease.store.keys import Shard
from farmlease.store.lease_store import Answer, LeaseStore
from farmlease.store.script import Argument, Script
from tests.support.seats import FARM, NODE, OTHER, Desk, claim, desk
from tests.support.stores import DAY, HOUR, NINE, TimedStore, index, named_pool


class Before(LeaseStore):
    """The store as farmlease 0.1.0 had it: a device is called whatever it is called."""

    def _named(self, spellings: Iterable[str]) -> dict[str, str]:
        return {spelling: spelling for spelling in spellings}


async def start_before(pool: Desk, session: str, device: str) -> Taken:
    """Start a session of john's as farmlease 0.1.0 did."""
    old = Desk(replace(pool.timed, store=Before(pool.timed.connection, FARM)), pool.pool)
    taken = await old.start("john", session, device=device)
    document = stored(pool)
    document.pop("folded", None)
    pool.timed.raw.hset(Shard(FARM, pool.pool.name).key("leases"), index("john"), json.dumps(document))
    return taken


def stored(pool: Desk, user: str = "john") -> dict[str, Any]:
    """Return a user's lease document as the store has it."""
    key = Shard(FARM, pool.pool.name).key("leases")
    document: dict[str, Any] = json.loads(pool.timed.raw.hget(key, index(user)))
    return document


def seats(pool: Desk, user: str = "john") -> set[str]:
    """Return the devices of a user's seats, each of which is for one device."""
    found = pool.contents().get("seats", [])
    return {seat.decode().partition("/")[2] for seat, _ in found if seat.decode().startswith(index(user))}


def floating(timed: TimedStore, **keys: object) -> Desk:
    """Return a desk of a pool in which a seat is for one user on one device."""
    return Desk(timed, named_pool(kind="floating", share="user_device", **keys))


SPELLINGS = [
    ("NB-17", "nb-17"),
    ("Büro-Ä", "büro-ä"),
    ("STRASSE", "straße"),
    ("\uff2e\uff22-17", "nb-17"),
    ("Pool/PC#3", "pool/pc#3"),
    ("CITRIX-A", FARM),
]


@pytest.mark.parametrize(("spelling", "name"), SPELLINGS)
async def test_a_stored_spelling_is_the_device_it_means(timed: TimedStore, spelling: str, name: str) -> None:
    """A user who comes back with the folded name takes no second device, and the slot has this name from then on."""
    called = device_name(name, FARM)
    pool = desk(timed, devices_per_user=1)
    await pool.beat()
    first = await pool.start("john", device=spelling)
    second = await pool.start("john", "2", device=called)
    assert first.lease.id == second.lease.id
    lease = await pool.lease("john")
    assert lease is not None
    assert [called] == [each.device for each in lease.devices]
    assert {called} == {each.device for each in lease.sessions}
    assert (await pool.start("john", "1", device=called)).again
    assert 1 == len(stored(pool)["devices"])


async def test_a_spelling_is_named_even_if_the_answer_is_no(timed: TimedStore) -> None:
    """The slot that blocks is told by its name, and stays where it was."""
    pool = desk(timed, devices_per_user=1)
    await pool.beat()
    await pool.start("john", device="NB-17")
    refusal = await pool.refused("john", "2", device="nb-18")
    assert [("nb-17", Reason.DEVICE_LIMIT)] == [(each.device, refusal.reason) for each in refusal.blocking]
    assert ["nb-17"] == list(stored(pool)["devices"])


async def test_two_spellings_of_one_device_become_one_with_the_later_deadline(timed: TimedStore) -> None:
    """Used at 09:00 as NB-17 and at 10:00 as Nb-17: one slot, kept from 10:00; the other is free for another device."""
    pool = desk(timed, devices_per_user=2)
    await pool.beat()
    await pool.end("john", await start_before(pool, "1", "NB-17"))
    timed.clock.advance(HOUR)
    await pool.beat()
    await pool.end("john", await start_before(pool, "2", "Nb-17"), "2")
    lease = await pool.lease("john")
    assert lease is not None
    later = [("nb-17", NINE + HOUR + 30 * DAY)]
    assert later == [(each.device, each.until) for each in lease.devices]  # a list shows what the next contact makes
    assert {"NB-17", "Nb-17"} == stored(pool)["devices"].keys()
    await pool.start("john", "3", device=FARM)
    lease = await pool.lease("john")
    assert lease is not None
    assert [(FARM, None), *later] == [(each.device, each.until) for each in lease.devices]
    assert {"nb-17", FARM} == stored(pool)["devices"].keys()


async def test_a_seat_of_a_spelling_is_the_seat_of_the_device(timed: TimedStore) -> None:
    """In a pool whose seats are for one user on one device, the same device takes no second seat."""
    pool = floating(timed, capacity=2)
    await pool.beat()
    taken = await pool.start("john", device="NB-17")
    await pool.start("john", "2", device="nb-17")
    assert (1, {"nb-17"}) == (await pool.held(), seats(pool))
    await pool.start("mary")
    await pool.end("john", taken)
    assert 2 == await pool.held()
    await pool.end("john", await pool.start("john", "2", device="nb-17"), "2")
    assert 1 == await pool.held()


async def test_two_seats_of_one_device_become_one(timed: TimedStore) -> None:
    """Two seats were taken for one machine: one falls free at the next contact, and the books agree."""
    pool = floating(timed, capacity=2)
    await pool.beat()
    for session, device in (("1", "NB-17"), ("2", "Nb-17")):
        await start_before(pool, session, device)
    assert 2 == await pool.held()
    await pool.start("john", "3", device="nb-17")
    assert (1, {"nb-17"}) == (await pool.held(), seats(pool))
    await pool.start("mary")
    await pool.refused("zoe")


async def test_a_lingering_seat_keeps_its_later_deadline(timed: TimedStore) -> None:
    """Two seats linger, from 09:00 and from 09:05, for 10 minutes: one is left until 09:15."""
    minute = HOUR // 60
    pool = floating(timed, capacity=3, linger="10m")
    await pool.beat()
    await pool.end("john", await start_before(pool, "1", "NB-17"))
    timed.clock.advance(5 * minute)
    await pool.beat()
    await pool.end("john", await start_before(pool, "2", "Nb-17"), "2")
    assert 2 == await pool.held()
    await pool.start("mary")  # a third seat in a pool of three
    await pool.refused("zoe")
    await pool.end("john", await pool.start("john", "3", device=FARM), "3")
    assert {"nb-17", FARM} == seats(pool)
    timed.clock.advance(10 * minute - 1)
    assert 3 == await pool.held()
    timed.clock.advance(1)
    assert 1 == await pool.held()


async def test_a_reserved_seat_stays_reserved_under_its_name(timed: TimedStore) -> None:
    """What a seat is charged to goes with it: of two charges a reservation is kept, of two reservations one."""
    text = '[[pool]]\nname = "qlikview"\nkind = "floating"\ncapacity = 3\nshare = "user_device"\n'
    (chosen,) = parse_policy(text + 'reserve = [{ users = ["john"], seats = 2 }]', "test").pools
    pool, store, reservation = Desk(timed, chosen), timed.store, chosen.reserve[0].id
    await pool.beat()
    taking = Taking(device="nb-17", lease_id="x", record=b"", name=b"", reservations=(reservation,))
    old = Before(timed.connection, FARM)
    for session, device in (("1", "NB-17"), ("2", "Nb-17")):
        spelled = replace(taking, device=device)
        assert isinstance(await old.acquire(pool.pool, pool.version, claim("john", session), spelled), Taken)
    assert 2 == len(pool.contents()["reserved"])
    document = stored(pool)
    del document["folded"]
    timed.raw.hset(Shard(FARM, "qlikview").key("leases"), index("john"), json.dumps(document))
    assert isinstance(await store.acquire(pool.pool, pool.version, claim("john", "3"), taking), Taken)
    reserved = [entry.decode() for entry, _ in pool.contents()["reserved"]]
    assert [f"{reservation}/{index('john')}/nb-17"] == reserved
    assert {f"{index('john')}/nb-17": reservation} == stored(pool)["charges"]
    count = await store.count(pool.pool.name)
    assert count is not None
    assert (1, 1) == (count.held, count.reserved)


async def test_a_seat_beyond_the_capacity_is_one_no_more_if_the_other_was_not(timed: TimedStore) -> None:
    """One machine had a seat within the capacity and one beyond it: what is left is the one within."""
    pool = floating(timed, capacity=1, overdraft=1)
    await pool.beat()
    assert not (await start_before(pool, "1", "NB-17")).overdraft
    assert (await start_before(pool, "2", "Nb-17")).overdraft
    assert not (await pool.start("john", "3", device="nb-17")).overdraft
    assert 1 == await pool.held()


async def test_the_commands_know_a_stored_spelling(timed: TimedStore) -> None:
    """Import, release and replace address the slot by its name, whatever the store calls it."""
    pool, store = desk(timed, devices_per_user=3, replacements=5), timed.store
    await pool.beat()
    await pool.end("john", await start_before(pool, "1", "NB-17"))
    importing = Importing(user=index("john"), device="nb-17", borrowed_at=NINE - 1, lease_id="x", record=b"", name=b"")
    known = await store.import_lease(pool.pool, pool.version, importing)
    assert not isinstance(known, Behind)
    assert Import.KNOWN is known.outcome
    await pool.end("john", await start_before(pool, "1", "NB-18"))
    timed.clock.advance(2 * DAY)
    assert Release.RELEASED is (await store.release_device("qlikview", index("john"), "nb-18")).outcome
    await pool.beat()
    await pool.end("john", await start_before(pool, "1", "NB-19"))
    for _ in range(2):
        moved = await store.replace_device("qlikview", index("john"), "nb-19", "nb-20", override=False, note=b"")
        assert Replacement.REPLACED is moved.outcome
    assert {"nb-17", "nb-20"} == stored(pool)["devices"].keys()
    assert "nb-19" == stored(pool)["devices"]["nb-20"]["replaces"]


async def test_a_replaced_device_is_known_by_its_name(timed: TimedStore) -> None:
    """A replacement that 0.1.0 made is not made again."""
    pool, store = desk(timed, replacements=5), timed.store
    await pool.beat()
    await pool.end("john", await pool.start("john", device="NB-1"))
    key = Shard(FARM, "qlikview").key("leases")
    document = stored(pool)
    document["devices"] = {"NB-2": document["devices"]["NB-1"] | {"replaces": "NB-1"}}
    timed.raw.hset(key, index("john"), json.dumps(document))
    again = await store.replace_device("qlikview", index("john"), "nb-1", "nb-2", override=False, note=b"")
    assert Replacement.REPLACED is again.outcome
    assert "replaced" not in stored(pool)


async def test_a_receipt_of_0_1_0_restores_the_device_it_means(timed: TimedStore) -> None:
    """What a node restores in another spelling is the device, its seat and its session by their one name."""
    pool = floating(timed, capacity=2)
    await pool.beat()
    taken = await pool.start("john", device="NB-17")
    entry = stored(pool)["sessions"][f"{NODE}/1"]
    assert "NB-17" == entry["device"]
    timed.raw.flushall()
    found = await timed.store.recover(pool.pool, pool.version, NODE, NOTHING, window_ms=0, roster=())
    assert not isinstance(found, Behind)
    await pool.beat(OTHER)
    await pool.start(
        "john", node=OTHER, device="Nb-17"
    )  # another node was there before, and the store has this spelling
    restoring = Restoring(
        user=index("john"),
        document=taken.document.replace(b'"issued":', b'"issued":9'),  # of two leases the later one is the user's
        sessions={"1": entry | {"device": "nb-17"}},
        version=1,
        record=b"",
        name=b"",
    )
    restored = await timed.store.restore(pool.pool, pool.version, NODE, found.epoch, restoring)
    assert Restored(refused={}) == restored
    assert {"nb-17"} == stored(pool)["devices"].keys() == seats(pool)
    assert ["nb-17"] == [each["device"] for each in stored(pool)["sessions"].values()]
    assert (await pool.start("john", device="nb-17")).again


class Counting:
    """A connection that counts calls of acquire."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.asked = 0

    async def call(self, script: Script, keys: tuple[str, ...], args: list[Argument]) -> Answer:
        """Ask, and count."""
        self.asked += script.name == "acquire"
        return await self._connection.call(script, keys, args)


async def test_only_the_first_contact_asks_twice(timed: TimedStore) -> None:
    """A start costs one round trip, also on a device with umlauts; once more where spellings are to be named."""
    counting = Counting(timed.connection)
    pool = desk(replace(timed, store=LeaseStore(counting, FARM)), devices_per_user=0)
    await pool.beat()
    asked = []
    for device in ("NB-17", FARM, "büro-1", FARM, "nb-17", "büro-1"):
        before = counting.asked
        await pool.start("john", str(counting.asked), device=device)
        asked.append(counting.asked - before)
    assert [1, 2, 1, 1, 1, 1] == asked


async def test_a_farm_keeps_its_own_spelling(timed: TimedStore) -> None:
    """Keys, and the farm as a device, are called as the farm is configured; another spelling of it is the farm."""
    store = LeaseStore(timed.connection, "Citrix-A")
    pool = desk(replace(timed, store=store), devices_per_user=1)
    await pool.beat()
    await pool.start("john", device="CITRIX-A")
    await pool.start("john", "2", device=device_name("citrix-a", "Citrix-A"))
    lease = await pool.lease("john")
    assert lease is not None
    assert ["Citrix-A"] == [each.device for each in lease.devices]
    assert {"Citrix-A"} == {each.device for each in lease.sessions}
    assert any(b"{Citrix-A/" in key for key in timed.raw.scan_iter())


async def test_what_is_returned_needs_no_name(timed: TimedStore) -> None:
    """A lease in any spelling can be taken back as before, and its user starts anew."""
    pool = desk(timed, quarantine="0s")
    await pool.beat()
    await pool.end("john", await pool.start("john", device="NB-17"))
    await timed.store.withdraw("qlikview", index("john"), Withdrawal.RETURNED, b"")
    await pool.start("john", device="nb-17")
    assert ["nb-17"] == list(stored(pool)["devices"])
