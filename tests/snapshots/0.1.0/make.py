"""Make the snapshot beside this file: a farm's store and two nodes' state folders, as version 0.1.0 leaves them.

It runs against the sources of 0.1.0 (commit f282ed4), and with that version's own test helpers:

    cd CHECKOUT-OF-f282ed4 && PYTHONPATH=. python .../tests/snapshots/0.1.0/make.py FOLDER

Production agents work on a real redis-server, both on virtual time. FOLDER must not exist yet.
"""

import asyncio
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from farmlease.history import History
from farmlease.keyring import KeyRing
from farmlease.roster import Roster
from farmlease.seal import Sealer
from farmlease.store.connect import Connection
from farmlease.store.redis import Store
from redis import asyncio as driver
from tests.nodes import FARM, IDENTITIES, JOHN, MARY, Host, Site
from tests.servers import RedisServer, virtual_time_server
from tests.stores import DAY, HOUR, NINE, StoreClock, TimedStore, no_sleep, show

import farmlease.node.journal
from farmlease.domain.identity import User
from farmlease.domain.model import Withdrawal
from farmlease.domain.policy import parse_policy
from farmlease.farm import Farm

MINUTE = 60_000
SECOND = 1_000
#: Where the farm lives while it is made. The policy names it, so it must always be the same.
PLACE = Path("/tmp/fl-0.1.0")  # noqa: S108 - of this script alone
MACHINES = {"ctx-01": "1" * 16, "ctx-02": "2" * 16}
POLICY = """\
# what we bought
[[pool]]
name = "qlikview"
kind = "named"
capacity = 8
overdraft = 1
max_hold = "4h"
reserve = [{ users = ['CORP\\boss'], seats = 1 }]
files = ["/tmp/fl-0.1.0/disk/{user}/cal.pgo"]

[[pool]]
name = "clearquest"
kind = "floating"
capacity = 2
max_hold = "4h"
linger = "20m"
queue = "1h"

[[pool]]
name = "clearquest-node"
kind = "node_locked"
nodes = ["ctx-02"]

[[rule]]
sites = ["intake-web"]
access = "restricted"

[[rule]]
users = ['CORP\\intern-*']
access = "denied"
"""


def user(name: str) -> User:
    """Return a user of the farm's domain."""
    return IDENTITIES.user(rf"CORP\{name}")


def as_administrator(farm: Farm) -> Farm:
    """Return the farm as its administrator sees it."""
    return Farm(farm.name, farm.leases, farm.sealer, by="root on ctx-01")


def run_on(host: str, boot: str) -> None:
    """Let agents that start from now on believe to run on this host, in this boot."""
    farmlease.node.journal.machine_marker = lambda: MACHINES[host]
    farmlease.node.journal.boot_marker = lambda: boot


def switched_on(site: Site, name: str, people: list[User]) -> Host:
    """Return a host with its users' folders, and an agent on it."""
    run_on(name, f"first boot of {name}")
    for person in people:
        (site.folder / f"{name}.{len(site.hosts)}" / "disk" / person.name).mkdir(parents=True, exist_ok=True)
    return site.host(name)


async def tell_keys(host: Host) -> None:
    """Let a host say in the store which keys it has."""
    site = host.site
    shutil.copy2(site.folder / "keyring.json", host.ring_file)
    await host.node.rounds.look_at_keys()


async def before(site: Site) -> tuple[Host, Host]:
    """Two days before: two hosts, and people who have gone since."""
    people = [user(name) for name in ("lisa", "tom", "peter", "anna", "emil", "eve", "boss")]
    site.timed.clock.set(NINE - 2 * DAY)
    first, second = (switched_on(site, name, people) for name in ("ctx-01", "ctx-02"))
    for host in (first, second):
        await host.beat()
        await tell_keys(host)

    # Emil was here once, gave his seat back, and his name is to be forgotten.
    await first.granted(user("emil"), "e-1", pool="qlikview")
    await first.end("e-1")
    (qlikview, *_) = (await site.farm.policy()).pools
    await as_administrator(site.farm).withdraw(qlikview, user("emil"), Withdrawal.RETURNED)

    # Mary works outside the farm too; that notebook is stolen. She has a lease and no session now.
    await second.granted(MARY, "m-1", pool="qlikview", device="NB-4711")
    await second.end("m-1")
    await as_administrator(site.farm).replace_device(qlikview, MARY, "NB-4711", "NB-4712", note="stolen on the train")
    await second.granted(MARY, "m-2", pool="qlikview")
    second.write(b"borrowed by mary", MARY)
    await second.end("m-2")

    # ctx-02 is booted anew: that was one life, and here begins another.
    await second.beat()
    second.kill()
    run_on("ctx-02", "second boot of ctx-02")
    second.boot()
    return first, second


async def day(site: Site, first: Host, second: Host) -> asyncio.Task[object]:
    """The day of the snapshot, from 09:00 on. The task is a user who waits for a seat."""
    clock, farm = site.timed.clock, as_administrator(site.farm)
    clock.set(NINE)
    for host in (first, second):
        await host.beat()
    policy = await farm.policy()
    qlikview, clearquest, _ = policy.pools
    history = History(farm)
    for pool in ("qlikview", "clearquest", "clearquest-node", ""):
        await history.forget(pool, user("emil"))

    # Otto comes from the vendor's book and was never here.
    await farm.import_lease(qlikview, policy.version, user("otto"), FARM, NINE - 5 * DAY)

    # John works on both hosts, with two versions of his file: the one saved first wins, the other is kept aside.
    await first.granted(JOHN, "7", pool="qlikview")
    first.write(b"borrowed by john")
    await first.save("7")
    await second.granted(JOHN, "8", pool="qlikview")
    second.write(b"borrowed by john, on ctx-02")
    await second.save("8")
    first.write(b"borrowed by john, on ctx-01")
    await first.save("7")

    # Anna gave her seat back today: it is quarantined. Peter's was revoked while he worked.
    await second.granted(user("anna"), "a-1", pool="qlikview")
    await second.end("a-1")
    await farm.withdraw(qlikview, user("anna"), Withdrawal.RETURNED)
    await second.granted(user("peter"), "p-1", pool="qlikview")
    await farm.withdraw(qlikview, user("peter"), Withdrawal.REVOKED, "left the company")

    # Of the two floating seats John holds one for four hours; Lisa has the other; Tom waits for one.
    await first.granted(JOHN, "cq-7", pool="clearquest")
    assert await first.agent.hold_session("cq-7", None)
    await second.granted(user("lisa"), "cq-1", pool="clearquest")
    await second.granted(user("eve"), "node-1", pool="clearquest-node")

    # Two decisions without a seat.
    await first.start(user("visitor"), "w-1", site="intake-web")
    await first.denied(user("intern-1"), "w-2", pool="qlikview")

    # Lisa works on ctx-01, and the store is away from it before she ends.
    await first.granted(user("lisa"), "11", pool="qlikview")
    clock.advance(HOUR)
    for host in (first, second):
        await host.beat()
    second.restart()  # in the same boot: the new agent adopts what is open
    first.line.cut.add("*")
    first.write(b"borrowed by lisa", user("lisa"))
    await first.end("11")
    await first.granted(JOHN, "12", pool="qlikview")  # by the node's own receipt: the store has not heard of it
    await first.start(user("visitor"), "w-3", site="intake-web")
    first.agent.drain(on=True)
    await first.agent.stop()
    first.kill()

    clock.advance(MINUTE)
    second.mount()
    await second.beat()
    await Roster(farm).drain("ctx-02", on=True)
    waiting: asyncio.Task[object] = asyncio.create_task(
        second.start(user("tom"), "cq-2", pool="clearquest", wait_ms=HOUR)
    )
    while not (await farm.use(clearquest)).queued:
        await asyncio.sleep(0.01)
    return waiting


def take(site: Site, server: RedisServer, second: Host, folder: Path) -> None:
    """Copy everything at one moment: ctx-01's agent was stopped, that of ctx-02 is as kill -9 would leave it."""
    site.timed.raw.save()
    folder.mkdir(parents=True)
    shutil.copy(server.folder / "dump.rdb", folder / "store.rdb")
    shutil.copy(site.folder / "keyring.json", folder / "keyring.json")
    for host in site.hosts:
        shutil.copytree(
            host.folder / "state", folder / host.name, ignore=shutil.ignore_patterns("*-shm", "*.lock", "*.new")
        )
    assert (folder / second.name / "journal.sqlite-wal").exists()


async def make(server: RedisServer, clock_file: Path, folder: Path) -> None:
    """Let the farm live and take its snapshot."""
    clock = StoreClock(lambda now_ms: show(clock_file, now_ms))
    clock.set(NINE - 2 * DAY)
    client, raw = driver.Redis(unix_socket_path=str(server.socket)), server.client()
    connection = Connection(client, describe="redis", timeout_ms=10_000, server=None, sleep=no_sleep)
    # Two keys: the first sealed nothing that is left.
    ring = KeyRing.generate(clock.now_ms - DAY).grown(clock.now_ms - HOUR).activated()
    ring.create_file(PLACE / "keyring.json")
    site = Site(PLACE, TimedStore("redis", Store(connection, FARM), clock, raw, connection), ring)
    await as_administrator(Farm(FARM, site.timed.store, Sealer(ring, FARM))).apply(parse_policy(POLICY, "pools.toml"))
    first, second = await before(site)
    waiting = await day(site, first, second)
    take(site, server, second, folder)
    waiting.cancel()
    await asyncio.wait([waiting])
    await second.agent.settled()
    second.kill()
    await client.aclose()
    print(f"made at {clock.now_ms} ms")  # noqa: T201 - what the README and the test name


def main() -> None:
    """Make the snapshot in the folder that the command line names."""
    folder = Path(sys.argv[1]).resolve()
    with ExitStack() as stack:
        PLACE.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, PLACE)
        server, clock_file = stack.enter_context(virtual_time_server())
        asyncio.run(make(server, clock_file, folder))


if __name__ == "__main__":
    main()
