"""What is right and wrong with a node's configuration: all of it at once, as findings.

The doctor examines the whole node and the whole store; this judges what an administrator wrote. Nothing is changed.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from farmlease.cli import config_file
from farmlease.cli.doctor.node import file_findings, guarded, ring_findings, why
from farmlease.config.model import Config, checked, config_faults
from farmlease.config.source import Given, find, read
from farmlease.crypto.keyring import KeyRing
from farmlease.crypto.seal import Sealer
from farmlease.domain.diagnosis import store as judge
from farmlease.domain.diagnosis.finding import Finding, Verdict, failed, fine, warned
from farmlease.domain.policy import PolicyInForce, check_timing
from farmlease.errors import EXIT_DENIED, EXIT_UNAVAILABLE, ConfigError, PolicyError, StoreError
from farmlease.farm import Farm
from farmlease.store.connection.connection import open_connection
from farmlease.store.inspect.tls_facts import wiring_of
from farmlease.store.lease_store import LeaseStore

__all__ = ["findings", "status_of"]

_STORE = "store"


def status_of(found: Sequence[Finding]) -> int:
    """Return the exit status: what is not valid comes before a store that does not answer."""
    wrong = {each.check for each in found if each.verdict is Verdict.FAIL}
    return EXIT_DENIED if wrong - {_STORE} else EXIT_UNAVAILABLE if wrong else 0


def findings() -> Iterator[Finding]:
    """Check one thing after the other. What needs a valid configuration is left out without one.

    ConfigError if there is none at all.
    """
    try:
        given = read(config_file(), os.environ)
    except ConfigError as error:
        if not find(config_file(), os.environ)[0].exists():
            raise
        yield failed("configuration", why(error))  # it cannot be read, or is no TOML
        return
    if given.absence and not given.overrides:
        raise ConfigError(given.absence)
    faults = config_faults(given)
    yield from (failed("configuration", each) for each in faults)
    if not faults:
        yield from _of(given, checked(given))


def _of(given: Given, config: Config) -> Iterator[Finding]:
    source = "the environment" if given.absence else given.source
    yield fine("configuration", f"{source}: node {config.node} of farm {config.farm}")
    ring, found = ring_findings(config)
    yield from found
    yield from file_findings(config)
    yield from guarded("hooks", lambda: _hooks(config))
    yield from guarded(_STORE, lambda: asyncio.run(_collected(_store(config, ring))))


def _hooks(config: Config) -> Iterable[Finding]:
    for name in type(config.hooks).model_fields:
        command: tuple[str, ...] = getattr(config.hooks, name)
        if command and shutil.which(command[0]) is None:
            yield failed("hooks", f"{name}: there is no program {command[0]} that this user may run; correct the path")
        elif command:
            yield fine("hooks", f"{name}: {command[0]}")


async def _collected(found: AsyncIterator[Finding]) -> list[Finding]:
    return [each async for each in found]


async def _store(config: Config, ring: KeyRing | None) -> AsyncIterator[Finding]:
    """Check the way to the store, that it answers, and the policy there."""
    for each in judge.wiring(await wiring_of(config.store.address)):
        yield each
    try:
        async with await open_connection(config.store.address, state_dir=config.agent.state_dir) as connection:
            await connection.ping()
            yield fine(_STORE, f"{connection.describe} answers")
            if ring is not None:
                leases = LeaseStore(connection, config.farm)
                farm = Farm(config.farm, leases, Sealer(ring, config.farm), host_identity=config.host_identity)
                for each in _policy(config, await farm.policy()):
                    yield each
    except StoreError as error:
        yield failed(_STORE, why(error))
    except Exception as error:  # noqa: BLE001 - a policy that does not open is a finding too
        yield failed("policy", why(error))


def _policy(config: Config, found: PolicyInForce) -> Iterator[Finding]:
    """Check the policy in force against what this node does."""
    if found.policy is None:
        yield warned("policy", f"none was applied to farm {config.farm} yet; `farmlease pool apply FILE` does")
        return
    try:
        for pool in found.pools:
            check_timing(config.agent.heartbeat_ms, pool)
    except PolicyError as error:
        yield failed("policy", f"{why(error)}; correct [agent] heartbeat, or the pool")
    else:
        names = ", ".join(sorted(pool.name for pool in found.pools))
        yield fine("policy", f"version {found.version}: {names}")
