"""A store in a Redis Cluster: three masters and three replicas, real ones, killed, stopped, and their slots moved."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from farmlease.errors import StoreRefused, StoreUnavailable
from farmlease.store.answers.session import Beat, Known, Taken, Taking
from farmlease.store.connection.connection import MAX_TRIES, Connection, StoreAddress, open_connection
from farmlease.store.lease_store import LeaseStore
from farmlease.store.script import LIFE
from tests.support.authority import Authority
from tests.support.patience import turns, within
from tests.support.scripts import ADD, ECHO, WRITE, cancel_every_other_call, evaluations
from tests.support.seats import NODE, VERSION, claim
from tests.support.stores import named_pool
from tests.support.topologies import Cluster, Member, cluster, wait_until

PASSWORD = "between us"  # noqa: S105 - of servers that live for one test
#: Keys of one slot, and one key for each third of the slots.
SAME = ["{tag}a", "{tag}b", "{tag}c"]
THIRDS = ["{a}", "{b}", "{c}"]


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    """Run it once for all tests."""
    with cluster() as started:
        yield started


@pytest.fixture
def whole(running: Cluster) -> Iterator[Cluster]:
    """Give it to a test in order and empty, whatever the test before has done."""
    for each in running.members:
        if each.process is None:
            each.restart()
        each.resume()
    running.wait_whole()
    for each in running.members:
        if each.is_master():
            each.ask("FLUSHALL")
    yield running
    for each in running.members:
        if each.process is not None:
            each.resume()


@asynccontextmanager
async def connected(url: str, **given: Any) -> AsyncIterator[Connection]:
    """Open a connection."""
    sleep = given.pop("sleep", asyncio.sleep)
    async with await open_connection(StoreAddress(url=url, **given), sleep=sleep) as connection:
        yield connection


class Recorder:
    """A sleep that returns at once and remembers; can do something in the meantime."""

    def __init__(self, meanwhile: Any = None) -> None:
        self.waits: list[float] = []
        self.meanwhile = meanwhile

    async def __call__(self, seconds: float) -> None:
        """Remember the wait."""
        self.waits.append(seconds)
        if self.meanwhile is not None:
            self.meanwhile()


async def duration(call: Coroutine[Any, Any, object]) -> float:
    """Return how long a call takes, whether it is answered or not."""
    began = time.monotonic()
    with suppress(StoreUnavailable):
        await call
    return time.monotonic() - began


async def answered(connection: Connection, key: str) -> list[Any]:
    """Ask, in call after call, until the store answers."""
    for _ in turns(20):
        with suppress(StoreUnavailable):
            return await connection.call(ECHO, [key], [LIFE])
    raise AssertionError("the store stays away")


def value(member: Member, key: str) -> int:
    """Read a number behind farmlease's back."""
    return int(member.client().get(key) or 0)


async def test_each_call_goes_to_the_master_of_its_keys(whole: Cluster) -> None:
    """Every pool of a farm is somewhere in the Cluster, and its scripts run there without being sent on."""
    masters = {whole.master_of(key) for key in THIRDS}
    assert 3 == len(masters)
    before = {each: evaluations(each) for each in whole.members}
    async with connected(whole.url) as connection:
        assert whole.url == connection.describe
        await connection.ping()
        assert "cluster" == (await connection.server_info()).mode
        for key in THIRDS:
            assert [1] == await connection.call(ADD, [key], [])
    for each in whole.members:
        assert (2 if each in masters else 0) == evaluations(each) - before[each], "EVALSHA, then EVAL"


async def test_sessions_of_several_pools(whole: Cluster) -> None:
    """Pools that are on different masters serve sessions as on one server."""
    async with connected(whole.url) as connection:
        store = LeaseStore(connection, "citrix-a")
        for number in range(6):
            pool = named_pool(name=f"pool-{number}")
            assert isinstance(await store.heartbeat(pool, VERSION, NODE, None), Beat)
            taking = Taking(device="citrix-a", lease_id="lease", record=b"x", name=b"name")
            taken = await store.acquire(pool, VERSION, claim("john"), taking)
            assert isinstance(taken, Taken)
            again = await store.acquire(pool, VERSION, claim("john"), taking)
            assert isinstance(again, Taken)
            assert taken.fence == again.fence
            await store.release(pool.name, claim("john"), taken.fence)
        await store.apply_policy(0, 1, b"\1sealed")


async def test_a_killed_master_is_replaced(whole: Cluster) -> None:
    """After a fail-over the same connection finds the new master, whose life is another; others were never away."""
    key, other = THIRDS[0], THIRDS[1]
    old = whole.master_of(key)
    (replica,) = whole.replicas_of(old)
    async with connected(whole.url, timeout_ms=1500) as connection:
        assert [1] == await connection.call(ADD, [key], [])
        (life,) = await answered(connection, key)
        await connection.call(ECHO, [other], ["x"])
        wait_until(lambda: replica.replicates(old) or None, "the replica to have it all")
        old.kill()
        (new_life,) = await answered(connection, key)
        assert [2] == await connection.call(ADD, [key], [])
        await connection.call(ECHO, [other], ["x"])
    assert life != new_life
    assert 2 == value(whole.wait_failover(old, key), key)


async def test_a_stopped_master_costs_no_call_more_than_twice_the_timeout(whole: Cluster) -> None:
    """A master that stands still is given up in time, and gets nothing of ours when it goes on."""
    key = THIRDS[1]
    old = whole.master_of(key)
    before = evaluations(old)
    async with connected(whole.url, timeout_ms=400) as connection:
        await asyncio.gather(*(connection.call(ECHO, [key], [number]) for number in range(20)))
        old.stop()
        took = [await duration(connection.call(ECHO, [key], ["x"])) for _ in range(5)]
        assert max(took) < within(0.9)
        whole.wait_failover(old, key)
        await answered(connection, key)
        old.resume()
        await asyncio.gather(*(connection.call(ECHO, [key], [number]) for number in range(50)))
    wait_until(lambda: not old.is_master() or None, "the old master to be told")
    assert before + 20 + 20 >= evaluations(old), "what came before it stopped: EVALSHA, and EVAL while it was unknown"


async def test_a_slot_that_has_moved_is_followed_within_one_try(whole: Cluster) -> None:
    """MOVED: the call is carried out once, at once, where the slot is now; and the next goes there directly."""
    key = SAME[0]
    waits = Recorder()
    async with connected(whole.url, sleep=waits) as connection:
        assert [1] == await connection.call(ADD, [key], [])
        source, destination = whole.move_slot(key)
        before = evaluations(source)
        assert [2] == await connection.call(ADD, [key], [])
        assert [3] == await connection.call(ADD, [key], [])
        assert before == evaluations(source)
    assert [] == waits.waits
    assert 3 == value(destination, key)


# --- a slot that moves is no loss ---------------------------------------------------------------------------------------


async def lives(connection: Connection, key: str) -> list[str]:
    """Return the lives that a call names: that of the server, and those that the slot's data came from."""
    (named,) = await answered(connection, key)
    return str(named.decode()).split(" ")


async def test_the_former_life_is_named_where_a_slot_was_moved(whole: Cluster) -> None:
    """By every connection that knew it, also after a second move; a new one knows nothing of it."""
    key = SAME[0]
    async with connected(whole.url) as connection:
        first = await lives(connection, key)
        whole.move_slot(key)
        second = await lives(connection, key)
        assert (2, first) == (len(second), second[1:])
        assert second == await lives(connection, key)
        whole.move_slot(key)
        third = await lives(connection, key)
        assert second == third[1:]
        async with connected(whole.url) as stranger:
            assert third[:1] == await lives(stranger, key)


async def test_the_former_life_is_named_while_a_slot_is_on_its_way(whole: Cluster) -> None:
    """To the server that is asked in between (ASK), and again where the slot has arrived."""
    key = SAME[0]
    async with connected(whole.url) as connection:
        await connection.call(ADD, [key], [])
        (first,) = await lives(connection, key)
        source, destination = whole.move_slot(key, finish=False)
        assert [first] == await lives(connection, key)
        whole.move_keys(source, destination, key)
        on_its_way = await lives(connection, key)
        assert (2, first) == (len(on_its_way), on_its_way[1])
        whole.finish_move(key, source, destination)
        assert on_its_way == await lives(connection, key)


@pytest.mark.parametrize("how", ["killed", "asked"])
async def test_a_fail_over_is_no_move(whole: Cluster, how: str) -> None:
    """Nothing is claimed of a replica that took its master's place, also where the former master lives on as one."""
    key = SAME[0]
    old = whole.master_of(key)
    (replica,) = whole.replicas_of(old)
    async with connected(whole.url, timeout_ms=1500) as connection:
        (first,) = await lives(connection, key)
        wait_until(lambda: replica.replicates(old) or None, "the replica to have it all")
        if how == "killed":
            old.kill()
        else:
            replica.ask("CLUSTER", "FAILOVER")
        whole.wait_failover(old, key)
        (now,) = await lives(connection, key)
        assert first != now


async def test_a_silent_former_master_is_asked_once_for_all_slots(whole: Cluster) -> None:
    """Where a fail-over was, every pool of that master asks it whether its slot was moved: none waits for another."""
    old = whole.master_of(SAME[0])
    keys = [key for number in range(200) if whole.master_of(key := f"{{pool-{number}}}") is old][:30]
    (replica,) = whole.replicas_of(old)
    async with connected(whole.url, timeout_ms=4000) as connection:
        await asyncio.gather(*(connection.call(ECHO, [key], [LIFE]) for key in [SAME[0], *keys]))
        wait_until(lambda: replica.replicates(old) or None, "the replica to have it all")
        old.stop()
        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        await answered(connection, SAME[0])
        took = await asyncio.gather(*(duration(connection.call(ECHO, [key], [LIFE])) for key in keys))
        assert max(took) < within(2.0), "it is given a quarter of a timeout, once"
        old.resume()
    whole.wait_failover(old, SAME[0])


@pytest.mark.parametrize("what", ["source killed", "source restarted", "destination restarted", "another fails over"])
async def test_a_move_that_cannot_be_proved_is_none(whole: Cluster, what: str) -> None:
    """Who had the slot is gone, or who has it may have read it from its disk, or as a replica."""
    key = SAME[0]
    async with connected(whole.url, timeout_ms=1500) as connection:
        await connection.call(ADD, [key], [])
        (first,) = await lives(connection, key)
        source, destination = whole.move_slot(key)
        if what == "another fails over":
            (heir,) = whole.replicas_of(destination)
            wait_until(lambda: heir.replicates(destination) or None, "the replica to have it all")
            destination.kill()
            whole.wait_failover(destination, key)
        else:
            hit = source if what.startswith("source") else destination
            hit.kill()
            if what.endswith("restarted"):
                hit.restart()
        (now,) = await lives(connection, key)
        assert first != now


async def test_sessions_go_on_where_their_slot_is_moved(whole: Cluster) -> None:
    """No recovery begins; the heartbeat notes the new server, and from then on everybody finds the same store."""
    pool = named_pool(name="pool-1")
    taking = Taking(device="citrix-a", lease_id="lease", record=b"x", name=b"name")
    async with connected(whole.url) as connection, connected(whole.url) as other:
        store, elsewhere = LeaseStore(connection, "citrix-a"), LeaseStore(other, "citrix-a")
        beat = await store.heartbeat(pool, VERSION, NODE, None)
        assert isinstance(beat, Beat)
        known = Known(epoch=beat.epoch, fence=beat.fence)
        taken = await store.acquire(pool, VERSION, claim("john"), taking, known=known)
        whole.move_slot("{citrix-a/pool-1/0}")
        again = await store.acquire(pool, VERSION, claim("john"), taking, known=known)
        assert isinstance(taken, Taken)
        assert isinstance(again, Taken)
        assert taken.fence == again.fence
        assert not isinstance(await elsewhere.acquire(pool, VERSION, claim("john"), taking, known=known), Taken)
        assert isinstance(await store.heartbeat(pool, VERSION, NODE, None, known), Beat)
        assert isinstance(await elsewhere.acquire(pool, VERSION, claim("john"), taking, known=known), Taken)


async def test_a_slot_on_its_way_is_asked_for_at_its_destination(whole: Cluster) -> None:
    """ASK: keys that are not at the source any more are found in the same try, by many calls at once, each done once."""
    key = SAME[1]
    waits = Recorder()
    async with connected(whole.url, sleep=waits) as connection:
        await asyncio.gather(*(connection.call(ADD, [THIRDS[2]], []) for _ in range(20)))
        source, destination = whole.move_slot(key, finish=False)
        destination.ask("SCRIPT", "FLUSH")
        answers = await asyncio.gather(*(connection.call(ADD, [key], []) for _ in range(40)))
        assert sorted([number] for number in range(1, 41)) == sorted(answers)
        whole.finish_move(key, source, destination)
        assert [41] == await connection.call(ADD, [key], [])
    assert [] == waits.waits
    assert 41 == value(destination, key)


async def test_keys_that_are_in_two_places_are_waited_for(whole: Cluster) -> None:
    """TRYAGAIN: nothing is done while the keys of a call are in two places, and the call succeeds when they are not."""
    async with connected(whole.url) as connection:
        assert [1] == await connection.call(ADD, SAME, [])
    source, destination = whole.move_slot(SAME[0], finish=False)
    whole.move_keys(source, destination, SAME[0])
    waits = Recorder()
    async with connected(whole.url, sleep=waits) as connection:
        with pytest.raises(StoreUnavailable, match="is moving data"):
            await connection.call(ADD, SAME, [])
        assert MAX_TRIES - 1 == len(waits.waits)
        assert [1, 1] == [value(source, key) for key in SAME[1:]]
    waits = Recorder(meanwhile=lambda: whole.finish_move(SAME[0], source, destination))
    async with connected(whole.url, sleep=waits) as connection:
        assert [2] == await connection.call(ADD, SAME, [])
    assert 1 == len(waits.waits)
    assert [2, 2, 2] == [value(destination, key) for key in SAME]


async def test_a_slot_without_master_or_replica_is_down(whole: Cluster) -> None:
    """CLUSTERDOWN: with a master and its replica dead nothing is done anywhere, and it is said what to look at."""
    key, other = THIRDS[0], THIRDS[1]
    master, survivor = whole.master_of(key), whole.master_of(other)
    (replica,) = whole.replicas_of(master)
    async with connected(whole.url, timeout_ms=1500) as connection:
        await connection.call(ADD, [other], [])
        replica.kill()
        master.kill()
        wait_until(lambda: "cluster_state:fail" in survivor.ask("CLUSTER", "INFO") or None, "a Cluster that is down")
        with pytest.raises(StoreUnavailable, match="is a Redis Cluster that is down: see CLUSTER INFO"):
            await connection.call(ADD, [other], [])
        with pytest.raises(StoreUnavailable):
            await connection.call(ADD, [key], [])
        master.restart()
        replica.restart()
        whole.wait_whole()
        assert [2] == await connection.call(ADD, [other], [])


async def test_one_member_is_enough_to_find_the_others() -> None:
    """With one of the members in the URL dead and one standing still the third says where everything is."""
    with cluster("--cluster-node-timeout", "60000") as whole:  # long before the third finds that it is alone
        dead, still = whole.members[0], whole.members[1]
        key = next(key for key in THIRDS if whole.master_of(key) not in {dead, still})
        dead.kill()
        still.stop()
        for _ in range(3):  # they are asked in no order
            async with connected(whole.url) as connection:
                await connection.call(ECHO, [key], ["x"])


async def test_no_member_answers() -> None:
    """Where nobody listens there is no Cluster, and a server that is none says so."""
    async with connected("redis+cluster://127.0.0.1:1,127.0.0.1:2") as connection:
        with pytest.raises(StoreUnavailable, match=r"nothing listens at redis\+cluster://127.0.0.1:1,127.0.0.1:2"):
            await connection.call(ECHO, ["k"], ["x"])


async def test_a_url_of_one_server_leads_nowhere_in_a_cluster(whole: Cluster) -> None:
    """A plain URL of a member is refused in words that say how to write it, and changes nothing."""
    elsewhere = next(each for each in whole.members if each.is_master() and each is not whole.master_of("k"))
    async with connected(f"redis://{elsewhere.address}") as connection:
        for keys in (["k"], ["a", "b"]):
            with pytest.raises(StoreRefused, match=r"write \[store\] url as redis\+cluster://host:port"):
                await connection.call(WRITE, keys, ["x"])
    assert [0] * 6 == [each.client().dbsize() for each in whole.members]


async def test_a_user_and_a_password(whole: Cluster, tmp_path: Path) -> None:
    """User and password are for every member; a wrong one is refused at once."""
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    for each in whole.members:
        each.ask("ACL", "SETUSER", "agent", "on", f">{PASSWORD}", "~*", "&*", "+@all")
    async with connected(whole.url, username="agent", password_file=secret) as connection:
        for key in THIRDS:
            await connection.call(WRITE, [key], ["x"])
    secret.write_text("another")
    waits = Recorder()
    async with connected(whole.url, username="agent", password_file=secret, sleep=waits) as connection:
        with pytest.raises(StoreRefused, match="does not take this user name and password"):
            await connection.call(WRITE, ["k"], ["x"])
    assert [] == waits.waits


async def test_a_password_that_changed(whole: Cluster, tmp_path: Path) -> None:
    """Each member's next connection reads the file again, and so does who asks for the slots."""
    secret, waits = tmp_path / "password", Recorder()
    secret.write_text("old")
    user = ("ACL", "SETUSER", "rotated", "reset", "on", "~*", "&*", "+@all")
    for each in whole.members:
        each.ask(*user, ">old")
    async with connected(whole.url, username="rotated", password_file=secret, sleep=waits) as connection:
        for key in THIRDS:
            await connection.call(WRITE, [key], ["x"])
        secret.write_text("new")
        for each in whole.members:
            each.ask(*user, ">new")
            each.ask("CLIENT", "KILL", "USER", "rotated")
        await asyncio.sleep(0.05)
        for key in THIRDS:
            await connection.call(WRITE, [key], ["y"])
    assert [] == waits.waits


async def test_a_cancelled_call_s_answer_is_read_by_nobody(whole: Cluster) -> None:
    """Calls cancelled at any moment of finding the slots and asking leave every other call its own answer."""
    async with connected(whole.url) as connection:
        await cancel_every_other_call(connection, THIRDS)


async def test_a_cluster_that_speaks_tls(tmp_path: Path) -> None:
    """With ca_file every network connection is encrypted; a member with a certificate of somebody else is refused."""
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
    with cluster(tls=theirs) as running:
        async with connected(running.url, ca_file=authority.file, **ours) as connection:
            for each in THIRDS:
                await connection.call(WRITE, [each], ["sealed"])
        async with connected(running.url, ca_file=Authority(tmp_path, "stranger").file) as connection:
            with pytest.raises(StoreRefused, match="is not trusted"):
                await connection.ping()
