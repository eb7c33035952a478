"""An administrator at a shell: a configuration, a key ring, a real store, and commands run as they are typed."""

import asyncio
import fcntl
import io
import os
import pty
import secrets
import struct
import subprocess
import sys
import termios
from collections.abc import Awaitable, Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import psutil
import pytest
import structlog

from farmlease.cli import main
from farmlease.config.model import Config, load_config
from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.crypto.seal import RecordBinding
from farmlease.domain.identity import Identities
from farmlease.domain.model import SessionRequest
from farmlease.domain.node_view import Wish
from farmlease.domain.policy import Policy, Pool, parse_policy
from farmlease.domain.record import BorrowedRecord, encode
from farmlease.farm import Farm, open_farm
from farmlease.store.answers.session import Claim, Taken, Taking
from farmlease.store.node_store import Report
from tests.support.patience import within
from tests.support.servers import RedisServer
from tests.support.stores import StoreClock

__all__ = ["CLEARQUEST", "IDENTITIES", "NODE", "QLIKVIEW", "ClockedHost", "Ended", "Host", "host_of", "me", "typed"]

QLIKVIEW = """# what we bought
[identity]
domains = { CORP = "corp.example.com" }

[[pool]]
name = "qlikview"
kind = "named"
capacity = 3
"""
CLEARQUEST = '[[pool]]\nname = "clearquest"\nkind = "floating"\ncapacity = 1\n'
NODE = "ctx-01#1"
LATEST = 2**52  #: a fence later than any

#: Who is who by the policies of these tests.
IDENTITIES = Identities({"CORP": "corp.example.com"})

T = TypeVar("T")


def me() -> str:
    """Return how the audit calls who runs the tests."""
    return f"{psutil.Process().username()} on ctx-01"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


def typed(config: Path, *args: str) -> Ended:
    """Run ``farmlease ARGS`` without a terminal. In this process, because most of a command's time is imports."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", newline=""), io.StringIO()
    no_terminal = patch.object(sys, "stdin", io.StringIO())
    with no_terminal, redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(["--config", str(config), *args])
    structlog.reset_defaults()
    out.seek(0)
    return Ended(int(ended.value.code or 0), out.read(), err.getvalue())


@dataclass(frozen=True, slots=True)
class Host:
    """One host of farm citrix-a, and its administrator."""

    folder: Path
    store: RedisServer

    @property
    def config_file(self) -> Path:
        """The node's configuration."""
        return self.folder / "farmlease.toml"

    @property
    def ring_file(self) -> Path:
        """The farm's key ring."""
        return self.folder / "keyring.json"

    @property
    def config(self) -> Config:
        """The configuration as read."""
        return load_config(self.config_file, {})

    def command(self, *args: str) -> list[str]:
        """Return the words that run ``farmlease ARGS`` on this host."""
        return [sys.executable, "-m", "farmlease", "--config", str(self.config_file), *args]

    def run(self, *args: str) -> Ended:
        """Run ``farmlease ARGS`` without a terminal, as ``typed`` does."""
        return typed(self.config_file, *args)

    def run_process(self, *args: str, **environ: str) -> Ended:
        """Run ``farmlease ARGS`` as a process of its own, with ``environ`` added to its environment."""
        done = subprocess.run(
            self.command(*args), stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=within(60),
            env={**os.environ, **environ},
        )  # fmt: skip
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    def run_on_terminal(self, *args: str, columns: int = 80, status: int = 0, **environ: str) -> str:
        """Run ``farmlease ARGS`` on a terminal of its own, and return what it shows there; it ends with ``status``."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        environ = {**os.environ, "TERM": "xterm-256color", **environ}
        environ.pop("COLUMNS", None)
        done = subprocess.run(
            self.command(*args), stdin=theirs, stdout=theirs, check=False, timeout=within(60), env=environ
        )
        os.close(theirs)
        parts = list[bytes]()
        with suppress(OSError):  # at its end; a terminal gives some 4,000 bytes at a time
            while part := os.read(ours, 1 << 16):
                parts.append(part)
        os.close(ours)
        shown = b"".join(parts).decode().replace("\r\n", "\n")
        assert status == done.returncode, shown
        return shown

    def write(self, policy: str | bytes) -> str:
        """Write pools.toml; returns its path."""
        file = self.folder / "pools.toml"
        file.write_bytes(policy if isinstance(policy, bytes) else policy.encode())
        return str(file)

    def with_farm(self, use: Callable[[Farm], Awaitable[T]]) -> T:
        """Do something with the farm behind the commands' back."""

        async def opened() -> T:
            async with open_farm(self.config) as (farm, _):
                return await use(farm)

        return asyncio.run(opened())

    def apply(self, text: str) -> Policy:
        """Put a policy in force."""
        policy = parse_policy(text, "test")
        self.with_farm(lambda farm: farm.apply(policy))
        return policy

    def version(self) -> int:
        """Return the version of the policy in force."""

        async def read(farm: Farm) -> int:
            return (await farm.policy()).version

        return self.with_farm(read)

    def lend(
        self, *users: str, pool: str = "qlikview", device: str = "citrix-a", ended: bool = False, session: str = ""
    ) -> None:
        """Give each user a session, as an agent would; ``ended``: and end it. Its id begins with ``s-`` and the name.

        With ``session`` that is the id of the first one's, and the others have the numbers after it.
        """

        async def take(farm: Farm) -> None:
            found = await farm.policy()
            assert found.policy is not None
            chosen = found.policy.pool(pool)
            assert chosen is not None
            await farm.leases.heartbeat(chosen, found.version, NODE, None)
            for number, user in enumerate(users):
                name = str(int(session) + number) if session else ""
                await self._lend(farm, chosen, found.version, user, device, ended=ended, session=name)

        self.with_farm(take)

    def report(self, node: str, **changes: Any) -> None:
        """Let a node report, as its agent does."""
        plain = Report(
            incarnation="1", version="1.2", sessions=0, owed=0, draining=False, stopping=False, health="pass",
            listen="0.0.0.0:8732",
        )  # fmt: skip

        async def report(farm: Farm) -> None:
            await farm.nodes.report(node, replace(plain, **changes), Wish(), "", b"")

        self.with_farm(report)

    def end(self, user: str, pool: str = "qlikview", device: str = "citrix-a") -> None:
        """End the session that ``lend`` gave a user."""
        person = IDENTITIES.user(user)

        async def give_back(farm: Farm) -> None:
            claim = Claim(user=farm.sealer.user_index(person), node=NODE, session=f"s-{person.name}-{device}")
            await farm.leases.release(pool, claim, LATEST)

        self.with_farm(give_back)

    async def _lend(
        self, farm: Farm, pool: Pool, version: int, user: str, device: str, *, ended: bool, session: str
    ) -> None:
        person = IDENTITIES.user(user)
        index = farm.sealer.user_index(person)
        lease_id = secrets.token_urlsafe(12)
        record = BorrowedRecord(
            user=person.canonical, pool=pool.name, seat=index, device=device, borrowed_at=0, files=()
        )
        binding = RecordBinding(pool=pool.name, user_index=index, lease_id=lease_id, version=1)
        taking = Taking(
            device=farm.device(device),
            lease_id=lease_id,
            record=farm.sealer.seal_record(binding, encode(record)),
            name=farm.sealer.seal_name(index, person.canonical),
            reservations=pool.reservations(SessionRequest(user=person, session=""), "ctx-01"),
        )
        claim = Claim(user=index, node=NODE, session=session or f"s-{person.name}-{device}")
        taken = await farm.leases.acquire(pool, version, claim, taking)
        assert isinstance(taken, Taken), taken
        if ended:
            await farm.leases.release(pool.name, claim, taken.fence)


@dataclass(frozen=True, slots=True)
class ClockedHost(Host):
    """A host whose store is on virtual time: it is 09:00 of 5 January 2026 until the test moves it."""

    clock: StoreClock


def host_of(folder: Path, store: RedisServer) -> Host:
    """Set up a host of farm citrix-a with its keys."""
    host = Host(folder, store)
    host.config_file.write_text(
        f'farm = "citrix-a"\nnode = "ctx-01"\n[store]\nurl = "{store.url}"\n[keys]\nfile = "{host.ring_file}"\n'
        f'[agent]\nstate_dir = "{folder}"\n'
    )
    keyring_file.create(host.ring_file, KeyRing.generate(0))
    return host
