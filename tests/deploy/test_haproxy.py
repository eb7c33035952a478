"""``deploy/haproxy/haproxy.cfg`` in the real HAProxy, in front of real agents: what they say arrives, and acts."""

import csv
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.agents import Agents, RunningAgent, agents_on
from tests.support.patience import turns, within
from tests.support.ports import distant_port
from tests.support.servers import RedisServer, redis_server, require

SHIPPED = Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg"
NODES = ("ctx-01", "ctx-02", "ctx-03")
#: Seconds within which the balancer knows what an agent knows.
TOLD_WITHIN = 5.0
#: Seconds more for a machine that is busy with other tests.
BUSY = 15.0

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="HAProxy's stats socket is a Unix one")


@dataclass(frozen=True, slots=True)
class Balancer:
    """A running HAProxy."""

    port: int  #: where RDP clients come
    stats: Path

    def says(self, command: str) -> str:
        """Give HAProxy an operator's command; return its answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(within(10))
            connection.connect(str(self.stats))
            connection.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: connection.recv(65_536), b"")).decode()

    def rows(self) -> Mapping[str, Mapping[str, str]]:
        """Each host as the page of statistics shows it."""
        table = csv.DictReader(self.says("show stat").removeprefix("# ").splitlines())
        return {row["svname"]: row for row in table if row["pxname"] == "rdp_hosts" and row["svname"] in NODES}

    def status(self, node: str) -> str:
        """UP, DOWN or DRAIN; without who said so, and the count of checks on the way to another."""
        return self.rows()[node]["status"].split()[0]

    def weight(self, node: str) -> int:
        """By which weight a host gets new users."""
        return int(self.rows()[node]["weight"])

    def told_weight(self, node: str) -> int:
        """The weight that a host's agent has asked for; a host in maintenance shows it nowhere else."""
        lines = self.says("show servers state rdp_hosts").splitlines()
        names = lines[1].removeprefix("# ").split()
        table = [dict(zip(names, line.split(), strict=False)) for line in lines[2:]]
        return next(int(row["srv_uweight"]) for row in table if row.get("srv_name") == node)

    def hears(self, node: str, weight: int) -> None:
        """Wait until a host's agent has asked for this weight, and was heard."""
        eventually(lambda: self.told_weight(node) == weight, lambda: f"{node}: {self.told_weight(node)}, not {weight}")

    def sets(self, node: str, what: str) -> None:
        """Do what an operator does to a host in both of its lists."""
        for backend in ("rdp_hosts", "ica_hosts"):
            assert "" == self.says(f"set server {backend}/{node} {what}").strip()

    def shows(self, node: str, status: str, weight: int | None = None) -> None:
        """Wait until a host has this status, and weight."""
        eventually(
            lambda: self.status(node) == status and weight in {None, self.weight(node)},
            lambda: f"{node} is not {status} with {weight}: {self.rows()[node]}",
        )

    def arrives(self, user: str) -> str:
        """Come as an RDP client does; return the host that a user gets to, or nothing."""
        cookie = f"Cookie: mstshash={user}\r\n".encode()
        packet = b"\x03\x00" + (11 + len(cookie)).to_bytes(2, "big") + bytes([6 + len(cookie), 0xE0, 0, 0, 0, 0, 0])
        with socket.create_connection(("127.0.0.1", self.port), within(10)) as connection:
            connection.sendall(packet + cookie)
            return connection.recv(100).decode()


@dataclass(frozen=True, slots=True)
class Farm:
    """Three hosts behind a balancer, and their store."""

    agents: Agents
    balancer: Balancer
    store: RedisServer


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    """A farm in which every host takes five sessions."""
    require("haproxy")
    with ExitStack() as stack:
        store = stack.enter_context(redis_server())
        settings = 'max_sessions = 5\nshutdown_delay = "10m"'
        agents = stack.enter_context(agents_on(store.url, nodes=NODES, settings=settings))
        desks = {node: stack.enter_context(desk(node)) for node in NODES}
        balancer = stack.enter_context(haproxy(agents, desks))
        for node in NODES:
            balancer.shows(node, "UP", 100)
        yield Farm(agents, balancer, store)
        for agent in agents:  # once for the delay; the end of the fixture tells them again, and then they go
            assert agent.process is not None
            agent.process.terminate()


@contextmanager
def haproxy(agents: Agents, desks: Mapping[str, int]) -> Iterator[Balancer]:
    """Run HAProxy with the shipped configuration, on this machine's addresses."""
    balancer = Balancer(distant_port(), agents.folder / "admin.sock")
    config, log = agents.folder / "haproxy.cfg", agents.folder / "haproxy.log"
    config.write_text(localized(balancer, agents, desks))
    with log.open("wb") as output:
        process = subprocess.Popen([require("haproxy"), "-db", "-f", str(config)], stdout=output, stderr=output)
    try:
        eventually(lambda: process.poll() is not None or balancer.stats.is_socket(), log.read_text)
        assert process.poll() is None, log.read_text()
        yield balancer
    finally:
        process.kill()
        process.wait(within(10))


def localized(balancer: Balancer, agents: Agents, desks: Mapping[str, int]) -> str:
    """Return the shipped configuration with the addresses of the test, and nothing else of it changed."""
    text = SHIPPED.read_text(encoding="utf-8")
    text = re.sub(r"^    (user|group|maxconn|log /dev/log) .*\n", "", text, flags=re.MULTILINE)
    text = text.replace("/run/haproxy/admin.sock", str(balancer.stats))
    text = text.replace("bind :3389", f"bind 127.0.0.1:{balancer.port}").replace(
        "bind :2598", f"bind 127.0.0.1:{distant_port()}"
    )
    for node in NODES:
        agent = agents[node]
        here = f"127.0.0.1:{desks[node]} port {agent.health_port} agent-port {agent.agent_check_port}"
        text, count = re.subn(rf"(server {node}) 192\.0\.2\.\d+:\d+", rf"\1 {here}", text)
        assert 2 == count
    return text


@contextmanager
def desk(node: str) -> Iterator[int]:
    """A session host's desktop: says whose it is to everybody who comes; yields its port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(node.encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(within(5))


def eventually(holds: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    """Wait for what the balancer is to know within seconds."""
    for _ in turns(TOLD_WITHIN + BUSY):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError(otherwise())


def drain(agent: RunningAgent, *, on: bool) -> None:
    """Take a host out of service for new users, or put it back."""
    assert 204 == agent.request("PUT" if on else "DELETE", "/v1/drain").status


def test_the_shipped_file_is_valid() -> None:
    """As it is, on a machine with HAProxy's own user."""
    checked = subprocess.run(
        [require("haproxy"), "-c", "-f", str(SHIPPED)], capture_output=True, text=True, check=False
    )
    assert (0, "") == (checked.returncode, checked.stderr.replace("Configuration file is valid", "").strip())


def test_the_weight_arrives(farm: Farm) -> None:
    """The share of free sessions, down to a full host: it gets nobody new, is not down, and its users come back."""
    agent, balancer = farm.agents["ctx-01"], farm.balancer
    agent.start("john", "1")
    balancer.shows("ctx-01", "UP", 80)
    homes = {f"home{number}": balancer.arrives(f"home{number}") for number in range(12)}
    assert set(NODES) == set(homes.values())
    for number in range(2, 6):
        agent.start("john", str(number))
    eventually(lambda: balancer.weight("ctx-01") == 0, lambda: str(balancer.rows()))
    assert "DOWN" not in balancer.status("ctx-01")
    assert {"ctx-02", "ctx-03"} == {balancer.arrives(f"new{number}") for number in range(12)}
    assert homes == {user: balancer.arrives(user) for user in homes}
    agent.end("5")
    balancer.shows("ctx-01", "UP", 20)
    for number in range(1, 5):
        agent.end(str(number))
    balancer.shows("ctx-01", "UP", 100)


def test_draining_arrives(farm: Farm) -> None:
    """Nobody new; who was there before comes back to his session; undrained, all is as before."""
    agent, balancer = farm.agents["ctx-02"], farm.balancer
    homes = {f"guest{number}": balancer.arrives(f"guest{number}") for number in range(12)}
    assert set(NODES) == set(homes.values())
    drain(agent, on=True)
    balancer.shows("ctx-02", "UP", 0)
    assert {"ctx-01", "ctx-03"} == {balancer.arrives(f"late{number}") for number in range(12)}
    assert homes == {user: balancer.arrives(user) for user in homes}
    drain(agent, on=False)
    balancer.shows("ctx-02", "UP", 100)


@pytest.mark.parametrize(("state", "shown"), [("maint", "MAINT"), ("drain", "DRAIN")])
def test_the_operators_state_is_his_alone(farm: Farm, state: str, shown: str) -> None:
    """Whatever the agent says meanwhile: sessions come and go, the host drains, stops and comes back."""
    agent, balancer = farm.agents["ctx-02"], farm.balancer

    def holds() -> None:
        assert shown == balancer.status("ctx-02")
        assert "ctx-02" not in {balancer.arrives(f"{state}{number}") for number in range(12)}

    balancer.sets("ctx-02", f"state {state}")
    holds()
    agent.start("john", "1")
    balancer.hears("ctx-02", 80)
    holds()
    drain(agent, on=True)
    balancer.hears("ctx-02", 0)
    holds()
    drain(agent, on=False)
    balancer.hears("ctx-02", 80)
    holds()
    assert agent.process is not None
    agent.process.terminate()
    eventually(lambda: "stopping" in balancer.rows()["ctx-02"]["last_agt"], lambda: str(balancer.rows()["ctx-02"]))
    assert 0 == agent.terminate()
    agent.launch()
    eventually(lambda: "up" in balancer.rows()["ctx-02"]["last_agt"], lambda: str(balancer.rows()["ctx-02"]))
    agent.end("1")
    balancer.hears("ctx-02", 100)
    holds()
    balancer.sets("ctx-02", "state ready")
    balancer.shows("ctx-02", "UP", 100)


def test_ready_said_by_the_operator_ends_no_drain_of_farmlease(farm: Farm) -> None:
    """Each ends what he has begun: the host stays at 0 % until farmlease undrains it."""
    agent, balancer = farm.agents["ctx-02"], farm.balancer
    drain(agent, on=True)
    balancer.shows("ctx-02", "UP", 0)
    balancer.sets("ctx-02", "state ready")
    assert {"ctx-01", "ctx-03"} == {balancer.arrives(f"ready{number}") for number in range(12)}
    balancer.shows("ctx-02", "UP", 0)
    drain(agent, on=False)
    balancer.shows("ctx-02", "UP", 100)


def test_the_agent_owns_the_weight(farm: Farm) -> None:
    """An operator's weight lasts until the next check; after `disable agent`, until `enable agent`."""
    balancer = farm.balancer
    balancer.sets("ctx-02", "weight 7")
    balancer.shows("ctx-02", "UP", 100)
    assert "" == balancer.says("disable agent rdp_hosts/ctx-02").strip()
    balancer.sets("ctx-02", "weight 7")
    farm.agents["ctx-02"].start("john", "1")
    balancer.hears("ctx-02", 7)
    assert "" == balancer.says("enable agent rdp_hosts/ctx-02").strip()
    balancer.shows("ctx-02", "UP", 80)
    farm.agents["ctx-02"].end("1")
    balancer.shows("ctx-02", "UP", 100)


def test_a_dead_agent_leaves_the_balancer(farm: Farm) -> None:
    """Killed: the host is out, its users get to another one; started again: it is in."""
    agent, balancer = farm.agents["ctx-03"], farm.balancer
    agent.kill()
    balancer.shows("ctx-03", "DOWN")
    assert {"ctx-01", "ctx-02"} == {balancer.arrives(f"after{number}") for number in range(12)}
    agent.launch()
    balancer.shows("ctx-03", "UP", 100)


def test_a_stopping_agent_leaves_before_it_is_gone(farm: Farm) -> None:
    """Told to stop it says so, and why; the next one takes back the word of the last, which nobody else could."""
    agent, balancer = farm.agents["ctx-01"], farm.balancer
    assert agent.process is not None
    agent.process.terminate()
    balancer.shows("ctx-01", "DOWN")
    eventually(
        lambda: "the agent is stopping" in balancer.rows()["ctx-01"]["last_agt"], lambda: str(balancer.rows()["ctx-01"])
    )
    assert agent.process.poll() is None
    assert 0 == agent.terminate()
    agent.launch()
    balancer.shows("ctx-01", "UP", 100)


def test_an_outage_of_the_store_leaves_all_hosts_in(farm: Farm) -> None:
    """L9: while the store hangs, and after many checks more, every host is up with its weight."""
    agents, balancer = farm.agents, farm.balancer
    farm.store.process.send_signal(signal.SIGSTOP)
    try:
        eventually(
            lambda: all(agent.health().body.startswith(b"warn the store") for agent in agents), lambda: "no outage"
        )
        until = time.monotonic() + 2 * TOLD_WITHIN
        while time.monotonic() < until:
            assert [("UP", 100)] * 3 == [(balancer.status(node), balancer.weight(node)) for node in NODES]
            time.sleep(0.2)
        assert set(NODES) == {balancer.arrives(f"meanwhile{number}") for number in range(12)}
    finally:
        farm.store.process.send_signal(signal.SIGCONT)
    for node in NODES:
        balancer.shows(node, "UP", 100)
