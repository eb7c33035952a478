"""The whole farm: office, two hosts, and six people at their desks. And who watches that nobody is over the limit."""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.store.keys import Shard
from tests.desktops.desk import Desk
from tests.desktops.host import FARM, USERS, Host, host
from tests.desktops.machine import running
from tests.desktops.office import BALANCER, HOSTS, SERVERS, STORE, Office, office, start_balancer
from tests.support.agents import soon

__all__ = ["CAPACITY", "POLICY", "POOLS", "Farm", "farm_of_desktops"]

CAPACITY = 2
#: Who is licensed by which pool. Each pool has one seat less than it has people.
POOLS: Mapping[str, Sequence[str]] = {"qlikview": ("john", "mary", "peter"), "clearquest": ("ann", "ben", "cara")}
POLICY = f"""\
[[pool]]
name = "qlikview"
kind = "named"
capacity = {CAPACITY}
session_timeout = "5s"
files = ["{{home}}/.qlikview/BorrowedCalData.pgo"]

[[pool]]
name = "clearquest"
kind = "floating"
capacity = {CAPACITY}
share = "user"
session_timeout = "5s"

[[rule]]
users = {json.dumps(POOLS["qlikview"])}
pools = ["qlikview"]

[[rule]]
users = {json.dumps(POOLS["clearquest"])}
pools = ["clearquest"]
"""


class Watch(threading.Thread):
    """Counts, many times a second, the seats that the store has given and the people who work, and notes what is over.

    It asks neither agents nor commands: seats are counted in Redis, and people by the shells that run as their users.
    """

    def __init__(self, opened: Office) -> None:
        super().__init__(daemon=True)
        self._office = opened
        self._over = threading.Event()
        self.looks = 0
        self.most: dict[str, int] = dict.fromkeys((*POOLS, *(f"people of {pool}" for pool in POOLS)), 0)

    def run(self) -> None:
        """Look until it is over."""
        while not self._over.wait(0.1):
            for pool in POOLS:
                self._note(pool, self._seats(pool))
                self._note(f"people of {pool}", len(self._people() & set(POOLS[pool])))
            self.looks += 1

    def end(self) -> None:
        """Stop looking."""
        self._over.set()
        self.join()

    def _note(self, what: str, number: int) -> None:
        self.most[what] = max(self.most[what], number)

    def _seats(self, pool: str) -> int:
        """Count the seats that are taken by the clock of the server that takes writes now; two masters count both."""
        most = 0
        for name in SERVERS:
            with suppress(redis.RedisError, OSError):
                client = self._office.client(name)
                if client.info("replication")["role"] == "master":
                    seconds, micros = client.time()
                    now = seconds * 1000 + micros // 1000
                    most = max(most, client.zcount(Shard(FARM, pool).key("seats"), f"({now}", "+inf"))
        return most

    @staticmethod
    def _people() -> set[str]:
        names = {uid: name for name, uid in USERS.items()}
        return {names[each.uid] for each in running("bash") if each.uid in names}


@dataclass(slots=True)
class Farm:
    """Two hosts behind a balancer, and their users."""

    office: Office
    hosts: dict[str, Host]
    desks: Mapping[str, Desk]
    watch: Watch
    files: dict[str, bytes] = field(default_factory=dict)  #: what a user last had in his licence file
    last_seen: dict[str, Host] = field(default_factory=dict)  #: on which host he worked last

    def log_on(self, user: str) -> Host:
        """Have a user log on through the balancer; return the host whose desktop he sees."""
        before = {each.name: each.windows(user) for each in self.hosts.values()}
        self.desks[user].log_on(BALANCER)

        def opened() -> list[Host]:
            return [each for each in self.at_work(user) if each.windows(user) > before[each.name]]

        soon(opened, f"{user} sees no desktop", 30)
        (found,) = opened()
        self.last_seen[user] = found
        return found

    def log_on_patiently(self, user: str) -> Host:
        """Have a user log on who tries again as often as he is refused, for a while."""
        for _ in range(20):
            if not self.desks[user].ssh(BALANCER, "true").returncode:
                break
        return self.log_on(user)

    def refused(self, user: str) -> str:
        """Have a user log on through the balancer, who gets no desktop; return what PAM said of it."""
        before = {each.name: each.told(user) for each in self.hosts.values()}
        self.desks[user].log_on(BALANCER)

        def told() -> list[str]:
            return [line for each in self.hosts.values() for line in each.told(user)[len(before[each.name]) :]]

        soon(told, f"{user} is told nothing", 30)
        (said,) = told()
        assert not self.at_work(user)
        return said

    def at_work(self, user: str) -> list[Host]:
        """Return the hosts on which a user has a shell in a window."""
        return [each for each in self.hosts.values() if each.runs(user, "bash")]

    def log_off(self, user: str) -> None:
        """Have a user end his desktop, and wait until its host knows."""
        (there,) = self.at_work(user)
        self.desks[user].type("exit")
        self.desks[user].wait_closed()
        soon(lambda: user not in there.users(), f"{there.name} has a session of {user}'s still")

    @contextmanager
    def shared_homes(self) -> Iterator[None]:
        """Let both hosts have the same homes, as from a file server; what was in their own is out of sight meanwhile."""
        homes = self.office.folder / "homes"
        for user, number in USERS.items():
            (homes / user).mkdir(parents=True)
            os.chown(homes / user, number, number)
        for each in self.hosts.values():
            each.machine.run("mount", "--bind", homes, "/home")
        yield
        for each in self.hosts.values():
            each.machine.run("umount", "--lazy", "/home")

    def lose(self, host: Host) -> None:
        """Kill all of a host at once, and wait until the balancer knows; its users see their windows close."""
        del self.hosts[host.name]
        host.machine.kill()
        self.office.wait_state(host.name, "DOWN")
        for desk in self.desks.values():
            if self.last_seen.get(desk.user) is host:
                desk.hang_up()

    def other(self, than: Host) -> Host:
        """Return the other host."""
        return next(each for each in self.hosts.values() if each is not than)

    def command(self, *words: str) -> Any:
        """Return what a command that prints JSON says, on any host."""
        host = next(iter(self.hosts.values()))
        return json.loads(host.farmlease(*words, "-o", "json").stdout)

    def audit(self) -> list[dict[str, Any]]:
        """Return every decision."""
        host = next(iter(self.hosts.values()))
        return [json.loads(line) for line in host.farmlease("audit", "-o", "json").stdout.splitlines()]

    def lease(self, user: str) -> dict[str, Any]:
        """Return a user's one lease."""
        (found,) = self.command("lease", "list", "--user", user)
        lease: dict[str, Any] = found
        return lease

    def leases(self, pool: str) -> dict[str, str]:
        """Return who has a lease of a pool, and its state."""
        return {each["user"]: each["state"] for each in self.command("lease", "list", "--pool", pool)}

    def used(self, pool: str) -> int:
        """Return how many seats of a pool are taken, as ``pool show`` says."""
        used: int = self.command("pool", "show", pool)["used"]
        return used


@contextmanager
def farm_of_desktops(folder: Path) -> Iterator[Farm]:
    """Set up the farm. Everything is gone afterwards, whatever happens."""
    keyring_file.create(folder / "keyring.json", KeyRing.generate(time.time_ns() // 1_000_000))
    with ExitStack() as stack:
        opened = stack.enter_context(office(folder))
        hosts = {
            name: stack.enter_context(host(name, address, opened.machine, STORE, [folder], POLICY))
            for name, address in HOSTS.items()
        }
        start_balancer(opened)
        for name in hosts:
            opened.wait_state(name, "UP")
        desks = {user: Desk(user, opened.machine, number) for number, user in enumerate(USERS, 1)}
        watch = Watch(opened)
        watch.start()
        stack.callback(watch.end)
        yield Farm(opened, hosts, desks, watch)
