"""The node's configuration: ``farmlease.toml``, and the variables ``FARMLEASE_<SECTION>__<KEY>`` that override it.

Checked as a whole before anything starts. An invalid key or value is refused with key, file and the nearest valid key;
it is never repaired. The URL of the store may hold a password, so no error text and no ``repr`` may show it.
"""

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator

from farmlease.config.source import (
    LISTEN,
    Given,
    absolute,
    as_written,
    check_listen,
    read,
    split_address,
    standard_files,
)
from farmlease.domain.identity import Identities, check_token
from farmlease.domain.identity_table import IdentityTable
from farmlease.domain.toml_model import (
    Count,
    Duration,
    Location,
    Positive,
    Section,
    dotted,
    every_fault,
    field_type,
    first_fault,
    line_of,
    refusal,
    validated_by,
)
from farmlease.errors import ConfigError, InvalidInput
from farmlease.store.connection.address import StoreAddress, faults

__all__ = [
    "AgentSection",
    "Config",
    "HealthSection",
    "HooksSection",
    "KeysSection",
    "RecoverySection",
    "StoreSection",
    "checked",
    "config_faults",
    "load_config",
    "origin",
]

T = TypeVar("T")

#: What a hook about a session may name, and what one about the node.
_OF_SESSION = frozenset({"{user}", "{session}", "{reason}", "{pool}"})
_OF_NODE = frozenset({"{node}"})


def _check_farm(text: str) -> str:
    # A brace would end the hash tag that keeps the keys of a shard together.
    return check_token("farm", text, forbidden="/#{}")


def _check_path(path: Path) -> Path:
    try:
        return absolute(str(path))
    except InvalidInput as error:
        raise refusal(str(error)) from None


def _hook(known: frozenset[str]) -> AfterValidator:
    """Return what refuses a hook without a program, or with an unknown placeholder."""

    def check(command: tuple[str, ...]) -> tuple[str, ...]:
        if command and (not command[0] or set(re.findall(r"\{\w*\}", command[0]))):
            raise refusal("begins with the program to run, without a placeholder")
        if set(re.findall(r"\{\w*\}", " ".join(command))) - known:
            raise refusal(f"has an unknown placeholder; there are {' '.join(sorted(known))}")
        return command

    return AfterValidator(check)


def _once(words: tuple[T, ...]) -> tuple[T, ...]:
    """Refuse a list that names something twice."""
    if len(set(words)) < len(words):
        raise refusal("names one twice")
    return words


def _percent(value: object) -> int:
    """Return the number of a share as written in the file."""
    if value == 0 and not isinstance(value, bool):
        return 0
    form = re.fullmatch(r"([0-9]{1,3})%", value) if isinstance(value, str) else None
    if form is None or int(form[1]) > 100:  # noqa: PLR2004 - of a hundred
        raise refusal('is written as a share of a hundred, such as "90%"')
    return int(form[1])


def _as_list(value: object) -> object:
    """Return a list of addresses; one of them may stand alone."""
    return value if isinstance(value, list | tuple) else (value,)


def _check_addresses(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is no address."""
    for address in addresses:
        try:
            split_address(address)
        except InvalidInput as error:
            raise refusal(str(error)) from None
    return _once(addresses)


AbsolutePath = Annotated[Path, AfterValidator(_check_path)]
Addresses = Annotated[tuple[str, ...], BeforeValidator(_as_list), AfterValidator(_check_addresses)]
Percent = Annotated[int, BeforeValidator(_percent)]  #: written "90%"
SessionHook = Annotated[tuple[str, ...], _hook(_OF_SESSION)]
NodeHook = Annotated[tuple[str, ...], _hook(_OF_NODE)]


class StoreSection(Section):
    """``[store]``: how the shared truth is reached."""

    #: May hold a password, so it is never shown; ``url.get_secret_value()`` is for ``store.connect``.
    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    username: str | None = None
    password_file: AbsolutePath | None = None
    ca_file: AbsolutePath | None = None
    cert_file: AbsolutePath | None = None
    key_file: AbsolutePath | None = None
    sentinel_username: str | None = None  #: of the Sentinels' own, where they ask for a password
    sentinel_password_file: AbsolutePath | None = None
    timeout_ms: Duration = Field(default=2_000, alias="timeout")  #: one round trip and no longer, ms; never 0
    wait_replicas: Count = 0  #: replicas that must have a grant before it is given; 0: none

    @model_validator(mode="after")
    def _leads_to_a_store(self) -> Self:
        for fault in faults(self.address):
            raise refusal(fault.why, fault.key)
        return self

    @property
    def address(self) -> StoreAddress:
        """Return where the store is, in its own room's words."""
        return StoreAddress(
            url=self.url.get_secret_value(),
            username=self.username,
            password_file=self.password_file,
            ca_file=self.ca_file,
            cert_file=self.cert_file,
            key_file=self.key_file,
            sentinel_username=self.sentinel_username,
            sentinel_password_file=self.sentinel_password_file,
            timeout_ms=self.timeout_ms,
            wait_replicas=self.wait_replicas,
        )


class KeysSection(Section):
    """``[keys]``: the farm's key ring."""

    file: AbsolutePath = Field(default_factory=lambda: standard_files().keyring)  #: 0600, else refused


class AgentSection(Section):
    """``[agent]``: this node's agent."""

    listen: Annotated[str, validated_by(check_listen)] = LISTEN  #: this host only
    token_file: AbsolutePath = Field(default_factory=lambda: standard_files().token)  #: made at start if absent
    #: What a caller on the Unix socket who is not root may say of his own sessions, beside app, pool, pid and wait.
    trust: Annotated[tuple[Literal["device", "site", "groups"], ...], AfterValidator(_once)] = ()
    state_dir: AbsolutePath = Field(default_factory=lambda: standard_files().state)  #: journal and files kept; 0700
    #: How often the node sends its heartbeat, ms; the session timeout of every pool is more than twice as long.
    heartbeat_ms: Duration = Field(default=60_000, alias="heartbeat")
    max_sessions: Positive = 100  #: with so many sessions the node is full; for the balancer's weight
    #: After SIGTERM, how long the agent goes on while its health keeps new users away, ms; 0: not at all.
    shutdown_delay_ms: Duration = Field(default=0, alias="shutdown_delay")
    offline: Literal["receipt", "deny"] = "receipt"  #: whether receipts decide while the store is away

    @model_validator(mode="after")
    def _beats(self) -> Self:
        if not self.heartbeat_ms:
            raise refusal("must be longer than 0", "heartbeat")
        return self


class HealthSection(Section):
    """``[health]``: what balancers and monitors may read without a token."""

    listen: Annotated[Addresses, Field(min_length=1)] = ("0.0.0.0:8732",)
    agent_check: Addresses = ()  #: HAProxy's agent-check; off unless given
    #: Percent of a pool's seats from which on health warns and the metric of the alert is 1; 0: never.
    pool_alert_percent: Percent = Field(default=90, alias="pool_alert")


class RecoverySection(Section):
    """``[recovery]``: after a loss of the store's data."""

    window_ms: Duration = Field(default=15_000, alias="window")  #: for so long, only receipts are restored


class HooksSection(Section):
    """``[hooks]``: programs to run, each with its arguments; none if empty."""

    granted: SessionHook = ()
    ended: SessionHook = ()
    lost: SessionHook = ()
    drained: NodeHook = ()  #: this node takes no new users from now on
    undrained: NodeHook = ()  #: this node takes new users again


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
    #: Deprecated: it stands in the policy. It counts until the policy in force has one.
    identity: IdentityTable | None = None
    hooks: HooksSection = Field(default_factory=HooksSection)

    @property
    def host_identity(self) -> Identities:
        """The host's own table, which counts until the policy has one; without one names are as given."""
        return Identities() if self.identity is None else self.identity.identities


def load_config(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration; raises ConfigError naming file (or variable), key and nearest valid key.

    Read from ``path``, else ``$FARMLEASE_CONFIG``, else the standard place, where it may be missing.
    """
    return checked(read(path, environ))


def checked(given: Given) -> Config:
    """Return the configuration that was read; raises ConfigError for the first fault, and counts the others."""
    try:
        return Config.model_validate(given.merged(_value))
    except ValidationError as error:
        where, why = first_fault(error, Config)
        raise ConfigError(_told(given, where, why)) from None


def config_faults(given: Given) -> list[str]:
    """Return everything that is wrong with a configuration that was read, each with its place; empty if nothing is."""
    try:
        Config.model_validate(given.merged(_value))
    except ValidationError as error:
        return [_told(given, *fault) for fault in every_fault(error, Config)]
    except ConfigError as error:
        return [str(error)]
    return []


def origin(given: Given, where: tuple[str, ...]) -> str:
    """Return where a value comes from: its variable, its line of the file, or that it is the default."""
    for key, override in given.overrides.items():
        if where[: len(key)] == key:
            return f"environment: {override.variable}"
    part: object = given.table
    for word in where:
        if not isinstance(part, dict) or word not in part:
            return "default"
        part = part[word]
    line = line_of(given.text, where)
    return given.source if line is None else f"{given.source}:{line}"


def _told(given: Given, where: Location, why: str) -> str:
    if where == ("farm",) and why.startswith("is required"):
        missing = given.absence or f'{given.source}: farm is required: write farm = "citrix-a" at the top of it'
        return f"{missing}, or set FARMLEASE_FARM"
    return f"{_place(given, where)}: {why}"


def _value(where: tuple[str, ...], text: str) -> object:
    """Return a variable's text as the value of its key: numbers, lists and tables are written as in the file."""
    kind = field_type(Config, where)
    # What is no TOML is a duration or one address; or invalid, and then the key's own check has the better error.
    return as_written(text) if kind is int or get_origin(kind) in {tuple, Mapping} else text


def _place(given: Given, where: Location) -> str:
    """Return the place of a fault: the variable of the environment, else file, line and key."""
    for key, override in given.overrides.items():
        unknown_section = key[: len(where)] == where and where[0] not in given.table
        if unknown_section or where[: len(key)] == key:
            return f"environment: {override.variable}"
    line = line_of(given.text, where)
    return f"{given.source}: {dotted(where)}" if line is None else f"{given.source}: line {line}: {dotted(where)}"
