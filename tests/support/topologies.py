"""Several redis-servers that watch each other, for the tests: Sentinels with their two servers, and a Cluster of six.

Every member has its own folder and loopback port, keeps both over a restart, and is ended by its handle whatever
happens. A member that is killed and started again has lost nothing, as it has an append-only file, unless a test gives
other options.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
from redis.crc import key_slot

from tests.support.members import Member, on_quiet_ports, wait_until
from tests.support.patience import turns, within

__all__ = ["MASTER_NAME", "Cluster", "Member", "Sentinels", "cluster", "sentinels", "wait_until"]

MASTER_NAME = "mymaster"
#: Sentinels take a server for dead after so many seconds, and the members of a Cluster each other: on a busy machine
#: later, for one that had to wait for its turn is not dead.
DOWN_AFTER, NODE_TIMEOUT = 0.35, 0.5
FAILOVER_TIMEOUT = 1.5
#: How often Sentinels ask and tell (ms; seconds by default), and how long a machine that was busy keeps them from acting.
#: A replica whose last word is older than five pings is not promoted, and a dead master's replica is asked once a second.
PERIODS = {"info-period": 200, "ping-period": 300, "ask-period": 100, "publish-period": 200, "tilt-period": 500}
SLOTS = 16384
_BETWEEN_SERVERS = ("ping", "psync", "sync", "replicaof", "slaveof", "subscribe", "publish")


class Sentinels:
    """Two redis-servers, master and replica, and three Sentinels that watch them. Made by ``sentinels``."""

    def __init__(self, servers: list[Member], watchers: list[Member]) -> None:
        self.servers = servers
        self.sentinels = watchers

    @property
    def url(self) -> str:
        """URL as ``[store] url`` takes it."""
        return f"redis+sentinel://{','.join(each.address for each in self.sentinels)}/{MASTER_NAME}/0"

    def master(self) -> Member:
        """Return the server that most Sentinels send clients to, whether it lives or not."""
        named = [int(each.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)[1]) for each in self._awake()]
        port = max(named, key=named.count)
        return next(each for each in self.servers if each.port == port)

    def replica(self) -> Member:
        """Return the other one."""
        master = self.master()
        return next(each for each in self.servers if each is not master)

    def replica_port(self, master: Member) -> int:
        """Return the port of the other one without asking anybody."""
        return next(each.port for each in self.servers if each is not master)

    def wait_failover(self, old: Member) -> Member:
        """Return the new master when every Sentinel sends clients there and it takes writes."""

        def promoted() -> Member | None:
            ports = {each.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)[1] for each in self._awake()}
            new = self.master()
            return new if len(ports) == 1 and new is not old and new.is_master() else None

        return wait_until(promoted, "a fail-over by the Sentinels")

    def switch(self, note: Callable[[str], None]) -> None:
        """Have the master changed; ask another Sentinel where one gives up, as they do where they do not agree.

        ``note`` is told why one did.
        """
        old = self.master()
        for each in (self.sentinels * 3)[:-1]:
            if (refused := self._switched(each, old)) is None:
                return
            note(refused)

    def _switched(self, sentinel: Member, old: Member) -> str | None:
        """Ask one Sentinel; return why the master was not changed."""
        try:
            sentinel.ask("SENTINEL", "FAILOVER", MASTER_NAME)
        except redis.ResponseError as error:
            return str(error)
        for _ in turns(4):
            with suppress(redis.RedisError, OSError):
                if (new := self.master()) is not old and new.is_master():
                    return None
            time.sleep(0.02)
        return "not done"

    def wait_whole(self) -> None:
        """Return when all five live, the replica has everything, and a fail-over could begin at once."""
        wait_until(lambda: self._whole() or None, "all Sentinels and servers in order")

    def _whole(self) -> bool:
        master = self.master()
        (replica,) = (each for each in self.servers if each is not master)
        return replica.replicates(master) and all(map(self._sees_all, self.sentinels))

    def _sees_all(self, watcher: Member) -> bool:
        state = _pairs(watcher.ask("SENTINEL", "MASTER", MASTER_NAME))
        others = [_pairs(each) for each in watcher.ask("SENTINEL", "SENTINELS", MASTER_NAME)]
        replicas = [_pairs(each) for each in watcher.ask("SENTINEL", "REPLICAS", MASTER_NAME)]
        return (
            state["flags"] == "master"
            and ["sentinel"] * (len(self.sentinels) - 1) == [each["flags"] for each in others]
            and ["slave"] == [each["flags"] for each in replicas]
            and ["ok"] == [each["master-link-status"] for each in replicas]
        )

    def _awake(self) -> Iterator[Member]:
        for each in self.sentinels:
            with suppress(redis.RedisError, OSError):
                each.ask("PING")
                yield each

    def part(self, server: Member) -> None:
        """Cut a server off from the Sentinels and the other server, by what only they ask of it, and from nobody else."""
        server.ask("ACL", "SETUSER", "default", *(f"-{command}" for command in _BETWEEN_SERVERS))
        server.ask("CLIENT", "KILL", "TYPE", "replica")

    def rejoin(self, server: Member) -> None:
        """Let Sentinels and the other server talk to it again."""
        server.ask("ACL", "SETUSER", "default", "+@all")

    def hasten(self) -> None:
        """Let the Sentinels ask and tell more often than they do by default; to be said again after a restart."""
        for each in self.sentinels:
            each.ask("SENTINEL", "DEBUG", *(part for pair in PERIODS.items() for part in pair))


def _ms(seconds: float) -> int:
    """Return what is to be so many seconds and more on a busy machine, in ms."""
    return round(within(seconds) * 1000)


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


class Cluster:
    """Three masters with a replica each. Made by ``cluster``."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members

    @property
    def url(self) -> str:
        """URL as ``[store] url`` takes it; it names three of the six."""
        return f"redis+cluster://{','.join(each.address for each in self.members[:3])}"

    def master_of(self, key: str) -> Member:
        """Return the living master that serves a key's slot, as the members see it."""
        slot = key_slot(key.encode())

        def serving() -> Member | None:
            for each in self._awake():
                if not each.is_master():
                    continue
                for first, last, (_, port, *_), *_ in each.ask("CLUSTER", "SLOTS"):
                    if first <= slot <= last and port == each.port:
                        return each
            return None

        return wait_until(serving, f"a master for slot {slot}")

    def replicas_of(self, master: Member) -> list[Member]:
        """Return the living replicas of a master."""
        return [
            each
            for each in self._awake()
            if (told := each.told())["role"] == "slave" and told["master_port"] == str(master.port)
        ]

    def wait_failover(self, old: Member, key: str) -> Member:
        """Return the new master of a key's slot when every living member knows it and the Cluster takes writes."""
        slot = key_slot(key.encode())

        def promoted() -> Member | None:
            awake = [each for each in self._awake() if each is not old]
            ports = {
                port
                for each in awake
                for first, last, (_, port, *_), *_ in each.ask("CLUSTER", "SLOTS")
                if first <= slot <= last
            }
            whole = all("cluster_state:ok" in each.ask("CLUSTER", "INFO") for each in awake)
            return next(
                (each for each in awake if whole and ports == {each.port} and each.is_master()),
                None,
            )

        return wait_until(promoted, f"a fail-over of slot {slot}")

    def wait_whole(self) -> None:
        """Return when all six live, know each other, serve every slot, and each replica has everything."""
        wait_until(lambda: self._whole() or None, "a whole Cluster")

    def _whole(self) -> bool:
        for each in self.members:
            told = each.ask("CLUSTER", "INFO")
            nodes = str(each.ask("CLUSTER", "NODES")).splitlines()
            if "cluster_state:ok" not in told or "cluster_size:3" not in told or len(nodes) != len(self.members):
                return False
            if any("fail" in line or "handshake" in line for line in nodes):
                return False
        masters = [each for each in self.members if each.is_master()]
        followed = [[one for one in self.replicas_of(master) if one.replicates(master)] for master in masters]
        return [1, 1, 1] == [len(each) for each in followed]

    def move_slot(self, key: str, *, finish: bool = True) -> tuple[Member, Member]:
        """Move a key's slot, empty or not, to another master; return source and destination.

        With ``finish=False`` the slot is left on its way and no key is moved: the source asks clients to ask the
        destination (ASK) for keys it has not, and to try again (TRYAGAIN) where it has only some of several.
        """
        slot = key_slot(key.encode())
        source = self.master_of(key)
        destination = next(each for each in self.members if each is not source and each.is_master())
        destination.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", destination.ask("CLUSTER", "MYID"))
        if finish:
            self.finish_move(key, source, destination)
        return source, destination

    def move_keys(self, source: Member, destination: Member, *keys: str) -> None:
        """Move some keys of a slot on its way."""
        source.ask("MIGRATE", "127.0.0.1", destination.port, "", 0, 1000, "KEYS", *keys)

    def finish_move(self, key: str, source: Member, destination: Member) -> None:
        """Move the keys of a slot on its way, and hand the slot over."""
        slot = key_slot(key.encode())
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            self.move_keys(source, destination, *keys)
        new = destination.ask("CLUSTER", "MYID")
        for each in (destination, source, *self.members):
            if each.is_master():
                each.ask("CLUSTER", "SETSLOT", slot, "NODE", new)

    def _awake(self) -> Iterator[Member]:
        for each in self.members:
            with suppress(redis.RedisError, OSError):
                each.ask("PING")
                yield each


@contextmanager
def sentinels(*options: str, tls: Sequence[str] = (), password: str | None = None) -> Iterator[Sentinels]:
    """Run three Sentinels, a master and its replica, the servers with ``options`` beside those they need.

    ``password``: the Sentinels' own (requirepass), which the servers do not have.
    With ``tls``, redis-server's options for its certificates, all of them speak TLS and nothing else.
    """
    given = _data_options(*options)

    def make(folder: Path, ports: list[int]) -> list[Member]:
        names = [secrets.token_hex(20) for _ in range(3)]
        members = [
            Member(folder / "first", *given, port=ports[0], tls=tls),
            Member(folder / "second", *given, port=ports[1], config=f"replicaof 127.0.0.1 {ports[0]}\n", tls=tls),
        ]
        for number, port in enumerate(ports[2:]):
            config = [
                f"sentinel myid {names[number]}",
                f"sentinel monitor {MASTER_NAME} 127.0.0.1 {ports[0]} 2",
                f"sentinel down-after-milliseconds {MASTER_NAME} {_ms(DOWN_AFTER)}",
                f"sentinel failover-timeout {MASTER_NAME} {_ms(FAILOVER_TIMEOUT)}",
                f"sentinel known-replica {MASTER_NAME} 127.0.0.1 {ports[1]}",
            ]
            config += [
                f"sentinel known-sentinel {MASTER_NAME} 127.0.0.1 {other} {name}"
                for other, name in zip(ports[2:], names, strict=True)
                if other != port
            ]
            config += [f'requirepass "{password}"'] if password else []
            text = "\n".join(config) + "\n"
            member = Member(folder / f"s{number}", port=port, config=text, sentinel=True, tls=tls, password=password)
            members.append(member)
        return members

    with on_quiet_ports(5, make) as members:
        topology = Sentinels(members[:2], members[2:])
        topology.hasten()
        topology.wait_whole()
        yield topology


@contextmanager
def cluster(*options: str, tls: Sequence[str] = ()) -> Iterator[Cluster]:
    """Run a Cluster of three masters and three replicas, all with ``options`` beside those they need.

    With ``tls``, redis-server's options for its certificates, all of them speak TLS and nothing else; ``master_of`` then finds
    nobody, as a member says over its Unix socket only where those are whom it is reached by without TLS.
    """
    given = _data_options(
        "--cluster-enabled", "yes", "--cluster-node-timeout", str(_ms(NODE_TIMEOUT)),
        "--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no", *options,
    )  # fmt: skip
    buses = list[int]()

    def make(folder: Path, ports: list[int]) -> list[Member]:
        buses[:] = ports[6:]
        return [
            Member(folder / f"m{number}", *given, "--cluster-port", str(bus), port=port, tls=tls)
            for number, (port, bus) in enumerate(zip(ports[:6], buses, strict=True))
        ]

    with on_quiet_ports(12, make) as members:
        for number, each in enumerate(members):
            each.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)  # before any of them knows another
        for each in members:
            for other, bus in zip(members, buses, strict=True):
                each.ask("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
        bounds = [SLOTS * third // 3 for third in range(4)]
        for number, each in enumerate(members[:3]):
            each.ask("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for master, replica in zip(members[:3], members[3:], strict=True):
            _replicate(replica, master)
        topology = Cluster(members)
        topology.wait_whole()
        yield topology


def _replicate(replica: Member, master: Member) -> None:
    """Make a replica as soon as it has heard of its master."""
    name = master.ask("CLUSTER", "MYID")
    wait_until(lambda: replica.ask("CLUSTER", "REPLICATE", name), "two members that know each other")


def _data_options(*options: str) -> tuple[str, ...]:
    return (
        "--save", "", "--appendonly", "yes", "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0",
        "--repl-ping-replica-period", "1", *options,
    )  # fmt: skip
