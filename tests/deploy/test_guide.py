"""The operator's guide works as it stands: followed from nothing to a drained node, with the real programs."""

import csv
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.guide_hosts import BALANCER, HOSTS, Block, Farm, blocks, three_hosts
from tests.support.members import wait_until
from tests.support.patience import within
from tests.support.servers import missing, require

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the guide is for Linux hosts"),
    pytest.mark.timeout(1200),
]

#: Seconds in which a balancer hears of a drain, as is promised.
HEARS_WITHIN = 5.0
#: What the vendor's books say of anna, who used her licence until the day before yesterday and left.
BOOKS = r"""
printf 'UserName,MachineId,UtcBorrowTime\n%s,NB-1000,{borrowed}\n' 'CORP\anna' > books.csv
farmlease lease import books.csv --pool qlikview
farmlease lease return 'CORP\anna' --pool qlikview --yes
"""


#: What the vendor's server has exported for the nightly import.
EXPORT = r"""
install -d -m 700 /var/lib/farmlease-import
printf 'UserName,MachineId,UtcBorrowTime\n%s,NB-2000,{borrowed}\n' 'CORP\olga' > /var/lib/farmlease-import/BorrowedCalData.csv
"""


@pytest.fixture
def farm() -> Iterator[Farm]:
    """Three hosts with nothing of farmlease but its program."""
    for program in ("redis-server", "haproxy", "sha256sum"):
        require(program)
    if os.geteuid() != 0:
        missing("root, as whom the guide is followed,")
    with three_hosts() as hosts:
        yield hosts


def before(farm: Farm, block: Block) -> None:
    """Let happen what the guide takes for granted: users work on the farm meanwhile."""
    if "NB-4711" in block.text:
        nb = r"farmlease session start 'CORP\mary' --session nb --device NB-4711; farmlease session end nb"
        farm.type("ctx-01", nb)
    if "farmlease-import" in block.text:
        farm.type("ctx-01", EXPORT.format(borrowed=f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"))
    if "node drain" in block.text and "--wait" not in block.text:
        farm.type("ctx-02", r"farmlease session start 'CORP\john' --session desk")
    if "node drain" in block.text and "--wait" in block.text:
        farm.type("ctx-02", "farmlease session end desk")
    if "lease forget" in block.text:
        borrowed = datetime.now(UTC) - timedelta(hours=30)
        farm.type("ctx-01", BOOKS.format(borrowed=f"{borrowed:%Y-%m-%dT%H:%M:%SZ}"))


def see_it_work(farm: Farm, told: str) -> None:
    """One seat, one device, on two hosts; and it was given back."""
    assert 1 == told.count(r"granted qlikview to corp\john on ctx-02")
    assert "pass" in farm.type("ctx-03", "farmlease health")


def replaced(farm: Farm, told: str) -> None:
    """The new notebook is mary's."""
    listed = farm.type("ctx-02", r"farmlease device list 'CORP\mary' -o csv")
    assert ("nb-4712" in listed, "nb-4711" in listed) == (True, False), told


def imported(farm: Farm, told: str) -> None:
    """The notebook that asks no agent is known to the farm."""
    assert "nb-2000" in farm.type("ctx-02", r"farmlease device list 'CORP\olga' -o csv"), told


def balanced(farm: Farm, told: str) -> None:
    """HAProxy finds every host ready."""
    wait_until(lambda: everywhere(farm, HOSTS, "UP"), "HAProxy does not find all hosts up")


def everywhere(farm: Farm, nodes: tuple[str, ...], status: str) -> bool | None:
    """Whether HAProxy gives each of these hosts this status, in every list it has."""
    seen = {node: {each.split()[0] for each in farm.balanced()[node]} for node in nodes}
    return all(each == {status} for each in seen.values()) or None


def drained(farm: Farm, told: str) -> None:
    """HAProxy hears of it in time; ctx-02 takes nobody new, john may come back to it, the others take everybody."""
    began = time.monotonic()
    wait_until(lambda: everywhere(farm, ("ctx-02",), "EMPTYING"), "HAProxy does not drain ctx-02")
    assert time.monotonic() - began <= within(HEARS_WITHIN)
    assert everywhere(farm, ("ctx-01", "ctx-03"), "UP")
    start = "farmlease session start '{}' --session {} || echo exit $?"
    assert "exit 3" in farm.type("ctx-02", start.format("paul", 1))
    assert "granted" in farm.type("ctx-02", start.format(r"CORP\john", "desk"))
    assert "granted" in farm.type("ctx-03", start.format("paul", 1) + "; farmlease session end 1")


def empty(farm: Farm, told: str) -> None:
    """It is said in the words that an administrator waits for, and the host has left the balancer."""
    assert "safe to reimage" in told
    wait_until(lambda: everywhere(farm, ("ctx-02",), "DOWN"), "HAProxy does not notice that ctx-02 has gone")


def back(farm: Farm, told: str) -> None:
    """The host takes users again, and HAProxy hears of it in time."""
    began = time.monotonic()
    wait_until(lambda: everywhere(farm, HOSTS, "UP"), "HAProxy does not take ctx-02 back")
    assert time.monotonic() - began <= within(HEARS_WITHIN)
    assert "granted" in farm.type("ctx-02", "farmlease session start paul --session 2 && farmlease session end 2")


def audited(farm: Farm, told: str) -> None:
    """What was done so far is in the export, by name, with reasons; and seats were counted."""
    assert "qlikview" in told
    place = farm.base / "ctx-01" / "var/lib/farmlease"
    rows = [*csv.DictReader((place / "audit.csv").read_text(encoding="utf-8").splitlines())]
    events = {row["event"] for row in rows}
    assert {"policy_applied", "acquired", "returned", "device_replaced", "revoked", "drained", "undrained"} <= events
    (revoked,) = [row for row in rows if row["event"] == "revoked"]
    assert (r"corp\mary", "left the company") == (revoked["user"], revoked["note"])
    hours = [*csv.DictReader((place / "usage.csv").read_text(encoding="utf-8").splitlines())]
    assert 2 <= max(int(row["peak"]) for row in hours)


def rotated(farm: Farm, told: str) -> None:
    """One key is left, the same everywhere, and what was sealed with the old one is read with it."""
    listed = {farm.type(node, "farmlease key list -o csv").splitlines()[1].partition(",")[0] for node in HOSTS}
    assert 1 == len(listed), told
    assert "mary" in farm.type("ctx-03", "farmlease lease list")
    wait_until(lambda: everywhere(farm, HOSTS, "UP"), "a host is not back after its restart")


def forgotten(farm: Farm, told: str) -> None:
    """Her name is nowhere, and what happened is."""
    trail = [*csv.DictReader(farm.type("ctx-02", "farmlease audit --pool qlikview -o csv").splitlines())]
    (imported,) = [row for row in trail if row["event"] == "imported" and "olga" not in row["user"]]
    assert {"imported", "returned", "forgotten"} == {row["event"] for row in trail if row["index"] == imported["index"]}
    assert not any("anna" in str(row) for row in trail)
    assert any(row["user"] == r"corp\mary" for row in trail)


def well(farm: Farm, told: str) -> None:
    """Nothing fails, and how Redis is set up was seen."""
    assert "fail" not in told.lower()


#: By a word of the block: what must be true after it.
AFTER: dict[str, Callable[[Farm, str], None]] = {
    "haproxy.cfg": balanced,
    "try-2": see_it_work,
    "device replace": replaced,
    "farmlease-import": imported,
    "node drain ctx-02\n": drained,
    "node drain ctx-02 --wait": empty,
    "node undrain": back,
    "audit.csv": audited,
    "key rotate": rotated,
    "lease forget": forgotten,
    "doctor": well,
}


def test_the_guide_is_true(farm: Farm) -> None:
    """Each block that is marked for a host is typed there, in the guide's order, and every command of it succeeds."""
    done = list[str]()
    for block in blocks():
        if not block.hosts:
            continue
        before(farm, block)
        told = farm.run(block)
        for word, check in AFTER.items():
            if word in block.text:
                check(farm, told)
                done.append(word)
    assert [*AFTER] == done


def test_what_is_not_run_is_the_installation_of_programs() -> None:
    """Two blocks change the test's own machine or need a network: Debian's packages, and pip."""
    unrun = [block for block in blocks() if not block.hosts]
    assert ["/opt/farmlease/bin/pip install ."] * len(unrun) == [
        "/opt/farmlease/bin/pip install ." for block in unrun if "pip install ." in block.text
    ]
    assert 2 == len(unrun)
    assert {BALANCER, *HOSTS} >= {host for block in blocks() for host in block.hosts}
