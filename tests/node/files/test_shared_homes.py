"""Homes that several hosts see, be it by NFS or as a profile share: nothing is taken from under a session elsewhere."""

import shutil

import pytest

from tests.support.nodes import JOHN, Host, Site
from tests.support.stores import HOUR


@pytest.fixture
def hosts(site: Site) -> tuple[Host, Host]:
    """Two hosts with one disk for the homes of both."""
    one, other = site.host("ctx-01"), site.host("ctx-02")
    shutil.rmtree(other.folder / "disk")
    (other.folder / "disk").symlink_to(one.folder / "disk")
    return one, other


async def test_a_file_stays_as_long_as_a_session_lives_anywhere(hosts: tuple[Host, Host], site: Site) -> None:
    """The end on ctx-01 takes nothing from the session on ctx-02; with that one's end the file goes."""
    one, other = hosts
    await one.granted(JOHN, "1")
    one.write(b"the licence")
    await other.granted(JOHN, "2")
    await one.end("1")
    assert (b"the licence", 2) == (other.read(), await site.record_version())
    await one.node.loops.clear_leftovers()
    assert b"the licence" == other.read()
    await other.end("2")
    assert (None, [], []) == (other.read(), one.kept, other.kept)
    await one.node.loops.clear_leftovers()
    await one.granted(JOHN, "3")
    assert (b"the licence", 2) == (one.read(), await site.record_version())


async def test_a_start_puts_nothing_under_a_session_elsewhere(hosts: tuple[Host, Host]) -> None:
    """What the program on ctx-01 has written since the last save is newer than the record."""
    one, other = hosts
    await one.granted(JOHN, "1")
    one.write(b"saved")
    await one.save("1")
    one.write(b"not saved yet")
    await other.granted(JOHN, "2")
    assert (b"not saved yet", []) == (one.read(), other.kept)
    other.write(b"by ctx-02")
    await other.end("2")
    await one.end("1")
    assert (None, []) == (one.read(), one.kept)
    await other.granted(JOHN, "3")
    assert b"by ctx-02" == other.read()


async def test_the_last_changed_save_wins_and_the_other_is_kept(hosts: tuple[Host, Host], site: Site) -> None:
    """Both sessions write one file: it is as the last of them left it, whichever host saves first."""
    one, other = hosts
    await one.granted(JOHN, "1")
    await other.granted(JOHN, "2")
    one.write(b"first")
    await other.save("2")
    other.write(b"second")
    await one.save("1")
    await other.end("2")
    await one.end("1")
    kept = {content for host in hosts for _, files in host.superseded for content in files}
    assert (3, {b"first"}, None) == (await site.record_version(), kept, one.read())
    await other.granted(JOHN)
    assert b"second" == other.read()


async def test_a_usual_end_asks_nothing_more(hosts: tuple[Host, Host]) -> None:
    """The answer to the end says that no session lives elsewhere: no further call to the store."""
    one, _ = hosts
    await one.granted(JOHN)
    one.line.calls.clear()
    await one.end()
    assert (["release"], None) == (one.line.calls, one.read())


async def test_a_session_that_begins_meanwhile_keeps_its_file(hosts: tuple[Host, Host]) -> None:
    """ctx-02 starts between the store's answer to ctx-01's end and the removal there: its file is not taken away."""
    one, other = hosts
    await one.granted(JOHN, "1")
    one.write(b"the licence")
    await one.save("1")
    with one.line.holding("release") as held:
        ending = one.agent.end_session("1")
        task = one.node.runtime.tasks._begin(ending)
        await held()
        await other.granted(JOHN, "2")
    await task
    await one.agent.settled()
    assert b"the licence" == other.read()
    await one.node.loops.clear_leftovers()
    assert b"the licence" == other.read()


async def test_with_the_store_away_files_stay(hosts: tuple[Host, Host]) -> None:
    """Nobody knows who has a session elsewhere; the first heartbeat that reaches the store removes what is left."""
    one, _ = hosts
    await one.granted(JOHN)
    one.write(b"the licence")
    one.line.cut.add("*")
    await one.end()
    await one.node.loops.clear_leftovers()
    assert b"the licence" == one.read()
    one.line.cut.clear()
    await one.beat()
    assert one.read() is None


async def test_offline_nothing_is_replaced(hosts: tuple[Host, Host]) -> None:
    """A receipt lets john in while the store is away: whoever has the file open elsewhere keeps it."""
    one, other = hosts
    await other.granted(JOHN, "2")
    other.write(b"old")
    await other.end("2")
    await one.granted(JOHN, "1")
    one.write(b"at work")
    other.line.cut.add("*")
    grant = await other.granted(JOHN, "2")
    assert ("receipt", b"at work", []) == (grant.source.value, one.read(), other.kept)


async def test_files_of_a_host_that_died_go_once_its_sessions_are_over(hosts: tuple[Host, Host], site: Site) -> None:
    """ctx-02 dies: its session counts until the timeout, and as long the file that ctx-01 left stays."""
    one, other = hosts
    await one.granted(JOHN, "1")
    one.write(b"the licence")
    await one.save("1")
    await other.granted(JOHN, "2")
    await one.end("1")
    await one.node.loops.clear_leftovers()
    assert b"the licence" == one.read()
    site.timed.clock.advance(2 * HOUR)
    await one.beat()
    await one.node.loops.clear_leftovers()
    assert one.read() is None


async def test_a_file_that_is_not_as_this_host_left_it_stays(hosts: tuple[Host, Host], site: Site) -> None:
    """ctx-02 died with its session's work in the file, unsaved: ctx-01 removes nothing, and the next start keeps it."""
    one, other = hosts
    await one.granted(JOHN, "1")
    one.write(b"the licence")
    await one.save("1")
    await other.granted(JOHN, "2")
    await one.end("1")
    other.write(b"unsaved work")
    site.timed.clock.advance(2 * HOUR)
    await one.beat()
    await one.node.loops.clear_leftovers()
    assert b"unsaved work" == one.read()
    await one.granted(JOHN, "3")
    assert (b"the licence", [("replaced", b"unsaved work")]) == (one.read(), one.kept)


async def test_each_host_with_its_own_disk_is_tidied_as_well(site: Site) -> None:
    """Without a shared disk, the file of an ended session goes once the user's last session anywhere has ended."""
    one, other = site.host("ctx-01"), site.host("ctx-02")
    await one.granted(JOHN, "1")
    one.write(b"the licence")
    await one.save("1")
    await other.granted(JOHN, "2")
    await one.end("1")
    assert (b"the licence", b"the licence") == (one.read(), other.read())
    await other.end("2")
    one.mount()
    await one.node.loops.clear_leftovers()
    assert (None, None) == (one.read(), other.read())
