"""The user's record and files on their way between hosts, each with a disk of its own."""

import threading
from typing import Any

import pytest

from farmlease.domain.model import Reason
from farmlease.errors import FileRefused
from farmlease.node.files.vendor_files import VendorFiles
from farmlease.node.journal.evidence import USER_FILES
from farmlease.node.journal.receipts import FileOwner
from farmlease.node.sessions import session_files
from farmlease.node.sessions.save import Saved
from tests.support.nodes import JOHN, MARY, Host, Site
from tests.support.patience import within
from tests.support.seats import contents
from tests.support.stores import HOUR


def two(site: Site) -> tuple[Host, Host]:
    """Two hosts of the farm."""
    return site.host("ctx-01"), site.host("ctx-02")


async def moved(host: Host, content: bytes) -> None:
    """Let john have a session on a host that leaves ``content`` in his file."""
    await host.granted(JOHN)
    host.write(content)
    await host.end()


# --- the way of a file ---------------------------------------------------------------------------------------------------


async def test_a_file_follows_its_user(site: Site) -> None:
    """Written on ctx-01 in the morning, there on ctx-02 after lunch, the same lease, and gone from both at the end."""
    one, other = two(site)
    morning = await one.granted(JOHN)
    one.write(b"yesterday's")
    await one.end()
    noon = await other.granted(JOHN)
    assert (morning.lease.id, None, b"yesterday's") == (noon.lease.id, one.read(), other.read())
    await other.end()
    assert (None, 2) == (other.read(), await site.record_version())


async def test_a_file_leaves_with_the_last_session(site: Site) -> None:
    """As long as another session of the user may use it, it stays."""
    host = site.host()
    await moved(host, b"content")
    await host.granted(JOHN, "1")
    await host.granted(JOHN, "2")
    await host.end("1")
    assert b"content" == host.read()
    await host.end("2")
    assert host.read() is None


async def test_a_file_that_is_missing_stays_in_the_record(site: Site) -> None:
    """A program that deleted its file did not mean the licence."""
    host = site.host()
    await moved(host, b"content")
    await host.granted(JOHN)
    host.file().unlink()
    await host.end()
    await host.granted(JOHN)
    assert b"content" == host.read()


async def test_an_unchanged_file_makes_no_version(site: Site) -> None:
    """Nothing is written where nothing changed, whatever happened to the file's mode."""
    host = site.host()
    await moved(host, b"content")
    await host.granted(JOHN)
    host.file().chmod(0o640)
    await host.end()
    assert 2 == await site.record_version()


async def test_save_in_the_middle(site: Site) -> None:
    """What was saved is on the other host while the session here goes on."""
    one, other = two(site)
    await one.granted(JOHN)
    one.write(b"changed")
    assert Saved(pool="qlikview", changed=True, superseded=False, delivered=True) == await one.save()
    assert Saved(pool="qlikview", changed=False, superseded=False, delivered=True) == await one.save()
    await other.granted(JOHN, "9")
    assert (b"changed", b"changed") == (one.read(), other.read())


async def test_save_while_the_store_is_away(site: Site) -> None:
    """It is in the journal, and says that it has not arrived."""
    host = site.host()
    await host.granted(JOHN)
    host.write(b"changed")
    host.line.cut.add("*")
    saved = await host.save()
    assert (True, False) == (saved.changed, saved.delivered)
    host.line.cut.clear()
    await host.beat()
    assert 2 == await site.record_version()


async def test_what_lay_there_before_is_kept(site: Site) -> None:
    """A file with other content that the record's replaces may be the user's only copy."""
    one, other = two(site)
    await moved(one, b"the record's")
    other.write(b"found here")
    await other.granted(JOHN)
    assert (b"the record's", [("replaced", b"found here")]) == (other.read(), other.kept)


async def test_nobody_fills_the_room_for_what_is_kept(site: Site) -> None:
    """A user who puts another file of his own there each time has 20 kept; then he is refused and told, nobody else."""
    one, other = two(site)
    await moved(one, b"the record's")
    for number in range(USER_FILES):
        other.write(b"found here %d" % number)
        await other.granted(JOHN)
        await other.end()
    other.write(b"one too many")
    denied = await other.denied(JOHN)
    assert (Reason.RECORD_REJECTED, b"one too many", USER_FILES) == (denied.reason, other.read(), len(other.kept))
    assert "has as much of this user as of any: inspect the files in it and move them away" in denied.detail
    await other.granted(MARY, "8")
    other.write(b"mary's own", MARY)
    await other.end("8")
    other.write(b"something else", MARY)
    await other.granted(MARY, "9")
    assert ("replaced", b"something else") in other.kept
    for path in (other.folder / "state" / "kept").glob("*replaced*"):
        path.unlink()
    await other.granted(JOHN)
    assert [("replaced", b"one too many")] == other.kept


async def test_files_of_another_policy_come_back_too(site: Site) -> None:
    """The policy's files change while a session runs: what was put in place is taken back and removed all the same."""
    host = site.host()
    await host.granted(JOHN)
    host.write(b"changed")
    await site.apply(site.policy.replace("cal.pgo", "new.pgo"))
    await host.beat()
    await host.end()
    assert (None, 2) == (host.read(), await site.record_version())


# --- two at once ----------------------------------------------------------------------------------------------------------


async def test_of_two_changes_the_last_saved_counts(site: Site) -> None:
    """Both hosts changed the file: the one saved last counts, and the other version is kept by the host that it met."""
    one, other = two(site)
    await one.granted(JOHN, "1")
    await other.granted(JOHN, "2")
    one.write(b"one's")
    other.write(b"the other's")
    await one.end("1")
    await other.end("2")
    assert (3, [], []) == (await site.record_version(), one.kept, other.kept)
    assert ([], [("2", [b"one's"])]) == (one.superseded, other.superseded)
    await one.granted(JOHN)
    assert b"the other's" == one.read()


async def test_a_save_over_another_hosts_puts_nothing_under_a_session(site: Site) -> None:
    """Each save in the middle counts as it comes; nobody's file changes under him, whoever saved last."""
    one, other = two(site)
    await one.granted(JOHN, "1")
    await other.granted(JOHN, "2")
    one.write(b"one's")
    await one.save("1")
    other.write(b"the other's")
    saved = await other.save("2")
    assert (True, False, b"the other's") == (saved.changed, saved.superseded, other.read())
    saved = await one.save("1")
    assert (False, False, b"one's") == (saved.changed, saved.superseded, one.read())
    assert 3 == await site.record_version()
    one.write(b"made from one's")
    await one.end("1")
    assert (4, [("2", [b"one's"]), ("3", [b"the other's"])]) == (await site.record_version(), one.superseded)


async def test_what_was_changed_before_never_goes_over_what_was_changed_after(site: Site) -> None:
    """Saved twice while the store was away, and another host saved later: neither version goes over that one's."""
    one, other = two(site)
    await one.granted(JOHN, "1")
    await other.granted(JOHN, "2")
    other.line.cut.add("*")
    for content in (b"first", b"second"):
        other.write(content)
        await other.save("2")
    site.timed.clock.advance(1000)
    one.write(b"the winner's")
    await one.end("1")
    other.line.cut.clear()
    await other.beat()
    assert (2, [("2", [b"first"]), ("3", [b"second"])]) == (await site.record_version(), other.superseded)
    await other.end("2")
    assert (2, None) == (await site.record_version(), other.read())
    await other.granted(JOHN)
    assert b"the winner's" == other.read()


async def test_what_is_changed_after_a_lost_race_counts(site: Site) -> None:
    """The store told of the winner with a heartbeat: what the session changes from then on is later, and counts."""
    one, other = two(site)
    await one.granted(JOHN, "1")
    await other.granted(JOHN, "2")
    other.line.cut.add("*")
    other.write(b"first")
    await other.save("2")
    site.timed.clock.advance(1000)
    one.write(b"the winner's")
    await one.end("1")
    other.line.cut.clear()
    await other.beat()
    other.write(b"second")
    await other.end("2")
    assert (3, []) == (await site.record_version(), other.kept)
    assert [("2", [b"first"]), ("2~2", [b"the winner's"])] == other.superseded
    await one.granted(JOHN)
    assert b"second" == one.read()


async def test_a_second_session_does_not_turn_an_old_file_into_a_new_one(site: Site) -> None:
    """ctx-01 holds what it got in the morning, ctx-02 saved since: a second session on ctx-01 changes nothing of that."""
    one, other = two(site)
    await one.granted(JOHN, "1")
    one.write(b"morning")
    await one.save("1")
    await moved(other, b"noon")
    await one.granted(JOHN, "2")
    assert b"morning" == one.read()
    await one.end("1")
    await one.end("2")
    assert (3, []) == (await site.record_version(), one.kept)
    await one.granted(JOHN)
    assert b"noon" == one.read()


async def test_a_node_that_was_silent_does_not_bring_old_files_back(site: Site) -> None:
    """A session that got its seat back after ctx-02 saved does not overwrite what ctx-02 saved."""
    one, other = two(site)
    await one.granted(JOHN)
    one.write(b"morning")
    await one.save()
    site.timed.clock.advance(2 * HOUR)
    await moved(other, b"noon")
    await one.granted(JOHN)
    await one.agent.settled()
    await one.end()
    await other.granted(JOHN)
    assert b"noon" == other.read()


async def test_a_new_lease_takes_over_what_lies_here(site: Site) -> None:
    """The store lost the record: the running session's files become the new lease's."""
    host = site.host()
    await host.granted(JOHN)
    host.write(b"precious")
    await host.save()
    site.timed.raw.flushall()
    await host.beat()
    await host.end()
    await site.apply(site.policy)
    await host.granted(JOHN)
    assert b"precious" == host.read()


# --- what is refused ------------------------------------------------------------------------------------------------------


def records(site: Site) -> dict[Any, Any]:
    """The sealed records of the pool, by user index."""
    found: dict[Any, Any] = contents(site.timed.raw).get("records", {})
    return found


RECORDS = "fl:{citrix-a/qlikview/0}:records"


async def test_a_changed_record_is_refused_kept_and_left(site: Site) -> None:
    """L6: one bit changed: nobody is let in, the bytes are kept, the seat goes back, nothing is overwritten."""
    host = site.host()
    await moved(host, b"content")
    ((index, record),) = records(site).items()
    tampered = record[:-1] + bytes([record[-1] ^ 1])
    site.timed.raw.hset(RECORDS, index, tampered)
    assert Reason.RECORD_REJECTED is (await host.denied(JOHN)).reason
    assert ({}, [], None) == (host.states, await site.sessions(), host.read())
    assert [("rejected-record", tampered)] == host.kept
    assert {index: tampered} == records(site)
    site.timed.raw.hset(RECORDS, index, record)
    await host.granted(JOHN)
    assert b"content" == host.read()


async def test_the_record_of_another_user_is_refused(site: Site) -> None:
    """L6: two users' records swapped in the store open for neither."""
    host = site.host()
    await moved(host, b"john's")
    await host.granted(MARY, "8")
    await host.end("8")
    (one, first), (other, second) = records(site).items()
    site.timed.raw.hset(RECORDS, mapping={one: second, other: first})
    assert Reason.RECORD_REJECTED is (await host.denied(JOHN)).reason
    assert Reason.RECORD_REJECTED is (await host.denied(MARY, "8")).reason
    assert {one: second, other: first} == records(site)


async def test_a_replayed_record_is_refused(site: Site) -> None:
    """L6: yesterday's record, put back in place of today's, was sealed for another version."""
    host = site.host()
    await moved(host, b"yesterday")
    old = records(site)
    await moved(host, b"today")
    site.timed.raw.hset(RECORDS, mapping=old)
    assert Reason.RECORD_REJECTED is (await host.denied(JOHN)).reason
    assert (old, [("rejected-record", *old.values())]) == (records(site), host.kept)


async def test_a_running_session_does_not_fall_with_the_record_in_the_store(site: Site) -> None:
    """L3: who asks again for a running session gets the same answer; the record was opened when it came."""
    host = site.host()
    await host.granted(JOHN)
    ((index, _),) = records(site).items()
    site.timed.raw.hset(RECORDS, index, b"tampered")
    assert (await host.granted(JOHN)).again


async def test_a_file_that_cannot_be_placed_gives_the_seat_back(site: Site) -> None:
    """A link where the file should be: denied with the reason, the link untouched, and no seat held."""
    one, other = two(site)
    await moved(one, b"content")
    (other.folder / "target").write_bytes(b"somebody's")
    other.file().symlink_to(other.folder / "target")
    assert Reason.RECORD_REJECTED is (await other.denied(JOHN)).reason
    assert ([], b"somebody's", {}) == (await site.sessions(), (other.folder / "target").read_bytes(), other.states)
    other.file().unlink()
    await other.granted(JOHN)
    assert b"content" == other.read()


async def test_one_refused_file_leaves_the_others_alone(site: Site) -> None:
    """Of two files one was made a link: the other is saved and removed, the link stays, the session ends."""
    await site.apply(site.policy.replace('cal.pgo"', f'cal.pgo", "{site.disk}/{{user}}/two.pgo"'))
    host = site.host()
    await host.granted(JOHN)
    host.write(b"one")
    two = host.file().with_name("two.pgo")
    two.symlink_to("/etc/passwd")
    await host.end()
    assert ({}, None, True, 2) == (host.states, host.read(), two.is_symlink(), await site.record_version())


async def test_half_placed_files_are_removed_again(site: Site) -> None:
    """The second file cannot be put in place: the first does not stay behind for somebody without a seat."""
    await site.apply(site.policy.replace('cal.pgo"', f'cal.pgo", "{site.disk}/{{user}}/two/two.pgo"'))
    one, other = two(site)
    await one.granted(JOHN)
    one.write(b"one")
    (one.folder / "disk" / "john" / "two").mkdir()
    (one.folder / "disk" / "john" / "two" / "two.pgo").write_bytes(b"two")
    await one.end()
    (other.folder / "disk" / "john" / "two").write_bytes(b"a file where a folder should be")
    assert Reason.RECORD_REJECTED is (await other.denied(JOHN)).reason
    await other.agent.settled()
    assert (None, []) == (other.read(), await site.sessions())


async def test_what_lay_here_is_no_change_if_nothing_was_placed(site: Site) -> None:
    """An old file of this host's is not taken for a newer version because another file could not be put in place."""
    await site.apply(site.policy.replace('cal.pgo"', f'cal.pgo", "{site.disk}/{{user}}/two/two.pgo"'))
    one, other = two(site)
    await moved(one, b"the record's")
    other.write(b"old")
    (other.folder / "disk" / "john" / "two").write_bytes(b"a file where a folder should be")
    assert Reason.RECORD_REJECTED is (await other.denied(JOHN)).reason
    await other.agent.settled()
    assert (b"old", 2) == (other.read(), await site.record_version())


async def test_a_denial_touches_no_file(site: Site) -> None:
    """What lies at the place without a session is the user's own: a start that is denied neither takes nor removes it."""
    await site.apply(site.policy.replace("capacity = 3", "capacity = 3\ndevices_per_user = 1"))
    host = site.host()
    await moved(host, b"content")
    host.write(b"his own")
    assert Reason.DEVICE_LIMIT is (await host.denied(JOHN, device="nb-1")).reason
    await host.agent.settled()
    assert (b"his own", 2) == (host.read(), await site.record_version())


async def test_a_save_that_is_refused_says_why(site: Site) -> None:
    """The user is told what to do about the file; the session goes on."""
    host = site.host()
    await host.granted(JOHN)
    host.file().symlink_to("/etc/passwd")
    with pytest.raises(FileRefused, match="is a link"):
        await host.save()
    assert {"7": "active"} == host.states


async def test_a_receipt_that_does_not_open_is_kept(site: Site) -> None:
    """A damaged receipt counts as none, and its bytes are kept."""
    host = site.host()
    await moved(host, b"content")
    await host.granted(JOHN)
    (index,) = (name.decode() for name in records(site))
    journal = host.node.state.journal
    journal.write_receipt(index, "qlikview", b"damaged")
    await host.end()
    assert ({}, [], b"content") == (host.states, await site.sessions(), host.read())
    assert [("rejected-receipt", b"damaged")] == host.kept


# --- a disk that hangs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["look", "place"])
async def test_a_disk_that_hangs_holds_up_its_user_only(site: Site, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """john's home hangs: his session ends or is denied in time, mary's starts, and later nothing is lost or left."""
    host = site.host()
    answers = threading.Event()
    monkeypatch.setattr(session_files, "_PATIENCE", 0.0)
    await host.beat()
    original = getattr(VendorFiles, verb)

    def hangs(files: VendorFiles, user: FileOwner, *more: object, **most: object) -> object:
        if user.name == JOHN.name:
            answers.wait(within(20))
        return original(files, user, *more, **most)

    if verb == "look":
        monkeypatch.setattr(session_files, "_PATIENCE", 20.0)
        await host.granted(JOHN)
        host.write(b"changed")
        monkeypatch.setattr(session_files, "_PATIENCE", 0.0)
        monkeypatch.setattr(VendorFiles, verb, hangs)
        await host.end()
    else:
        monkeypatch.setattr(VendorFiles, verb, hangs)
        assert Reason.RECORD_REJECTED is (await host.denied(JOHN)).reason
    assert ({}, []) == (host.states, await site.sessions())
    monkeypatch.setattr(session_files, "_PATIENCE", 20.0)
    await host.granted(MARY, "8")
    answers.set()
    await host.agent.settled()
    await host.beat()
    assert host.read() is None
    if verb == "look":
        assert 2 == await site.record_version()
