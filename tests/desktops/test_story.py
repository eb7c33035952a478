"""From a logon to a seat, on real desktops: one story, told in order, and everything in it has happened before.

John, Mary and Peter are licensed by name, two seats for the three of them. Ann, Ben and Cara share two floating ones.
"""

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

from tests.desktops.farm import Farm
from tests.desktops.office import BALANCER, SERVERS
from tests.support.agents import soon

pytestmark = pytest.mark.timeout(180)


def nodes(lease: dict[str, Any]) -> list[str]:
    """Return where the sessions of a lease are."""
    return [each["node"] for each in lease["sessions"]]


def test_john_logs_on_through_the_balancer_and_has_a_seat(farm: Farm, tmp_path: Path) -> None:
    """RDP, PAM, agent, store: a click on an icon takes a seat, on the host that the balancer chose."""
    there = farm.log_on("john")
    assert ["john"] == there.users()
    assert [] == farm.other(there).users()
    lease = farm.lease("john")
    assert ("qlikview", "active", [there.name]) == (
        lease["pool"],
        lease["state"],
        nodes(lease),
    )
    assert 1 == farm.used("qlikview")
    farm.desks["john"].picture(tmp_path / "desktop.png")


def test_he_borrows_a_licence_and_logs_off(farm: Farm) -> None:
    """The vendor's program leaves a file in his home; at the end of the session the seat stays his and is idle."""
    (there,) = farm.at_work("john")
    farm.desks["john"].type("borrow")
    soon(there.licence_file("john").exists, "he borrowed nothing")
    farm.files["john"] = there.licence_file("john").read_bytes()
    farm.log_off("john")
    assert {"john": "idle"} == farm.leases("qlikview")
    assert [] == farm.lease("john")["sessions"]


def test_he_is_sent_to_the_other_host_and_his_licence_is_there(farm: Farm) -> None:
    """The file came to the byte, and it is one seat and one device, as before."""
    first = farm.last_seen["john"]
    with farm.office.out(first.name):
        there = farm.log_on("john")
    assert there is not first
    assert farm.files["john"] == there.licence_file("john").read_bytes()
    lease = farm.lease("john")
    assert ([there.name], ["citrix-a"]) == (nodes(lease), [each["device"] for each in lease["devices"]])
    assert 1 == farm.used("qlikview")


def test_homes_that_both_hosts_see_keep_the_file_while_he_works_on_one(farm: Farm) -> None:
    """He works on one host and looks in on the other: as he leaves that one, the file stays where he works."""
    farm.log_off("john")
    with farm.shared_homes():
        there = farm.log_on("john")
        assert farm.files["john"] == there.licence_file("john").read_bytes()
        other = farm.other(there)
        seen = farm.desks["john"].ssh(other.address, "sha256sum .qlikview/BorrowedCalData.pgo")
        assert hashlib.sha256(farm.files["john"]).hexdigest() == seen.stdout.split()[0]
        soon(lambda: [there.name] == nodes(farm.lease("john")), "his other session does not end")
        time.sleep(1)  # what must not happen would happen now
        assert farm.files["john"] == there.licence_file("john").read_bytes()
        farm.desks["john"].type("borrow")
        soon(lambda: farm.files["john"] != there.licence_file("john").read_bytes(), "he borrowed nothing")
        farm.files["john"] = there.licence_file("john").read_bytes()
        farm.log_off("john")
    there = farm.log_on("john")
    assert farm.files["john"] == there.licence_file("john").read_bytes()
    assert 1 == farm.used("qlikview")


def test_the_third_user_is_refused_and_told_why(farm: Farm, tmp_path: Path) -> None:
    """Two named seats, held by John and Mary: xrdp gives Peter no desktop, sshd no shell, and both hear the same reason."""
    farm.log_on("mary")
    reason = "All seats of pool qlikview are taken (2 of 2)"
    assert reason in farm.refused("peter")
    farm.desks["peter"].read_and_close(tmp_path / "refused.png")
    for host in farm.hosts.values():
        ended = farm.desks["peter"].ssh(host.address, "echo I am in")
        assert 0 != ended.returncode
        assert reason in ended.stdout + ended.stderr
        assert "I am in" not in ended.stdout
        assert not host.runs_for_nobody(), "what showed the reason is there still"
    assert {"john": "active", "mary": "active"} == farm.leases("qlikview")


def test_a_floating_seat_is_the_next_ones_at_once(farm: Farm, tmp_path: Path) -> None:
    """Cara finds both seats taken; as soon as Ann has logged off she gets in."""
    farm.log_on("ann")
    farm.log_on("ben")
    assert "All seats of pool clearquest are taken (2 of 2)" in farm.refused("cara")
    farm.desks["cara"].read_and_close(tmp_path / "refused.png")
    farm.log_off("ann")
    farm.log_on("cara")
    assert {"ben": "active", "cara": "active"} == farm.leases("clearquest")


def test_nobody_new_lands_on_a_drained_host_but_who_is_on_it_comes_back(farm: Farm) -> None:
    """Ben's window is closed and opened again: it is the same desktop. Ann, who has none, is sent to the other host."""
    (drained,) = farm.at_work("ben")
    drained.farmlease("node", "drain", drained.name)
    farm.office.wait_state(drained.name, "FULL")
    shell = drained.shell("ben")
    farm.desks["ben"].hang_up()
    assert drained is farm.log_on("ben")
    assert shell == drained.shell("ben")
    farm.log_off("cara")
    assert drained is not farm.log_on("ann")
    ended = farm.desks["cara"].ssh(drained.address, "echo I am in")
    assert 0 != ended.returncode
    assert "takes no new sessions" in ended.stdout + ended.stderr
    drained.farmlease("node", "undrain", drained.name)
    farm.office.wait_state(drained.name, "UP")


def test_the_store_fails_over_while_people_work(farm: Farm) -> None:
    """The master is killed: who works goes on, who logs off gives back, and who logs on gets what was given back."""
    master = farm.office.master()
    farm.office.fail_over()
    farm.log_off("ann")
    farm.log_on_patiently("cara")
    soon(
        lambda: {"ben": "active", "cara": "active"} == farm.leases("clearquest"), "seats are wrong after the fail-over"
    )
    assert {"john": "active", "mary": "active"} == farm.leases("qlikview")
    farm.office.start_server(master, "--replicaof", BALANCER, str(SERVERS[farm.office.master()]))


def test_a_host_dies_and_its_users_log_on_elsewhere(farm: Farm) -> None:
    """All of a host is killed at once. The balancer sees it; its users work on the other host, with the seats they had."""
    (dead,) = farm.at_work("john")
    users = [user for user in farm.desks if dead in farm.at_work(user)]
    other = farm.other(dead)
    farm.lose(dead)
    for user in users:
        assert other is farm.log_on(user)
    assert farm.files["john"] == other.licence_file("john").read_bytes()
    assert {"john": "active", "mary": "active"} == farm.leases("qlikview")
    assert {"ben": "active", "cara": "active"} == farm.leases("clearquest")


def test_nobody_was_over_the_limit_at_any_time(farm: Farm) -> None:
    """Neither seats in the store nor people at work, by hundreds of looks; and the audit says who was refused."""
    assert 100 < farm.watch.looks
    assert dict.fromkeys(farm.watch.most, 2) == farm.watch.most
    assert (2, 2) == (farm.used("qlikview"), farm.used("clearquest"))
    assert {"peter", "cara"} == {each["user"] for each in farm.audit() if each["event"] == "denied"}
