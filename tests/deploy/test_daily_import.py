"""What notebooks outside the farm borrowed comes in daily: the commands of the timer's service and of Windows' task."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.agents import Agents, agents_on
from tests.support.commands import Ended, typed
from tests.support.patience import within
from tests.support.samples import DEPLOY, replaced
from tests.support.servers import RedisServer

SERVICE = DEPLOY / "systemd" / "farmlease-import.service"
TASK = DEPLOY / "windows" / "import-task.ps1"
POLICY = '[[pool]]\nname = "qlikview"\nkind = "named"\ncapacity = 3\n'


def of_service(books: Path) -> list[str]:
    """Return the arguments of the service's command, with the file elsewhere."""
    (command,) = re.findall(r"^ExecStart=/opt/farmlease/bin/farmlease (.+)$", SERVICE.read_text(), re.MULTILINE)
    return shlex.split(replaced(command, {"/var/lib/farmlease-import/BorrowedCalData.csv": str(books)}))


def of_task(books: Path) -> list[str]:
    """Return the arguments of the task's command as PowerShell would make it, with the file elsewhere."""
    text = TASK.read_text(encoding="utf-8")
    (line,) = re.findall(r'^\$arguments = "(.+)"$', text, re.MULTILINE)
    values = {"$File": str(books)} | {
        f"${name}": value for name, value in re.findall(r"^ +\[string\] \$(\w+) = '(.+)'", text, re.MULTILINE)
    }
    filled = re.sub(r"\$\w+", lambda found: values[found[0]], line.replace('`"', '"'))
    return shlex.split(filled)


@pytest.fixture
def agents(server: RedisServer) -> Iterator[Agents]:
    """A farm with one host."""
    with agents_on(server.url, nodes=("ctx-01",), policy=POLICY) as running:
        yield running


@pytest.mark.parametrize("arguments", [of_service, of_task])
def test_the_daily_import_runs_as_written(agents: Agents, tmp_path: Path, arguments: object) -> None:
    """Today's books come in, tomorrow's with what is new; a bad row is listed, and the status says so."""
    assert callable(arguments)
    books, today = tmp_path / "BorrowedCalData.csv", f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    head = "UserName,MachineId,UtcBorrowTime\n"

    def night(rows: str) -> Ended:
        books.write_text(head + rows)
        return typed(agents["ctx-01"].config, *arguments(books))

    first = night(f"CORP\\john,NB-1,{today}\n")
    assert (0, "imported 1, known before 0, bad 0\n") == (first.status, first.out)
    second = night(f"CORP\\john,NB-1,{today}\nCORP\\mary,NB-2,{today}\n")
    assert (0, "imported 1, known before 1, bad 0\n") == (second.status, second.out)
    third = night(f"CORP\\john,NB-1,{today}\n,NB-3,{today}\n")
    assert (1, "imported 0, known before 1, bad 1\n") == (third.status, third.out)
    assert "line 3" in third.err


def test_what_the_notebook_borrowed_counts_as_a_device(agents: Agents, tmp_path: Path) -> None:
    """The farm is the user's other device; a third is denied, and the denial names the notebook."""
    books = tmp_path / "BorrowedCalData.csv"
    borrowed = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    books.write_text(f"UserName,MachineId,UtcBorrowTime\nCORP\\john,NB-1,{borrowed}\n")
    assert 0 == typed(agents["ctx-01"].config, *of_service(books)).status
    agent = agents["ctx-01"]
    assert 201 == agent.start("CORP\\john", "7").status
    denial = agent.start("CORP\\john", "8", device="NB-9").document
    assert "device_limit" == denial["reason"]
    assert "nb-1" in {each.get("device") for each in denial["blocking"]}


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
def test_the_timer_runs_the_service_each_night(tmp_path: Path) -> None:
    """Both are units that systemd takes, the timer is the service's by its name, and one that was missed is made up."""
    timer = DEPLOY / "systemd" / "farmlease-import.timer"
    assert SERVICE.stem == timer.stem
    text = timer.read_text()
    assert "Persistent=true" in text
    (when,) = re.findall(r"^OnCalendar=(.+)$", text, re.MULTILINE)
    told = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=2", when],
        capture_output=True,
        text=True,
        check=True,
        timeout=within(20),
    )
    assert "04:30:00" in told.stdout
    (tmp_path / SERVICE.name).write_text(
        replaced(SERVICE.read_text(), {"ExecStart=/opt/farmlease/bin/farmlease": f"ExecStart={sys.executable}"})
    )
    (tmp_path / timer.name).write_text(text)
    checked = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / SERVICE.name, tmp_path / timer.name],
        capture_output=True, text=True, check=False, timeout=within(60),
    )  # fmt: skip
    assert (0, "") == (checked.returncode, checked.stderr)
