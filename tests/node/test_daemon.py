"""The agent as a process: how it starts, why it does not, and how it ends."""

import json
import os
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from tests.support.agents import ENDS_WITHIN, POLICY, Reply, RunningAgent, agents_on, apply, reap, soon, written
from tests.support.patience import within
from tests.support.ports import distant_port, quiet_ports
from tests.support.servers import RedisServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and modes are POSIX's")


@pytest.fixture
def agent(server: RedisServer) -> Iterator[RunningAgent]:
    """A running agent, ready."""
    with agents_on(server.url, nodes=("ctx-01",)) as agents:
        yield agents["ctx-01"]


@pytest.fixture
def unborn(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """An agent that was configured and never started, on a store without a policy."""
    folder = tmp_path_factory.mktemp("node")
    keyring_file.create(folder / "keyring.json", KeyRing.generate(0))
    with quiet_ports(3) as ports:
        made = written(folder, "ctx-01", server.url, "tcp", "1s", ports)
        yield made
        reap(made)


def complaint(agent: RunningAgent) -> tuple[int, str]:
    """Start an agent that cannot start; return its exit status and its one line."""
    agent.launch()
    assert agent.process is not None
    status = agent.process.wait(within(20))
    lines = [line for line in agent.log_text.splitlines() if not line.startswith("{")]
    assert 1 == len(lines), agent.log_text
    assert lines[0].startswith("farmlease: ")
    return status, lines[0]


def other_life(agent: RunningAgent) -> RunningAgent:
    """Return a second agent of the same configuration, with a log of its own."""
    log = agent.log.with_suffix(".2.log")
    return RunningAgent(
        agent.node, agent.config, agent.listen, agent.token_file, agent.state_dir, agent.health_port, log, agent.ring
    )  # fmt: skip


def hang(server: RedisServer) -> None:
    """Let the store accept connections and answer nobody."""
    server.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, server.process.pid, os.WSTOPPED)


def owed(agent: RunningAgent) -> int:
    """How much the agent's journal says the store has yet to be told."""
    with sqlite3.connect(f"file:{agent.state_dir}/journal.sqlite?mode=ro", uri=True) as database:
        ((count,),) = database.execute("SELECT count(*) FROM owed").fetchall()
    database.close()
    return int(count)


# --- how it ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_ends_in_order(agent: RunningAgent, number: signal.Signals) -> None:
    """Exit status 0 within five seconds; its sessions go on, and the next agent adopts them."""
    first = agent.start("john", "7").document
    assert agent.process is not None
    agent.process.send_signal(number)
    assert 0 == agent.process.wait(within(ENDS_WITHIN))
    agent.launch()
    agent.wait_ready()
    assert [{**first, "state": "active"}] == agent.request("GET", "/v1/sessions/7").document["uses"]
    again = agent.start("john", "7")
    assert (200, first) == (again.status, again.document)


@pytest.mark.parametrize("away", ["dead", "hanging"])
def test_told_to_stop_with_debts_and_no_store(agent: RunningAgent, server: RedisServer, away: str) -> None:
    """A store that is away, or hangs, delays the end by no more than it may; what is owed is there for the next life."""
    agent.start("john", "7")
    agent.start("mary", "8")
    server.process.kill() if away == "dead" else hang(server)
    assert 204 == agent.end("7").status
    assert 0 == agent.terminate()
    assert 1 == owed(agent)
    if away == "hanging":
        server.process.send_signal(signal.SIGCONT)
        agent.launch()
        agent.wait_ready()
        soon(lambda: owed(agent) == 0, "the debt is not delivered")
        assert ["8"] == [each["session"] for each in agent.request("GET", "/v1/sessions").document]


def test_what_is_owed_is_delivered_before_the_end(agent: RunningAgent, server: RedisServer) -> None:
    """The store comes back while the agent is told to stop: the end of the session still arrives."""
    agent.start("john", "7")
    hang(server)
    assert 204 == agent.end("7").status
    assert agent.process is not None
    agent.process.terminate()
    server.process.send_signal(signal.SIGCONT)
    assert 0 == agent.process.wait(within(ENDS_WITHIN))
    assert 0 == owed(agent)


def test_a_start_under_way_does_not_hold_up_the_end(agent: RunningAgent, server: RedisServer) -> None:
    """A logon that waits for a hanging store is cut off; the next life gives back what it may have taken."""
    agent.start("john", "7")
    hang(server)
    with socket.create_connection(tuple(agent.listen.split(":")), within(30)) as client:  # type: ignore[arg-type] # host, port
        body = json.dumps({"user": "mary", "session": "8"})
        client.sendall(
            f"POST /v1/sessions HTTP/1.1\r\nHost: {agent.host}\r\nAuthorization: {agent.authorization}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        assert 0 == agent.terminate()
    server.process.send_signal(signal.SIGCONT)
    agent.launch()
    agent.wait_ready()
    soon(lambda: owed(agent) == 0, "what the start left behind is not delivered")
    assert ["7"] == [each["session"] for each in agent.request("GET", "/v1/sessions").document]
    with server.client() as client:
        sessions = client.zrange("fl:{citrix-a/qlikview/0}:sessions", 0, -1)
    assert ["7"] == [member.decode().split("/")[1] for member in sessions]


def test_told_to_stop_while_it_starts(unborn: RunningAgent, server: RedisServer) -> None:
    """A signal that comes before the agent is ready ends it in order too."""
    hang(server)
    unborn.launch()
    soon(lambda: "agent.adopted" in unborn.log_text, "the agent does not start")
    assert 0 == unborn.terminate()


def test_killed_and_started_again(agent: RunningAgent) -> None:
    """L7: kill -9 loses nothing: the session is adopted, its token still opens the door."""
    first = agent.start("john", "7").document
    agent.kill()
    agent.launch()
    agent.wait_ready()
    assert first == agent.start("john", "7").document


# --- why it does not start --------------------------------------------------------------------------------------------------


def test_one_agent_to_a_state_folder(agent: RunningAgent) -> None:
    """The second is refused with one line, and the first goes on."""
    status, line = complaint(other_life(agent))
    assert (1, True) == (status, "another agent runs on" in line)
    assert 201 == agent.start("john", "7").status


@pytest.mark.parametrize("which", ["listen", "health"])
def test_an_address_in_use(unborn: RunningAgent, which: str) -> None:
    """The line names the address; the state folder is free again."""
    port = int(unborn.listen.rpartition(":")[2]) if which == "listen" else unborn.health_port
    with socket.create_server(("127.0.0.1", port)):
        status, line = complaint(unborn)
    assert (1, True) == (status, f"cannot listen on 127.0.0.1:{port} (Address already in use)" in line)


def test_a_configuration_that_cannot_be_meant(unborn: RunningAgent) -> None:
    """Exit status 2, and the nearest valid key."""
    unborn.config.write_text(unborn.config.read_text().replace("heartbeat", "hartbeat"))
    status, line = complaint(unborn)
    assert (2, True) == (status, 'the nearest valid one is "heartbeat"' in line)


def test_a_key_ring_that_others_can_read(unborn: RunningAgent) -> None:
    """Exit status 5, and what to type."""
    ring = unborn.config.parent / "keyring.json"
    ring.chmod(0o640)
    status, line = complaint(unborn)
    assert (5, True) == (status, f"chmod 600 {ring}" in line)


def test_a_journal_of_a_later_version(agent: RunningAgent) -> None:
    """Exit status 5; the file stays as it is. Any other journal that is not right is kept, and the agent starts."""
    agent.terminate()
    path = agent.state_dir / "journal.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as journal:
        journal.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    status, line = complaint(other_life(agent))
    assert (5, True, before) == (status, "run that version" in line, path.read_bytes())


@pytest.mark.parametrize("fault", ["wide", "empty", "folder", "stranger's"])
def test_a_token_that_is_not_ours_alone(unborn: RunningAgent, fault: str) -> None:
    """A token that somebody else may know is not used: exit status 2."""
    path = unborn.token_file
    match fault:
        case "wide":
            path.write_text("token")
            path.chmod(0o644)
        case "empty":
            path.touch(0o600)
        case "folder":
            path.mkdir()
        case _:
            if os.geteuid() != 0:
                pytest.skip("only root can make another's file")
            path.touch(0o600)
            os.chown(path, 65534, 65534)
    status, line = complaint(unborn)
    assert (2, True) == (status, str(path) in line)


def test_a_state_folder_that_cannot_be_one(unborn: RunningAgent) -> None:
    """Exit status 1, and which."""
    unborn.state_dir.write_text("a file")
    status, line = complaint(unborn)
    assert (1, True) == (status, f"cannot use state_dir {unborn.state_dir}" in line)


# --- when the store is away ---------------------------------------------------------------------------------------------------


def test_without_store_and_policy_it_starts_and_fails_its_check(unborn: RunningAgent, server: RedisServer) -> None:
    """An agent comes up before its store does; as long as it knows no policy nobody should be sent here."""
    server.process.kill()
    server.process.wait()
    unborn.launch()
    soon(lambda: "agent.ready" in unborn.log_text, "the agent does not start")
    soon(lambda: unborn.health().status == 503, "it does not answer")
    assert b"fail" == unborn.health().body.split()[0]
    assert 200 == unborn.health("/livez").status
    assert 503 == unborn.start("john", "7").status


async def test_a_policy_that_comes_later_is_found(unborn: RunningAgent, tmp_path: Path) -> None:
    """The node gets ready by itself, within seconds, when a policy is applied."""
    unborn.launch()
    soon(lambda: "agent.ready" in unborn.log_text, "the agent does not start")
    await apply(unborn.config, POLICY.format(home=tmp_path))
    soon(lambda: unborn.health().status == 200, "the policy is not found")
    assert 201 == unborn.start("john", "7").status


def test_a_store_that_goes_and_comes_back(agent: RunningAgent, server: RedisServer) -> None:
    """L9: a lost store keeps the node in the balancer with a warning; when it is back the warning ends within seconds."""
    (agent.config.parent / "home" / "john" / ".qlikview").mkdir(parents=True)
    agent.start("john", "7")
    hang(server)
    soon(lambda: agent.health().body.startswith(b"warn"), "nobody notices that the store is away")
    assert 200 == agent.health().status
    server.process.send_signal(signal.SIGCONT)
    soon(lambda: agent.health().body.startswith(b"pass"), "nobody notices that the store is back")


def test_a_known_policy_outlives_a_restart_without_the_store(agent: RunningAgent, server: RedisServer) -> None:
    """An agent that starts while the store is away knows its sessions and pools: a warning, no failure."""
    agent.start("john", "7")
    agent.kill()
    server.process.kill()
    server.process.wait()
    agent.launch()
    soon(lambda: "agent.ready" in agent.log_text.rpartition("store.away")[0], "the agent does not start")
    soon(lambda: agent.health().body.startswith(b"warn"), "it does not answer")
    assert 200 == agent.health().status
    assert 200 == agent.start("john", "7").status
    assert 204 == agent.end("7").status


# --- what it says and leaves ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_probes_of_every_kind(agent: RunningAgent, method: str) -> None:
    """A balancer may probe with any of them, over a real connection."""
    with socket.create_connection(("127.0.0.1", agent.health_port), within(10)) as probe:
        probe.sendall(f"{method} /readyz HTTP/1.0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: probe.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert (b"" if method == "HEAD" else b"pass\n") == body


def test_its_log_is_json_and_silent(agent: RunningAgent, server: RedisServer) -> None:
    """L10: every line is a JSON object, and none holds a name, though all kinds of things went wrong."""
    agent.start("canary-john", "7")
    agent.request("POST", "/v1/sessions", body=b"canary{")
    agent.start("canary/..", "9")
    hang(server)
    agent.start("canary-mary", "8")
    server.process.send_signal(signal.SIGCONT)
    agent.end("7")
    agent.terminate()
    events = [json.loads(line)["event"] for line in agent.log_text.splitlines()]
    assert {"agent.ready", "session.granted", "store.away", "session.ended", "agent.stopping", "agent.stopped"} <= set(
        events
    )
    assert "canary" not in agent.log_text


def test_its_socket_is_there_again_after_a_kill(server: RedisServer) -> None:
    """A Unix socket that a killed agent left is no obstacle for the next one."""
    with agents_on(server.url, nodes=("ctx-01",), listen="unix") as agents:
        agent = agents["ctx-01"]
        agent.kill()
        assert Path(agent.listen.removeprefix("unix:")).is_socket()
        agent.launch()
        agent.wait_ready()
        assert 201 == agent.start("john", "7").status


def test_it_answers_while_many_wait(agent: RunningAgent, server: RedisServer) -> None:
    """A hundred logons that wait for a hanging store hold up neither probes nor lists."""
    agent.start("john", "7")
    hang(server)
    waiting = []
    for number in range(100):
        client = socket.create_connection(tuple(agent.listen.split(":")), within(30))  # type: ignore[arg-type] # host, port
        body = json.dumps({"user": "mary", "session": f"m{number}"})
        client.sendall(
            f"POST /v1/sessions HTTP/1.1\r\nHost: {agent.host}\r\nAuthorization: {agent.authorization}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        waiting.append(client)
    before = time.monotonic()
    assert 200 == agent.health("/livez").status
    assert ["7"] == [each["session"] for each in agent.request("GET", "/v1/sessions").document]
    assert time.monotonic() - before < within(2)
    server.process.send_signal(signal.SIGCONT)
    for client in waiting:
        with client:
            assert client.recv(12) in {b"HTTP/1.1 201", b"HTTP/1.1 503"}


# --- what balancers see of its life -----------------------------------------------------------------------------------


def test_haproxys_agent_check(server: RedisServer) -> None:
    """One line per connection, whatever is sent: the share of free sessions, then drain, then back."""
    with agents_on(server.url, nodes=("ctx-01",), settings="max_sessions = 5") as agents:
        agent = agents["ctx-01"]
        assert b"up 100%\n" == agent.agent_check(b"be_rds/ctx-01\n")
        agent.start("john", "7")
        soon(lambda: agent.agent_check() == b"up 80%\n", "a session does not show in the weight")
        assert 204 == agent.request("PUT", "/v1/drain").status
        assert (b"up 0%\n", 503) == (agent.agent_check(), agent.health().status)
        assert 204 == agent.request("DELETE", "/v1/drain").status
        assert (b"up 80%\n", 200) == (agent.agent_check(), agent.health().status)


def test_several_addresses_for_balancers(unborn: RunningAgent) -> None:
    """Of either kind, on each of which the same is said; one that is taken is named, and the agent does not start."""
    more, check = distant_port(), distant_port()
    text = unborn.config.read_text()
    text = text.replace(f'"127.0.0.1:{unborn.health_port}"', f'["127.0.0.1:{unborn.health_port}", "[::]:{more}"]')
    text = text.replace(f'"127.0.0.1:{unborn.agent_check_port}"', f'["[::1]:{check}", "127.0.0.1:{check}"]')
    unborn.config.write_text(text)
    with socket.create_server(("127.0.0.1", check)):
        status, line = complaint(unborn)
    assert (1, True) == (status, f"cannot listen on 127.0.0.1:{check} (Address already in use)" in line)
    unborn.launch()
    soon(lambda: "agent.ready" in unborn.log_text, "it does not listen")
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, more), within(10)) as connection:
            connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            assert b"".join(iter(lambda: connection.recv(4096), b"")).endswith(b"pass\n")
        with socket.create_connection((host, check), within(10)) as connection:
            assert connection.recv(100).startswith(b"down #no policy is known")


def test_metrics_over_the_listener(agent: RunningAgent) -> None:
    """Where the probes are answered, in Prometheus' own form, with the calls of the store in it."""
    agent.start("john", "7")

    def shown(line: str) -> bool:
        return line in agent.health("/metrics").body.decode().splitlines()

    soon(lambda: shown('farmlease_sessions{pool="qlikview",state="active"} 1.0'), "the session is not in the metrics")
    soon(
        lambda: (
            shown('farmlease_pool_seats{pool="qlikview",state="used"} 1.0')
            or shown('farmlease_pool_seats{pool="qlikview",state="used"} 0.0')
        ),
        "the pools are not counted",
    )
    assert shown('farmlease_store_call_duration_seconds_count{verb="acquire"} 1.0')
    assert shown('farmlease_decisions_total{decision="granted",pool="qlikview",reason="store"} 1.0')
    assert agent.health("/metrics").headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_balancers_hear_of_the_end_before_it_comes(server: RedisServer) -> None:
    """/readyz and agent-check fail first; for the delay sessions start and end as before; told again it ends at once."""
    with agents_on(server.url, nodes=("ctx-01",), settings='shutdown_delay = "10m"') as agents:
        agent = agents["ctx-01"]
        assert agent.process is not None
        agent.process.terminate()
        soon(lambda: agent.health().status == 503, "the balancer is not told")
        assert b"fail the agent is stopping\n" == agent.health().body
        assert b"down #the agent is stopping\n" == agent.agent_check()
        assert 200 == agent.health("/livez").status
        assert 201 == agent.start("john", "7").status
        assert 204 == agent.end("7").status
        assert agent.process.poll() is None
        assert 0 == agent.terminate()
        assert 0 == owed(agent)


def test_after_the_delay_it_ends_by_itself(server: RedisServer) -> None:
    """The delay is as long as configured, and then the end is the usual one."""
    with agents_on(server.url, nodes=("ctx-01",), settings='shutdown_delay = "1s"') as agents:
        agent = agents["ctx-01"]
        assert agent.process is not None
        began = time.monotonic()
        agent.process.terminate()
        assert 0 == agent.process.wait(within(ENDS_WITHIN + 1))
        assert time.monotonic() - began >= 1


def warned_of(said: Reply) -> bool:
    """Whether the node is still in, and says that something is wrong."""
    return said.status == 200 and said.body.startswith(b"warn")


def test_a_store_that_comes_and_goes_takes_no_node_out(server: RedisServer) -> None:
    """With offline = "deny" a node leaves the balancer when the store stays away, and not for a moment of it."""
    with agents_on(server.url, nodes=("ctx-01",), settings='offline = "deny"') as agents:
        agent = agents["ctx-01"]
        hang(server)
        soon(lambda: warned_of(agent.health()), "nobody notices that the store is away, or the node leaves at once")
        server.process.send_signal(signal.SIGCONT)
        soon(lambda: agent.health().body.startswith(b"pass"), "nobody notices that the store is back")
        hang(server)
        soon(lambda: agent.health().body.startswith(b"warn"), "nobody notices that the store is away again")
        soon(lambda: agent.health().status == 503, "the node stays in")
        assert agent.agent_check().startswith(b"down #the store does not answer")
        server.process.send_signal(signal.SIGCONT)
        soon(lambda: b"answers again" in agent.health().body, "it comes back at once")
        soon(lambda: agent.health().status == 200, "it does not come back")
