"""Fixtures of all rooms."""

import os
import signal
import subprocess

import pytest

from tests.support.servers import require
from tests.support.shares import LONGEST, dealt
from tests.support.stores import server, timed, timed_server

# In a shell's background SIGINT is ignored, and every program that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Where it is set, each agent and command that a test starts would compile all of farmlease anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

__all__ = [
    "pytest_addoption",
    "pytest_collection_modifyitems",
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
    """Twice as many tests at once as there are cores: most wait for processes and servers of their own.

    Half as many again left a quarter of two cores idle (1,308 s of work in 880 s).
    """
    return max(2, (os.cpu_count() or 1) * 2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each worker begin with some of what takes longest, so that none is late with it.

    xdist gives each worker one stretch of the list, and lets who is done take from the end of another's.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        longest = [each for each in items if each.path in LONGEST]
        others = [each for each in items if each.path not in LONGEST]
        items[:] = dealt(longest, others, workers)


def pytest_report_header() -> str:
    """Say which redis-server the tests run against."""
    try:
        program = require("redis-server")
    except (pytest.skip.Exception, pytest.fail.Exception):
        return "redis-server: none"
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return f"redis-server: {program}, {version}"
