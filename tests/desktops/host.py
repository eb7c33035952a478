"""A session host: Debian's xrdp and sshd, PAM as in ``deploy/pam``, an agent, and accounts and homes of its own."""

import http.client
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.desktops.machine import Machine, machine
from tests.support.patience import within
from tests.support.samples import DEPLOY, ROOT

__all__ = ["FARM", "PASSWORD", "USERS", "Host", "host", "network"]

FARM = "citrix-a"
#: Everybody's.
PASSWORD = "correct-horse"  # noqa: S105 - of accounts that exist for a minute in a namespace
#: Who has an account on every host, by name and number.
USERS: Mapping[str, int] = {
    name: 3001 + number for number, name in enumerate(("john", "mary", "peter", "ann", "ben", "cara"))
}
#: What a host has for itself. Where the real machine has something there, it is seen until it is changed.
OVERLAID = ("/etc", "/opt", "/usr/local", "/var")
_FARMLEASE = """\
#!/bin/sh
export PYTHONPATH={sources}
exec {python} -P -m farmlease "$@"
"""
_CONFIG = """\
farm = "{farm}"

[store]
url = "{store}"

[agent]
listen = "unix:/run/farmlease/agent.sock"
heartbeat = "1s"
max_sessions = 10

[health]
listen = "{address}:8732"
agent_check = "{address}:8733"

[recovery]
window = "3s"

[hooks]
ended = ["/usr/local/lib/farmlease/forget-absent", "192.0.2.10:9734", "{name}", "{{user}}"]
drained = ["/usr/local/lib/farmlease/forget-absent", "192.0.2.10:9734", "{name}"]
"""
_SSHD = """\
Include /etc/ssh/sshd_config.d/*.conf
KbdInteractiveAuthentication yes
PasswordAuthentication yes
UsePAM yes
"""
#: What the vendor's program leaves when it borrows a licence: bytes that are nobody's business.
_BORROW = """\
#!/bin/sh
mkdir -p ~/.qlikview
head -c 700 /dev/urandom > ~/.qlikview/BorrowedCalData.pgo
"""


@dataclass(frozen=True, slots=True)
class Host:
    """One host of the farm."""

    machine: Machine
    address: str

    @property
    def name(self) -> str:
        """Its name, and its node's."""
        return self.machine.name

    def sessions(self) -> list[dict[str, Any]]:
        """Return what its agent lists, asked as ``farmlease session list`` asks."""
        with closing(http.client.HTTPConnection("localhost", timeout=10)) as connection:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(10)
            connection.sock.connect(str(self.machine.inside("/run/farmlease/agent.sock")))
            connection.request("GET", "/v1/sessions")
            found: Any = json.loads(connection.getresponse().read())
        rows: list[dict[str, Any]] = found if isinstance(found, list) else found["sessions"]
        return rows

    def users(self) -> list[str]:
        """Return whose sessions its agent has, by their names."""
        return sorted(each["user"] for each in self.sessions())

    def farmlease(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of farmlease's there, as its administrator does."""
        return self.machine.run("/opt/farmlease/bin/farmlease", *words, check=check)

    def licence_file(self, user: str) -> Path:
        """Where a user's borrowed licence lies, as the test sees it."""
        return self.machine.inside(f"/home/{user}/.qlikview/BorrowedCalData.pgo")

    def runs(self, user: str, program: str) -> bool:
        """Tell whether a program of a user's runs there."""
        return bool(self.machine.running(program, USERS[user]))

    def runs_for_nobody(self) -> str:
        """Return what runs in the name of nobody."""
        return self.machine.run("pgrep", "--runstates", "RSD", "--uid", "nobody", "--list-full", check=False).stdout

    def told(self, user: str) -> list[str]:
        """Return the denials that xrdp heard from PAM as this user's sessions were to begin."""
        lines = self.machine.inside("/var/log/xrdp-sesman.log").read_text(errors="replace").splitlines()
        found = list[str]()
        of = ""
        for line in lines:
            if begun := re.search(r"Starting session: .* user name (\S+)", line):
                of = begun[1]
            elif of == user and "PAM: denied: " in line:
                found.append(line.partition("PAM: denied: ")[2])
        return found

    def windows(self, user: str) -> int:
        """Return how often a window on this user's desktop was opened here."""
        return self.machine.inside("/var/log/xrdp.log").read_text(errors="replace").count(f" X11rdp_uid={USERS[user]} ")

    def shell(self, user: str) -> int:
        """Return the process number of a user's one shell in a window."""
        (pid,) = self.machine.running("bash", USERS[user])
        return pid

    def start_agent(self) -> None:
        """Start the agent and wait until it is ready."""
        self.machine.start("agent", "/opt/farmlease/bin/farmlease", "agent")
        deadline = time.monotonic() + within(20)
        while 0 != self.farmlease("health", f"http://{self.address}:8732/readyz", check=False).returncode:
            assert time.monotonic() < deadline, self.machine.log("agent")


@contextmanager
def host(name: str, address: str, office: Machine, store: str, shared: Sequence[Path], policy: str) -> Iterator[Host]:
    """Boot a host: its accounts, PAM, agent, sshd and xrdp. The key ring is the first of the ``shared`` files."""
    with machine(name, office.logs, office, shared) as made:
        booted = Host(made, address)
        network(booted.machine, office, address)
        _furnish(booted)
        _open_doors(booted)
        _install_farmlease(booted, store, office.logs / "keyring.json")
        made.write("/etc/farmlease/pools.toml", policy)
        booted.farmlease("pool", "apply", "/etc/farmlease/pools.toml", "--yes")
        booted.start_agent()
        _start_doors(booted)
        yield booted


def network(made: Machine, office: Machine, address: str) -> None:
    """Plug a machine into the office's bridge."""
    end = made.name
    office.run("ip", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", str(_pid_in(office, made)))
    office.run("ip", "link", "set", end, "master", "farm", "up")
    made.run("sh", "-c", f"ip address add {address}/24 dev eth0 && ip link set eth0 up")


def _pid_in(office: Machine, made: Machine) -> int:
    """Return the number by which the office knows a machine's first process."""
    status = Path(f"/proc/{made.first.pid}/status").read_text()
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
    return int(numbers[-2])


def _furnish(booted: Host) -> None:
    """Give a host what an installation has of its own: settings, accounts, homes, and the vendor's program."""
    made = booted.machine
    lines = ["set -e", "mount -t tmpfs -o mode=755 machine /home"]
    for folder in OVERLAID:
        layer = f"/run/layers{folder}"
        lines += [
            f"mkdir -p {layer}/new {layer}/work",
            f"mount -t overlay -o lowerdir={folder},upperdir={layer}/new,workdir={layer}/work machine {folder}",
        ]
    made.run("sh", "-c", "\n".join(lines))
    made.write("/etc/hostname", f"{made.name}\n")
    made.write("/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {made.name}\n")
    accounts = "".join(f"{name}:{PASSWORD}:{uid}:{uid}::/home/{name}:/bin/bash\n" for name, uid in USERS.items())
    made.run("newusers", said=accounts)
    made.write("/usr/local/bin/borrow", _BORROW, 0o755)


def _open_doors(booted: Host) -> None:
    """Let PAM ask farmlease, as the guide and the file's own comment say; sshd asks by PAM and for nothing else."""
    made = booted.machine
    made.run("install", "-D", "-m", "755", DEPLOY / "pam" / "pam-session", "/usr/local/lib/farmlease/pam-session")
    made.run("install", "-D", "-m", "755", DEPLOY / "pam" / "show-reason", "/usr/local/lib/farmlease/show-reason")
    made.run(
        "install", "-D", "-m", "755", DEPLOY / "haproxy" / "forget-absent", "/usr/local/lib/farmlease/forget-absent"
    )
    made.run("install", "-D", "-m", "644", DEPLOY / "pam" / "farmlease", "/etc/pam.d/farmlease")
    for service in ("xrdp-sesman", "sshd"):
        file = made.inside(f"/etc/pam.d/{service}")
        file.write_text(f"{file.read_text().rstrip()}\n@include farmlease\n")
    made.write("/etc/ssh/sshd_config", _SSHD)
    made.run("usermod", "--append", "--groups", "ssl-cert", "xrdp")  # as its README.Debian says: for the TLS key


def _install_farmlease(booted: Host, store: str, ring: Path) -> None:
    made = booted.machine
    program = _FARMLEASE.format(python=sys.executable, sources=ROOT)
    made.write("/opt/farmlease/bin/farmlease", program, 0o755)
    made.inside("/opt/farmlease/bin/python").symlink_to(sys.executable)
    made.write(
        "/etc/farmlease/farmlease.toml", _CONFIG.format(farm=FARM, store=store, address=booted.address, name=made.name)
    )
    made.run("install", "-m", "600", ring, "/etc/farmlease/keyring.json")
    made.run("install", "-d", "-m", "755", "/run/farmlease")


def _start_doors(booted: Host) -> None:
    """Start sshd and xrdp as their units do."""
    made = booted.machine
    made.run("install", "-d", "-m", "755", "/run/sshd")
    made.run("ssh-keygen", "-A")
    made.start("sshd", "/usr/sbin/sshd", "-D", "-e")
    made.run("install", "-d", "-m", "755", "-o", "xrdp", "-g", "xrdp", "/run/xrdp")
    made.run("sh", "/usr/share/xrdp/socksetup")
    made.start("sesman", "/usr/sbin/xrdp-sesman", "--nodaemon")
    made.start("xrdp", "setpriv", "--reuid", "xrdp", "--regid", "xrdp", "--init-groups", "/usr/sbin/xrdp", "--nodaemon")
