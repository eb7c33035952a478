"""Files that separate persons: each user of a host has a path of his own, filled from the account database."""

import os
from pathlib import Path

import pytest

from farmlease.domain.model import Denial, Reason
from tests.support.nodes import IDENTITIES, JOHN, Host, People, Site

OTHER = IDENTITIES.user(r"OTHER\john")


def made(folder: Path) -> Path:
    """Make a folder."""
    folder.mkdir(parents=True)
    return folder


def written(path: Path, content: bytes) -> None:
    """Write a file as a program would."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def moved_to(folder: Path, other: Path) -> None:
    """Rename a folder."""
    folder.rename(other)


@pytest.fixture
async def home(site: Site, tmp_path: Path) -> Path:
    """The home of an account John with a capital, and a policy that names it."""
    home = made(tmp_path / "homes" / "John")
    site.people.add("John", os.geteuid(), home)
    await site.apply(site.policy.replace(f"{site.disk}/{{user}}", "{home}/.vendor"))
    return home


def told(host: Host) -> str:
    """What health tells of the files."""
    host.node.monitor.look()
    checks = {check.name: check for check in host.node.monitor.health.checks}
    return f"{checks['files'].status.value} {checks['files'].output}"


async def moved(host: Host, path: Path, content: bytes) -> None:
    """Let john have a session that leaves ``content`` in a file."""
    await host.granted(JOHN, given="John")
    written(path, content)
    await host.end()


async def test_a_home_is_the_account_databases(site: Site, home: Path) -> None:
    """{home} is the folder that the host's account has, whatever the farm calls its user."""
    host = site.host()
    await moved(host, home / ".vendor" / "cal.pgo", b"the licence")
    assert not (home / ".vendor" / "cal.pgo").exists()
    await host.granted(JOHN, given="John")
    assert b"the licence" == (home / ".vendor" / "cal.pgo").read_bytes()
    assert "pass in order" == told(host)


@pytest.mark.parametrize(("template", "folder"), [("{account}", "John"), ("{uid}", None), ("u-{uid}-{account}", None)])
async def test_account_and_number_fill_a_path(
    site: Site, home: Path, tmp_path: Path, template: str, folder: str | None
) -> None:
    """{account} is as the system spells it, {uid} its number."""
    folder = folder or template.format(uid=os.geteuid(), account="John")
    (tmp_path / "srv").mkdir()
    await site.apply(site.policy.replace(f"{site.disk}/{{user}}", f"{tmp_path}/srv/{template}"))
    host = site.host()
    (tmp_path / "srv" / folder).mkdir()
    await moved(host, tmp_path / "srv" / folder / "cal.pgo", b"x")
    await host.granted(JOHN, given="John")
    assert b"x" == (tmp_path / "srv" / folder / "cal.pgo").read_bytes()


async def test_a_restart_and_a_changed_account_take_back_from_where_it_was_put(site: Site, home: Path) -> None:
    """The account goes from the database while a session runs: what was put in place comes back all the same."""
    host = site.host()
    path = home / ".vendor" / "cal.pgo"
    await host.granted(JOHN, given="John")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"changed")
    site.people.accounts.clear()
    host.restart()
    await host.end()
    assert (False, 2) == (path.exists(), await site.record_version())


async def test_a_silent_directory_denies_only_who_is_new_here(
    site: Site, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host remembers where it had john's files; of Mary it knows nothing, and says what to look at."""
    host = site.host()
    path = home / ".vendor" / "cal.pgo"
    await moved(host, path, b"x")

    def fail(*_: object) -> None:
        raise OSError("the directory is away")

    with monkeypatch.context() as patch:
        patch.setattr(People, "account", fail)
        host.restart()
        await host.granted(JOHN, given="John")
        assert b"x" == path.read_bytes()
        denial = await host.denied(IDENTITIES.user("mary"), "8", given="Mary")
        assert "/etc/nsswitch.conf" in denial.detail


async def test_a_user_without_an_account_is_told_so(site: Site, home: Path) -> None:
    """A path with {home} cannot be filled for somebody whom the host does not know."""
    site.people.accounts.clear()
    denial = await site.host().denied(JOHN)
    assert Reason.RECORD_REJECTED is denial.reason
    assert "{home}" in denial.detail
    assert "account database does not have the user" in denial.detail


# --- two users with one path ----------------------------------------------------------------------------------------------


async def test_the_second_user_of_a_path_is_refused(site: Site) -> None:
    r"""CORP\john and OTHER\john are both john: the second is denied and told why, and nothing is overwritten."""
    host = site.host()
    await host.granted(JOHN)
    host.write(b"john's of CORP")
    denial = await host.denied(OTHER, "8")
    assert (Reason.RECORD_REJECTED, b"john's of CORP", []) == (denial.reason, host.read(), host.kept)
    assert "another user of this host has the same path: write {home} or {account} in files" in denial.detail
    assert "CORP" not in denial.detail
    assert told(host).startswith("warn the files of pool qlikview: another user of this host has the same path")
    assert [] == await site.sessions(OTHER)
    await host.end()
    assert Reason.RECORD_REJECTED is (await host.denied(OTHER, "8")).reason
    host.restart()
    assert Reason.RECORD_REJECTED is (await host.denied(OTHER, "8")).reason
    await host.granted(JOHN)
    assert b"john's of CORP" == host.read()


async def test_a_path_is_free_once_the_lease_is_over(site: Site) -> None:
    """The first user's lease has ended, so that no file of his can come back here: the path is the other's."""
    host = site.host()
    await host.granted(JOHN)
    await host.end()
    site.timed.clock.advance(31 * 86_400_000)
    await host.granted(OTHER, "8")


async def test_two_accounts_with_one_home_are_refused(site: Site, home: Path) -> None:
    """Whatever the placeholder: two users whose accounts lead to one file are two users with one path."""
    site.people.add("Mary", os.geteuid(), home)
    host = site.host()
    await host.granted(JOHN, given="John")
    denial = await host.denied(IDENTITIES.user("mary"), "8", given="Mary")
    assert "another user of this host has the same path" in denial.detail


async def test_two_pools_that_meet_in_one_path_are_refused(site: Site, home: Path, tmp_path: Path) -> None:
    """The policy spells one path in two ways: where they meet on a host, the second pool is refused."""
    one = site.policy.replace(f"{site.disk}/{{user}}", "{home}/.vendor")
    other = one[one.index("[[pool]]") :].replace("{home}/", f"{tmp_path}/homes/{{account}}/")
    await site.apply(one + other.replace('"qlikview"', '"other"'))
    host = site.host()
    await host.granted(JOHN, "1", given="John", pool="qlikview")
    denial = await host.denied(JOHN, "2", given="John", pool="other")
    assert "pool qlikview has the same file of this user on this host" in denial.detail


# --- what is missing ------------------------------------------------------------------------------------------------------


async def test_a_missing_folder_is_told_in_health(site: Site, tmp_path: Path) -> None:
    """{user} is folded, and the folder is not: nothing would ever be saved, so health says it until it is right."""
    weiss = IDENTITIES.user("Weiß")
    site.people.add("Weiß", os.geteuid(), tmp_path / "homes" / "Weiß")
    host = site.host()
    (host.folder / "disk" / "Weiß").mkdir()
    await host.granted(weiss, given="Weiß")
    assert told(host).startswith(f"warn {site.disk}/{{user}}/cal.pgo: the user's folder is missing")
    assert "(1 user)" in told(host)
    assert "wei" not in told(host)
    await site.apply(site.policy.replace("{user}", "{account}"))
    await host.beat()
    await host.end()
    await host.granted(weiss, given="Weiß")
    assert "pass in order" == told(host)


async def test_a_file_is_not_put_where_the_user_would_never_look(site: Site) -> None:
    """The record has a file, and the folder of the folded name is missing: it is not made, the user is told."""
    one, other = site.host("ctx-01"), site.host("ctx-02")
    weiss = IDENTITIES.user("Weiß")
    (one.folder / "disk" / "weiss").mkdir()
    await one.granted(weiss)
    one.write(b"x", weiss)
    await one.end()
    site.people.add("Weiß", os.geteuid(), Path("/home/Weiß"))
    denial = await other.denied(weiss, given="Weiß")
    assert "write {account} or {home} instead of {user}" in denial.detail
    assert not (other.folder / "disk" / "weiss").exists()


async def test_a_missing_home_is_told(site: Site, home: Path) -> None:
    """A home that is not there is never made: an unmounted share would be hidden behind it."""
    host = site.host()
    await moved(host, home / ".vendor" / "cal.pgo", b"x")
    moved_to(home, home.with_name("away"))
    denial = await host.denied(JOHN, given="John")
    assert isinstance(denial, Denial)
    assert "has no home to lie in on this host: mount its share, or make the user's home" in denial.detail
    moved_to(home.with_name("away"), home)  # which fails if a home had been made
    await host.granted(JOHN, given="John")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a home that is somebody else's")
async def test_a_home_that_is_not_mounted_is_told(site: Site, home: Path) -> None:
    """An empty folder of root's stands where the share should be mounted: nothing is put into it."""
    site.people.add("John", 54321, home)
    os.chown(home, 54321, 54321)
    host = site.host()
    await host.granted(JOHN, given="John")
    (home / ".vendor").mkdir()
    (home / ".vendor" / "cal.pgo").write_bytes(b"x")
    for path in ((home / ".vendor"), (home / ".vendor" / "cal.pgo")):
        os.chown(path, 54321, 54321)
    await host.end()
    os.chown(home, 0, 0)
    denial = await host.denied(JOHN, given="John")
    assert "in a home that is not the user's: mount its share, or correct its owner" in denial.detail
