"""A key's whole life on a farm at work: two agents, one real Redis, sessions coming and going with their files."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from farmlease.admin.leases import LeaseAdmin
from farmlease.config.model import load_config
from farmlease.crypto import keyring_file
from farmlease.domain.identity import User
from farmlease.farm import open_farm
from tests.support.agents import Agents, RunningAgent, agents_on, soon
from tests.support.commands import Ended
from tests.support.patience import within
from tests.support.servers import RedisServer

POLICY = """\
[[pool]]
name = "qlikview"
kind = "named"
capacity = 200
files = ["{home}/{{user}}/.qlikview/BorrowedCalData.pgo"]
"""
USERS = ("john", "mary", "peter", "susan")
IDLE = 120  #: users who have a lease and do nothing
#: What an agent's log says of a seal that does not open.
REJECTIONS = ("rejected", "conflict", "refused", "lease_gone", "damaged", "failed")


@pytest.fixture
def farm(server: RedisServer) -> Iterator[Agents]:
    """Two hosts, each with its own copy of the key ring; the administrator works on ctx-01."""
    with agents_on(server.url, policy=POLICY, own_rings=True) as agents:
        yield agents


def key(farm: Agents, *args: str) -> Ended:
    """Run ``farmlease key ARGS`` on ctx-01."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FARMLEASE_")}
    done = subprocess.run(
        [sys.executable, "-m", "farmlease", "--config", str(farm["ctx-01"].config), "key", *args],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=within(60), env=environ,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


def keys(farm: Agents) -> dict[str, dict[str, object]]:
    """What ``key list`` says, by key id."""
    return {row["id"]: row for row in json.loads(key(farm, "list", "-o", "json").out)}


def copy_ring(farm: Agents) -> None:
    """Bring the administrator's ring to the other node."""
    shutil.copy2(farm["ctx-01"].ring, farm["ctx-02"].ring)


class Load:
    """Users who go from host to host; each finds what was in the file when the last session ended."""

    def __init__(self, farm: Agents) -> None:
        self._farm = farm
        self._over = threading.Event()
        self.rounds = 0
        self.faults: list[str] = []

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Let all users work while this lasts."""
        threads = [threading.Thread(target=self._live, args=(user,)) for user in USERS]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _live(self, user: str) -> None:
        file, number = self._farm.licence_file(user), 0
        file.parent.mkdir(parents=True)
        agents = list(self._farm)
        try:
            while not self._over.is_set():
                number += 1
                self._session(agents[number % 2], user, number)
        except Exception as error:  # noqa: BLE001 - a thread's failure is the test's
            self.faults.append(f"{user}: {error!r}")

    def _session(self, agent: RunningAgent, user: str, number: int) -> None:
        file, session = self._farm.licence_file(user), f"{user}-{number}"
        begun = agent.start(rf"CORP\{user}", session)
        found = file.read_text() if file.exists() else "0"
        if (begun.status, found) != (201, str(number - 1)):
            self.faults.append(f"{session} on {agent.node}: {begun.status} {begun.body!r} file {found}")
        file.write_text(str(number))
        if number % 3 == 0:
            agent.request("POST", f"/v1/sessions/{session}/save")
        agent.end(session)
        self.rounds += 1


def opened(farm: Agents) -> list[str | None]:
    """Why any record does not open with what is left of the ring, for each lease of the farm."""
    config = load_config(farm["ctx-02"].config, {})

    async def look() -> list[str | None]:
        async with open_farm(config) as (found, _):
            (pool,) = (await found.policy()).pools
            leases = [lease async for lease in LeaseAdmin(found).leases(pool)]
            users = [User(lease.user) for lease in leases]
            return [await LeaseAdmin(found).fault(pool, user, "citrix-a") for user in users]

    return asyncio.run(look())


def test_rotation_under_load_loses_nothing(farm: Agents) -> None:
    """Through rotate, activate, reseal and retire every session gets its file, and no agent refuses a seal."""
    one, two = farm
    for number in range(IDLE):
        assert 201 == one.start(rf"CORP\idle{number}", f"idle{number}").status
        if number % 2:
            one.end(f"idle{number}")
    old, load = keyring_file.load(one.ring).primary, Load(farm)
    with load.going_on():
        assert 0 == key(farm, "rotate").status
        new = keyring_file.load(one.ring).pending
        assert new is not None
        refused = key(farm, "rotate", "--activate")
        assert (1, "ctx-02" in refused.err) == (refused.status, True)
        copy_ring(farm)
        soon(lambda: 2 == keys(farm)[new]["nodes"], "both nodes say that they can open with the new key")
        assert 0 == key(farm, "rotate", "--activate").status
        refused = key(farm, "retire", old, "--yes")
        assert (1, True, True) == (refused.status, "records" in refused.err, "ctx-02" in refused.err)
        copy_ring(farm)

        def resealed() -> bool:
            assert 0 == key(farm, "reseal").status
            return 0 == key(farm, "retire", old, "--yes").status

        soon(resealed, "nothing needs the old key any more", seconds=30)
        copy_ring(farm)
        rounds = load.rounds
        soon(lambda: load.rounds > rounds + 20, "the load goes on")
    assert [] == load.faults
    assert (new,) == keyring_file.load(two.ring).ids
    assert [None] * (IDLE + len(USERS)) == opened(farm)
    held = keys(farm)
    assert [new] == list(held)
    assert (IDLE + len(USERS), IDLE + len(USERS), True) == tuple(
        held[new][what] for what in ("records", "names", "policy")
    )
    for agent in farm:
        assert [] == [line for line in agent.log_text.splitlines() if any(word in line for word in REJECTIONS)]
        agent.kill()
        agent.launch()  # its journal opens with the ring that is left
        agent.wait_ready()
        assert b"did not open" not in agent.health("/healthz").body
    assert 60 == len(one.request("GET", "/v1/sessions").document)
