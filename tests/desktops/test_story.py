"""From a logon to a seat, on real desktops: one story, told in order, and everything in it has happened before.

John, Mary and Peter are licensed by name, two seats for the three of them. Ann, Ben and Cara share two floating ones.
"""

from pathlib import Path

import pytest

from tests.desktops.farm import Farm
from tests.support.agents import soon

pytestmark = pytest.mark.timeout(120)


def test_john_logs_on_through_the_balancer_and_has_a_seat(farm: Farm, tmp_path: Path) -> None:
    """RDP, PAM, agent, store: a click on an icon takes a seat, on the host that the balancer chose."""
    there = farm.log_on("john")
    assert ["john"] == there.users()
    assert [] == farm.other(there).users()
    lease = farm.lease("john")
    assert ("qlikview", "active", [there.name]) == (
        lease["pool"],
        lease["state"],
        [s["node"] for s in lease["sessions"]],
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
