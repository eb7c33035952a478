"""Fixtures of the commands."""

from pathlib import Path

import pytest

from tests.support.commands import ClockedHost, Host, host_of
from tests.support.servers import RedisServer
from tests.support.stand_in import run
from tests.support.stores import StoreClock, show

__all__ = ["clocked", "host", "run"]


@pytest.fixture
def host(tmp_path: Path, server: RedisServer) -> Host:
    """A host whose farm has keys and a store, but no policy yet."""
    return host_of(tmp_path, server)


@pytest.fixture
def clocked(tmp_path: Path, timed_server: tuple[RedisServer, Path]) -> ClockedHost:
    """The same, and the test sets the store's clock."""
    running, file = timed_server
    with running.client() as client:
        client.flushall()
    plain = host_of(tmp_path, running)
    return ClockedHost(plain.folder, plain.store, StoreClock(lambda now_ms: show(file, now_ms)))
