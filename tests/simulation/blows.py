"""What befalls the world: hosts die, the store dies, clocks jump, data is lost. Each blow is one method."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

from farmlease.domain.session_states import SessionState
from farmlease.errors import FarmleaseError
from tests.simulation import laws
from tests.simulation.host import Host
from tests.simulation.memory import Hash

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Blows"]

#: Mean seconds between two blows.
_PACE = 150.0
MINUTE, HOUR = 60.0, 3600.0


class Blows:
    """The blows of one run. ``losses``: how often the store lost writes."""

    def __init__(self, world: "World", chance: Random) -> None:
        self._world = world
        self._chance = chance
        self.losses = 0
        self.clocks = 0  #: how often the store's clock was not what it should be
        self.back = 0.0  #: when the store was last back, or lost something
        self._booted: dict[str, int] = {}
        self._genuine: dict[tuple[str, str], bytes] = {}
        self._healing: list[asyncio.Task[None]] = []
        self._kinds: dict[str, Callable[[], Awaitable[bool]]] = {
            "agent killed": self._kill, "agent restarted": self._restart, "rebooted": self._reboot,
            "journal torn": self._tear, "partitioned": self._partition, "store restarted": self._restart_store,
            "policy changed": self._change_policy, "host clock jumped": self._set_host_clock,
            "record damaged": self._damage, "records swapped": self._swap, "tail lost": self._lose_tail,
            "flushed": self._flush, "rolled back": self._roll_back, "failed over": self._fail_over,
            "host renamed": self._rename_host, "user renamed": self._rename_user,
            "store clock ahead": self._ahead, "store clock back": self._back, "store clock frozen": self._freeze,
        }  # fmt: skip

    async def fall(self) -> None:
        """One blow after another, until cancelled."""
        world = self._world
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / _PACE))
            name = world.mood.next_blow()
            if name is not None and await self._kinds[name]():
                world.mood.came[name] += 1

    async def heal(self) -> None:
        """Put everything right."""
        world = self._world
        for task in self._healing:
            task.cancel()
        for host in world.hosts:
            if not world.network.reaches(host.name):
                host.since = world.now  # it has yet to tell what it has
        world.network.cut.clear()
        world.network.silent.clear()
        world.server.up = True
        world.server.frozen_ms = None
        world.stir()
        self.back = world.now
        for host in world.hosts:
            if not host.up:
                self._boot(host)
        await world.apply()

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        async def heal() -> None:
            await asyncio.sleep(seconds)
            what()

        self._healing = [task for task in self._healing if not task.done()]
        self._healing.append(self._world.loop.create_task(heal()))

    def _knock(self, host: Host, seconds: float) -> None:
        """Let people try at a host that is back, as those do who tried while it was not."""
        if not self._world.mood.over and self._chance.random() < 0.7:
            self._later(seconds, lambda: self._world.knock(host))

    # --- hosts --------------------------------------------------------------------------------------------------------

    def _host(self) -> Host | None:
        running = [host for host in self._world.hosts if host.up]
        return self._chance.choice(running) if running else None

    def _boot(self, host: Host) -> None:
        lived, boots = self._booted.get(host.name, 1), host.boots
        self._world.tell("starts", host.name, boots)
        host.start()
        self._booted[host.name] = boots
        self._knock(host, self._chance.choice((0, 0.002, 0.004, 0.008, 1)))
        if lived != boots and (gone := shown(host)):
            self._world.broken("L4", f"{host.name} shows {sorted(gone)}, which ended with its last boot")

    async def _amid(self, host: Host) -> None:
        """Wait until the agent is in the middle of something: what happens next may come at any await."""
        if self._chance.random() < 0.8:
            host.line.sending.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(2 * MINUTE):
                    await host.line.sending.wait()
            await asyncio.sleep(self._chance.choice((0, 0.0005, 0.002, 0.004)))
        for _ in range(self._chance.choice((0, 1, 3, 10))):
            await asyncio.sleep(0)

    async def _kill(self) -> bool:
        return await self._killed(lambda host: self._world.tell("FAULT", "agent killed", host.name))

    async def _killed(self, meanwhile: Callable[[Host], None]) -> bool:
        host = self._host()
        if host is None:
            return False
        await self._amid(host)
        if not host.up:
            return False
        before = shown(host)
        host.kill()
        meanwhile(host)
        if self._chance.random() < 0.5:
            await asyncio.sleep(self._chance.choice((1, 60, 900)))
        self._resurrect(host, before)
        return True

    async def _restart(self) -> bool:
        host = self._host()
        if host is None:
            return False
        self._world.tell("FAULT", "agent restarted", host.name)
        try:
            await host.stop()
        finally:  # the run may calm down in the middle of it
            self._boot(host)
        return True

    async def _rename_host(self) -> bool:
        return await self._killed(self._rename)

    def _rename(self, host: Host) -> None:
        name = host.rename()
        self._world.names.renamed(host.name, name)
        self._world.tell("FAULT", "host renamed", host.name, name)

    async def _reboot(self, *, torn: bool = False) -> bool:
        host = self._host()
        if host is None:
            return False
        await self._amid(host)
        if not host.up:
            return False
        host.kill(torn=torn)
        host.boots += 1
        if torn:
            self._world.forget(host)
        self._world.tell("FAULT", "journal torn" if torn else "rebooted", host.name)
        seconds = self._chance.choice((20, 120, 2400))
        self._later(seconds, lambda: None if host.up else self._boot(host))
        return True

    async def _tear(self) -> bool:
        return await self._reboot(torn=True)

    async def _partition(self) -> bool:
        host = self._host()
        if host is None:
            return False
        network, name = self._world.network, host.name
        network.cut.add(name)
        if self._chance.random() < 0.5:
            network.silent.add(name)
        self._world.tell("FAULT", "partitioned", name)

        def mend() -> None:
            network.cut.discard(name)
            network.silent.discard(name)
            host.since = self._world.now
            host.stirred.set()
            self._knock(host, self._chance.uniform(0, 2))

        host.stirred.set()

        self._later(self._chance.choice((5, 60, 600, 2400, 3600, 5400)), mend)
        return True

    async def _set_host_clock(self) -> bool:
        host = self._chance.choice(self._world.hosts)
        host.clock.offset_ms = int(self._chance.choice((-30 * 24, -1, 0, 1, 30 * 24)) * HOUR * 1000)
        self._world.tell("FAULT", "host clock jumped", host.name, host.clock.offset_ms)
        return True

    # --- the policy and the records -----------------------------------------------------------------------------------

    async def _change_policy(self) -> bool:
        self._world.terms.change(self._chance)
        self._world.tell("FAULT", "policy changed")
        await self._world.apply()
        return True

    async def _rename_user(self) -> bool:
        with suppress(FarmleaseError):
            return await self._world.workload.rename()
        return False

    def _records(self) -> tuple[str, Hash]:
        pool = self._chance.choice(self._world.terms.pools)
        return pool, self._world.record(pool)

    def _forge(self, pool: str, user: bytes, record: bytes) -> None:
        """Put something else in a record's place, and remember that it must not open, unless it is its own again."""
        world, tag, key = self._world, f"fl:{{citrix-a/{pool}/0}}:records".encode(), (pool, user.decode())
        before = world.record(pool)[user]
        if before != world.forged.get(key):
            self._genuine[key] = before
        world.server.memory.put(tag, Hash, user, record)
        world.forged[key] = record
        if record == self._genuine[key]:
            del world.forged[key]

    async def _damage(self) -> bool:
        pool, records = self._records()
        if not records:
            return False
        user = self._chance.choice(sorted(records))
        bits = bytearray(records[user])
        bits[self._chance.randrange(len(bits))] ^= 1 << self._chance.randrange(8)
        self._forge(pool, user, bytes(bits))
        self._world.tell("FAULT", "record damaged", pool)
        return True

    async def _swap(self) -> bool:
        pool, records = self._records()
        if len(records) < 2:
            return False
        one, other = self._chance.sample(sorted(records), 2)
        first, second = records[one], records[other]
        self._forge(pool, one, second)
        self._forge(pool, other, first)
        self._world.tell("FAULT", "records swapped", pool)
        return True

    # --- the store ----------------------------------------------------------------------------------------------------

    async def _away(self) -> None:
        """The store is down for a moment, and comes back as another life."""
        world = self._world
        world.server.up = False
        world.server.restart()
        world.stir()

        def back() -> None:
            world.server.up = True
            self.back = world.now
            world.stir()
            self._knock(self._chance.choice(world.hosts), self._chance.uniform(0, 2))

        self._later(self._chance.choice((0.1, 1, 10, 120, 1200, 2400)), back)

    async def _restart_store(self) -> bool:
        self._world.tell("FAULT", "store restarted")
        await self._away()
        return True

    def _lost(self, name: str) -> None:
        self.losses += 1
        self.back = self._world.now
        self._world.tell("FAULT", name)
        self._world.ledger.lost()
        self._world.takings.lost(everything=name == "flushed")
        self._world.stir()
        for _ in range(3):
            self._later(self._chance.uniform(0, self._chance.choice((2, 4, 10))), self._world.rush)
        if self._chance.random() < 0.3:
            self._later(self._chance.uniform(0, 4), self._world.dismiss)
        if self._chance.random() < 0.3:
            self._world.hammer()
        if self._world.mood.knows("agent killed") and self._chance.random() < 0.4:
            self._kill_too()

    def _kill_too(self) -> None:
        """What took the store took an agent with it."""
        host = self._host()
        if host is not None:
            before = shown(host)
            host.kill()
            self._world.mood.came["agent killed"] += 1
            self._world.tell("FAULT", "agent killed", host.name)
            self._later(self._chance.choice((1, 60, 900)), lambda: self._resurrect(host, before))

    def _resurrect(self, host: Host, before: dict[tuple[str, str], tuple[str, int]]) -> None:
        if not host.up:
            self._boot(host)
            if what := laws.adopted(before, shown(host)):
                self._world.broken("L7", what)

    async def _amid_goodbye(self) -> None:
        """Wait until somebody has signed out: what the store loses next, it may lose of that."""
        left = self._world.workload.left
        if self._chance.random() < 0.5:
            for _ in range(120):
                if self._world.workload.left is not left:
                    return
                await asyncio.sleep(1)

    async def _lose_tail(self) -> bool:
        await self._amid_goodbye()
        self._world.server.lose(self._chance.randint(1, 30))
        self._lost("tail lost")
        await self._away()
        return True

    async def _fail_over(self) -> bool:
        await self._amid_goodbye()
        self._world.server.lose(self._chance.randint(1, 10))
        self._world.server.restart()
        self._lost("failed over")
        return True

    async def _roll_back(self) -> bool:
        await self._amid_goodbye()
        self._world.server.go_back(self._chance.uniform(MINUTE, 2 * HOUR))
        self._lost("rolled back")
        await self._away()
        return True

    async def _flush(self) -> bool:
        self._world.server.flush()
        self._lost("flushed")
        return True

    async def _set_clock(self, hours: float, name: str) -> bool:
        if self.clocks:  # what several leaps do to each other, in a farm that boots in between, nobody promises
            return False
        self.clocks += 1
        self._world.ledger.clock_set()
        self._world.server.offset_ms += int(hours * HOUR * 1000)
        if hours < 0:
            self._world.ledger.turned_back()
        self._world.tell("FAULT", name)
        self._world.stir()
        return True

    async def _ahead(self) -> bool:
        return await self._set_clock(self._chance.choice((0.2, 1, 24)), "store clock ahead")

    async def _back(self) -> bool:
        return await self._set_clock(-self._chance.choice((0.05, 0.2, 0.5)), "store clock back")

    async def _freeze(self) -> bool:
        server = self._world.server
        if self.clocks:
            return False
        self.clocks += 1
        self._world.ledger.clock_set()
        server.frozen_ms = server.now_ms
        self._world.tell("FAULT", "store clock frozen")

        def thaw() -> None:
            server.frozen_ms = None
            self._world.stir()

        self._later(self._chance.choice((10, 600, 3600)), thaw)
        return True


def shown(host: Host) -> dict[tuple[str, str], tuple[str, int]]:
    """What a host's agent knows of its sessions that hold a seat, or try to get theirs back."""
    return {
        each.key: (each.state.value, each.grant.fence)
        for each in host.book
        if each.grant is not None and each.state in {SessionState.ACTIVE, SessionState.INVALID, SessionState.LOST}
    }
