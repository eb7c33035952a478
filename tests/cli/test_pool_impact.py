"""Whom a policy touches, and what a pool shows of itself while policies change: nobody loses a seat by one."""

import json
from typing import Any

import pytest

from tests.support.commands import QLIKVIEW, ClockedHost, Host

MINUTE = 60_000
NUMBERS = {"quarantined": 0, "reserved": 0, "queued": 0}
CLEARQUEST = '[[pool]]\nname = "clearquest"\nkind = "named"\ncapacity = 1\n'
#: Without it a session that names no pool gets none of two, and each command here would warn of that.
EVERYONE = "[[rule]]\npools = ['qlikview']\n"
USE = {"name": "qlikview", "kind": "named", "capacity": 3, "used": 0, "free": 0} | NUMBERS


def shown(host: Host) -> dict[str, Any]:
    """Return what ``pool show`` shows of the first pool."""
    use: dict[str, Any] = json.loads(host.run("pool", "show", "qlikview", "-o", "json").out)
    return use


def used_and_free(host: Host) -> tuple[int, int]:
    """Return how many seats of the first pool are used, and how many are free."""
    use = shown(host)
    return use["used"], use["free"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            QLIKVIEW.replace("3", "1") + "devices_per_user = 1\n" + CLEARQUEST + "sessions_per_user = 1\n",
            [
                "changed pool qlikview: capacity 3 to 1, devices_per_user 2 to 1",
                "changed pool clearquest: sessions_per_user 3 to 1",
                (
                    "affected: 3 seats of pool qlikview are held, 2 above the new capacity; "
                    "they stay, and no new user gets one until fewer are held"
                ),
                "affected: 1 user with more than 1 device in pool qlikview: john",
                "affected: 1 user with more than 1 session in pool clearquest: zoe",
            ],
        ),
        (
            QLIKVIEW,
            [
                "removed pool clearquest",
                "affected: 1 user with leases in the removed pool clearquest: zoe",
                "lost: session s-zoe-NB-2 of zoe on ctx-01 in pool clearquest",
                "lost: session s-zoe-citrix-a of zoe on ctx-01 in pool clearquest",
                (
                    "the leases of pool clearquest stay listed until they end, and `farmlease lease return USER --pool "
                    "clearquest` gives one back"
                ),
            ],
        ),
        (
            QLIKVIEW.replace("named", "floating") + CLEARQUEST + "sessions_per_user = 3\n",
            [
                "changed pool qlikview: kind named to floating, devices_per_user 2 to 0",
                "affected: 3 users with named leases in pool qlikview, which becomes floating: john, mary, zoe",
            ],
        ),
        (
            QLIKVIEW + "devices_per_user = 0\nquarantine = '1h'\n" + CLEARQUEST + "sessions_per_user = 3\n",
            ["changed pool qlikview: devices_per_user 2 to 0, quarantine 1d to 1h"],
        ),
    ],
)
def test_a_dry_run_says_who_would_be_affected(host: Host, text: str, told: list[str]) -> None:
    """Leases in a removed pool, seats above a lower capacity, users above a lower limit; nobody else is named."""
    host.apply(QLIKVIEW + CLEARQUEST + "sessions_per_user = 3\n" + EVERYONE)
    host.lend("john", "mary", "zoe", ended=True)
    host.lend("john", device="NB-1", ended=True)
    host.lend("zoe", pool="clearquest")
    host.lend("zoe", pool="clearquest", device="NB-2")
    ended = host.run("pool", "apply", host.write(text + EVERYONE), "--dry-run")
    assert (0, "") == (ended.status, ended.err)
    assert [*told, "dry run: nothing was applied"] == ended.out.splitlines()


def test_many_who_are_affected_are_counted(host: Host) -> None:
    """Ten names are told, of the others the number."""
    users = [f"user-{number:02}" for number in range(13)]
    host.apply(QLIKVIEW.replace("3", "20") + CLEARQUEST)
    host.lend(*users)
    out = host.run("pool", "apply", host.write(CLEARQUEST), "--dry-run").out
    assert f"affected: 13 users with leases in the removed pool qlikview: {', '.join(users[:10])} and 3 more\n" in out


def test_a_host_that_a_pool_no_longer_has_is_told(host: Host) -> None:
    """Who works there on a licence of that host goes on, and is named."""
    locked = '[[pool]]\nname = "locked"\nkind = "node_locked"\nnodes = ["ctx-01", "ctx-02"]\n'
    host.apply(locked)
    host.lend("john", pool="locked")
    out = host.run("pool", "apply", host.write(locked.replace('"ctx-01", ', "")), "--dry-run").out
    assert "affected: 1 user with sessions on hosts that pool locked no longer has: john\n" in out
    out = host.run("pool", "apply", host.write(locked.replace(', "ctx-02"', "")), "--dry-run").out
    assert "affected" not in out


def test_a_lower_capacity_evicts_nobody_and_lets_nobody_in(clocked: ClockedHost) -> None:
    """09:00 three of three work; 09:01 the capacity is one: all go on; 09:02 two end; the next gets in at the third."""
    clocked.apply(QLIKVIEW.replace("named", "floating"))
    for user in ("john", "mary", "zoe"):
        clocked.lend(user)
    clocked.clock.advance(MINUTE)
    assert (
        0 == clocked.run("pool", "apply", clocked.write(QLIKVIEW.replace("named", "floating").replace("3", "1"))).status
    )
    assert (3, 0) == used_and_free(clocked)
    for user in ("john", "mary"):
        clocked.clock.advance(MINUTE)
        clocked.end(user)
        with pytest.raises(AssertionError, match="capacity"):
            clocked.lend("paul")
    clocked.end("zoe")
    clocked.lend("paul")
    assert (1, 0) == used_and_free(clocked)


def test_reserved_seats_are_shown_while_nobody_uses_them(host: Host) -> None:
    """Two of three are kept for the directors: both unused, then one, then none; always a part of what is free."""
    host.apply(QLIKVIEW + "reserve = [{ users = ['dir-*'], seats = 2 }]\n")
    assert {**USE, "free": 3, "reserved": 2} == shown(host)
    host.lend("john")
    assert {**USE, "used": 1, "free": 2, "reserved": 2} == shown(host)
    host.lend("dir-ann")
    assert {**USE, "used": 2, "free": 1, "reserved": 1} == shown(host)
    host.lend("dir-bob")
    assert {**USE, "used": 3} == shown(host)


def test_a_reservation_made_too_late_is_no_free_seat(host: Host) -> None:
    """L1: three of three are held when a seat is reserved: nothing is free, so no reserved seat is shown as such."""
    host.apply(QLIKVIEW)
    host.lend("john", "mary", "zoe")
    host.apply(QLIKVIEW + "reserve = [{ users = ['dir-*'], seats = 2 }]\n")
    assert {**USE, "used": 3} == shown(host)
    with pytest.raises(AssertionError, match="capacity"):
        host.lend("dir-ann")


def test_a_reservation_that_is_gone_hides_none_of_another(host: Host) -> None:
    """Ann sits on a reserved seat of a policy that is gone; the new one's two reserved seats are both unused."""
    host.apply(QLIKVIEW + "reserve = [{ users = ['dir-*'], seats = 1 }]\n")
    host.lend("dir-ann")
    host.apply(QLIKVIEW + "reserve = [{ users = ['boss'], seats = 2 }]\n")
    assert {**USE, "used": 1, "free": 2, "reserved": 2} == shown(host)
