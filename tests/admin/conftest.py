"""Fixtures of the administrators' room."""

from pathlib import Path

import pytest

from tests.support.commands import CLEARQUEST, QLIKVIEW, Host, host_of
from tests.support.servers import RedisServer

__all__ = ["lent"]


@pytest.fixture
def lent(tmp_path: Path, server: RedisServer) -> Host:
    """A host of a farm with two pools, in which john has a session of qlikview and mary had one."""
    host = host_of(tmp_path, server)
    host.apply(QLIKVIEW + CLEARQUEST)
    host.lend("CORP\\john")
    host.lend("CORP\\mary", ended=True)
    return host
