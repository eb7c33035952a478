"""Three hosts that are folders of one machine, on which the operator's guide is followed word for word.

Only where things lie differs: the guide's paths lead into the host's folder, and its addresses are loopback ones, so
that all ports are the real ones; and an agent ends without letting its balancer hear of it first (``shutdown_delay``).
An agent sees the accounts of the guide's users, with homes in its host's folder.
``ssh`` and ``scp`` lead from folder to folder, ``systemctl`` is tests/support/service_manager.py.
"""

import csv
import os
import random
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.account_files import AccountFiles
from tests.support.patience import within
from tests.support.samples import DEPLOY, ROOT
from tests.support.servers import require
from tests.support.service_manager import stop_all

__all__ = ["BALANCER", "HOSTS", "Block", "Farm", "blocks", "three_hosts"]

HOSTS = ("ctx-01", "ctx-02", "ctx-03")
BALANCER = "balancer"
_PLACES = re.compile(r"(?<![\w/.%}-])/(?=(?:etc|opt|var/lib|run|usr/local|home)/)")
_SSH = """\
#!/bin/bash
# ssh root@ADDRESS COMMAND
there={base}/ctx-0${{1: -1}}
exec $there/enter "$(sed "s#{root}/#$there/#g" <<< "${{*:2}}")"
"""
_SCP = """\
#!/bin/bash
# scp -pr FILE... root@ADDRESS:FOLDER
given=("${{@:2:$#-2}}"); to=${{@: -1}}; address=${{to%%:*}}
cp -pr "${{given[@]}}" "$(sed "s#{root}/#{base}/ctx-0${{address: -1}}/#" <<< "${{to#*:}}")"
"""
_SYSTEMCTL = """\
#!/bin/sh
PYTHONPATH={project} exec {python} -m tests.support.service_manager {root} "$@"
"""
_ENTER = """\
#!/bin/bash
export PATH={root}/shims:{root}/opt/farmlease/bin:$PATH NODE={node} ADDRESS={address} HOME={root}
cd {root}/sources
exec bash -euo pipefail -c "$1"
"""
_FARMLEASE = """\
#!/bin/sh
export PYTHONPATH={project} FARMLEASE_CONFIG={root}/etc/farmlease/farmlease.toml
export FARMLEASE_KEYS__FILE=${{FARMLEASE_KEYS__FILE:-{root}/etc/farmlease/keyring.json}}
export FARMLEASE_AGENT__STATE_DIR={root}/var/lib/farmlease FARMLEASE_AGENT__SHUTDOWN_DELAY=0s
export FARMLEASE_AGENT__LISTEN=unix:{root}/run/farmlease/agent.sock
if [ "$*" = agent ]; then exec {with_accounts} -m farmlease agent; fi
exec {python} -m farmlease "$@"
"""
#: Who works on the farm while the guide is followed.
_USERS = {"john": 7101, "mary": 7102, "paul": 7103}


@dataclass(frozen=True, slots=True)
class Block:
    """Some lines of the guide and the hosts they are for; none: they are not run here."""

    section: str
    hosts: Sequence[str]
    text: str


def blocks() -> list[Block]:
    """Return what the guide tells to type, in its order."""
    found, section = list[Block](), ""
    hosts: Sequence[str] = ()
    guide = (DEPLOY / "README.md").read_text(encoding="utf-8")
    for heading, where, text in re.findall(
        r"^## (.+)$|^<!-- on (.+) -->$|^```sh\n((?s:.*?))^```$", guide, re.MULTILINE
    ):
        if heading:
            section = heading
        elif where:
            hosts = HOSTS if where == "every host" else (where,)
        else:
            found.append(Block(section, hosts, text))
            hosts = ()
    return found


@dataclass(frozen=True, slots=True)
class Farm:
    """The three hosts. ``prefix`` begins their addresses, as ``192.0.2.`` does in the guide."""

    base: Path
    prefix: str

    def here(self, text: str, node: str) -> str:
        """Return a text of the guide or of a sample with this host's places in it."""
        return (
            _PLACES.sub(f"{self.base / node}/", text)
            .replace("192.0.2.", self.prefix)
            .replace("bind :", f"bind {self.prefix}10:")
        )

    def run(self, block: Block) -> str:
        """Type a block where it is for; return what it printed. A command that fails ends it."""
        return "".join(self.type(node, block.text) for node in block.hosts)

    def type(self, node: str, text: str) -> str:
        """Type something on a host."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("FARMLEASE_")}
        environ["FARMLEASE_STORE__TIMEOUT"] = f"{min(within(1), 8):.0f}s"  # two, unless the machine is busy
        done = subprocess.run(
            [self.base / node / "enter", self.here(text, node)],
            capture_output=True, text=True, timeout=within(180), check=False, env=environ,
        )  # fmt: skip
        assert 0 == done.returncode, f"on {node}:\n{text}\n{done.stdout}\n{done.stderr}\n{self.logs(node)}"
        return done.stdout

    def balanced(self) -> Mapping[str, list[str]]:
        """Return what HAProxy thinks of each host, in each list that it is in; EMPTYING: up, and nobody new goes there."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(self.base / BALANCER / "run/haproxy/admin.sock"))
            asked.sendall(b"show stat\n")
            rows = csv.DictReader(asked.makefile().read().removeprefix("# ").splitlines())
            found: dict[str, list[str]] = {node: [] for node in HOSTS}
            for row in rows:
                if row["svname"] in found:
                    asked_yet = "INI" not in row["check_status"] + row["agent_status"]
                    status = "EMPTYING" if (row["status"], row["weight"]) == ("UP", "0") else row["status"]
                    found[row["svname"]].append(status if asked_yet else "UNASKED")
        return found

    def logs(self, node: str) -> str:
        """Return the end of what the programs of a host have written."""
        files = sorted((self.base / node / "run").glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-2000:]}" for file in files)


@contextmanager
def three_hosts() -> Iterator[Farm]:
    """Set up three hosts that have Debian, Redis and farmlease's program, and nothing else of it."""
    base = Path(tempfile.mkdtemp(prefix="fl-"))
    base.chmod(0o755)
    numbers = random.Random(os.getpid())  # noqa: S311 - addresses, not secrets
    farm = Farm(base, f"127.{numbers.randrange(1, 255)}.{numbers.randrange(1, 255)}.")
    try:
        for number, node in enumerate((BALANCER, *HOSTS)):
            set_up(farm, node, f"{farm.prefix}{10 + number}")
        yield farm
    finally:
        for node in (BALANCER, *HOSTS):
            stop_all(base / node)
        shutil.rmtree(base)


def homes(folder: Path) -> Iterator[str]:
    """Make the users' home folders, with that of the program in each; yield their lines for the account file."""
    for name, number in _USERS.items():
        (folder / name / ".qlikview").mkdir(parents=True)
        for path in (folder / name, folder / name / ".qlikview"):
            os.chown(path, number, number)
        yield f"{name}:x:{number}:{number}::{folder / name}:/bin/sh\n"


def set_up(farm: Farm, node: str, address: str) -> None:
    """Make a host's folder: what the operating system and the installation of farmlease would have put there."""
    root = farm.base / node
    for folder in (
        "etc/redis",
        "etc/systemd/system",
        "etc/haproxy",
        "etc/pam.d",
        "home",
        "run/haproxy",
        "var/lib/redis",
        "shims",
    ):
        (root / folder).mkdir(parents=True)
    accounts = AccountFiles(root / "etc")
    accounts.write(passwd=Path("/etc/passwd").read_text(encoding="utf-8") + "".join(homes(root / "home")))
    values = {
        "root": root, "base": farm.base, "project": ROOT, "python": sys.executable, "node": node, "address": address,
        "with_accounts": shlex.join(accounts.command([sys.executable])),
    }  # fmt: skip
    programs = {
        "enter": _ENTER, "shims/ssh": _SSH, "shims/scp": _SCP, "shims/systemctl": _SYSTEMCTL,
        "opt/farmlease/bin/farmlease": _FARMLEASE,
    }  # fmt: skip
    for name, text in programs.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text.format(**values))
        (root / name).chmod(0o755)
    for program in ("redis-server", "redis-cli", "haproxy"):
        (root / "shims" / program).symlink_to(require(program))
    for file in DEPLOY.rglob("*"):
        if file.is_file():
            copy = root / "sources" / "deploy" / file.relative_to(DEPLOY)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(farm.here(file.read_text(encoding="utf-8"), node))
