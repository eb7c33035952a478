"""A day in a test: the clock on the wall is the test's, and who sleeps until some time wakes at that time."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from farmlease.config.model import Config
from tests.support.nodes import Host, Site, TestClock
from tests.support.stores import NINE, StoreClock

__all__ = ["Day", "WallClock", "day_on"]

MINUTE = 60_000


class WallClock(TestClock):
    """A host's clock on which to sleep is to wait until the test has moved the hands so far."""

    def __init__(self, clock: StoreClock, sleepers: list[tuple[int, asyncio.Future[None]]]) -> None:
        super().__init__(clock)
        self._sleepers = sleepers

    @override
    async def sleep(self, seconds: float) -> None:
        """Sleep until the test says that it is time."""
        wake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (self.now_ms() + round(seconds * 1000), wake)
        self._sleepers.append(entry)
        try:
            await wake
        finally:
            if entry in self._sleepers:
                self._sleepers.remove(entry)


@dataclass(slots=True)
class Day:
    """A site, its day, which begins at 09:00, and what the hooks of its hosts were told."""

    site: Site
    told: Path
    sleepers: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)

    async def at(self, time: str, *beating: Host) -> None:
        """Let it be that time, with all that is due until then in order; then these hosts beat."""
        hours, minutes = map(int, time.split(":"))
        target = NINE + ((hours - 9) * 60 + minutes) * MINUTE
        assert target >= self.site.timed.clock.now_ms, "the day goes forwards"
        while due := [entry for entry in self.sleepers if entry[0] <= target]:
            first = min(due, key=lambda entry: entry[0])
            self.sleepers.remove(first)
            self.site.timed.clock.set(max(first[0], self.site.timed.clock.now_ms))
            first[1].set_result(None)
            await self.settled()
        self.site.timed.clock.set(target)
        for host in beating:
            await host.beat()
        await self.settled()

    async def watched(self, host: Host) -> None:
        """Let a host look once for sessions that end by themselves."""
        await host.node.loops.watch()
        await self.settled()

    async def settled(self) -> None:
        """Wait until everybody has either done what there was to do or sleeps."""
        for _ in range(5000):
            for host in self.site.hosts:
                await host.agent.settled()
            awake = sum(len(host.node.sessions.reacquisition._attempts) for host in self.site.hosts) - len(
                self.sleepers
            )
            if awake <= 0:
                return
            await asyncio.sleep(0.001)
        raise AssertionError("an attempt to get a seat back does not end")

    @property
    def hooks(self) -> list[str]:
        """What the hooks were told, one line for each: which hook, session, reason."""
        return self.told.read_text().splitlines() if self.told.exists() else []


@contextmanager
def day_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Day]:
    """Let the hosts of a site have hooks that write down what they are told, and live by the test's clock."""
    day = Day(site, site.folder / "told")
    plain: Any = Host.config

    def config(host: Host) -> Config:
        script = ["/bin/sh", "-c", f'echo $* >> "{day.told}"', "hook"]
        hooks = {name: [*script, name, "{session}", "{reason}"] for name in ("granted", "ended", "lost")}
        known = plain.fget(host).model_dump(by_alias=True, exclude_unset=True)
        known["agent"] = {"state_dir": host.folder / "state", "heartbeat": "60s"}
        return Config.model_validate({**known, "hooks": hooks})

    with monkeypatch.context() as patch:
        patch.setattr(Host, "config", property(config))
        patch.setattr("tests.support.nodes.TestClock", lambda clock: WallClock(clock, day.sleepers))
        yield day
        for host in site.hosts:
            for task in tuple(host.node.sessions.reacquisition._attempts.values()):
                task.cancel()
