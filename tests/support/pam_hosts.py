"""PAM on a host that asks farmlease: the samples under a service name of the test's own, opened by the real libpam."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.account_files import AccountFiles
from tests.support.agents import Agents, RunningAgent, agents_on, soon
from tests.support.patience import within
from tests.support.samples import DEPLOY, ROOT, replaced
from tests.support.servers import RedisServer, missing, require

__all__ = ["Logon", "PamHost", "executable", "pam_host", "pam_service"]

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
        said, _ = self.process.communicate(timeout=within(60))
        return self.process.returncode, said

    def _noted(self, when: str) -> list[dict[str, Any]]:
        file = self.folder / f"{self.terminal}.{when}"
        soon(lambda: file.exists() or self.process.poll() is not None, f"no {when}")
        found: list[dict[str, Any]] = json.loads(file.read_text())
        return found


@dataclass(frozen=True, slots=True)
class PamHost:
    """A host whose PAM service asks farmlease."""

    service: str
    folder: Path
    agents: Agents
    accounts: AccountFiles | None = None  #: its users, where they are not this machine's

    @property
    def agent(self) -> RunningAgent:
        """Its agent."""
        return next(iter(self.agents))

    def log_on(self, user: str, terminal: str, within: Sequence[str] = ()) -> Logon:
        """Open a session for a user, and keep it open. ``within``: what runs a command where it is to be run."""
        command = ["pamtester", "-I", f"tty={terminal}", "--", self.service, user, "open_session", "close_session"]
        if self.accounts is not None:
            command = self.accounts.command([require(command[0]), *command[1:]])
        process = subprocess.Popen([*within, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return Logon(process, self.folder, terminal)

    def sessions(self) -> list[str]:
        """Return whose sessions the agent has."""
        return [each["user"] for each in self.agent.request("GET", "/v1/sessions").document]


@contextmanager
def pam_host(
    server: RedisServer, policy: str, without_a_licence: str = "refuse", *, options: str = ""
) -> Iterator[PamHost]:
    """Set up the samples as an administrator does, under a service name of the test's own, with an agent.

    ``options``: what stands behind the script in the PAM file.
    """
    with (
        agents_on(server.url, nodes=("ctx-01",), policy=policy) as agents,
        pam_service(agents, without_a_licence, options=options) as made,
    ):
        yield made


@contextmanager
def pam_service(
    agents: Agents, without_a_licence: str = "refuse", *, options: str = "", accounts: AccountFiles | None = None
) -> Iterator[PamHost]:
    """Set up the samples on the host of an agent that runs."""
    require("pamtester")
    if os.geteuid() != 0:
        missing("root, who may add a service to /etc/pam.d,")
    service = Path("/etc/pam.d") / f"farmlease-test-{secrets.token_hex(6)}"
    folder = agents.folder
    farmlease = executable(
        folder / "farmlease",
        f"#!/bin/sh\nexport FARMLEASE_CONFIG={next(iter(agents)).config} PYTHONPATH={ROOT}\n"
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
        yield PamHost(service.name, folder, agents, accounts)
    finally:
        service.unlink()


def executable(file: Path, text: str) -> Path:
    """Write a program."""
    file.write_text(text)
    file.chmod(0o755)
    return file
