"""The operator's guide works as it stands: followed from nothing to a drained node, with the real programs."""

import os
import re
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.command_lines import commands_in, exists, is_coming
from tests.guide_hosts import BALANCER, HOSTS, Block, Farm, blocks, three_hosts
from tests.members import wait_until
from tests.samples import DEPLOY
from tests.servers import missing, require

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the guide is for Linux hosts"),
    pytest.mark.timeout(300),
]


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
        farm.type(
            "ctx-01", r"farmlease session start 'CORP\mary' --session nb --device NB-4711; farmlease session end nb"
        )
    if "node drain" in block.text and "--wait" not in block.text:
        farm.type("ctx-02", r"farmlease session start 'CORP\john' --session desk")
    if "node drain" in block.text and "--wait" in block.text:
        farm.type("ctx-02", "farmlease session end desk")


def see_it_work(farm: Farm, told: str) -> None:
    """One seat, one device, on two hosts; and it was given back."""
    assert 1 == told.count(r"granted qlikview to corp\john on ctx-02")
    assert "pass" in farm.type("ctx-03", "farmlease health")


def replaced(farm: Farm, told: str) -> None:
    """The new notebook is mary's."""
    listed = farm.type("ctx-02", r"farmlease device list 'CORP\mary' -o csv")
    assert ("NB-4712" in listed, "NB-4711" in listed) == (True, False), told


def balanced(farm: Farm, told: str) -> None:
    """HAProxy finds every host ready."""
    wait_until(
        lambda: set(farm.balanced().values()) == {"UP"} or None, f"HAProxy finds all hosts up: {farm.balanced()}"
    )


def back(farm: Farm, told: str) -> None:
    """The host takes users again."""
    start = "farmlease session start paul --session 2 && farmlease session end 2 || echo exit $?"
    wait_until(lambda: "ended" in farm.type("ctx-02", start) or None, "paul is still sent away")


def drained(farm: Farm, told: str) -> None:
    """ctx-02 takes nobody new; john, who has a session there, may come back; the others take everybody."""
    start = "farmlease session start '{}' --session {} || echo exit $?"
    # Who got in before the host has heard of it may come back: each try ends what it was given.
    in_and_out = "farmlease session start paul --session 1 && farmlease session end 1 || echo exit $?"
    wait_until(lambda: "exit" in farm.type("ctx-02", in_and_out) or None, "paul is not sent away")
    assert "granted" in farm.type("ctx-02", start.format(r"CORP\john", "desk"))
    assert "granted" in farm.type("ctx-03", start.format("paul", 1) + "; farmlease session end 1")
    if seen := farm.balanced():
        wait_until(lambda: farm.balanced()["ctx-02"].startswith("DRAIN") or None, "HAProxy drains ctx-02")
        assert ["UP", "UP"] == [seen["ctx-01"].split()[0], seen["ctx-03"].split()[0]]


def empty(farm: Farm, told: str) -> None:
    """It is said in the words that an administrator waits for."""
    assert "safe to reimage" in told


def rotated(farm: Farm, told: str) -> None:
    """One key is left, the same everywhere, and what was sealed with the old one is read with it."""
    listed = {farm.type(node, "farmlease key list -o csv").splitlines()[1].partition(",")[0] for node in HOSTS}
    assert 1 == len(listed), told
    assert "mary" in farm.type("ctx-03", "farmlease lease list")


def well(farm: Farm, told: str) -> None:
    """Nothing fails, and how Redis is set up was seen."""
    assert "fail" not in told.lower()


#: By a word of the block: what must be true after it.
AFTER: dict[str, Callable[[Farm, str], None]] = {
    "try-2": see_it_work,
    "haproxy.cfg": balanced,
    "device replace": replaced,
    "node undrain": back,
    "node drain ctx-02\n": drained,
    "node drain ctx-02 --wait": empty,
    "key rotate": rotated,
    "doctor": well,
}


def test_the_guide_is_true(farm: Farm) -> None:
    """Each block that is marked for a host is typed there, in the guide's order, and every command of it succeeds."""
    typed = [block for block in blocks() if block.hosts and can_be_typed(block)]
    done = list[str]()
    for block in typed:
        before(farm, block)
        told = farm.run(block)
        for word, check in AFTER.items():
            if word in block.text:
                check(farm, told)
                done.append(word)
    assert [word for word in AFTER if any(word in block.text for block in typed)] == sorted(done, key=[*AFTER].index)


def test_a_block_is_left_out_only_while_its_commands_are_not_there() -> None:
    """What the guide is followed without is on the list of what is coming, and nothing else."""
    commands = [line for block in blocks() if block.hosts for line in each_command(block)]
    assert 20 < len(commands)
    assert [] == [line for line in commands if not exists(line) and not is_coming(line)]


def can_be_typed(block: Block) -> bool:
    """Tell whether everything is there that a block names."""
    files = re.findall(r"deploy/([\w./-]*\w)", block.text)
    return all(map(exists, each_command(block))) and all((DEPLOY / file).exists() for file in files)


def each_command(block: Block) -> list[str]:
    """Return the commands of farmlease in a block."""
    return [command for line in block.text.splitlines() for command in commands_in(line)]


def test_what_is_not_run_is_the_installation_of_programs() -> None:
    """Two blocks change the test's own machine or need a network: Debian's packages, and pip."""
    unrun = [block for block in blocks() if not block.hosts]
    assert ["/opt/farmlease/bin/pip install ."] * len(unrun) == [
        "/opt/farmlease/bin/pip install ." for block in unrun if "pip install ." in block.text
    ]
    assert 2 == len(unrun)
    assert {BALANCER, *HOSTS} >= {host for block in blocks() for host in block.hosts}
