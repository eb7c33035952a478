"""Processes that the agent may not see are not dead: on a host whose /proc hides them, and beside containers.

The host's /proc is a mount of the test's own, in a mount namespace that ends with the agent.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deploy.test_systemd import UNIT, capabilities
from tests.support.agents import Reply, RunningAgent, agents_on, soon
from tests.support.callers import OWN_PID
from tests.support.servers import RedisServer, missing, require

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc as it is here is Linux's")

#: A group that the agent is not in, as administrators choose for those who may see all processes.
FOR_OTHERS = 51_234
HIDDEN = f"hidepid=2,gid={FOR_OTHERS}"
#: Seconds after which a session whose process counts as gone would have ended: looks are one second apart.
TWO_LOOKS = 2.5


def own_proc() -> list[str]:
    """Return the commands by which systemd gives the unit a /proc of its own; none if the unit asks for none."""
    found = re.search(r"^ProtectProc=(\w+)$", UNIT.read_text(), re.MULTILINE)
    return [f"mount -t proc -o nosuid,noexec,nodev,hidepid={found[1]} proc /proc"] if found else []


def launched(agent: RunningAgent, *steps: str, left: Sequence[str]) -> None:
    """Start the agent as root with these capabilities, after steps in a mount namespace of its own."""
    for program in ("unshare", "setpriv"):
        require(program)
    if os.geteuid() != 0:
        missing("root, who may mount,")
    agent.terminate()
    limits = ["setpriv", f"--bounding-set={','.join(['-all', *(f'+{each}' for each in left)])}", "--inh-caps=-all"]

    def inside(command: list[str]) -> list[str]:
        script = " && ".join([*steps, f"exec {shlex.join([*limits, *command])}"])
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]

    agent.launch_by(inside)
    agent.wait_ready()


@pytest.fixture
def agent(server: RedisServer) -> Iterator[RunningAgent]:
    """An agent on a Unix socket."""
    with agents_on(server.url, nodes=("ctx-01",), listen="unix") as agents:
        yield agents["ctx-01"]


@contextmanager
def program_of_a_user() -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of an ordinary user."""
    program = subprocess.Popen(["sleep", "600"], user="daemon", cwd="/")
    try:
        yield program
    finally:
        program.kill()
        program.wait()


def states(agent: RunningAgent) -> dict[str, str]:
    """Return the state of each session."""
    return {each["session"]: each["state"] for each in agent.request("GET", "/v1/sessions").document}


def processes_check(agent: RunningAgent) -> tuple[str, str]:
    """Return what health says of processes."""
    (check,) = agent.health("/healthz").document["checks"]["processes"]
    return check["status"], check.get("output", "")


def refused(answer: Reply) -> str:
    """Return the sentence by which a start's pid was refused, and nothing else."""
    assert (422, "pid") == (answer.status, answer.document["field"])
    return str(answer.document["detail"])


@pytest.mark.parametrize("drop_in", [None, "no-files.conf"])
def test_the_unit_works_where_the_host_hides_processes(agent: RunningAgent, drop_in: str | None) -> None:
    """With hidepid=2 and a group for those who may see, a session ends with its process, and not before."""
    left = capabilities(UNIT if drop_in is None else UNIT.parent / drop_in)
    launched(agent, f"mount -t proc -o {HIDDEN} proc /proc", *own_proc(), left=left)
    with program_of_a_user() as program:
        assert 201 == agent.start("john", "7", pid=program.pid).status
        time.sleep(TWO_LOOKS)
        assert {"7": "active"} == states(agent)
        launched(agent, f"mount -t proc -o {HIDDEN} proc /proc", *own_proc(), left=left)
        time.sleep(TWO_LOOKS)
        assert {"7": "active"} == states(agent)
        program.kill()
        soon(lambda: states(agent) == {}, "the session ends with its process, before it is reaped")
    assert "pass" == processes_check(agent)[0]


def test_a_process_that_is_hidden_is_refused(agent: RunningAgent) -> None:
    """Without a /proc that shows it, the start says so and takes nothing; one without a pid is granted."""
    launched(agent, f"mount -t proc -o {HIDDEN} proc /proc", left=capabilities())
    with program_of_a_user() as program:
        assert "may not look at" in refused(agent.start("john", "7", pid=program.pid))
        assert {} == states(agent)
        assert 201 == agent.start("john", "7").status


def test_a_process_that_is_hidden_later_is_not_gone(agent: RunningAgent) -> None:
    """/proc is mounted otherwise while sessions run: they go on, health warns, and ends are seen once it shows them."""
    launched(agent, "mount -t proc proc /proc", left=capabilities())
    assert agent.process is not None
    inside = ["nsenter", f"--mount=/proc/{agent.process.pid}/ns/mnt", "mount", "-o"]
    with program_of_a_user() as program, program_of_a_user() as other:
        assert 201 == agent.start("john", "7", pid=program.pid).status
        assert 201 == agent.start("mary", "8", pid=other.pid).status
        subprocess.run([*inside, f"remount,{HIDDEN}", "/proc"], check=True)
        soon(lambda: processes_check(agent)[0] == "warn", "health says that processes cannot be looked at")
        assert "2 uses with a process" in processes_check(agent)[1]
        assert {"7": "active", "8": "active"} == states(agent)
        program.kill()
        program.wait()
        soon(lambda: states(agent) == {"8": "active"}, "the kernel says that this pid is not in use any more")
        subprocess.run([*inside, "remount,hidepid=0", "/proc"], check=True)
        soon(lambda: processes_check(agent)[0] == "pass", "health is well again")
        assert {"8": "active"} == states(agent)
        other.kill()
        soon(lambda: states(agent) == {}, "an end that is seen")


_IN_A_CONTAINER = f"""
import http.client, os, socket, sys
path, body = sys.argv[1:]
connection = http.client.HTTPConnection("localhost", timeout=30)
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(path)
body = body.replace('"{OWN_PID}"', str(os.getpid()))
connection.request("POST", "/v1/sessions", body.encode(), {{"Content-Type": "application/json"}})
response = connection.getresponse()
print(response.status, response.read().decode())
"""


def from_a_container(agent: RunningAgent, uid: int, **request: object) -> tuple[int, dict[str, object]]:
    """Ask the agent from another PID namespace."""
    require("unshare")
    if os.geteuid() != 0:
        missing("root, who may make namespaces,")
    client = ["setpriv", f"--reuid={uid}", "--clear-groups", sys.executable, "-I", "-c", _IN_A_CONTAINER]
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", *client, agent.listen.removeprefix("unix:"), json.dumps(request)],
        cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    status, _, body = done.stdout.partition(" ")
    return int(status), json.loads(body)


@pytest.mark.parametrize(("uid", "user"), [(0, "john"), (1, "daemon")])
def test_a_pid_of_a_container_means_nothing_here(agent: RunningAgent, uid: int, user: str) -> None:
    """Whatever process of the host has this number, it is not the caller's: refused, and granted without a pid."""
    for pid in (OWN_PID, 1, os.getpid()):
        status, answer = from_a_container(agent, uid, user=user, session="7", pid=pid)
        assert (422, "pid") == (status, answer["field"])
        assert "the caller is in another PID namespace" in str(answer["detail"])
    assert {} == states(agent)
    assert 201 == from_a_container(agent, uid, user=user, session="7")[0]


def test_an_agent_in_a_container_knows_no_pid_of_the_host(agent: RunningAgent) -> None:
    """The other way round: the kernel has no number for the caller there, and each pid it names is refused."""
    launched(agent, left=capabilities())
    agent.terminate()
    agent.launch_by(lambda command: ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *command])
    agent.wait_ready()
    for pid in (1, os.getpid()):
        assert "the caller is in another PID namespace" in refused(agent.start("john", "7", pid=pid))
    assert 201 == agent.start("john", "7").status


def test_an_agent_without_rights_sees_its_own(tmp_path: Path) -> None:
    """What may be looked at is told apart by the kernel's answer, for an ordinary user as well as for root."""
    code = (
        "import os, sys; from farmlease.node.host_identity import sight_of, started_at\n"
        "os.setgroups([]); os.setgid(1); os.setuid(1)\n"  # here: such a user need not be able to read our Python
        "print(*(sight_of(int(pid)).name for pid in (os.getpid(), *sys.argv[1:])))"
    )
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    client = [sys.executable, "-c", code, "1", str(gone.pid)]
    for options, seen in (
        (HIDDEN, "CLEAR HIDDEN NOBODY"),
        ("hidepid=1", "CLEAR HIDDEN NOBODY"),
        ("rw", "CLEAR CLEAR NOBODY"),
    ):
        script = f"mount -t proc -o {options} proc /proc && exec {shlex.join(client)}"
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert seen == done.stdout.strip(), done.stderr
