r"""The files of a user whom the farm calls otherwise by now: none is lost, and none is taken from under a session."""

import os
import shutil
from pathlib import Path

import pytest

from farmlease.admin.renaming import DueRename, LeaseRenamer
from farmlease.store.name_store import Rename
from tests.support.nodes import IDENTITIES, JOHN, Host, Site
from tests.support.renames import PLAIN, read_otherwise
from tests.support.stores import HOUR

MILLER, SMITH = IDENTITIES.user(r"CORP\miller"), IDENTITIES.user(r"CORP\smith")


def shared(site: Site) -> tuple[Host, Host]:
    """Return two hosts with one disk for the homes of both."""
    one, other = site.host("ctx-01"), site.host("ctx-02")
    shutil.rmtree(other.folder / "disk")
    (other.folder / "disk").symlink_to(one.folder / "disk")
    return one, other


def written(path: Path) -> None:
    """Write a licence as a program would."""
    path.write_bytes(b"licence")


def content(path: Path) -> bytes | None:
    """Return what a file has; None if there is none."""
    return path.read_bytes() if path.exists() else None


async def clear_leftovers(host: Host) -> None:
    """Let a host look at what no session there uses."""
    await host.node.loops.clear_leftovers()
    await host.agent.settled()


async def test_a_running_sessions_file_is_no_leftover(site: Site) -> None:
    r"""The receipt names john, and its session is CORP\john's by now: the file stays until the session's end."""
    host = site.host()
    await host.granted(PLAIN)
    host.write(b"licence")
    await host.save()
    assert [Rename.IN_USE] == await read_otherwise(site)
    await host.beat()
    await clear_leftovers(host)
    assert ({"7": "active"}, b"licence") == (host.states, host.read())
    await host.end()
    assert host.read() is None


async def test_a_session_of_another_host_by_the_new_name_keeps_its_file(site: Site) -> None:
    """ctx-01 could not ask at its end; when it can, john's session on ctx-02 counts by his new name."""
    one, other = shared(site)
    await one.granted(PLAIN)
    one.write(b"licence")
    await one.save()
    one.line.cut.add("*")
    await one.end()
    site.timed.clock.advance(3 * HOUR)
    assert [Rename.RENAMED] == await read_otherwise(site)
    await other.beat()
    await other.granted(JOHN, "9")
    one.line.cut.clear()
    for _ in range(2):
        await one.beat()
        await clear_leftovers(one)
    assert b"licence" == other.read()
    await other.end("9")
    assert other.read() is None


@pytest.fixture
async def vendors(site: Site, tmp_path: Path) -> Path:
    """The file in the home of miller, on all hosts."""
    home = tmp_path / "homes" / "m"
    (home / ".vendor").mkdir(parents=True)
    await site.apply(site.policy.replace(f"{site.disk}/{{user}}", "{home}/.vendor"))
    site.people.add("miller", os.geteuid(), home)
    return home / ".vendor" / "cal.pgo"


async def renamed(site: Site) -> None:
    """Call miller smith, with the same home, and move her lease by hand as ``lease rename`` does."""
    account = site.people.accounts.pop("miller")
    site.people.add("smith", os.geteuid(), account.home)
    due = DueRename(pool="qlikview", index=site.farm.sealer.user_index(MILLER), name=MILLER.canonical, user=SMITH)
    assert Rename.RENAMED is await LeaseRenamer(site.farm).move(due)


async def test_a_lease_that_was_moved_by_hand_keeps_its_file(site: Site, vendors: Path) -> None:
    """No table says who miller is now: her file on ctx-01 may be under a session by the new name, and stays."""
    one, other = site.host("ctx-01"), site.host("ctx-02")
    await one.granted(MILLER, given="miller")
    written(vendors)
    await one.save()
    one.line.cut.add("*")
    await one.end()
    site.timed.clock.advance(3 * HOUR)
    await renamed(site)
    await other.granted(SMITH, "9", given="smith")
    one.line.cut.clear()
    for _ in range(2):
        await one.beat()
        await clear_leftovers(one)
    assert b"licence" == content(vendors)
    site.timed.clock.advance(31 * 24 * HOUR)
    await one.beat()
    await clear_leftovers(one)
    assert content(vendors) is None


async def test_a_lease_that_was_moved_by_hand_comes_back_to_its_host(site: Site, vendors: Path) -> None:
    """Her account and her lease are smith's now, her home is as before: she is no second user of the same path."""
    host = site.host()
    await host.granted(MILLER, given="miller")
    written(vendors)
    await host.end()
    await renamed(site)
    await host.granted(SMITH, "8", given="smith")
    assert b"licence" == content(vendors)
    assert host.node.state.receipts.find(site.farm.sealer.user_index(MILLER), "qlikview") is None


async def test_the_receipt_of_another_lease_of_the_same_person_stays(site: Site) -> None:
    """john had a lease by each name: the second lets him in, and what the first has is not written over."""
    host = site.host()
    await host.granted(PLAIN)
    host.write(b"licence")
    await host.end()
    other = site.host("ctx-02")
    await other.granted(JOHN, "9")
    await other.end("9")
    await read_otherwise(site)
    await host.beat()
    second = await host.granted(JOHN, "8")
    first = host.node.state.receipts.find(site.farm.sealer.user_index(PLAIN), "qlikview")
    assert first is not None
    assert second.lease.id != first.lease.id


async def test_a_late_save_follows_a_receipt_that_has_moved_already(site: Site) -> None:
    """A start by the new name took the receipt along before the store had the save: it reaches the lease all the same."""
    host = site.host()
    await host.granted(PLAIN)
    host.write(b"licence")
    host.line.cut.add("*")
    await host.end()
    site.timed.clock.advance(3 * HOUR)
    assert [Rename.RENAMED] == await read_otherwise(site)
    sealer = site.farm.sealer
    old, new = sealer.user_index(PLAIN), sealer.user_index(JOHN)
    host.node.state.receipts.move(old, new, "qlikview", sealer.seal_name(new, JOHN.canonical))
    host.line.cut.clear()
    await host.beat()
    await host.beat()
    assert ([], 2) == (host.kept, await site.record_version())
