"""An agent's key ring changes under it: nothing it has is lost, and nothing that is wrong is believed."""

from pathlib import Path

import pytest

from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.crypto.seal import RecordBinding, Sealer, key_id_of
from farmlease.domain.health import Status, health
from farmlease.domain.model import Grant
from farmlease.errors import JournalFailed
from farmlease.store.seal_store import Kind, SealStore
from tests.support.nodes import FARM, JOHN, MARY, Host, Site

SETTLED = 60_000  #: ms after which nothing is under way any more


def put(host: Host, ring: KeyRing | bytes) -> None:
    """Copy a key ring to a host."""
    if isinstance(ring, bytes):
        host.ring_file.write_bytes(ring)
        return
    host.ring_file.unlink(missing_ok=True)
    keyring_file.create(host.ring_file, ring)


async def look(host: Host, site: Site) -> None:
    """Let the agent look at its ring twice, with time enough between for everything to settle."""
    await host.node.loops.look_at_keys()
    site.timed.clock.advance(SETTLED)
    await host.node.loops.look_at_keys()
    await host.node.loops.look_at_keys()


def ids_in(host: Host) -> set[str]:
    """Which keys the host's journal needs."""
    return set(host.node.state.journal.sealed_with())


async def word(site: Site) -> tuple[str, tuple[str, ...], dict[str, int]]:
    """What the only node says of its keys."""
    (told,) = await SealStore(site.timed.connection, FARM).rings()
    return told.primary, told.opens, dict(told.holds)


def keys_check(host: Host) -> tuple[Status, str]:
    """What health says of the keys."""
    (check,) = (each for each in health(host.agent.facts()).checks if each.name == "keys")
    return check.status, check.output


async def with_everything(site: Site) -> Host:
    """A host with a session, a receipt of another, its files, and debts of both kinds that wait for the store."""
    host = site.host()
    put(host, site.ring)
    await host.beat()
    await host.granted(JOHN)
    await host.granted(MARY, "8")
    host.line.cut.add("*")
    host.mount()
    host.write(b"borrowed")
    await host.save()
    await host.end("8")
    assert host.node.state.outbox.pending()
    return host


async def test_a_new_ring_is_gone_by_and_the_journal_sealed_anew(site: Site) -> None:
    """Sessions, receipts, debts and documents are sealed with the new primary before the old key is let go."""
    host = await with_everything(site)
    old = site.ring.primary
    assert {old} == ids_in(host)
    new = site.ring.grown(1).activated()
    put(host, new)
    await look(host, site)
    assert {new.primary} == ids_in(host)
    put(host, new.without(old))
    await look(host, site)
    assert new.without(old) == host.farm.sealer.ring
    for each in (JOHN, MARY):
        receipt = host.node.state.receipts.find(host.farm.sealer.user_index(each), "qlikview")
        assert receipt is not None
        assert {new.primary} == {key_id_of(receipt.record), key_id_of(receipt.name)}
    # The old key is gone for good now, and all that waited is carried out; the store itself was not resealed.
    host.line.cut.clear()
    await host.beat()
    assert 0 == host.node.state.outbox.pending()
    assert (2, [("ctx-01", "7")]) == (await site.record_version(), await site.sessions())
    index = host.farm.sealer.user_index(JOHN)
    stored = await SealStore(site.timed.connection, FARM).record("qlikview", index)
    assert new.primary == key_id_of(stored.record)
    restarted = host.restart()
    assert {"7": "active"} == restarted.states
    facts = restarted.agent.facts()
    assert (0, 0) == (facts.damaged, facts.rejected)


async def test_a_node_that_was_drained_once_has_done_with_a_key_too(site: Site) -> None:
    """The wish that it goes by lies in the journal in clear: no key seals it, and it holds up none."""
    host = site.host()
    put(host, site.ring)
    await host.beat()
    for on in (True, False):
        host.agent.drain(on=on)
        await host.beat()
    new = site.ring.grown(1).activated()
    put(host, new)
    await look(host, site)
    assert (new.primary, new.ids, {}) == await word(site)


async def test_a_node_has_done_with_a_key_only_when_nothing_is_under_way(site: Site) -> None:
    """It says at once that it can open with a key, and after a while that it seals with it."""
    host = site.host()
    put(host, site.ring)
    await host.node.loops.look_at_keys()
    old = site.ring.primary
    assert (old, (old,), {}) == await word(site)
    new = site.ring.grown(1).activated()
    put(host, new)
    await host.node.loops.look_at_keys()
    assert (old, new.ids, {}) == await word(site)
    site.timed.clock.advance(SETTLED)
    await host.node.loops.look_at_keys()
    assert (new.primary, new.ids, {}) == await word(site)


async def test_a_full_disk_keeps_the_key(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the journal cannot be sealed anew the node says how much of it needs the key, and opens with it."""
    host = await with_everything(site)
    host.line.cut.clear()
    new = site.ring.grown(1).activated()
    with monkeypatch.context() as patch:
        patch.setattr(host.node.state.receipts, "reseal", lambda *_: None)
        put(host, new.without(site.ring.primary))
        await look(host, site)
        primary, opens, holds = await word(site)
        assert (site.ring.primary, new.ids[1:], {site.ring.primary: 2}) == (primary, opens, holds)
        assert site.ring.primary in host.farm.sealer.ring.ids
    await look(host, site)
    assert (new.primary, new.ids[1:], {}) == await word(site)
    assert new.ids[1:] == host.farm.sealer.ring.ids


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (b"", "not a key ring"),
        (KeyRing.generate(0).to_json(), "another farm's"),
        (None, "there is no key ring"),
    ],
    ids=["half written", "another farm's", "gone"],
)
async def test_a_wrong_file_is_refused_and_told(site: Site, broken: bytes | None, why: str) -> None:
    """The ring before it stays in force, health warns, and a right one mends it."""
    host = site.host()
    put(host, site.ring)
    await host.node.loops.look_at_keys()
    assert (Status.PASS, "the key ring's") == keys_check(host)
    if broken is None:
        host.ring_file.unlink()
    else:
        put(host, broken)
    await host.node.loops.look_at_keys()
    status, text = keys_check(host)
    assert (Status.WARN, True) == (status, why in text)
    assert site.ring == host.farm.sealer.ring
    await host.beat()
    await host.granted(JOHN)
    put(host, site.ring.grown(1))
    await host.node.loops.look_at_keys()
    assert Status.PASS is keys_check(host)[0]


async def test_an_older_ring_is_refused(site: Site) -> None:
    """A backup without the key that everything is sealed with by now does not take that key away."""
    host = site.host()
    new = site.ring.grown(site.timed.clock.now_ms + 1).activated()
    put(host, new)
    await look(host, site)
    put(host, site.ring)
    await look(host, site)
    assert "older key ring" in keys_check(host)[1]
    assert new == host.farm.sealer.ring


async def test_a_save_whose_answer_was_lost_is_no_conflict_after_resealing(site: Site) -> None:
    """The store has the very version that it is told of, under another seal: nobody lost a race."""
    host = site.host()
    put(host, site.ring)
    await host.beat()
    assert isinstance(await host.granted(JOHN), Grant)
    host.mount()
    host.write(b"borrowed")
    host.line.deaf.add("save")
    assert not (await host.save()).delivered
    vault, index = SealStore(site.timed.connection, FARM), host.farm.sealer.user_index(JOHN)
    found = await vault.record("qlikview", index)
    binding = RecordBinding(pool="qlikview", user_index=index, lease_id=found.lease_id, version=2)
    new = site.ring.grown(1)
    anew = Sealer(new.activated(), FARM).reseal_record(binding, found.record)
    assert await vault.reseal("qlikview", Kind.RECORDS, index, found.record, anew)
    host.farm.sealer.adopt(new)
    host.line.deaf.clear()
    await host.beat()
    assert 0 == host.node.state.outbox.pending()
    assert [] == list(kept(host.folder))


def kept(folder: Path) -> list[str]:
    """What was kept for inspection on a host."""
    return [path.name for path in (folder / "state" / "kept").glob("*")]


async def test_a_journal_that_cannot_be_written_does_not_silence_the_node(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full disk: the node goes on saying that it needs the old key, so that nobody takes it for switched off."""
    host = await with_everything(site)
    host.line.cut.clear()
    await host.node.loops.look_at_keys()
    new = site.ring.grown(1).activated()

    def full(*_: object) -> None:
        raise JournalFailed("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(host.node.state.journal, "write_receipt", full)
        put(host, new)
        await look(host, site)
        (told,) = await SealStore(site.timed.connection, FARM).rings()
        assert (site.ring.primary, True, new.ids) == (told.primary, told.alive, told.opens)
        assert site.ring.primary in told.holds
    await look(host, site)
    assert (new.primary, new.ids, {}) == await word(site)


async def test_a_journal_that_is_all_fresh_is_not_searched_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look costs the same however much lies in the journal, unless the ring has changed."""
    host = await with_everything(site)
    await look(host, site)
    searched: list[int] = []
    journal, real = host.node.state.journal, host.node.state.journal.sealed_with
    monkeypatch.setattr(journal, "sealed_with", lambda: searched.append(1) or real())
    await look(host, site)
    assert [] == searched
    put(host, site.ring.grown(1))
    await look(host, site)
    assert [] != searched
