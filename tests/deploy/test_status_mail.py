"""News of the farm come by mail, and only news: the script of the timer's service, and the task of Windows."""

import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.support.agents import Agents, agents_on
from tests.support.command_lines import check
from tests.support.patience import within
from tests.support.samples import DEPLOY, replaced
from tests.support.servers import RedisServer

SCRIPT = DEPLOY / "systemd" / "mail-status"
SERVICE = DEPLOY / "systemd" / "farmlease-status.service"
TASK = DEPLOY / "windows" / "status-task.xml"
POWERSHELL = DEPLOY / "windows" / "mail-status.ps1"
POLICY = '[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 1\n'
IN_XML = {"t": "http://schemas.microsoft.com/windows/2004/02/mit/task"}
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")


@pytest.fixture
def agents(server: RedisServer) -> Iterator[Agents]:
    """A farm with one host."""
    with agents_on(server.url, nodes=("ctx-01",), policy=POLICY) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Post:
    """The script as installed, with programs of this test in the place of farmlease and of those that take mail."""

    folder: Path
    script: Path

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run it as the service does."""
        (command,) = re.findall(r"^ExecStart=(.+)$", SERVICE.read_text(), re.MULTILINE)
        typed = replaced(
            command,
            {
                "/usr/local/lib/farmlease/mail-status": str(self.script),
                "${MAILTO}": "root",
                "/var/lib/farmlease-status": str(self.folder / "state"),
            },
        )
        environ = {**os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        return subprocess.run(
            shlex.split(typed), capture_output=True, text=True, check=False, timeout=within(60), env=environ
        )

    def program(self, path: Path, text: str) -> None:
        """Write a program."""
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def mails(self) -> list[str]:
        """Return what was sent."""
        return [file.read_text() for file in sorted(self.folder.glob("sent-*"))]


@pytest.fixture
def post(agents: Agents, tmp_path: Path) -> Post:
    """A host that mails its news."""
    (tmp_path / "state").mkdir(mode=0o700)
    farmlease, sendmail = tmp_path / "bin" / "farmlease", tmp_path / "bin" / "sendmail"
    found = Post(tmp_path, tmp_path / "mail-status")
    words = shlex.join([sys.executable, "-m", "farmlease", "--config", str(agents["ctx-01"].config)])
    found.program(farmlease, f'exec {words} "$@"')
    found.program(sendmail, f'{{ echo "$@"; cat; }} > {tmp_path}/sent-$$')
    text = replaced(
        SCRIPT.read_text(), {"/opt/farmlease/bin/farmlease": str(farmlease), "/usr/sbin/sendmail": str(sendmail)}
    )
    found.script.write_text(text)
    found.script.chmod(0o755)
    return found


@linux_only
def test_only_news_are_mailed(agents: Agents, post: Post) -> None:
    """What is wrong at first, then nothing, then what became wrong since."""
    assert 0 == post.run().returncode
    (first,) = post.mails()
    head, _, body = first.partition("\n\n")
    assert re.match(rf"-i -t\nTo: root\nSubject: farmlease: \d+ wrong, 0 right \(by {os.uname().nodename}\)\n", head)
    assert all(line.startswith("wrong: ") for line in body.splitlines())
    known = post.folder / "state" / "known"
    assert (0o600, ["known"]) == (stat.S_IMODE(known.stat().st_mode), [each.name for each in known.parent.iterdir()])
    assert (0, "", "") == ((again := post.run()).returncode, again.stdout, again.stderr)
    assert [first] == post.mails()
    for number in range(6):
        agents["ctx-01"].start(f"user-{number}", str(number), pool="clearquest")
    assert 0 == post.run().returncode
    (news,) = {*post.mails()} - {first}
    assert "Subject: farmlease: 1 wrong, 0 right" in news
    assert "\n\nwrong: denials: 5 people were denied within 10 minutes (clearquest 5); " in news
    assert 1 == len(re.findall(r"^wrong: ", news, re.MULTILINE))


@linux_only
def test_news_that_could_not_be_sent_are_sent_the_next_time(post: Post) -> None:
    """The service failed then, and nothing counts as told. Without sendmail it is `mail` that takes it."""
    sendmail = post.folder / "bin" / "sendmail"
    post.program(sendmail, "cat >/dev/null; exit 75")
    assert 75 == post.run().returncode
    assert not (post.folder / "state" / "known").exists()
    sendmail.unlink()
    post.program(post.folder / "bin" / "mail", f'{{ echo "$@"; cat; }} > {post.folder}/sent-$$')
    assert 0 == post.run().returncode
    (mail,) = post.mails()
    assert re.match(r"-s farmlease: \d+ wrong, 0 right \(by \S+\) root\nwrong: ", mail)


@linux_only
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """Both are units that systemd takes, the timer is the service's by its name and comes every five minutes."""
    timer = DEPLOY / "systemd" / "farmlease-status.timer"
    assert SERVICE.stem == timer.stem
    (when,) = re.findall(r"^OnCalendar=(.+)$", timer.read_text(), re.MULTILINE)
    told = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=3", when],
        capture_output=True, text=True, check=True, timeout=within(20),
    )  # fmt: skip
    assert {0} == {int(minute) % 5 for minute in re.findall(r"\d\d:(\d\d):00", told.stdout)}
    (tmp_path / SERVICE.name).write_text(
        replaced(SERVICE.read_text(), {"/usr/local/lib/farmlease/mail-status": str(SCRIPT)})
    )
    (tmp_path / timer.name).write_text(timer.read_text())
    checked = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / SERVICE.name, tmp_path / timer.name],
        capture_output=True, text=True, check=False, timeout=within(60),
    )  # fmt: skip
    assert (0, "") == (checked.returncode, checked.stderr)
    assert stat.S_IMODE(SCRIPT.stat().st_mode) & 0o111


def test_the_shell_takes_the_script() -> None:
    """It is POSIX shell."""
    subprocess.run(["sh", "-n", str(SCRIPT)], check=True, timeout=within(20))


def test_the_task_of_windows_runs_its_script() -> None:
    """The XML is whole and in ASCII, without an encoding that schtasks could take amiss; the script's parameters exist."""
    text = TASK.read_bytes().decode("ascii")
    assert ("NOT TRIED ON WINDOWS" in text, "<?xml" in text) == (True, False)
    task = ET.fromstring(text)  # noqa: S314 - our own file

    def one(path: str) -> str:
        (found,) = task.findall("/".join(f"t:{name}" for name in path.split("/")), IN_XML)
        return found.text or ""

    assert "PT5M" == one("Triggers/TimeTrigger/Repetition/Interval")
    assert ("S-1-5-18", "IgnoreNew") == (one("Principals/Principal/UserId"), one("Settings/MultipleInstancesPolicy"))
    assert one("Actions/Exec/Command").endswith(r"\powershell.exe")
    words = one("Actions/Exec/Arguments")
    assert rf"\farmlease\{POWERSHELL.name}" in words
    given = re.findall(r" -([A-Z][a-z]+) \S+@?\S+", words.partition(".ps1")[2])
    script = POWERSHELL.read_text(encoding="utf-8")
    assert set(re.findall(r"\[Parameter\(Mandatory\)\] \[string\] \$(\w+)", script)) == set(given)


def test_the_script_of_windows_asks_as_the_one_of_linux_does() -> None:
    """The same command, by a copy of what is known, which counts once the mail was sent."""
    script = POWERSHELL.read_text(encoding="utf-8")
    (typed,) = re.findall(r"& \$Program (.*?)\)", script)
    check(shlex.split(typed))
    (ours,) = re.findall(r"/opt/farmlease/bin/farmlease (.*?)\)", SCRIPT.read_text())
    assert ours.replace('"', "") == typed
    order = [script.index(each) for each in ("Copy-Item $known", "status --changed $next", "Send-Mail", "Move-Item")]
    assert sorted(order) == order
