"""Fixtures of all rooms."""

import os
import signal
import subprocess

import pytest

from tests.support.servers import require
from tests.support.stores import server, timed, timed_server

# In a shell's background SIGINT is ignored, and every program that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = [
    "pytest_addoption",
    "pytest_report_header",
    "pytest_xdist_auto_num_workers",
    "server",
    "timed",
    "timed_server",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say how much of what could go on for ever is lived through."""
    parser.addoption(
        "--seeds", type=int, default=80, help="runs of the simulation, over the profiles that must be clean"
    )
    parser.addoption(
        "--fault-runs", type=int, default=0, help="runs with real faults, over all kinds (default: two of each)"
    )


def pytest_xdist_auto_num_workers() -> int:
    """Half as many tests again at once as there are cores: most wait for processes and servers of their own."""
    return max(2, (os.cpu_count() or 1) * 3 // 2)


def pytest_report_header() -> str:
    """Say which redis-server the tests run against."""
    try:
        program = require("redis-server")
    except (pytest.skip.Exception, pytest.fail.Exception):
        return "redis-server: none"
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return f"redis-server: {program}, {version}"
