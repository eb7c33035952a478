"""Fixtures of the commands."""

from pathlib import Path

import pytest

from tests.commands import Host, host_of
from tests.servers import RedisServer


@pytest.fixture
def host(tmp_path: Path, server: RedisServer) -> Host:
    """A host whose farm has keys and a store, but no policy yet."""
    return host_of(tmp_path, server)
