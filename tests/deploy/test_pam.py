"""PAM's samples, with the real libpam: opening a session takes a seat, closing it gives the seat back."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import Agents, RunningAgent, agents_on, soon
from tests.support.samples import DEPLOY, ROOT, replaced
from tests.support.servers import RedisServer, missing, require

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PAM with pam_exec is Linux's")

ONE_SEAT = '[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 1\nshare = "session"\n'
#: A viewer needs no licence.
RULES = """
[[rule]]
apps = ["viewer"]
access = "restricted"

[[rule]]
pools = ["clearquest"]
"""
#: Notes what the agent lists, and lets an open session stay open until the test says go. Runs after the sample's script.
PROBE = """\
#!/bin/sh
{farmlease} session list -o json > "{folder}/$PAM_TTY.$PAM_TYPE.new" 2>/dev/null
mv "{folder}/$PAM_TTY.$PAM_TYPE.new" "{folder}/$PAM_TTY.$PAM_TYPE"
[ "$PAM_TYPE" = close_session ] && exit 0
while [ ! -e "{folder}/go.$PAM_TTY" ] && kill -0 $PPID; do sleep 0.05; done
"""


@dataclass(frozen=True, slots=True)
class Logon:
    """A program that opens a PAM session, waits, and closes it."""

    process: subprocess.Popen[str]
    folder: Path
    terminal: str

    def opened(self) -> list[dict[str, Any]]:
        """Return what the agent lists while the session is open."""
        return self._noted("open_session")

    def closed(self) -> list[dict[str, Any]]:
        """Let the session be closed, and return what the agent lists then."""
        self.let_go()
        return self._noted("close_session")

    def let_go(self) -> tuple[int, str]:
        """Let the session be closed; return the program's exit status and what it said."""
        (self.folder / f"go.{self.terminal}").touch()
        said, _ = self.process.communicate(timeout=60)
        return self.process.returncode, said

    def _noted(self, when: str) -> list[dict[str, Any]]:
        file = self.folder / f"{self.terminal}.{when}"
        soon(lambda: file.exists() or self.process.poll() is not None, f"no {when}")
        found: list[dict[str, Any]] = json.loads(file.read_text())
        return found


@dataclass(frozen=True, slots=True)
class Host:
    """A host whose PAM service asks farmlease."""

    service: str
    folder: Path
    agents: Agents

    @property
    def agent(self) -> RunningAgent:
        """Its agent."""
        return self.agents["ctx-01"]

    def log_on(self, user: str, terminal: str) -> Logon:
        """Open a session for a user, and keep it open."""
        command = ["pamtester", "-I", f"tty={terminal}", "--", self.service, user, "open_session", "close_session"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return Logon(process, self.folder, terminal)

    def sessions(self) -> list[str]:
        """Return whose sessions the agent has."""
        return [each["user"] for each in self.agent.request("GET", "/v1/sessions").document]


@contextmanager
def host(
    server: RedisServer, without_a_licence: str = "refuse", *, policy: str = ONE_SEAT, options: str = ""
) -> Iterator[Host]:
    """Set up the samples as an administrator does, under a service name of the test's own.

    ``options``: what stands behind the script in the PAM file.
    """
    require("pamtester")
    if os.geteuid() != 0:
        missing("root, who may add a service to /etc/pam.d,")
    service = Path("/etc/pam.d") / f"farmlease-test-{secrets.token_hex(6)}"
    with agents_on(server.url, nodes=("ctx-01",), policy=policy) as agents:
        folder = agents.folder
        farmlease = executable(
            folder / "farmlease",
            f"#!/bin/sh\nexport FARMLEASE_CONFIG={agents['ctx-01'].config} PYTHONPATH={ROOT}\n"
            f'exec {sys.executable} -m farmlease "$@"\n',
        )
        settings = {
            "farmlease=/opt/farmlease/bin/farmlease": f"farmlease={farmlease}",
            "without_a_licence=refuse": f"without_a_licence={without_a_licence}",
        }
        script = executable(folder / "pam-session", replaced((DEPLOY / "pam" / "pam-session").read_text(), settings))
        probe = executable(folder / "probe", PROBE.format(farmlease=farmlease, folder=folder))
        lines = replaced(
            (DEPLOY / "pam" / "farmlease").read_text(), {"/usr/local/lib/farmlease/pam-session": f"{script}{options}"}
        )
        service.write_text(f"{lines}session optional pam_exec.so quiet {probe}\n")
        try:
            yield Host(service.name, folder, agents)
        finally:
            service.unlink()


def executable(file: Path, text: str) -> Path:
    """Write a program."""
    file.write_text(text)
    file.chmod(0o755)
    return file


def test_an_open_session_holds_a_seat(server: RedisServer) -> None:
    """The seat is taken when the session opens and free when it is closed."""
    with host(server) as here:
        logon = here.log_on("john", "tty1")
        assert [("john", f"pam-{logon.process.pid}", "active")] == [
            (each["user"], each["session"], each["state"]) for each in logon.opened()
        ]
        assert [] == logon.closed()
        assert 0 == logon.process.returncode
        assert 0 == here.log_on("mary", "tty2").let_go()[0]


def test_who_is_denied_does_not_get_in(server: RedisServer) -> None:
    """With refuse the logon fails, and the user reads why."""
    with host(server) as here:
        first = here.log_on("john", "tty1")
        first.opened()
        status, said = here.log_on("mary", "tty2").let_go()
        assert 0 != status
        assert "denied: " in said
        assert "john" not in said
        assert ["john"] == here.sessions()
        assert [] == first.closed()


def test_who_is_denied_gets_in_without_a_licence(server: RedisServer) -> None:
    """With admit the logon succeeds, no seat is taken, and closing it takes nobody else's."""
    with host(server, "admit") as here:
        first = here.log_on("john", "tty1")
        first.opened()
        second = here.log_on("mary", "tty2")
        assert ["john"] == [each["user"] for each in second.opened()]
        assert ["john"] == [each["user"] for each in second.closed()]
        assert 0 == second.process.returncode
        assert [] == first.closed()


@pytest.mark.parametrize(("choice", "gets_in"), [("refuse", False), ("admit", True)])
def test_an_agent_that_is_away_is_a_denial(server: RedisServer, choice: str, gets_in: bool) -> None:  # noqa: FBT001 - a column of the table
    """Nobody could be asked: the same choice decides, and root gets in all the same."""
    with host(server, choice) as here:
        here.agent.terminate()
        status, said = here.log_on("john", "tty1").let_go()
        assert gets_in == (status == 0)
        assert "no agent answers" in said
        assert 0 == here.log_on("root", "tty2").let_go()[0]


def test_accounts_of_the_system_need_no_licence(server: RedisServer) -> None:
    """Root logs on and no seat is taken."""
    with host(server) as here:
        logon = here.log_on("root", "tty1")
        assert [] == logon.opened()
        assert 0 == logon.let_go()[0]


def test_two_sessions_of_a_user_are_two(server: RedisServer) -> None:
    """Each is closed by itself, in any order."""
    with host(server) as here:
        apply_two_seats(here)
        first, second = here.log_on("john", "tty1"), here.log_on("john", "tty2")
        soon(lambda: here.sessions() == ["john", "john"], "there are not two sessions")
        assert [f"pam-{second.process.pid}"] == [each["session"] for each in first.closed()]
        assert [] == second.closed()


def apply_two_seats(here: Host) -> None:
    """Let two sessions be open at once."""
    policy = here.folder / "pools.toml"
    policy.write_text(ONE_SEAT.replace("capacity = 1", "capacity = 2"))
    subprocess.run([here.folder / "farmlease", "pool", "apply", policy, "--yes"], check=True, capture_output=True)


def test_a_program_that_dies_gives_its_seat_back(server: RedisServer) -> None:
    """Killed before it could close its session: the agent sees that the process is gone."""
    with host(server) as here:
        logon = here.log_on("john", "tty1")
        logon.opened()
        logon.process.kill()
        with suppress(subprocess.TimeoutExpired):
            logon.process.communicate(timeout=20)
        soon(lambda: here.sessions() == [], "the seat is still held")


def test_a_name_that_looks_like_an_option_is_a_name(server: RedisServer) -> None:
    """Whoever may choose a user's name chooses no option of the command."""
    with host(server) as here:
        status, said = here.log_on("--help", "tty1").let_go()
        assert "would pass for an option" in said
        assert 0 != status
        assert [] == here.sessions()


@pytest.mark.parametrize(("options", "taken"), [(" --app viewer", []), ("", ["john"])])
def test_a_service_that_opens_one_program_names_it(server: RedisServer, options: str, taken: list[str]) -> None:
    """What stands behind the script in the PAM file is an option of the start, and a rule about the program matches."""
    with host(server, policy=ONE_SEAT + RULES, options=options) as here:
        logon = here.log_on("john", "tty1")
        assert taken == [each["user"] for each in logon.opened()]
        assert [] == logon.closed()
        assert 0 == logon.process.returncode
