"""Where a node's configuration is, its content before any check, and the address of the node's agent.

``farmlease session …`` runs at every logon and needs no more than that, so this module must import nothing heavy, and
values are named tuples: a data class takes most of a millisecond to define.
``config/model.py`` builds on the same search, the same environment and the same defaults; there is no second mechanism.
"""

import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from farmlease import plain_file
from farmlease.errors import ConfigError

__all__ = [
    "LISTEN",
    "SOCKET",
    "TCP",
    "UNIX",
    "Endpoint",
    "Given",
    "Override",
    "StandardFiles",
    "absolute",
    "agent_endpoint",
    "as_written",
    "check_listen",
    "find",
    "read",
    "split_address",
    "standard_files",
]

UNIX = "unix:"  #: an address that begins so is the path of a Unix socket
TCP = "127.0.0.1:8731"  #: the agent's address where it is to be reached over TCP, with a token
SOCKET = f"{UNIX}/run/farmlease/agent.sock"
LISTEN = TCP if sys.platform == "win32" else SOCKET  #: default address of the agent

_PREFIX = "FARMLEASE_"
_HOW = "make it with `farmlease init`, or name another one with --config or FARMLEASE_CONFIG"
_TOP_KEYS = frozenset({"farm", "node"})  #: keys outside any section; ``FARMLEASE_FARM`` sets them
_LOOPBACK = re.compile(r"localhost|::1|127(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}", re.ASCII | re.IGNORECASE)
_LONGEST_SOCKET_PATH = 107  #: bytes, by the kernel's structure


class StandardFiles(NamedTuple):
    """The default places of farmlease's files."""

    config: Path
    keyring: Path
    token: Path
    state: Path


class Override(NamedTuple):
    """One variable of the environment that sets a key."""

    variable: str
    text: str


class Given(NamedTuple):
    """The content of a file and of the environment, not yet checked."""

    source: str  #: the file
    text: str  #: its text; empty if there is none
    table: Mapping[str, Any]
    overrides: Mapping[tuple[str, ...], Override]  #: by key: ``("farm",)`` or ``("agent", "listen")``
    absence: str = ""  #: that there is no file, and what to do; empty if there is one

    def merged(self, value: Callable[[tuple[str, ...], str], object] = lambda _, text: text) -> dict[str, Any]:
        """Return the file's tables with the environment's keys over them, each of these as ``value`` reads it."""
        whole = {key: dict(part) if isinstance(part, dict) else part for key, part in self.table.items()}
        for where, override in self.overrides.items():
            part = whole
            for section in where[:-1]:
                part = part.setdefault(section, {})
                if not isinstance(part, dict):
                    raise ConfigError(
                        f"environment: {override.variable}: {section} is no table in {self.source}; correct either"
                    )
            part[where[-1]] = value(where, override.text)
        return whole


class Endpoint(NamedTuple):
    """Where the node's agent answers."""

    listen: str  #: ``host:port`` on this host, or ``unix:/path``
    token_file: Path | None  #: None on a Unix socket, where the kernel identifies the caller
    absence: str = ""  #: that there is no configuration, so that this is the default; empty if there is one


def standard_files() -> StandardFiles:
    """Return the default places on this operating system."""
    if sys.platform == "win32":
        folder = Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData")) / "farmlease"
        return StandardFiles(folder / "farmlease.toml", folder / "keyring.json", folder / "token", folder / "state")
    else:  # noqa: RET505 -- mypy tells platforms apart by this shape
        folder = Path("/etc/farmlease")
        return StandardFiles(
            folder / "farmlease.toml", folder / "keyring.json", Path("/run/farmlease/token"), Path("/var/lib/farmlease")
        )


def find(config: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> tuple[Path, bool]:
    """Return the file to read, and whether an option or variable named it, so that it must exist."""
    named = config if config is not None else environ.get(f"{_PREFIX}CONFIG") or None
    return (standard_files().config, False) if named is None else (Path(named), True)


def read(config: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Given:
    """Return the configuration, unchecked; raises ConfigError if the file cannot be read or is no TOML."""
    path, named = find(config, environ)
    try:
        text = plain_file.read(path).decode("utf-8-sig")  # editors on Windows write a byte order mark
    except FileNotFoundError:
        if path.is_symlink():
            raise ConfigError(f"{path}: is a link that leads to nothing; write the file, or remove the link") from None
        if named:
            raise ConfigError(f"{path}: there is no such file; {_HOW}") from None
        return Given(str(path), "", {}, _overrides(environ), f"there is no configuration file {path}: {_HOW}")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError:
        raise ConfigError(f"{path}: is not UTF-8 text; save it as such") from None
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    return Given(str(path), text, table, _overrides(environ))


def _overrides(environ: Mapping[str, str]) -> dict[tuple[str, ...], Override]:
    """Return the keys the environment sets. Other variables of our prefix are not ours and ignored."""
    overrides = {}
    for variable, text in environ.items():
        if variable.startswith(_PREFIX):
            where = tuple(variable.removeprefix(_PREFIX).lower().split("__", 1))
            if len(where) > 1 or where[0] in _TOP_KEYS:
                overrides[where] = Override(variable, text)
    return overrides


def as_written(text: str) -> object:
    """Return what a variable's text is in a file: a number, a list or a table; other text as it is."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return table["value"] if len(table) == 1 else text


def agent_endpoint(config: str | None, environ: Mapping[str, str]) -> Endpoint:
    """Return where the agent of this node answers; raises ConfigError. The rest of the configuration is not checked."""
    given = read(config, environ)
    agent = given.merged().get("agent", {})
    if not isinstance(agent, dict):
        raise ConfigError(f"{given.source}: agent: must be a table of keys, as in [agent]")
    values = {"listen": LISTEN, "token_file": str(standard_files().token)} | agent
    for key in ("listen", "token_file"):
        if not isinstance(values[key], str):
            raise ConfigError(f"{given.source}: agent.{key}: must be a string")
    try:
        listen, token_file = check_listen(values["listen"]), absolute(values["token_file"])
    except ConfigError as error:
        raise ConfigError(f"{given.source}: agent: {error}") from None
    return Endpoint(listen, None if listen.startswith(UNIX) else token_file, "" if given.overrides else given.absence)


def check_listen(listen: str) -> str:
    """Return an address only this host can reach; raises ConfigError for any other."""
    if not listen.startswith(UNIX):
        host, _ = split_address(listen)
        if not _LOOPBACK.fullmatch(host):
            raise ConfigError(f"an agent listens on this host only: write {SOCKET}, or {TCP}")
    elif sys.platform == "win32":
        raise ConfigError(f"Windows has no Unix sockets for this; write {TCP}")
    else:
        path = listen.removeprefix(UNIX)
        if not PurePosixPath(path).is_absolute() or "\0" in path:
            raise ConfigError(f"a Unix socket is written {UNIX} and an absolute path, {SOCKET}")
        if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
            raise ConfigError(f"the path of a Unix socket has at most {_LONGEST_SOCKET_PATH} bytes; take a shorter one")
    return listen


def split_address(address: str) -> tuple[str, int]:
    """Return host (without the brackets of IPv6) and port of ``host:port``; raises ConfigError."""
    form = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/@\[\]]+)):([0-9]{1,5})", address)
    if form is None or not 0 < int(form[3]) < 65_536:  # noqa: PLR2004 -- the number of ports TCP has
        raise ConfigError(f"an address is written host:port, such as {TCP} or [::1]:8731")
    return form[1] or form[2], int(form[3])


def absolute(path: str) -> Path:
    """Return the path if it means the same from every folder; raises ConfigError."""
    if not Path(path).is_absolute():
        raise ConfigError("a path must be absolute, so that it means the same from every folder")
    return Path(path)
