"""Whatever ids hosts and vendors give: none is changed on its way through the store, and no two become one.

Ids are drawn from all of Unicode but what no id holds, and often from what joins names in the store's keys.
"""

import json
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from farmlease.domain.identity import LONGEST_ID, check_id, device_name, fold
from farmlease.domain.lease_document import LeaseDocument
from farmlease.domain.stored_id import SHOWN, STORED
from farmlease.errors import InvalidName
from farmlease.store.answers.recovery import Restored, Restoring
from farmlease.store.answers.session import NOTHING, Behind
from tests.support.seats import NODE, OTHER, Desk, claim, desk
from tests.support.stores import HOUR, TimedStore, index, named_pool

JOINS = st.sampled_from("/#@$0+-. ")
ANY = st.characters(exclude_categories=("Cc", "Cs"))
IDS = st.text(JOINS | ANY, min_size=1, max_size=LONGEST_ID)
#: Names that could pass for one another if they were joined as they are.
ALIKE = ("a", "a/b", "b", "a#b", "/", "#", "//", "a/", "/a", "1/b#2", "ctx-01#a/1", f"1/{index('mary')}", "a$", "a0")


@given(IDS)
@example("RDP-Tcp#12")
@example("pts/3")
def test_an_id_comes_back_as_it_was_given(text: str) -> None:
    """Encoded it is as long as before, holds nothing that joins names, and can be told from text that was not."""
    stored = check_id("session", text).translate(STORED)
    assert (text, len(text)) == (stored.translate(SHOWN), len(stored))
    assert not {"/", "#"} & set(stored)


@given(IDS, IDS)
def test_no_two_ids_become_one(one: str, other: str) -> None:
    """Different ids stay different, as session, as device of one spelling, and joined with others."""
    stored = [text.translate(STORED) for text in (one, other)]
    assert (one == other) == (stored[0] == stored[1])
    joined = [f"{NODE}/{text}/{index('john')}" for text in stored]
    assert (one == other) == (joined[0] == joined[1])
    pairs = {f"{first}/{second}" for first, second in product(stored, repeat=2)}
    assert len({one, other}) ** 2 == len(pairs)


@given(IDS)
@example("straße")
@example("\u2100")
def test_a_device_has_one_name(text: str) -> None:
    """The name of a name is itself, and every spelling that folds alike has it; only the farm keeps its spelling."""
    name = device_name(text, "Citrix-A")
    assert name == device_name(name, "Citrix-A")
    if fold(text.upper()) == fold(text):
        assert name == device_name(text.upper(), "Citrix-A")
    assert ("Citrix-A" == name) == (fold(text) == "citrix-a")
    assert name.translate(STORED).translate(SHOWN) == name


@given(st.sampled_from(["\0", "\n", "\x1b", "\x7f", "\x85", "\x9b", "\ud800", "\udfff"]), IDS)
def test_what_no_id_holds_is_refused(character: str, text: str) -> None:
    """Control characters and halves of pairs, wherever they stand; the error does not repeat the id."""
    for bad in (character, character + text[:9], text[:9] + character):
        with pytest.raises(InvalidName, match="control character, or is no text") as refused:
            check_id("session", bad)
        assert character not in str(refused.value)


@pytest.mark.parametrize("text", ["", "x" * 257])
def test_the_length_of_an_id_is_bounded(text: str) -> None:
    """1 to 256 characters."""
    with pytest.raises(InvalidName, match="the device is"):
        check_id("device", text)


async def test_sessions_whose_ids_could_pass_for_one_another_are_apart(timed: TimedStore) -> None:
    """Each has its own claim, in every set: it is listed, held, lost and released without the others."""
    pool = Desk(timed, named_pool(kind="floating", share="session", capacity=100, max_hold="2h"))
    store, name = timed.store, "qlikview"
    await pool.beat(NODE, OTHER)
    taken = {}
    for user, node, session in product(("john", "mary"), (NODE, OTHER), ALIKE):
        taken[user, node, session] = await pool.start(user, session, node)
    assert len(taken) == await pool.held() == len(pool.contents()["sessions"])
    for node in (NODE, OTHER):
        counted = {(each.user, each.session) for each in await store.sessions(name, node)}
        assert {(index(user), session) for user, where, session in taken if where == node} == counted
    lease = await pool.lease("john")
    assert lease is not None
    shown = sorted((each.node, each.session) for each in lease.sessions)
    assert sorted(product(("ctx-01", "ctx-02"), ALIKE)) == shown
    held = taken.pop(("john", NODE, "a/b"))
    await store.hold(name, claim("john", "a/b"), held.fence, HOUR)
    assert 1 == len(pool.contents()["holds"])
    await store.release(name, claim("john", "a/b"), held.fence)
    assert len(taken) == await pool.held()
    timed.clock.advance(3 * HOUR)
    await pool.beat(OTHER)
    while not (beat := await pool.beat()).lost or beat.sessions:
        pass
    lost = {(each.user, each.session) for each in beat.lost}
    assert {(index(user), session) for user, node, session in taken if node == NODE} == lost


async def test_seats_of_devices_that_look_like_sessions_are_apart(timed: TimedStore) -> None:
    """In a pool with a seat for each device, each id is a device of its own."""
    pool = Desk(timed, named_pool(kind="floating", share="user_device", capacity=100))
    await pool.beat()
    for user, device in product(("john", "mary"), ALIKE):
        await pool.start(user, device, device=device)
    assert 2 * len(ALIKE) == await pool.held() == len(pool.contents()["seats"])
    lease = await pool.lease("john")
    assert lease is not None
    assert sorted(ALIKE) == [each.device for each in lease.devices]
    assert {(each.session, each.device) for each in lease.sessions} == {(each, each) for each in ALIKE}


async def test_any_id_survives_a_store_that_lost_everything(timed: TimedStore) -> None:
    """A lease document goes back as the store gave it; the sessions' answers name the ids as given."""
    pool = desk(timed, devices_per_user=0)
    await pool.beat()
    grants = {session: await pool.start("john", session, device=session) for session in ALIKE}
    document = grants[ALIKE[-1]].document
    lease = LeaseDocument.parse(document)
    assert set(ALIKE) == lease.devices.keys()
    assert {f"{NODE}/{session}" for session in ALIKE} == lease.sessions.keys()
    assert not any("/" in name or "#" in name for name in json.loads(document)["devices"])
    timed.raw.flushall()
    found = await timed.store.recover(pool.pool, pool.version, NODE, NOTHING, window_ms=0, roster=())
    assert not isinstance(found, Behind)
    sessions = {
        session: lease.claim(
            f"{NODE}/{session}", user=index("john"), device=session, fence=taken.fence, hold_until=None, over_at=None
        )
        for session, taken in grants.items()
    }
    restoring = Restoring(user=index("john"), document=document, sessions=sessions, version=1, record=b"", name=b"")
    restored = await timed.store.restore(pool.pool, pool.version, NODE, found.epoch, restoring)
    assert Restored(refused={}) == restored
    for session in ALIKE:
        assert (await pool.start("john", session, device=session)).again
    limited = Desk(timed, named_pool(devices_per_user=0, sessions_per_user=1), version=2)
    await timed.store.configure(limited.pool, 2)
    timed.raw.flushall()
    found = await timed.store.recover(limited.pool, 2, NODE, NOTHING, window_ms=0, roster=())
    assert not isinstance(found, Behind)
    restored = await timed.store.restore(limited.pool, 2, NODE, found.epoch, restoring)
    assert not isinstance(restored, Behind)
    assert len(ALIKE) - 1 == len(restored.refused.keys() & set(ALIKE))
