"""The unit is one that systemd takes, with little it could do harm with, and with all that the agent needs."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.errors import KeyRingRejected
from farmlease.node.http.probe_server import MOST_GUESTS
from farmlease.node.http.server import KEPT, MOST_CALLERS
from tests.support.agents import RunningAgent, agents_on
from tests.support.callers import OWN_PID, as_account
from tests.support.patience import within
from tests.support.samples import DEPLOY, replaced
from tests.support.servers import RedisServer, missing, require

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")

UNIT = DEPLOY / "systemd" / "farmlease-agent.service"
#: A user who has a folder and no account.
JOHN = 51_234


@pytest.fixture(params=["alone", "no-files.conf"])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit as installed, alone or with its drop-in; only the program stands elsewhere, and a file is there."""
    file = tmp_path / UNIT.name
    file.write_text(replaced(UNIT.read_text(), {"/opt/farmlease/bin/farmlease": sys.executable}))
    if request.param != "alone":
        folder = tmp_path / f"{UNIT.name}.d"
        folder.mkdir()
        (folder / request.param).write_text((DEPLOY / "systemd" / request.param).read_text())
    return file


def told_by(*command: str) -> str:
    """Run systemd-analyze; return all it says. It must have nothing to complain of."""
    require("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", *command], capture_output=True, text=True, timeout=within(60), check=False
    )
    assert (0, "") == (done.returncode, done.stderr), done.stdout
    return done.stdout


def test_systemd_takes_the_unit(unit: Path) -> None:
    """`systemd-analyze verify` says nothing: every directive is known and means something."""
    assert "" == told_by("verify", str(unit))


def test_the_agent_has_time_to_end() -> None:
    """systemd waits longer than the longest delay that anything here gives the agent, and the five seconds it needs."""
    texts = [file.read_text(encoding="utf-8") for file in DEPLOY.rglob("*") if file.is_file()]
    delays = [int(each) for text in texts for each in re.findall(r'\bshutdown_delay = "(\d+)s"', text)]
    (patience,) = re.findall(r"^TimeoutStopSec=(\d+)s$", UNIT.read_text(), re.MULTILINE)
    assert 3 == len(delays)
    assert max(delays) + 5 < int(patience)


def test_the_agent_has_descriptors_for_all_its_doors() -> None:
    """All connections that it takes, what it keeps for others, and as many again for users' files and hooks."""
    (limit,) = re.findall(r"^LimitNOFILE=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert 2 * (MOST_CALLERS + 2 * MOST_GUESTS + KEPT) < int(limit)


def test_the_unit_is_exposed_little(unit: Path) -> None:
    """`systemd-analyze security` gives it less than 3 of 10."""
    found = re.search(r"Overall exposure level for .*: (\d+\.\d)", told_by("security", "--offline=true", str(unit)))
    assert found is not None
    assert 3.0 > float(found[1])


def test_the_secrets_arrive_as_the_agent_wants_them(tmp_path: Path) -> None:
    """LoadCredential gives root's copy with mode 0400, which is stricter than 0600; open to a group is refused."""
    ring = tmp_path / "keyring.json"
    keyring_file.create(ring, KeyRing.generate(0))
    ring.chmod(0o400)
    keyring_file.load(ring)
    ring.chmod(0o440)
    with pytest.raises(KeyRingRejected, match="0440"):
        keyring_file.load(ring)


def capabilities(file: Path = UNIT) -> list[str]:
    """Return what the unit leaves root, as setpriv writes it."""
    (line,) = re.findall(r"^CapabilityBoundingSet=(.*)$", file.read_text(), re.MULTILINE)
    return [word.removeprefix("CAP_").lower() for word in line.split()]


def limited(agent: RunningAgent, left: Sequence[str]) -> None:
    """Start the agent again as root with no other capabilities than these."""
    require("setpriv")
    if os.geteuid() != 0:
        missing("root, who may drop capabilities,")
    assert agent.process is not None
    agent.terminate()
    usual, bounds = agent.process.args, ",".join(["-all", *(f"+{each}" for each in left)])
    assert isinstance(usual, list)
    with agent.log.open("ab") as log:
        agent.process = subprocess.Popen(
            ["setpriv", f"--bounding-set={bounds}", "--inh-caps=-all", *usual],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    agent.wait_ready()


def travels(server: RedisServer, left: Sequence[str]) -> bool:
    """Tell whether a licence file goes into the record and back to its user, in a folder that is nobody else's.

    And whether it is left alone as long as a program has it open for writing.
    """
    with agents_on(server.url, nodes=("ctx-01",)) as agents:
        agent, file = agents["ctx-01"], agents.licence_file("john")
        limited(agent, left)
        file.parent.mkdir(parents=True)
        file.write_text("borrowed")
        for path in (agents.home / "john", file.parent, file):
            os.chown(path, JOHN, JOHN)
        file.chmod(0o600)
        (agents.home / "john").chmod(0o700)
        file.parent.chmod(0o1700)  # a sticky folder lets only its owner and the file's rename what is in it
        agent.start("john", "7")
        with file.open("ab"):  # a program that may have written half of it
            if agent.request("POST", "/v1/sessions/7/save").status < 400:
                return False
        agent.request("POST", "/v1/sessions/7/save")
        agent.end("7")
        if file.exists():
            return False
        agent.start("john", "8")
        if not file.exists():
            return False
        seen = file.stat()
        return (JOHN, JOHN, 0o600, "borrowed") == (
            seen.st_uid,
            seen.st_gid,
            stat.S_IMODE(seen.st_mode),
            file.read_text(),
        )


def test_the_agent_needs_no_more_rights_than_the_unit_leaves_it(server: RedisServer) -> None:
    """A user's file leaves the host and comes back as the user's, with exactly these capabilities."""
    assert travels(server, capabilities())


@pytest.mark.parametrize("without", [each for each in capabilities() if each != "lease"])
def test_each_right_that_is_left_is_needed(server: RedisServer, without: str) -> None:
    """With one capability less the file does not travel, or travels half-written."""
    assert not travels(server, [each for each in capabilities() if each != without])


@pytest.mark.parametrize("without", [(), ("lease",)])
def test_a_file_that_is_being_written_waits_by_the_right_to_ask_of_it(
    server: RedisServer, without: tuple[str, ...]
) -> None:
    """With the capability no version is made of a file that a program has open for writing; without it one is."""
    with agents_on(server.url, nodes=("ctx-01",)) as agents:
        agent, file = agents["ctx-01"], agents.licence_file("john")
        limited(agent, [each for each in capabilities() if each not in without])
        file.parent.mkdir(parents=True)
        agent.start("john", "7")
        with file.open("w") as writing:
            writing.write("borrowed, and not all of it yet")
            writing.flush()
            for path in (agents.home / "john", file.parent, file):
                os.chown(path, JOHN, JOHN)
            saved = agent.request("POST", "/v1/sessions/7/save").document
        agent.end("7")
    assert bool(without) == (saved["uses"][0].get("changed") is True), saved
    assert bool(without) == ("open in a program" not in str(saved)), saved


def test_without_files_no_right_is_needed(server: RedisServer) -> None:
    """With the drop-in an agent serves floating pools with no capability at all, other users on its socket among them."""
    assert [] == capabilities(DEPLOY / "systemd" / "no-files.conf")
    policy = '[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 3\n'
    policy += '[[rule]]\ngroups = ["daemon"]\naccess = "denied"\n'
    with agents_on(server.url, nodes=("ctx-01",), policy=policy, listen="unix") as agents:
        agent = agents["ctx-01"]
        limited(agent, [])
        assert 201 == agent.start("john", "7").status
        assert 204 == agent.end("7").status
        for user, status in (("nobody", 201), ("daemon", 403)):
            own = {"user": user, "session": user, "pid": OWN_PID}
            assert status == as_account(user, agent, "POST", "/v1/sessions", own)[0]
