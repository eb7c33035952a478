"""Nothing of the machines is left, whatever the test dies of, and nothing of the real one is touched."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.desktops.machine import machine
from tests.support.agents import soon
from tests.support.samples import ROOT

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("root")]

_TWO_MACHINES = """
import sys, time
from pathlib import Path
from tests.desktops.machine import machine
logs = Path(sys.argv[1])
with machine("outer", logs) as outer, machine("inner", logs, outer) as inner:
    inner.start("program", "sleep", "1000")
    print(outer.first.pid, inner.first.pid, flush=True)
    time.sleep(1000)
"""


def test_all_of_it_ends_with_the_test_that_is_killed(tmp_path: Path) -> None:
    """``kill -9`` of the test is the end of both machines and of the program on the inner one."""
    test = subprocess.Popen(
        [sys.executable, "-c", _TWO_MACHINES, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with test:
        assert test.stdout is not None
        firsts = [psutil.Process(int(word)) for word in test.stdout.readline().split()]
        assert 2 == len(firsts)
        below = [*firsts, *psutil.Process(test.pid).children(recursive=True)]
        test.kill()
    soon(lambda: not any(each.is_running() for each in below), f"still there: {below}")


def test_a_machine_dies_alone(tmp_path: Path) -> None:
    """Killing the inner one ends its programs; the outer one goes on."""
    with machine("outer", tmp_path) as outer, machine("inner", tmp_path, outer) as inner:
        program = inner.start("program", "sleep", "1000")
        inner.kill()
        assert 0 != program.wait(10)
        assert "outer" == outer.run("hostname").stdout.strip()


def test_a_machine_has_nothing_of_another(tmp_path: Path) -> None:
    """Its name, network, processes and temporary files are its own."""
    with machine("outer", tmp_path) as outer:
        outer.write("/tmp/here", "only\n")  # noqa: S108 - the machine's
        assert "outer" == outer.run("hostname").stdout.strip()
        assert ["lo:"] == [line.split()[1] for line in outer.run("ip", "-oneline", "link").stdout.splitlines()]
        assert "1" == outer.run("pgrep", "--oldest", "python").stdout.strip()
        assert not Path("/tmp/here").exists()  # noqa: S108 - the real one's
