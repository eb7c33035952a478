"""The farm in the hands of a command: opened from the node's configuration, read, and closed again.

Commands are plain functions; this is the one place where they wait for what is asynchronous. It decides nothing and
prints nothing, but for the warnings of the store, which go to stderr.
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

from farmlease.admin.leases import LeaseAdmin
from farmlease.cli import config_file
from farmlease.config.model import Config, load_config
from farmlease.domain.identity import User
from farmlease.domain.model import Kind, LeaseView
from farmlease.domain.policy import Policy, PolicyInForce, Pool
from farmlease.errors import FarmleaseError, InvalidInput, RecordRejected
from farmlease.farm import Farm, open_farm

__all__ = ["FarmClient", "administrator", "configuration", "opened_farm", "warn_on_stderr"]

T = TypeVar("T")

#: Values fetched at a time. A list of any length passes through; waiting for each one alone would cost more than it.
_AT_A_TIME = 500


@dataclass(frozen=True, slots=True)
class FarmClient:
    """An open farm, for a function that cannot await."""

    config: Config
    farm: Farm
    _runner: asyncio.Runner

    @property
    def leases(self) -> LeaseAdmin:
        """The farm's leases, for an administrator."""
        return LeaseAdmin(self.farm)

    def wait(self, question: Coroutine[object, object, T]) -> T:
        """Return the answer."""
        return self._runner.run(question)

    def each(self, source: AsyncIterator[T]) -> Iterator[T]:
        """Yield what comes, without ever holding all of it."""
        while values := self.wait(_some(source)):
            yield from values

    def in_force(self) -> PolicyInForce:
        """Return the policy; RecordRejected if it was sealed with the keys of another farm or an older ring."""
        try:
            return self.wait(self.farm.policy())
        except RecordRejected as error:
            raise RecordRejected(
                f"the farm's policy does not open with the keys of {self.config.keys.file}: "
                "take the key ring of a node of this farm"
            ) from error

    def policy(self) -> Policy:
        """Return the policy; FarmleaseError if there is none yet."""
        policy = self.in_force().policy
        if policy is None:
            raise FarmleaseError(
                f"no policy was applied to farm {self.farm.name} yet: "
                "write pools.toml and give it with `farmlease pool apply pools.toml`"
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

    def held_lease(self, pool: Pool, user: User) -> LeaseView:
        """Return the lease of a user; FarmleaseError if there is none."""
        view = self.wait(self.leases.lease(pool, user))
        if view is None:
            raise FarmleaseError(f"the user holds no lease in pool {pool.name}")
        return view

    def one_pool(self, name: str | None) -> Pool:
        """Return the pool of this name, or the only one; InvalidInput naming the pools if there are more."""
        pools = self.pools(name)
        if len(pools) > 1:
            raise InvalidInput(f"say which pool with --pool; the pools are {_names(self.policy())}")
        return pools[0]


def configuration() -> Config:
    """Return the configuration that ``farmlease --config``, the environment or the standard place gives."""
    path = config_file()
    return load_config(None if path is None else Path(path))


def administrator(node: str) -> str:
    """Return who runs this command, as the audit shows it: the operating system's user, and the host.

    Where sudo was used, the one who used it. It is what the system says, and proves nothing against its root.
    """
    user = psutil.Process().username()
    caller = os.environ.get("SUDO_USER", "") if user == "root" else ""
    return f"{caller} (sudo) on {node}" if caller else f"{user} on {node}"


@contextmanager
def opened_farm() -> Iterator[FarmClient]:
    """Open the farm of the configuration; an embedded store that runs already is joined."""
    warn_on_stderr()
    config = configuration()
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            farm, _ = runner.run(stack.enter_async_context(open_farm(config, by=administrator(config.node))))
            yield FarmClient(config, farm, runner)
        finally:
            runner.run(stack.aclose())


async def _some(source: AsyncIterator[T]) -> list[T]:
    values: list[T] = []
    async for value in source:
        values.append(value)
        if len(values) == _AT_A_TIME:
            break
    return values


def _names(policy: Policy) -> str:
    return ", ".join(sorted(pool.name for pool in policy.pools))


def warn_on_stderr() -> None:
    """Keep stdout for the answer: a program may be reading it."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.KeyValueRenderer(key_order=["level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
