"""What version 0.1.0 left behind can be opened: its store, its key ring and its journals, with all that was put in."""

import csv
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import asyncio as driver

from farmlease.crypto import keyring_file
from farmlease.crypto.seal import RecordBinding, Sealer
from farmlease.domain.identity import User
from farmlease.domain.record import decode
from farmlease.farm import Farm
from farmlease.store.connection.connection import Connection
from farmlease.store.connection.renewals import Renewals
from farmlease.store.lease_store import LeaseStore
from tests.support.commands import Host as Shell
from tests.support.commands import host_of
from tests.support.nodes import FARM, IDENTITIES, JOHN, MARY, Host, Line, Site
from tests.support.servers import RedisServer, redis_server, virtual_time_server
from tests.support.stores import StoreClock, TimedStore, no_sleep, show

SNAPSHOT = Path(__file__).parent / "0.1.0"
MADE_AT = 1_767_607_260_000  #: 2026-01-05 10:01:00 UTC
JOURNAL = "farmlease.node.journal.journal"
MACHINES = {"ctx-01": "1" * 16, "ctx-02": "2" * 16}
BOOTS = {"ctx-01": "first boot of ctx-01", "ctx-02": "second boot of ctx-02"}
LISA = IDENTITIES.user(r"CORP\lisa")


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A copy of the snapshot, private as the originals were: Git does not keep that."""
    folder = tmp_path / "snapshot"
    shutil.copytree(SNAPSHOT, folder)
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder


@pytest.fixture
def running(snapshot: Path) -> Iterator[tuple[RedisServer, StoreClock]]:
    """A redis-server on the snapshot's data, at the moment at which it was made."""
    with virtual_time_server("--dir", str(snapshot), "--dbfilename", "store.rdb") as (server, file):
        clock = StoreClock(lambda now_ms: show(file, now_ms))
        clock.set(MADE_AT)
        yield server, clock


@pytest.fixture
def shell(running: tuple[RedisServer, StoreClock], snapshot: Path, tmp_path: Path) -> Shell:
    """An administrator of that farm."""
    server, _ = running
    folder = tmp_path / "shell"
    folder.mkdir()
    shell = host_of(folder, server)
    shutil.copy2(snapshot / "keyring.json", shell.ring_file)
    return shell


@pytest.fixture
async def farm(running: tuple[RedisServer, StoreClock], snapshot: Path, tmp_path: Path) -> AsyncIterator[Site]:
    """The farm, no host of which is switched on yet."""
    server, clock = running
    client, raw = driver.Redis(unix_socket_path=str(server.socket)), server.client()
    connection = Connection(
        client, describe="redis", timeout_ms=10_000, server=None, sleep=no_sleep, renewals=Renewals()
    )
    timed = TimedStore("redis", LeaseStore(connection, FARM), clock, raw, connection)
    site = Site(tmp_path, timed, keyring_file.load(snapshot / "keyring.json"))
    yield site
    for host in site.hosts:
        await host.agent.settled()
        host.kill()
    await client.aclose()
    raw.close()


@pytest.fixture
def switched_on(farm: Site, snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Host]:
    """Call it with a node's name to start an agent on its state folder, in the boot in which the other one ended."""

    def switch_on(name: str) -> Host:
        folder = farm.folder / name
        (folder / "disk").mkdir(parents=True)
        (snapshot / name).rename(folder / "state")
        monkeypatch.setattr(f"{JOURNAL}.machine_marker", lambda: MACHINES[name])
        monkeypatch.setattr(f"{JOURNAL}.boot_marker", lambda: BOOTS[name])
        line = Line(farm.timed.connection)
        host = Host(name, farm, line, Farm(FARM, LeaseStore(line, FARM), Sealer(farm.ring, FARM)), folder).boot()
        farm.hosts.append(host)
        return host

    return switch_on


def rows(shell: Shell, *command: str) -> list[dict[str, str]]:
    """Return what a command lists."""
    ended = shell.run(*command, "-o", "csv")
    assert (0, "") == (ended.status, ended.err)
    return list(csv.DictReader(ended.out.splitlines()))


def test_the_snapshot_is_small() -> None:
    """It is in everybody's clone."""
    assert sum(path.stat().st_size for path in SNAPSHOT.rglob("*") if path.is_file()) < 200_000


def test_the_system_s_redis_loads_the_store(snapshot: Path, running: tuple[RedisServer, StoreClock]) -> None:
    """The data are not those of one version of Redis: another server has the same keys of the same types."""
    server, _ = running
    with redis_server("--dir", str(snapshot), "--dbfilename", "store.rdb") as other:
        found = [{key: client.type(key) for key in client.scan_iter()} for client in (server.client(), other.client())]
    assert found[0] == found[1]
    assert 40 == len(found[0])


def test_every_lease_is_listed(shell: Shell) -> None:
    """Active, idle, quarantined, on two devices, with sessions on two hosts: each as it was."""
    assert {
        (r"corp\john", "qlikview", "active", "citrix-a"),
        (r"corp\lisa", "qlikview", "active", "citrix-a"),
        (r"corp\mary", "qlikview", "idle", "citrix-a 2026-02-02T09:00:00.000Z; nb-4712 2026-02-02T09:00:00.000Z"),
        (r"corp\otto", "qlikview", "idle", "citrix-a 2026-01-30T09:00:00.000Z"),
        (r"corp\anna", "qlikview", "quarantined", "citrix-a 2026-02-04T09:00:00.000Z"),
        (r"corp\peter", "qlikview", "quarantined", "citrix-a 2026-02-04T09:00:00.000Z"),
        (r"corp\john", "clearquest", "active", "citrix-a"),
        (r"corp\lisa", "clearquest", "active", "citrix-a"),
        (r"corp\eve", "clearquest-node", "active", "citrix-a"),
    } == {(row["user"], row["pool"], row["state"], row["devices"]) for row in rows(shell, "lease", "list")}


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("qlikview", "8 4 2 2 1 0"),
        ("clearquest", "2 2 0 0 0 1"),
        ("clearquest-node", "1 1 0 0 0 0"),
    ],
)
def test_every_pool_has_its_counts(shell: Shell, pool: str, expected: str) -> None:
    """Capacity, used, quarantined, free, reserved and queued, from the limits and books of each pool."""
    (row,) = rows(shell, "pool", "show", pool)
    names = ("capacity", "used", "quarantined", "free", "reserved", "queued")
    assert expected == " ".join(row[name] for name in names)


@pytest.mark.parametrize(
    ("user", "options", "expected"),
    [
        ("john", (), "VALID\n"),
        ("mary", ("--device", "NB-4712"), "VALID\n"),
        ("mary", ("--device", "NB-4711"), "INVALID: the lease is not on device nb-4711\n"),
        ("anna", (), "INVALID: the lease in pool qlikview was given back\n"),
        ("emil", (), "INVALID: the user has no lease in pool qlikview\n"),
    ],
)
def test_every_record_opens(shell: Shell, user: str, options: tuple[str, ...], expected: str) -> None:
    """With the keys of the snapshot a record opens, bound to its pool, user, lease and version."""
    assert expected == shell.run("lease", "check", rf"CORP\{user}", "--pool", "qlikview", *options).out


def test_a_device_is_known_in_any_spelling(shell: Shell) -> None:
    """The notebook that 0.1.0 wrote in capitals was replaced then; that is not done twice, and its slot is freed."""
    mary = r"CORP\mary"
    again = shell.run("device", "replace", mary, "nb-4711", "Nb-4712", "--reason", "again", "--yes")
    assert (0, "replaced device nb-4711 by nb-4712\n", "") == (again.status, again.out, again.err)
    freed = shell.run("device", "release", mary, "nb-4712")
    assert 0 == freed.status
    assert freed.out.startswith("released device nb-4712; ")


def test_the_audit_is_told(shell: Shell) -> None:
    """Every kind of decision, names and administrators' words opened, and one name forgotten."""
    trail = rows(shell, "audit")
    assert {
        "acquired", "joined", "released", "returned", "revoked", "ended", "lapsed", "device_replaced", "saved", "held", "queued",
        "imported", "forgotten", "restricted", "denied", "drained", "configured", "policy_applied",
    } == {row["event"] for row in trail}  # fmt: skip
    (revoked,) = [row for row in trail if row["event"] == "revoked"]
    assert (r"corp\peter", "root on ctx-01", "left the company") == (revoked["user"], revoked["by"], revoked["note"])
    (forgotten,) = [row for row in trail if row["event"] == "forgotten"]
    assert forgotten["user"] == forgotten["index"]
    assert not any("emil" in str(row) for row in trail)


def test_every_key_is_counted(shell: Shell) -> None:
    """The ring's two keys, and what each has sealed."""
    old, primary = rows(shell, "key", "list")
    assert ("old", "0", "primary", "9") == (old["state"], old["records"], primary["state"], primary["records"])


async def test_a_stopped_agents_journal_is_taken_up(farm: Site, switched_on: Callable[[str], Host]) -> None:
    """The agent adopts the sessions, drains as it was told, and delivers what the store has not heard: nothing is lost."""
    host = switched_on("ctx-01")
    assert {"7": "active", "12": "active", "cq-7": "active"} == host.states
    assert host.agent.draining
    assert [("conflict", b"borrowed by john, on ctx-01")] == host.kept
    before = await farm.record_version(LISA)
    await host.beat()
    assert host.node.state.journal.refused is None
    assert (before + 1, []) == (await farm.record_version(LISA), await farm.sessions(LISA))
    assert {("ctx-01", "7"), ("ctx-01", "12"), ("ctx-02", "8")} == {*await farm.sessions(JOHN)}
    audit: Any = farm.timed.raw.xrange(f"fl:{{{FARM}}}:audit")  # of what was decided without a seat
    assert 2 == len([each for _, each in audit if each[b"event"] == b"restricted"])


async def test_a_killed_agents_journal_is_taken_up(farm: Site, switched_on: Callable[[str], Host]) -> None:
    """The agent adopts the sessions, the lost one too, ends the wait that nobody waits any more, and hears of the wish."""
    host = switched_on("ctx-02")
    assert {"8": "active", "cq-1": "active", "node-1": "active", "p-1": "lost"} == host.states
    clearquest = (await farm.farm.policy()).pool("clearquest")
    assert clearquest is not None
    assert (False, 1) == (host.agent.draining, (await farm.farm.use(clearquest)).queued)
    await host.beat()
    assert host.node.state.journal.refused is None
    assert (True, 0) == (host.agent.draining, (await farm.farm.use(clearquest)).queued)


@pytest.mark.parametrize(
    ("user", "content"), [(JOHN, b"borrowed by john, on ctx-02"), (MARY, b"borrowed by mary"), (LISA, None)]
)
async def test_a_vendors_file_is_in_its_record(farm: Site, user: User, content: bytes | None) -> None:
    """The file that travels with a user comes out of the record as it was saved; what was not delivered is not there."""
    pool = (await farm.farm.policy()).pool("qlikview")
    assert pool is not None
    stored = await farm.timed.store.look_up(pool, farm.farm.sealer.user_index(user))
    assert stored is not None
    binding = RecordBinding(
        pool=pool.name, user_index=stored.user, lease_id=stored.lease.id, version=stored.record_version
    )
    record = decode(farm.farm.sealer.unseal_record(binding, stored.record))
    assert ([] if content is None else [content]) == [file.content for file in record.files]
