"""A store behind Sentinels: three of them and two servers, real ones, killed, stopped and demoted."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from farmlease.errors import StoreError, StoreRefused, StoreUnavailable
from farmlease.store.answers.session import Taken, Taking
from farmlease.store.connection.connection import Connection, StoreAddress, open_connection
from farmlease.store.lease_store import LeaseStore
from farmlease.store.script import LIFE
from tests.support.authority import Authority
from tests.support.members import on_quiet_ports
from tests.support.patience import turns, within
from tests.support.scripts import ECHO, WRITE, cancel_every_other_call, evaluations, forbid_wait_for
from tests.support.seats import VERSION, beat_anywhere, claim
from tests.support.stores import named_pool
from tests.support.topologies import Member, Sentinels, sentinels, wait_until

POOL = named_pool(capacity=10)
PASSWORD, SENTINELS = "between us", "between them"


@pytest.fixture(scope="module")
def running() -> Iterator[Sentinels]:
    """Run them once for all tests."""
    with sentinels() as started:
        yield started


@pytest.fixture
def watched(running: Sentinels) -> Iterator[Sentinels]:
    """Give them to a test in order, whatever the test before has done."""
    for each in (*running.servers, *running.sentinels):
        if each.process is None:
            each.restart()
        each.resume()
    running.hasten()
    running.wait_whole()
    yield running
    for each in running.servers:
        if each.process is not None:
            each.resume()


@asynccontextmanager
async def connected(url: str, **given: Any) -> AsyncIterator[Connection]:
    """Open a connection."""
    async with await open_connection(StoreAddress(url=url, **given)) as connection:
        yield connection


@contextmanager
def parted(watched: Sentinels, server: Member) -> Iterator[None]:
    """Cut a server off from the Sentinels and the other server until this ends."""
    watched.part(server)
    try:
        yield
    finally:
        watched.rejoin(server)


async def duration(call: Coroutine[Any, Any, object]) -> float:
    """Return how long a call takes, whether it is answered or not."""
    began = time.monotonic()
    with suppress(StoreUnavailable):
        await call
    return time.monotonic() - began


async def answered(connection: Connection, patience: float = 20) -> list[Any]:
    """Ask, in call after call, until the store answers."""
    for _ in turns(patience):
        with suppress(StoreUnavailable):
            return await connection.call(ECHO, [], [LIFE])
    raise AssertionError("the store stays away")


async def start(store: LeaseStore, user: str) -> Taken:
    """Start a session of a node that lives."""
    await beat_anywhere(store, POOL)
    taking = Taking(device="citrix-a", lease_id=f"lease of {user}", record=b"x", name=b"name")
    taken = await store.acquire(POOL, VERSION, claim(user), taking)
    assert isinstance(taken, Taken)
    return taken


async def test_the_master_is_asked_and_nobody_else(watched: Sentinels) -> None:
    """The Sentinels name the master; its replica is not asked, and the database of the URL is the one used."""
    replica = watched.replica()
    before = evaluations(replica)
    async with connected(watched.url.replace("/0", "/3")) as connection:
        assert watched.url.replace("/0", "/3") == connection.describe
        await connection.ping()
        await connection.call(WRITE, ["k"], ["here"])
        run_id = (await connection.server_info()).run_id.encode()
        assert [run_id] == await connection.call(ECHO, [], [LIFE])
    assert {"db3"} == set(watched.master().client().info("keyspace"))
    assert before == evaluations(replica)


async def test_a_killed_master_is_replaced(watched: Sentinels) -> None:
    """After a fail-over the same connection finds the new master, whose life is another, and what it had is there."""
    old = watched.master()
    async with connected(watched.url) as connection:
        store = LeaseStore(connection, "citrix-a")
        granted = await start(store, "john")
        (life,) = await connection.call(ECHO, [], [LIFE])
        wait_until(lambda: watched.replica().replicates(old) or None, "the replica to have it all")
        old.kill()
        (new_life,) = await answered(connection)
        again = await start(store, "john")
    assert life != new_life
    assert granted.fence == again.fence


async def test_a_stopped_master_costs_no_call_more_than_twice_the_timeout(watched: Sentinels) -> None:
    """A master that stands still is given up in time, and gets nothing of ours when it goes on."""
    old = watched.master()
    before = evaluations(old)
    async with connected(watched.url, timeout_ms=400) as connection:
        await asyncio.gather(*(connection.call(ECHO, [], [number]) for number in range(20)))
        old.stop()
        took = [await duration(connection.call(ECHO, [], ["x"])) for _ in range(5)]
        assert max(took) < within(0.9)
        watched.wait_failover(old)
        await answered(connection)
        old.resume()
        await asyncio.gather(*(connection.call(ECHO, [], [number]) for number in range(50)))
    wait_until(lambda: not old.is_master() or None, "the old master to be told")
    assert before + 20 + 1 >= evaluations(old), "what was on its way when it stopped"


async def test_a_demoted_master_is_left(watched: Sentinels) -> None:
    """A fail-over in good order, without anything dying, is over for a caller within a few calls, and none is refused."""
    old = watched.master()
    async with connected(watched.url) as connection:
        await asyncio.gather(*(connection.call(WRITE, ["k"], [number]) for number in range(20)))
        switching = asyncio.create_task(asyncio.to_thread(watched.switch, print))
        for number, _ in enumerate(turns(20)):
            if not old.is_master():
                break
            with_errors = await asyncio.gather(
                *(connection.call(WRITE, ["k"], [number]) for _ in range(5)), return_exceptions=True
            )
            assert set() == {type(each) for each in with_errors} - {list, StoreUnavailable}
        await switching
        await answered(connection)
        await connection.call(WRITE, ["k"], ["last"])
    new = watched.wait_failover(old)
    assert b"last" == new.client().get("k")


async def test_a_master_that_was_replaced_and_goes_on_answering_is_left(watched: Sentinels) -> None:
    """L1: cut off from the Sentinels alone, it goes on as a master; seconds after they have another it is asked nothing."""
    old = watched.master()

    async def left(agent: Connection) -> float:
        (life,) = await answered(agent)
        while [life] == await answered(agent):
            await asyncio.sleep(0.01)
        return time.monotonic()

    async with AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(connected(watched.url)) for _ in range(5)]
        leaving = [asyncio.create_task(left(each)) for each in agents]
        with parted(watched, old):
            await asyncio.to_thread(watched.wait_failover, old)
            since = time.monotonic()
            async with asyncio.timeout(within(30)):
                took, before = max(await asyncio.gather(*leaving)) - since, evaluations(old)
            await asyncio.gather(*(each.call(WRITE, ["k"], [number]) for number in range(9) for each in agents))
            assert (before, True) == (evaluations(old), old.is_master())
    sys.stdout.write(f"all five have left it after {took:.2f} s\n")
    assert took < within(5), "the recovery window is fifteen seconds"


async def test_a_sentinel_that_knows_less_is_not_heard(watched: Sentinels) -> None:
    """One that is cut off with the old master goes on naming it: asked first, and believed by nobody."""
    old = watched.master()
    with parted(watched, old):
        new = await asyncio.to_thread(watched.wait_failover, old)
        names = f"sentinel monitor mymaster 127.0.0.1 {old.port} 1\nsentinel down-after-milliseconds mymaster 600000\n"

        def make(folder: Path, ports: list[int]) -> list[Member]:
            return [Member(folder / "late", port=ports[0], config=names, sentinel=True)]

        with on_quiet_ports(1, make) as (late,):
            before = evaluations(old)
            async with connected(watched.url.replace("//", f"//{late.address},")) as connection:
                await asyncio.gather(*(connection.call(WRITE, ["k"], [number]) for number in range(9)))
                assert new.client().info()["run_id"] == (await connection.server_info()).run_id
        assert before == evaluations(old)


async def test_a_server_made_read_only_is_no_master(watched: Sentinels) -> None:
    """READONLY behind Sentinels says that there is another master: the store is away for a moment, and not refused."""
    master = watched.master()
    async with connected(watched.url, timeout_ms=1000) as connection:
        await connection.call(WRITE, ["k"], ["x"])
        for each in watched.sentinels:
            each.stop()
        try:
            master.ask("REPLICAOF", "127.0.0.1", watched.replica_port(master))
            with pytest.raises(StoreUnavailable, match=r"has another master by now|no Sentinel|did not answer"):
                await connection.call(WRITE, ["k"], ["y"])
        finally:
            master.ask("REPLICAOF", "NO", "ONE")
            for each in watched.sentinels:
                each.resume()


async def test_one_sentinel_is_enough(watched: Sentinels) -> None:
    """With one Sentinel dead and one standing still the third is asked in the same try."""
    watched.sentinels[0].kill()
    watched.sentinels[1].stop()
    async with connected(watched.url) as connection:
        await connection.ping()
        await connection.call(ECHO, [], ["x"])


async def test_a_call_can_be_cancelled_at_any_moment(watched: Sentinels, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Sentinel is asked by asyncio.wait_for: on Python 3.11 it forgets a cancellation that meets its own end.

    A call would then have no end any more, nor a heartbeat that an agent stops on its way out.
    """
    forbid_wait_for(monkeypatch)
    async with connected(watched.url) as connection:
        await connection.call(ECHO, [], ["x"])


async def test_no_sentinel_answers(watched: Sentinels) -> None:
    """No Sentinel, or none that knows a master of this name: unavailable, in words that say where to look."""
    for each in watched.sentinels:
        each.stop()
    for url in (watched.url, watched.url.replace("mymaster", "other")):
        async with connected(url, timeout_ms=300) as connection:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="no Sentinel that names a living master: see SENTINEL MASTERS"):
                await connection.call(ECHO, [], ["x"])
            assert time.monotonic() - began < within(0.7)
        for each in watched.sentinels:
            each.resume()


async def test_a_user_and_a_password(watched: Sentinels, tmp_path: Path) -> None:
    """User and password go to the servers, and to Sentinels that want them; a wrong password is not asked again."""
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    rights = ["ACL", "SETUSER", "agent", "on", f">{PASSWORD}", "~*", "&*", "+@all"]
    for each in watched.servers:
        each.ask(*rights)
    async with connected(watched.url, username="agent", password_file=secret) as connection:
        await connection.call(WRITE, ["k"], ["open Sentinels"])
    for each in watched.sentinels:
        assert [] == each.ask("ACL", "LOG"), "who does not ask for a password is not told it"
        each.ask(*rights)
    for each in watched.sentinels:
        each.ask("ACL", "SETUSER", "default", "off")
    try:
        async with connected(watched.url, username="agent", password_file=secret) as connection:
            await connection.call(WRITE, ["k"], ["closed Sentinels"])
    finally:
        for each in watched.sentinels:
            with each.client(username="agent", password=PASSWORD) as client:
                client.acl_setuser("default", enabled=True)
    assert b"closed Sentinels" == watched.master().client().get("k")


async def test_sentinels_with_a_password_of_their_own(tmp_path: Path) -> None:
    """requirepass: they receive theirs and never the store's, over a fail-over too; without it a sentence says what to do."""
    theirs, ours = tmp_path / "sentinels", tmp_path / "servers"
    theirs.write_text(SENTINELS)
    ours.write_text(PASSWORD)
    with sentinels(password=SENTINELS) as running:
        for each in running.servers:
            each.ask("ACL", "SETUSER", "agent", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        given = {"username": "agent", "password_file": ours}
        for more in ({}, given, given | {"sentinel_password_file": ours}):
            async with connected(running.url, **more) as connection:
                with pytest.raises(
                    StoreRefused, match="Sentinels that want a name and password, or others: set sentinel_"
                ):
                    await connection.call(ECHO, [], ["x"])
        for each in running.sentinels:
            each.ask("ACL", "LOG", "RESET")
        async with connected(running.url, **given, sentinel_password_file=theirs) as connection:
            await connection.call(WRITE, ["k"], ["before"])
            old = running.master()
            old.kill()
            await answered(connection)
            await connection.call(WRITE, ["k"], ["after"])
        assert [[], [], []] == [each.ask("ACL", "LOG") for each in running.sentinels]
        assert b"after" == running.master().client().get("k")
        await rotated(running, tmp_path, given)


async def rotated(running: Sentinels, folder: Path, given: dict[str, Any]) -> None:
    """The Sentinels have users, and the password in the file changes: it is read again by the next connection."""
    rights, theirs = ("on", "~*", "&*", "+@all"), folder / "sentinels"
    for each in running.sentinels:
        each.ask("ACL", "SETUSER", "watcher", ">old", *rights)
    theirs.write_text("old")
    own = given | {"sentinel_username": "watcher", "sentinel_password_file": theirs}
    async with connected(running.url, **own) as connection:
        await connection.call(WRITE, ["k"], ["old"])
        theirs.write_text("new")
        for each in running.sentinels:
            each.ask("ACL", "SETUSER", "watcher", "reset", ">new", *rights)
            each.ask("CLIENT", "KILL", "USER", "watcher")
        await asyncio.sleep(1.1)  # then they are asked again
        await connection.call(WRITE, ["k"], ["new"])
        for each in running.sentinels:
            names = [line for line in str(each.ask("CLIENT", "LIST")).splitlines() if "name=farmlease " in line]
            assert [True] == ["user=watcher" in line for line in names]


async def test_an_open_sentinel_is_no_obstacle_to_a_password_for_it(watched: Sentinels, tmp_path: Path) -> None:
    """The Sentinels' password is in our configuration before it is in theirs: they are asked without it then."""
    theirs = tmp_path / "sentinels"
    theirs.write_text(SENTINELS)
    async with connected(watched.url, sentinel_password_file=theirs) as connection:
        await connection.call(WRITE, ["k"], ["open"])
    assert b"open" == watched.master().client().get("k")


async def test_a_cancelled_call_s_answer_is_read_by_nobody(watched: Sentinels) -> None:
    """Calls cancelled at any moment of finding the master and asking it leave every other call its own answer."""
    async with connected(watched.url) as connection:
        await cancel_every_other_call(connection, ())


async def test_sentinels_and_servers_that_speak_tls(tmp_path: Path) -> None:
    """With ca_file every network connection is encrypted, to Sentinels and servers alike, also after a fail-over."""
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("server")
    theirs = (
        "--tls-cert-file",
        str(certificate),
        "--tls-key-file",
        str(key),
        "--tls-ca-cert-file",
        str(authority.file),
    )
    ours = dict(zip(("cert_file", "key_file"), authority.issue("client"), strict=True))
    with sentinels(tls=theirs) as running:
        async with connected(running.url, ca_file=authority.file, **ours) as connection:
            await connection.call(WRITE, ["k"], ["sealed"])
            old = running.master()
            old.kill()
            await answered(connection)
        async with connected(running.url) as connection:
            with pytest.raises(StoreUnavailable):
                await connection.ping()
        stranger = Authority(tmp_path, "stranger")
        async with connected(running.url, ca_file=stranger.file) as connection:
            with pytest.raises(StoreError):
                await connection.ping()
