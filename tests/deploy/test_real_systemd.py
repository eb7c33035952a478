"""The shipped unit under a real systemd, on a host whose /proc hides the processes of others."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from tests.deploy.test_systemd import UNIT
from tests.support.agents import soon
from tests.support.patience import within
from tests.support.ports import quiet_ports
from tests.support.real_systemd import RealSystemd, real_systemd
from tests.support.servers import redis_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")

POLICY = '[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 2\n'
#: A program of an ordinary user, as a session may be asked for with its process.
PROGRAM = "[Service]\nUser=daemon\nWorkingDirectory=/\nExecStart=/bin/sleep 600\n"
AGENT, OF_USER = "farmlease-agent.service", "program.service"
#: As many administrators mount it: who is not in the group sees his own processes alone.
HIDDEN = "nosuid,nodev,noexec,hidepid=2,gid=51234"


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[RealSystemd]:
    """A host with the unit as it is shipped, a policy, and a program of a user."""
    etc = tmp_path / "etc" / "farmlease"
    etc.mkdir(parents=True)
    (tmp_path / OF_USER).write_text(PROGRAM)
    keyring_file.create(etc / "keyring.json", KeyRing.generate(time.time_ns() // 1_000_000))
    (etc / "store-password").write_text("between us")
    (etc / "store-password").chmod(0o600)
    (etc / "pools.toml").write_text(POLICY)
    with redis_server("--requirepass", "between us", tcp=True) as server, quiet_ports(1) as (port,):
        (etc / "farmlease.toml").write_text(
            f'farm = "citrix-a"\nnode = "ctx-01"\n[store]\nurl = "redis://127.0.0.1:{server.port}/0"\n'
            f'password_file = "/etc/farmlease/store-password"\n[health]\nlisten = "127.0.0.1:{port}"\n'
        )
        with real_systemd(tmp_path, [UNIT, tmp_path / OF_USER], proc=HIDDEN) as running:
            applied = running.farmlease("pool", "apply", "/etc/farmlease/pools.toml")
            assert 0 == applied.returncode, applied.stderr
            yield running


def states(systemd: RealSystemd) -> dict[str, str]:
    """Return the state of each session; none while the agent does not answer."""
    listed = systemd.farmlease("session", "list", "-o", "json")
    return {row["session"]: row["state"] for row in json.loads(listed.stdout or '[{"session": "", "state": "away"}]')}


def test_a_session_ends_with_its_process_and_not_before(systemd: RealSystemd) -> None:
    """Through a restart of the agent too, which systemd holds to its limits: readiness, signs of life, credentials."""
    soon(lambda: systemd.show(AGENT, "ActiveState") in {"active", "failed"}, "the unit does not start")
    assert "active" == systemd.show(AGENT, "ActiveState"), systemd.said()
    limits = {name: systemd.show(AGENT, name) for name in ("ProtectProc", "NoNewPrivileges", "WatchdogUSec")}
    assert {"ProtectProc": "invisible", "NoNewPrivileges": "yes", "WatchdogUSec": "30s"} == limits
    program = systemd.show(OF_USER, "MainPID")
    started = systemd.farmlease("session", "start", "daemon", "--session", "7", "--pid", program)
    assert (0, "") == (started.returncode, started.stderr)
    time.sleep(2.5)
    assert {"7": "active"} == states(systemd)
    first = systemd.show(AGENT, "MainPID")
    assert 0 == systemd.run("systemctl", "restart", AGENT).returncode
    assert first != systemd.show(AGENT, "MainPID")
    time.sleep(2.5)
    assert {"7": "active"} == states(systemd)
    health = systemd.farmlease("health")
    assert (0, "pass:") == (health.returncode, health.stdout.split()[0])
    assert 0 == systemd.run("systemctl", "stop", OF_USER).returncode
    soon(lambda: states(systemd) == {}, "the session does not end with its process", within(20))
    assert 0 == systemd.run("systemctl", "stop", AGENT).returncode
    assert ("inactive", "success") == (systemd.show(AGENT, "ActiveState"), systemd.show(AGENT, "Result"))
