"""How a process gets from its configuration to the farm: keys, connection, store.

Agents and commands alike come this way, so that both see the same farm with the same keys.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from farmlease.config.model import Config
from farmlease.crypto import keyring_file
from farmlease.crypto.seal import Sealer
from farmlease.farm import Farm
from farmlease.store.connection.address import StoreAddress
from farmlease.store.connection.connection import Connection, open_connection
from farmlease.store.lease_store import LeaseStore

__all__ = ["address_of", "open_farm"]


@asynccontextmanager
async def open_farm(config: Config, *, owner: bool = False, by: str = "") -> AsyncIterator[tuple[Farm, Connection]]:
    """Open the farm of a configuration; with ``owner`` an embedded store is this process's own.

    ``by``: the administrator who opens it, for the audit of what is changed.
    Raises KeyRingRejected, ConfigError, and for an embedded store AlreadyRunning and StoreError. A store elsewhere
    that is away is no error yet.
    """
    sealer = Sealer(keyring_file.load(config.keys.file), config.farm)
    connection = await open_connection(address_of(config), state_dir=config.agent.state_dir, owner=owner)
    async with connection:
        yield Farm(config.farm, LeaseStore(connection, config.farm), sealer, by=by), connection


def address_of(config: Config) -> StoreAddress:
    """Return where the store is, in its own room's words."""
    return config.store.address
