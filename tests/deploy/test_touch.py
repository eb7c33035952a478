"""The documented ways to report activity run as they stand: the command, curl, and a loop of the X desktop."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agents import RunningAgent, agents_on, soon
from tests.support.pam_hosts import executable
from tests.support.patience import turns, within
from tests.support.samples import DEPLOY, ROOT
from tests.support.servers import RedisServer, require

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="lines of a POSIX shell")

POLICY = """
[[pool]]
name = "clearquest"
kind = "floating"
capacity = 2
idle_timeout = "IDLE"
reacquire = {{ attempts = 0 }}
"""


def lines() -> list[str]:
    """Return the blocks of commands of the section."""
    text = (DEPLOY / "REFERENCE.md").read_text(encoding="utf-8").partition("## Who reports activity\n")[2]
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def idle_timeout() -> float:
    """Seconds in which a command reports several times; on a busy machine it takes longer."""
    return min(within(2), 12)


@pytest.fixture
def agent(server: RedisServer, idle_timeout: float) -> Iterator[RunningAgent]:
    """A host with two sessions: of 7 something reports, of 8 nothing does."""
    policy = POLICY.replace("IDLE", f"{idle_timeout:.0f}s")
    with agents_on(server.url, nodes=("ctx-01",), policy=policy, listen="unix") as agents:
        agent = agents["ctx-01"]
        assert [201, 201] == [agent.start("john", "7").status, agent.start("mary", "8").status]
        yield agent


def environment(agent: RunningAgent, programs: Path) -> dict[str, str]:
    """Return where the lines find farmlease, the session's id, and what else stands in ``programs``."""
    executable(
        programs / "farmlease",
        f'#!/bin/sh\nexport FARMLEASE_CONFIG={agent.config} PYTHONPATH={ROOT}\nexec {sys.executable} -m farmlease "$@"\n',
    )
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "ID": "7"}


def states(agent: RunningAgent) -> dict[str, str]:
    """Return the sessions and their states."""
    return {each["session"]: each["state"] for each in agent.request("GET", "/v1/sessions").document}


@pytest.mark.parametrize("number", [0, 1], ids=["farmlease", "curl"])
def test_one_line_keeps_the_seat(agent: RunningAgent, idle_timeout: float, tmp_path: Path, number: int) -> None:
    """Called again and again it keeps one session, while the other idles."""
    require("curl")
    line = lines()[number].replace("/run/farmlease/agent.sock", agent.listen.removeprefix("unix:"))
    for _ in turns(3 * idle_timeout):
        if states(agent)["8"] != "active":
            break
        done = subprocess.run(
            ["sh", "-euc", line],
            env=environment(agent, tmp_path),
            capture_output=True,
            text=True,
            timeout=within(30),
            check=False,
        )
        assert 0 == done.returncode, done.stderr
    assert {"7": "active", "8": "lost"} == states(agent)


def test_the_loop_of_a_desktop_keeps_the_seat_of_who_works(
    agent: RunningAgent, idle_timeout: float, tmp_path: Path
) -> None:
    """As long as xprintidle says that somebody typed lately; once it says otherwise, the session idles."""
    idle = tmp_path / "idle"
    idle.write_text("100")
    executable(tmp_path / "xprintidle", f"#!/bin/sh\ncat {idle}\n")
    executable(tmp_path / "sleep", "#!/bin/sh\nexec /bin/sleep 0.1\n")  # what is tried is the loop, and not the minute
    loop = subprocess.Popen(["sh", "-c", lines()[2]], env=environment(agent, tmp_path), stdout=subprocess.DEVNULL)
    try:
        soon(lambda: states(agent)["8"] == "lost", "who does nothing keeps the seat", 3 * idle_timeout)
        assert "active" == states(agent)["7"]
        idle.write_text("3600000")
        soon(lambda: states(agent)["7"] == "lost", "who stopped typing keeps the seat", 3 * idle_timeout)
    finally:
        loop.kill()
        loop.wait()
