"""Does the program accept the file? The document's five minutes, with programs of each kind, on two hosts."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agents import Agents, agents_on
from tests.support.commands import typed
from tests.support.samples import DEPLOY
from tests.support.servers import RedisServer

#: A program of a vendor: started on a host with the file, it may write the file, and returns how many it has borrowed.
Program = Callable[[Path, str], int]


def of_the_user(file: Path, machine: str) -> int:
    """A program that looks at the user alone: whoever has the file has the licence."""
    if file.exists():
        return 0
    file.write_text("a licence of john's\n")
    return 1


def up_to_date(file: Path, machine: str) -> int:
    """One that notes where it was used last."""
    borrowed = of_the_user(file, machine)
    file.write_text(f"{file.read_text().splitlines()[0]}\nlast used on {machine}\n")
    return borrowed


def of_the_machine(file: Path, machine: str) -> int:
    """A program whose licence holds the machine's id, and which borrows anew where that is another one."""
    if file.exists() and machine in file.read_text():
        return 0
    file.write_text(f"a licence of john's on {machine}\n")
    return 1


@pytest.fixture
def agents(server: RedisServer) -> Iterator[Agents]:
    """Two hosts and the usual pool."""
    with agents_on(server.url) as running:
        yield running


def version(agents: Agents, node: str) -> int:
    """Type the document's command on a host; return the version that counts."""
    section = (
        (DEPLOY / "REFERENCE.md").read_text(encoding="utf-8").partition("### Does the program accept the file?")[2]
    )
    (line,) = re.findall(r"^ *farmlease (lease files .+)$", section, re.MULTILINE)
    listed = json.loads(typed(agents[node].config, *shlex.split(line), "-o", "json").out)
    (current,) = [each["version"] for each in listed if each["state"] == "current"]
    return int(current)


def worked(agents: Agents, node: str, program: Program) -> int:
    """Log john on, let him start and end the program, and log him off; return how many licences it borrowed."""
    agent, file = agents[node], agents.licence_file("john")
    file.parent.mkdir(parents=True, exist_ok=True)
    assert 201 == agent.start("CORP\\john", f"{node}-1").status
    borrowed = program(file, node)
    assert 200 == agent.request("POST", f"/v1/sessions/{node}-1/save").status
    assert 204 == agent.end(f"{node}-1").status
    return borrowed


@pytest.mark.parametrize(
    ("program", "same", "licences"), [(of_the_user, True, 1), (up_to_date, False, 1), (of_the_machine, False, 2)]
)
def test_the_five_minutes_tell(agents: Agents, program: Program, same: bool, licences: int) -> None:  # noqa: FBT001 - a column
    """Version and vendor's books are as in the document's table; and for the farm it is one seat in any case."""
    borrowed = worked(agents, "ctx-01", program)
    before = version(agents, "ctx-01")
    borrowed += worked(agents, "ctx-02", program)
    assert (same, licences) == (version(agents, "ctx-02") == before, borrowed)
    assert 1 == json.loads(typed(agents["ctx-01"].config, "pool", "show", "qlikview", "-o", "json").out)["used"]
