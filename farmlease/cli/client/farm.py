"""An open farm for commands: opened from the node's configuration and closed again.

Commands are plain functions; this is the only place where they run coroutines. This module must never print, except
for the store's warnings, which go to stderr.
"""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import structlog

from farmlease.admin.addressing import Addressee
from farmlease.admin.leases import LeaseAdmin, Pseudonym, Who
from farmlease.admin.removed_pools import removed_pool, removed_pools
from farmlease.admin.revocations import Revocation, Revocations
from farmlease.cli import config_file
from farmlease.cli.signals import InterruptibleRunner
from farmlease.config.model import Config, load_config
from farmlease.crypto.keyring import KeyRing
from farmlease.domain.identity import User
from farmlease.domain.model import Kind, LeaseView
from farmlease.domain.policy import Policy, PolicyInForce, Pool
from farmlease.errors import FarmleaseError, InvalidInput, RecordRejected
from farmlease.farm import Farm, open_farm
from farmlease.store.connection.connection import Connection

__all__ = ["FarmClient", "administrator", "configuration", "opened_farm", "warn_on_stderr"]

T = TypeVar("T")

#: Values fetched by one run of the event loop: a run for each value would cost more than the value.
_BATCH = 500


@dataclass(frozen=True, slots=True)
class FarmClient:
    """An open farm, for functions that cannot await."""

    config: Config
    farm: Farm
    connection: Connection
    _runner: InterruptibleRunner
    has_keys: bool = True  #: without the farm's keys nothing opens: no name, and no policy

    @property
    def lease_admin(self) -> LeaseAdmin:
        """The farm's leases, for an administrator."""
        return LeaseAdmin(self.farm)

    def wait(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run a coroutine and return its result."""
        return self._runner.run(coroutine)

    def each(self, source: AsyncIterator[T]) -> Iterator[T]:
        """Yield the values of an asynchronous iterator, without ever holding all of them."""
        while values := self.wait(_next_batch(source)):
            yield from values

    def in_force(self) -> PolicyInForce:
        """Return the policy; RecordRejected if it does not open with the keys of this node."""
        try:
            return self.wait(self.farm.policy())
        except RecordRejected as error:
            raise RecordRejected(f"{self.config.keys.file}: {error}") from error

    def user(self, text: str) -> User:
        """Return the person of this spelling, by the farm's table of who is who; raises InvalidName."""
        return self.in_force().identity.user(text)

    def policy(self) -> Policy:
        """Return the policy; FarmleaseError if there is none yet."""
        policy = self.in_force().policy
        if policy is None:
            raise FarmleaseError(
                f"no policy was applied to farm {self.farm.name} yet: "
                "write pools.toml and run `farmlease pool apply pools.toml`"
            )
        return policy

    def pools(self, name: str | None) -> tuple[Pool, ...]:
        """Return the pool of this name, or all; FarmleaseError naming the pools if there is none of the name."""
        policy = self.policy()
        if name is None:
            return policy.pools
        pool = policy.pool(name)
        if pool is None:
            raise FarmleaseError(f"there is no pool of this name; the pools are {_names(policy)}")
        return (pool,)

    def lease_pools(self, name: str | None) -> tuple[Pool, ...]:
        """Return the pools in which leases may stand: those of the policy, and removed ones until the last has ended.

        With a name only that pool; FarmleaseError naming the pools if there is none of the name.
        """
        policy = self.policy()
        if name is None:
            return (*policy.pools, *self.each(removed_pools(self.farm, policy)))
        if policy.pool(name) is None and (removed := self.wait(removed_pool(self.farm, name))) is not None:
            return (removed,)
        return self.pools(name)

    def named_pool(self, name: str | None) -> Pool:
        """Return the pool of this name, or the only named one; InvalidInput if it is not named or there are more.

        Only the leases of a named pool outlast their sessions, so only they can be imported or be on devices.
        """
        named = [each for each in self.pools(name) if each.kind is Kind.NAMED]
        pool = named[0] if len(named) == 1 else self.one_pool(name)
        if pool.kind is not Kind.NAMED:
            raise InvalidInput(
                f"pool {pool.name} is {pool.kind}: only a named pool has leases to import and devices to count"
            )
        return pool

    def addressee(self, text: str) -> Addressee:
        """Return whom a name may mean, exactly as a list prints it or in any spelling; raises InvalidName."""
        return Addressee(self.farm, self.in_force().identity, text)

    def holder(self, pool: Pool, whom: Addressee) -> Who:
        """Return whose lease in a pool is meant; without one, who that is today."""
        found = self.leases_of(pool, whom)
        return found[0][0] if found else whom.user

    def leases_of(self, pool: Pool, whom: Addressee) -> list[tuple[Who, LeaseView]]:
        """Return each lease in a pool that may be meant, the one of exactly this name first."""
        whose = [Pseudonym(index) for index in whom.indexes]
        found = ((who, self.wait(self.lease_admin.lease(pool, who))) for who in whose)
        return [(who, view) for who, view in found if view is not None]

    def revocation(self, pool: Pool, whom: Addressee) -> Revocation | None:
        """Return what keeps somebody out of a pool, under whichever of the names; None if nothing does."""
        found = (self.wait(Revocations(self.farm).of(pool, index)) for index in whom.indexes)
        return next(filter(None, found), None)

    def held_lease(self, pool: Pool, user: Who) -> LeaseView:
        """Return the lease of a user; FarmleaseError if there is none."""
        view = self.wait(self.lease_admin.lease(pool, user))
        if view is None:
            raise FarmleaseError(f"the user holds no lease in pool {pool.name}")
        return view

    def seats_held(self, pool: Pool) -> int:
        """Return how many seats of a pool are held now, quarantined ones included."""
        use = self.wait(self.farm.use(pool))
        return use.used + use.quarantined

    def one_pool(self, name: str | None) -> Pool:
        """Return the pool of this name, or the only one; InvalidInput naming the pools if there are more."""
        pools = self.pools(name)
        if len(pools) > 1:
            raise InvalidInput(f"name the pool with --pool; the pools are {_names(self.policy())}")
        return pools[0]


def configuration() -> Config:
    """Return the configuration of ``farmlease --config``, of the environment or of the standard place."""
    path = config_file()
    return load_config(None if path is None else Path(path))


def administrator(node: str) -> str:
    """Return the user who runs this command, as the audit shows it: the operating system's user, and the host.

    Under sudo, the user who called it. Not guaranteed against root, who can set any name.
    """
    user = psutil.Process().username()
    caller = os.environ.get("SUDO_USER", "") if user == "root" else ""
    return f"{caller} (sudo) on {node}" if caller else f"{user} on {node}"


@contextmanager
def opened_farm(*, pseudonyms: bool = False) -> Iterator[FarmClient]:
    """Open the farm of the configuration; if its embedded store is already running, connect to that.

    With ``pseudonyms`` the key ring is not read. A new one in its place opens nothing, so that names stay closed.
    """
    warn_on_stderr()
    config = configuration()
    with asyncio.Runner() as runner, InterruptibleRunner(runner) as interruptible:
        stack = AsyncExitStack()
        try:
            ring = KeyRing.generate(0) if pseudonyms else None
            opening = open_farm(config, by=administrator(config.node), ring=ring)
            farm, connection = interruptible.run(stack.enter_async_context(opening))
            yield FarmClient(config, farm, connection, interruptible, has_keys=not pseudonyms)
        finally:
            runner.run(stack.aclose())


async def _next_batch(source: AsyncIterator[T]) -> list[T]:
    values: list[T] = []
    async for value in source:
        values.append(value)
        if len(values) == _BATCH:
            break
    return values


def _names(policy: Policy) -> str:
    return ", ".join(sorted(pool.name for pool in policy.pools))


def warn_on_stderr() -> None:
    """Log warnings to stderr: a program may be reading stdout."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.KeyValueRenderer(key_order=["level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
