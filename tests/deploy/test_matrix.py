"""Who gets what: each ready policy with each hook that is shipped, for each kind of user, as REFERENCE.md has it in a table.

The users have accounts on the host and groups in its account database; nobody tells the agent of their groups. A row of the
table is what was seen: the test prints it, and it must stand in the document word for word.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.account_files import AccountFiles
from tests.support.agents import Agents, RunningAgent, agents_on, soon
from tests.support.pam_hosts import PamHost, pam_service
from tests.support.patience import within
from tests.support.samples import DEPLOY, ROOT
from tests.support.servers import redis_server

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="PAM, and accounts in a namespace of their own, are Linux's"),
    pytest.mark.timeout(1200),
]

NODE = "ctx-07"  #: of which the sample for ClearQuest has licences of its own
#: Account, number and groups of each kind of user.
USERS = {
    "vera": (6001, ("qlikview visitors", "clearquest visitors")),
    "john": (6002, ()),
    "svc-backup": (6003, ()),
    "anna": (6004, ("domain admins",)),
}
#: By policy: how it is called, the program that a hook names where it knows it, and a second one.
PROGRAMS = {
    "pools-qlikview.toml": ("QlikView", "qlikview", "qlikview-server-console"),
    "pools-clearquest.toml": ("ClearQuest", "clearquest", "clearquest-mapper"),
}
INSTALL = (DEPLOY / "windows" / "install.ps1").read_text(encoding="utf-8")
#: Becomes a user once all is imported, for that user may not be able to start our Python; then it is the command.
AS_USER = """
import os, sys
import encodings.idna, encodings.utf_8_sig, http.client, pwd
import farmlease.cli.run
from farmlease.cli import main
uid = int(sys.argv[1])
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
sys.argv[:2] = ["farmlease"]
main()
"""


@dataclass(frozen=True, slots=True)
class Host:
    """One host of the farm, whose accounts are the test's."""

    policy: str
    agents: Agents
    accounts: AccountFiles
    pam: PamHost

    @property
    def agent(self) -> RunningAgent:
        """Its agent."""
        return self.agents[NODE]

    @property
    def programs(self) -> tuple[str, str]:
        """The program that a hook names where it knows it, and a second one."""
        return PROGRAMS[self.policy][1:]

    def type(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Type a command of farmlease, as root."""
        return subprocess.run(
            [self.agents.folder / "farmlease", *words], capture_output=True, text=True, timeout=within(60), check=False
        )

    def held(self, name: str) -> list[str]:
        """Return the pools in which a user has a session here."""
        rows = self.agent.request("GET", "/v1/sessions").document
        return sorted({each["pool"] for each in rows if each["user"] == f"corp\\{name}" and each["state"] == "active"})

    def seats(self, name: str) -> list[str]:
        """Return the pool of each lease that a user has."""
        done = self.type("lease", "list", "--user", f"CORP\\{name}", "-o", "json")
        assert 0 == done.returncode, done.stderr
        return sorted(each["pool"] for each in json.loads(done.stdout))


@pytest.fixture(scope="module", params=PROGRAMS)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host that goes by a ready policy."""
    accounts = AccountFiles(tmp_path_factory.mktemp("accounts"))
    with (
        redis_server() as server,
        agents_on(server.url, nodes=(NODE,), listen="unix") as agents,
        pam_service(agents, accounts=accounts) as pam,
    ):
        write_accounts(accounts, agents.home)
        made = Host(request.param, agents, accounts, pam)
        policy = agents.folder / request.param
        policy.write_text((DEPLOY / request.param).read_text().replace('"/home/', f'"{agents.home}/'))
        done = made.type("pool", "apply", str(policy), "--yes")
        assert 0 == done.returncode, done.stderr
        entered(agents[NODE], accounts)
        yield made


def write_accounts(accounts: AccountFiles, home: Path) -> None:
    """Add the users and their groups to those of this machine."""
    passwd, group = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
    members: dict[str, list[str]] = {}
    for name, (number, groups) in USERS.items():
        passwd += f"{name}:x:{number}:{number}::{home}/{name}:/bin/sh\n"
        group += f"{name}:x:{number}:\n"
        (home / name / ".qlikview").mkdir(parents=True)
        for path in (home / name, home / name / ".qlikview"):
            os.chown(path, number, number)
        for each in groups:
            members.setdefault(each, []).append(name)
    for number, (name, names) in enumerate(members.items(), 7001):
        group += f"{name}:x:{number}:{','.join(names)}\n"
    accounts.write(passwd=passwd, group=group)


def entered(agent: RunningAgent, accounts: AccountFiles) -> None:
    """Start the agent again where it sees the accounts."""
    assert agent.process is not None
    agent.terminate()
    usual = agent.process.args
    assert isinstance(usual, list)
    with agent.log.open("ab") as log:
        agent.process = subprocess.Popen(
            accounts.command(usual), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    agent.wait_ready()


# --- the hooks: each lets a user in, with a second program or not, and yields what became of it ---------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a logon. ``denied``: in the words of the table; ``seats``: what the user holds meanwhile."""

    denied: str = ""
    seats: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the table's cell."""
        return self.denied or " and ".join(f"a seat of `{each}`" for each in self.seats) or "no licence needed"


def by_pam(host: Host, name: str, *, second: bool) -> Seen:
    """The user opens a desktop; the second program is published as ``farmlease run``."""
    logon = host.pam.log_on(name, f"tty-{name}")
    try:
        seats = tuple(sorted(each["pool"] for each in logon.opened()))
        if second:
            with running(host, name, host.programs[1]) as program:
                assert program.poll() is None
                seats = tuple(host.held(name))
    finally:
        status, said = logon.let_go()
    for file in host.agents.folder.glob(f"*tty-{name}*"):
        file.unlink()
    if status != 0:
        assert "denied: " in said
        return Seen("the logon is refused")
    return Seen(seats=seats)


def by_task(host: Host, name: str, *, second: bool) -> Seen:
    """The tasks of install.ps1 for logon and logoff; the second program names itself, in the same session."""
    filled = {"$(SessionID)": "RDP-Tcp#3" if takes_any_id(host) else "3", "$(User)": f"CORP\\{name}"}
    done = host.type(*arguments("logon", filled))
    if done.returncode == 3:
        return Seen("logs on without a seat")
    assert 0 == done.returncode, done.stderr
    if second:
        more = arguments("logon", filled)
        more[2:2] = ["--app", host.programs[1]]
        assert 0 == host.type(*more).returncode
    seen = Seen(seats=tuple(host.held(name)))
    assert bool(seen.seats) == (host.type(*arguments("logoff", filled)).returncode == 0), "there is something to end"
    return seen


def by_run(host: Host, name: str, *, second: bool) -> Seen:
    """The user starts a program that is published as ``farmlease run``, and then another one."""
    with running(host, name, host.programs[0]) as program:
        if program.poll() is not None:
            assert 3 == program.returncode
            return Seen("does not start")
        if second:
            with running(host, name, host.programs[1]) as other:
                assert other.poll() is None
                return Seen(seats=tuple(host.held(name)))
        return Seen(seats=tuple(host.held(name)))


def by_command(host: Host, name: str, *, second: bool) -> Seen:
    """A script of the administrator's own: the plain command at the beginning and at the end, once for each program."""
    start = ["session", "start", name, "--session", f"desk-{name}", "--app"]
    done = host.type(*start, host.programs[0])
    if done.returncode != 0:
        assert 3 == done.returncode, done.stderr
        return Seen("denied, exit status 3")
    if second:
        assert 0 == host.type(*start, host.programs[1]).returncode
    seen = Seen(seats=tuple(host.held(name)))
    ended = host.type("session", "end", f"desk-{name}")
    assert bool(seen.seats) == (ended.returncode == 0), "there is something to end"
    return seen


HOOKS: dict[str, Callable[..., Seen]] = {
    "PAM": by_pam,
    "Windows task": by_task,
    "`run`": by_run,
    "plain command": by_command,
}


def arguments(task: str, values: dict[str, str]) -> list[str]:
    """Return the arguments of a task of install.ps1, with what Windows puts in."""
    texts = dict(re.findall(r"^\$(\w+) = '(.*)'$", INSTALL, re.MULTILINE))
    found = re.search(rf"^Register-Task '{task}' \(.*?\) (?:'(.*?)'|\$(\w+)) '", INSTALL, re.MULTILINE)
    assert found is not None
    text = found[1] or texts[found[2]]
    for placeholder, value in values.items():
        text = text.replace(placeholder, value.replace("\\", "\\\\"))
    return shlex.split(text)


def takes_any_id(host: Host) -> bool:
    """Whether session ids may be those that Windows gives, such as RDP-Tcp#3."""
    return "\\#" in str(host.agent.request("GET", "/v1/openapi.json").document)


@contextmanager
def running(host: Host, name: str, app: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a program by ``farmlease run``, as the user; yields when it runs, or will not."""
    words = [str(USERS[name][0]), "--config", str(host.agent.config), "run", "--app", app, "--"]
    ready = ["sh", "-c", "echo ready; exec sleep 600"]
    command = host.accounts.command([sys.executable, "-c", AS_USER, *words, *ready])
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ, cwd="/"
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said == "ready\n" or 3 == process.wait(within(30)), said
            yield process
        finally:
            process.kill()


def soon_none(host: Host, name: str) -> list[str]:
    """Return the user's sessions once there are none; they end within seconds of their process."""
    soon(lambda: host.held(name) == [], "a session outlives its process")
    return host.held(name)


def rows() -> dict[tuple[str, str], str]:
    """Return the rows of the table in REFERENCE.md, by policy and hook."""
    text = (DEPLOY / "REFERENCE.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- matrix.*?-->\n(.*?)\n<!-- end of matrix -->", text, re.DOTALL)
    assert found is not None
    table = [line for line in found[1].splitlines() if line.startswith("|")][2:]
    return {(cells[1], cells[2]): line for line in table for cells in [[each.strip() for each in line.split("|")]]}


@pytest.fixture(autouse=True)
def nobody_left(host: Host) -> Iterator[None]:
    """Whatever became of a test, the next begins without a session."""
    yield
    for each in host.agent.request("GET", "/v1/sessions").document:
        host.agent.end(each["session"])


@pytest.mark.parametrize("hook", HOOKS)
def test_the_table_says_who_gets_what(host: Host, hook: str) -> None:
    """A visitor, an ordinary user, a service's account, an administrator, and an ordinary user with two programs."""
    name = PROGRAMS[host.policy][0]
    cells = list[str]()
    for user in USERS:
        seen = HOOKS[hook](host, user, second=False)
        assert [] == soon_none(host, user)
        cells.append(str(seen))
    both = HOOKS[hook](host, "john", second=True)
    assert [] == soon_none(host, "john")
    cells.append(str(both))
    row = f"| {name} | {hook} | {' | '.join(cells)} |"
    sys.stdout.write(f"{row}\n")
    assert rows().get((name, hook)) == row


def test_a_named_seat_is_one_however_many_hooks_asked(host: Host) -> None:
    """After all of it john has one lease of each pool that keeps seats, and nobody else has any."""
    kept = ["qlikview"] if host.policy == "pools-qlikview.toml" else []
    assert kept == host.seats("john")
    assert [] == [seat for user in USERS if user != "john" for seat in host.seats(user)]


def test_every_policy_and_hook_stands_in_the_table() -> None:
    """The document has a row for each, and no other."""
    assert {(name, hook) for name, *_ in PROGRAMS.values() for hook in HOOKS} == rows().keys()
    assert sorted(PROGRAMS) == sorted(file.name for file in DEPLOY.glob("pools-*.toml"))
