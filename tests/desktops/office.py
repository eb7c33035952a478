"""What stands between users and hosts: the store with its replica and Sentinels, and the balancer of ``deploy/``."""

import csv
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from tests.desktops.machine import Machine, machine
from tests.support.members import wait_until
from tests.support.samples import DEPLOY, replaced
from tests.support.servers import require

__all__ = ["BALANCER", "HOSTS", "STORE", "Office", "office"]

#: As in the guide. They belong to nobody, and lead nowhere but to the test's own machines.
BALANCER = "192.0.2.10"
#: By name, so that the test knows who comes where; consistent, for only then a weight may be other than 0 % and 100 %.
SPREAD = "balance rdp-cookie\n    hash-type consistent"
HOSTS = {"ctx-01": "192.0.2.11", "ctx-02": "192.0.2.12"}
SERVERS = {"one": 6379, "two": 6380}
SENTINELS = {"watch-1": 26379, "watch-2": 26380, "watch-3": 26381}
STORE = f"redis+sentinel://{','.join(f'{BALANCER}:{port}' for port in SENTINELS.values())}/mymaster/0"
_SENTINEL = """\
port {port}
bind {address}
protected-mode no
dir {folder}
sentinel monitor mymaster {address} {master} 2
sentinel down-after-milliseconds mymaster 1000
sentinel failover-timeout mymaster 5000
"""
#: How often Sentinels ask and tell (ms; seconds by default).
_PERIODS = {"info-period": 300, "ping-period": 300, "ask-period": 100, "publish-period": 200, "tilt-period": 1000}


@dataclass(frozen=True, slots=True)
class Office:
    """The machine of balancer and store, on which the users' screens stand too."""

    machine: Machine
    folder: Path
    servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def client(self, server: str) -> redis.Redis:
        """Return a plain client of a server or Sentinel, to look behind farmlease's back."""
        return redis.Redis(
            unix_socket_path=str(self.folder / f"{server}.sock"), socket_timeout=1, decode_responses=True
        )

    def master(self) -> str:
        """Return the server that the Sentinels name."""
        _, port = self.client("watch-1").execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
        return next(name for name, own in SERVERS.items() if own == int(port))

    def start_server(self, name: str, *more: str) -> None:
        """Start a Redis server on what it had before."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        self.servers[name] = self.machine.start(
            name, require("redis-server"), "--bind", BALANCER, "--port", str(SERVERS[name]), "--protected-mode", "no",
            "--unixsocket", f"{folder}.sock", "--dir", folder, "--save", "", "--appendonly", "yes",
            "--repl-diskless-sync-delay", "0", *more,
        )  # fmt: skip
        wait_until(lambda: self.client(name).ping() or None, f"{name} answers")

    def fail_over(self) -> str:
        """Kill the master with -9; return when the Sentinels have made the other one the master."""
        old = self.master()
        pid = self.client(old).info("server")["process_id"]
        self.machine.run("kill", "-9", str(pid))

        def promoted() -> str | None:
            new = self.master()
            return new if new != old and self.client(new).info("replication")["role"] == "master" else None

        return wait_until(promoted, "a fail-over by the Sentinels")

    def balancer(self, *command: str) -> str:
        """Say something to the balancer as its administrator does; return what it answers."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(10)
            asked.connect(str(self.machine.inside("/run/haproxy/admin.sock")))
            asked.sendall(f"{' '.join(command)}\n".encode())
            return asked.makefile().read()

    @contextmanager
    def out(self, host: str) -> Iterator[None]:
        """Take a host out for maintenance: the balancer sends nobody there, whoever he is, and the agent's word is moot."""
        server = f"rdp_hosts/{host}"
        self.balancer("set", "server", server, "state", "maint")
        self.wait_state(host, "MAINT")
        yield
        self.balancer("set", "server", server, "state", "ready")
        self.wait_state(host, "UP")

    def states(self) -> Mapping[str, str]:
        """Return what the balancer thinks of each host: UP, DOWN, DRAIN or MAINT; FULL is up with a weight of 0."""
        rows = csv.DictReader(self.balancer("show", "stat").removeprefix("# ").splitlines())
        found = {}
        for row in rows:
            if row["pxname"] == "rdp_hosts" and row["svname"] in HOSTS:
                asked_yet = "INI" not in row["check_status"] + row["agent_status"]
                status = "FULL" if (row["status"], row["weight"]) == ("UP", "0") else row["status"].split()[0]
                found[row["svname"]] = status if asked_yet else "UNASKED"
        return found

    def wait_state(self, host: str, state: str) -> None:
        """Wait until the balancer thinks so of a host."""
        wait_until(lambda: self.states()[host] == state or None, f"{host} is {state} for the balancer")


@contextmanager
def office(folder: Path) -> Iterator[Office]:
    """Set up network, store and balancer, with no host yet."""
    with machine("office", folder, shared=[folder]) as made:
        made.run("sh", "-c", "ip link add farm type bridge && ip link set farm up")
        made.run("ip", "address", "add", f"{BALANCER}/24", "dev", "farm")
        opened = Office(made, folder)
        opened.start_server("one")
        opened.start_server("two", "--replicaof", BALANCER, str(SERVERS["one"]))
        for name, port in SENTINELS.items():
            _start_sentinel(opened, name, port)
        wait_until(lambda: _whole(opened) or None, "store and Sentinels in order")
        yield opened


def start_balancer(opened: Office) -> None:
    """Start HAProxy with the sample; only how it spreads new users is the test's, and that there are two hosts."""
    sample = (DEPLOY / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8")
    rdp = {"backend rdp_hosts\n    balance leastconn": f"backend rdp_hosts\n    {SPREAD}"}
    lines = replaced(sample, {**rdp, "# stats socket ipv4": "stats socket ipv4"}).splitlines()
    config = opened.folder / "haproxy.cfg"
    config.write_text("\n".join(line for line in lines if "server ctx-03" not in line) + "\n")
    opened.machine.run("mkdir", "-p", "/run/haproxy")
    opened.machine.start("haproxy", require("haproxy"), "-db", "-f", config)


def _start_sentinel(opened: Office, name: str, port: int) -> None:
    folder = opened.folder / name
    folder.mkdir()
    config = folder / "sentinel.conf"
    text = _SENTINEL.format(port=port, address=BALANCER, folder=folder, master=SERVERS["one"])
    config.write_text(f"{text}unixsocket {folder}.sock\n")
    opened.machine.start(name, require("redis-server"), config, "--sentinel")
    wait_until(lambda: opened.client(name).ping() or None, f"{name} answers")
    opened.client(name).execute_command("SENTINEL", "DEBUG", *(part for pair in _PERIODS.items() for part in pair))


def _whole(opened: Office) -> bool:
    def state(name: str) -> Any:
        return opened.client(name).execute_command("SENTINEL", "MASTER", "mymaster")

    def flat(found: Any) -> dict[str, str]:
        return found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))

    told = [flat(state(name)) for name in SENTINELS]
    return all(("2", "1") == (each["num-other-sentinels"], each["num-slaves"]) for each in told)
