"""The files of a farm's first host: its configuration, the key ring, the store's password, and a first policy.

The texts are made and judged here; ``new_files.py`` writes them. What was given is judged by the same rules as any
file of an administrator.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from farmlease.admin.new_files import READABLE, NewFile
from farmlease.config.model import Config, checked
from farmlease.config.source import Given, standard_files
from farmlease.crypto.keyring import KeyRing
from farmlease.domain.policy import parse_policy

__all__ = ["FirstHost", "FirstPool", "checked_text", "files_of", "key_ring_at", "toml_value"]

_HEADER = "# Made by `farmlease init`. deploy/farmlease.toml has every option, with its default.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstPool:
    """The first product of a farm."""

    name: str
    kind: str
    seats: int
    files: Sequence[str] = ()  #: the vendor's files that travel
    domains: Mapping[str, Sequence[str]] = field(default_factory=dict)  #: short name to its suffixes


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstHost:
    """What an administrator says of the first host. What is None has its default."""

    farm: str
    node: str
    store: str  #: URL
    username: str | None = None  #: at the store
    password: str | None = field(default=None, repr=False)  #: for a new file beside the configuration
    password_file: Path | None = None  #: one that is there
    ca_file: Path | None = None
    listen: str | None = None
    health: str | None = None
    state_dir: Path | None = None
    pool: FirstPool | None = None


def key_ring_at(config: Path) -> Path:
    """Return where the key ring of a configuration lies: at its usual place, or beside one that does not."""
    usual = standard_files()
    return usual.keyring if config == usual.config else config.with_name(usual.keyring.name)


def files_of(host: FirstHost, config: Path, ring: KeyRing) -> list[NewFile]:
    """Return the files to write, the configuration last. ConfigError or PolicyError if something given is wrong."""
    secret = config.with_name("store-password") if host.password else None
    text = _configuration(host, config, secret or host.password_file)
    checked_text(text, str(config))
    files = []
    if host.pool is not None:
        path = config.with_name("pools.toml")
        policy = "\n".join(_policy(host.pool)) + "\n"
        parse_policy(policy, str(path))
        files.append(NewFile(path=path, content=policy.encode(), mode=READABLE))
    if secret is not None and host.password:
        files.append(NewFile(path=secret, content=host.password.encode()))
    files.append(NewFile(path=key_ring_at(config), content=ring.to_json()))
    return [*files, NewFile(path=config, content=text.encode(), mode=READABLE)]


def checked_text(text: str, source: str) -> Config:
    """Return the configuration of a text; ConfigError if it is not valid. The environment does not count."""
    return checked(Given(source, text, tomllib.loads(text), {}))


def _configuration(host: FirstHost, config: Path, password_file: Path | None) -> str:
    ring = key_ring_at(config)
    store: dict[str, object] = {
        "url": host.store,
        "username": host.username,
        "password_file": password_file,
        "ca_file": host.ca_file,
    }
    sections: list[tuple[str, dict[str, object]]] = [
        ("store", store),
        ("keys", {"file": None if ring == standard_files().keyring else ring}),
        ("agent", {"listen": host.listen, "state_dir": host.state_dir}),
        ("health", {"listen": host.health}),
    ]
    lines = [*_lines({"farm": host.farm, "node": host.node})]
    for name, keys in sections:
        if written := [*_lines(keys)]:
            lines += ["", f"[{name}]", *written]
    return _HEADER + "\n".join(lines) + "\n"


def _policy(pool: FirstPool) -> Iterator[str]:
    yield "# Made by `farmlease init`; `farmlease pool apply FILE` puts it in force. Every option: deploy/REFERENCE.md"
    if pool.domains:
        listed = ", ".join(
            f"{toml_value(name)} = {toml_value(list(suffixes))}" for name, suffixes in pool.domains.items()
        )
        yield from ("[identity]", f"domains = {{ {listed} }}", "")
    yield "[[pool]]"
    yield from _lines({"name": pool.name, "kind": pool.kind, "capacity": pool.seats, "files": list(pool.files) or None})


def _lines(keys: Mapping[str, object]) -> Iterator[str]:
    return (f"{key} = {toml_value(value)}" for key, value in keys.items() if value is not None)


def toml_value(value: object) -> str:
    """Return a value as TOML writes it; its strings and lists are those of JSON."""
    plain = str(value) if isinstance(value, Path) else value
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")
