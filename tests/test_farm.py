"""From the configuration to the farm: everybody who comes this way sees the same one."""

from pathlib import Path

import pytest

from farmlease.config.model import Config, load_config
from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.domain.policy import parse_policy
from farmlease.errors import AlreadyRunning, KeyRingRejected, StoreUnavailable
from farmlease.farm import open_farm
from tests.support.commands import QLIKVIEW, Host, host_of
from tests.support.patience import within
from tests.support.servers import RedisServer, require


@pytest.fixture
def host(tmp_path: Path, server: RedisServer) -> Host:
    """A host with keys and a store."""
    return host_of(tmp_path, server)


@pytest.fixture
def embedded(tmp_path: Path) -> Config:
    """The configuration of a host that brings its own store, in its state folder."""
    require("redis-server")
    keyring_file.create(tmp_path / "keyring.json", KeyRing.generate(0))
    file = tmp_path / "farmlease.toml"
    file.write_text(f'farm = "citrix-a"\n[store]\nurl = "embedded:"\n[keys]\nfile = "{tmp_path}/keyring.json"\n')
    return load_config(file, {"FARMLEASE_AGENT__STATE_DIR": str(tmp_path)})


async def test_what_one_writes_the_other_reads(host: Host) -> None:
    """Two processes with one configuration have one farm, with the same keys."""
    async with open_farm(host.config) as (one, _), open_farm(host.config) as (other, connection):
        applied = await one.apply(parse_policy(QLIKVIEW, "test"))
        assert "citrix-a" == other.name
        assert applied == await other.policy()
        assert str(host.store.socket) in connection.describe


async def test_without_keys_nothing_is_opened(host: Host) -> None:
    """A missing key ring is told before the store is looked for."""
    host.ring_file.unlink()
    with pytest.raises(KeyRingRejected):
        async with open_farm(host.config):
            pytest.fail("opened")


async def test_a_store_that_is_away_is_told_when_it_is_asked(host: Host) -> None:
    """An agent must come up without its store; only a question to it fails."""
    host.store.process.kill()
    host.store.process.wait(within(10))
    async with open_farm(host.config) as (farm, _):
        with pytest.raises(StoreUnavailable):
            await farm.policy()


async def test_what_was_opened_is_closed(host: Host) -> None:
    """Nothing of a connection is left behind, whatever happened in between."""
    with host.store.client() as client:
        opened = open_farm(host.config)
        farm, _ = await opened.__aenter__()
        await farm.policy()
        assert 2 == len(client.client_list())
        assert not await opened.__aexit__(ZeroDivisionError, ZeroDivisionError(), None)
        while 1 < len(client.client_list()):
            pass  # the server notices within its next turn; a leak ends in the test's time limit


async def test_an_embedded_store_has_one_owner_and_guests(embedded: Config) -> None:
    """The agent owns the store of its state folder; a command joins it, a second agent is refused."""
    async with open_farm(embedded, owner=True) as (agent, _):
        applied = await agent.apply(parse_policy(QLIKVIEW, "test"))
        async with open_farm(embedded) as (command, _):
            assert applied == await command.policy()
        with pytest.raises(AlreadyRunning):
            async with open_farm(embedded, owner=True):
                pytest.fail("opened")
        assert applied == await agent.policy()


async def test_an_embedded_store_keeps_what_it_was_given(embedded: Config) -> None:
    """A command alone starts the store for its own time, and the next one finds what it left."""
    async with open_farm(embedded) as (farm, _):
        applied = await farm.apply(parse_policy(QLIKVIEW, "test"))
    async with open_farm(embedded) as (farm, _):
        assert applied == await farm.policy()
