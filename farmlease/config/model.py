"""The node's configuration: ``farmlease.toml`` and what ``FARMLEASE_<SECTION>__<KEY>`` puts over it.

Checked as a whole before anything starts. What cannot be meant is refused with key, file and the nearest valid key; it
is never repaired. The URL of the store may hold a password, so no error text and no ``repr`` may show it.
"""

import os
import re
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator

from farmlease.config.source import LISTEN, Given, absolute, check_listen, read, split_address, standard_files
from farmlease.domain.identity import Identities, check_token
from farmlease.domain.toml_model import (
    Count,
    Duration,
    Location,
    Positive,
    Section,
    dotted,
    field_type,
    first_fault,
    line_of,
    refusal,
    validated_by,
)
from farmlease.errors import ConfigError, InvalidInput

__all__ = [
    "AgentSection",
    "Config",
    "HealthSection",
    "HooksSection",
    "IdentitySection",
    "KeysSection",
    "RecoverySection",
    "StoreSection",
    "load_config",
]

_PLACEHOLDERS = frozenset({"{user}", "{session}", "{reason}", "{pool}"})
#: A host by name or address, and perhaps its port.
_HOST = re.compile(r"(\[[^\]]+\]|[^:,\[\]]+)(:\d+)?")


def _check_farm(text: str) -> str:
    # A brace would end the hash tag that keeps the keys of a shard together.
    return check_token("farm", text, forbidden="/#{}")


def _check_path(path: Path) -> Path:
    try:
        return absolute(str(path))
    except InvalidInput as error:
        raise refusal(str(error)) from None


def _check_store_url(url: SecretStr) -> SecretStr:
    """Refuse a URL no store can be reached by, without showing it."""
    try:
        parts = urlsplit(url.get_secret_value())
    except ValueError:
        raise refusal("is not a URL, such as redis://127.0.0.1:6379/0") from None
    hosts = parts.netloc.rpartition("@")[2]
    match parts.scheme:
        case "redis" | "rediss":
            complete = _HOST.fullmatch(hosts) is not None
            form = f"{parts.scheme}://host:port"
        case "redis+cluster":
            complete = all(map(_HOST.fullmatch, hosts.split(","))) and not parts.path.strip("/")
            form = "redis+cluster://host:port,host:port"
        case "redis+sentinel":
            complete = all(map(_HOST.fullmatch, hosts.split(","))) and bool(parts.path.strip("/"))
            form = "redis+sentinel://host:port,host:port/master/0"
        case "unix":
            complete = parts.path.startswith("/")
            form = "unix:///run/redis/redis.sock"
        case "embedded":
            complete = not parts.netloc and (not parts.path or Path(parts.path).is_absolute())
            form = "embedded: or embedded:/var/lib/farmlease/redis"
        case _:
            raise refusal("begins with none of redis, rediss, unix, redis+sentinel, redis+cluster, embedded")
    if not complete:
        raise refusal(f"is not complete; write it as {form}")
    return url


def _check_hook(command: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a hook without a program, or with a placeholder nobody fills."""
    if command and (not command[0] or set(re.findall(r"\{\w*\}", command[0]))):
        raise refusal("begins with the program to run, without a placeholder")
    if set(re.findall(r"\{\w*\}", " ".join(command))) - _PLACEHOLDERS:
        raise refusal(f"has an unknown placeholder; there are {' '.join(sorted(_PLACEHOLDERS))}")
    return command


def _percent(value: object) -> int:
    """Return the number of a share as written in the file."""
    if value == 0 and not isinstance(value, bool):
        return 0
    form = re.fullmatch(r"([0-9]{1,3})%", value) if isinstance(value, str) else None
    if form is None or int(form[1]) > 100:  # noqa: PLR2004 - of a hundred
        raise refusal('is written as a share of a hundred, such as "90%"')
    return int(form[1])


AbsolutePath = Annotated[Path, AfterValidator(_check_path)]
Address = Annotated[str, validated_by(split_address)]
Percent = Annotated[int, BeforeValidator(_percent)]  #: written "90%"
Hook = Annotated[tuple[str, ...], AfterValidator(_check_hook)]


class StoreSection(Section):
    """``[store]``: how the shared truth is reached."""

    #: May hold a password, so it is shown to nobody; ``url.get_secret_value()`` is for ``store.connect``.
    url: Annotated[SecretStr, AfterValidator(_check_store_url)] = SecretStr("redis://127.0.0.1:6379/0")
    username: str | None = None
    password_file: AbsolutePath | None = None
    ca_file: AbsolutePath | None = None
    cert_file: AbsolutePath | None = None
    key_file: AbsolutePath | None = None
    timeout_ms: Duration = Field(default=2_000, alias="timeout")  #: one round trip and no longer, ms; never 0
    wait_replicas: Count = 0  #: replicas that must have a grant before it is given; 0: none

    @model_validator(mode="after")
    def _can_work(self) -> Self:
        if not self.timeout_ms:
            raise refusal("must be longer than 0", "timeout")
        if self.key_file is not None and self.cert_file is None:
            raise refusal("is required beside key_file", "cert_file")
        scheme = urlsplit(self.url.get_secret_value()).scheme
        if self.wait_replicas and scheme == "embedded":
            raise refusal("is for a store with replicas, and an embedded one has none", "wait_replicas")
        if scheme in {"redis", "unix", "embedded"}:
            for key in ("ca_file", "cert_file"):
                if key in self.model_fields_set:
                    raise refusal("is for TLS, which this URL does not use; write rediss://", key)
        return self


class KeysSection(Section):
    """``[keys]``: the farm's key ring."""

    file: AbsolutePath = Field(default_factory=lambda: standard_files().keyring)  #: 0600, else refused


class AgentSection(Section):
    """``[agent]``: this node's agent."""

    listen: Annotated[str, validated_by(check_listen)] = LISTEN  #: this host only
    token_file: AbsolutePath = Field(default_factory=lambda: standard_files().token)  #: made at start if absent
    state_dir: AbsolutePath = Field(default_factory=lambda: standard_files().state)  #: journal and files kept; 0700
    #: How often the node says that it lives, ms; the session timeout of every pool is more than twice as long.
    heartbeat_ms: Duration = Field(default=60_000, alias="heartbeat")
    max_sessions: Positive = 100  #: with so many sessions the node is full; for the balancer's weight
    #: After SIGTERM, how long the agent goes on while balancers are told to send nobody any more, ms; 0: not at all.
    shutdown_delay_ms: Duration = Field(default=0, alias="shutdown_delay")
    offline: Literal["receipt", "deny"] = "receipt"  #: whether receipts decide while the store is away

    @model_validator(mode="after")
    def _beats(self) -> Self:
        if not self.heartbeat_ms:
            raise refusal("must be longer than 0", "heartbeat")
        return self


class HealthSection(Section):
    """``[health]``: what balancers and monitors may ask without a token."""

    listen: Address = "0.0.0.0:8732"
    agent_check: Address | None = None  #: HAProxy's agent-check; off unless given
    #: Percent of a pool's seats from which on health warns and the metric of the alert is 1; 0: never.
    pool_alert_percent: Percent = Field(default=90, alias="pool_alert")


class RecoverySection(Section):
    """``[recovery]``: after a loss of the store's data."""

    window_ms: Duration = Field(default=15_000, alias="window")  #: only receipts are restored for so long


class IdentitySection(Section):
    """``[identity]``: which spellings are one user."""

    domains: Mapping[str, str] = Field(default_factory=dict)  #: short name to DNS name
    aliases: Mapping[str, str] = Field(default_factory=dict)  #: any spelling, a SID too, to another user

    @model_validator(mode="after")
    def _is_unambiguous(self) -> Self:
        try:
            Identities(self.domains, self.aliases)
        except InvalidInput as error:
            raise refusal(str(error)) from None
        return self


class HooksSection(Section):
    """``[hooks]``: programs to run, each with its arguments; none if empty."""

    granted: Hook = ()
    ended: Hook = ()
    lost: Hook = ()


class Config(Section):
    """All of a node's configuration. ``load_config`` makes it."""

    farm: Annotated[str, validated_by(_check_farm)]  #: all its nodes count as one device
    #: This host among them; default: the host name.
    node: Annotated[str, validated_by(lambda text: check_token("node", text))] = Field(
        default_factory=socket.gethostname, validate_default=True
    )
    store: StoreSection = Field(default_factory=StoreSection)
    keys: KeysSection = Field(default_factory=KeysSection)
    agent: AgentSection = Field(default_factory=AgentSection)
    health: HealthSection = Field(default_factory=HealthSection)
    recovery: RecoverySection = Field(default_factory=RecoverySection)
    identity: IdentitySection = Field(default_factory=IdentitySection)
    hooks: HooksSection = Field(default_factory=HooksSection)

    @property
    def identities(self) -> Identities:
        """What this node knows of its users' names; made anew at each call, so keep it."""
        return Identities(self.identity.domains, self.identity.aliases)


def load_config(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration; raises ConfigError naming file (or variable), key and nearest valid key.

    Read from ``path``, else ``$FARMLEASE_CONFIG``, else the standard place, where it may be missing.
    """
    given = read(path, environ)
    try:
        return Config.model_validate(given.merged(_value))
    except ValidationError as error:
        where, why = first_fault(error, Config)
        if where == ("farm",) and why.startswith("is required"):
            raise ConfigError(
                f'{given.source}: farm is required: write farm = "citrix-a" at the top of it, or set FARMLEASE_FARM'
            ) from None
        raise ConfigError(f"{_place(given, where)}: {why}") from None


def _value(where: tuple[str, ...], text: str) -> object:
    """Return a variable's text as the value of its key: numbers, lists and tables are written as in the file."""
    kind = field_type(Config, where)
    if kind is not int and get_origin(kind) not in {tuple, Mapping}:
        return text
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text  # a duration; or nothing valid, which its key's own check tells better
    return table["value"] if len(table) == 1 else text


def _place(given: Given, where: Location) -> str:
    """Return where a fault is: the variable of the environment, else file, line and key."""
    for key, override in given.overrides.items():
        unknown_section = key[: len(where)] == where and where[0] not in given.table
        if unknown_section or where[: len(key)] == key:
            return f"environment: {override.variable}"
    line = line_of(given.text, where)
    return f"{given.source}: {dotted(where)}" if line is None else f"{given.source}: line {line}: {dotted(where)}"
