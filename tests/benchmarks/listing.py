"""``python -m tests.benchmarks.listing``: seconds and memory to list 100,000 leases, each run a process of its own."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from farmlease.admin.leases import LeaseAdmin
from farmlease.config.model import load_config
from farmlease.crypto import keyring_file
from farmlease.crypto.keyring import KeyRing
from farmlease.domain.identity import User
from farmlease.domain.policy import Pool, parse_policy
from farmlease.farm import Farm, open_farm
from tests.benchmarks.store import SERVER
from tests.support.servers import redis_server

__all__ = ["fill", "main", "measured"]

LEASES = 100_000
#: Leases taken over at once.
_AT_ONCE = 50
#: Says what a process needed at most, in KiB. Linux only: ``ru_maxrss`` would count what it was forked from.
_PEAK = "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"
_POLICY = '[[pool]]\nname = "qlikview"\nkind = "named"\ncapacity = 1000000\n'


def main(count: int = LEASES) -> None:
    """Measure each format and print a line for it."""
    with tempfile.TemporaryDirectory() as folder, redis_server(program=SERVER) as server:
        config = Path(folder) / "farmlease.toml"
        ring = Path(folder) / "keyring.json"
        keyring_file.create(ring, KeyRing.generate(time.time_ns() // 1_000_000))
        config.write_text(
            f'farm = "citrix-a"\nnode = "ctx-01"\n[store]\nurl = "{server.url}"\n[keys]\nfile = "{ring}"\n'
        )
        asyncio.run(fill(config, count))
        for fmt in ("csv", "json", "table"):
            worked = os.times().children_user
            seconds, megabytes = measured(config, fmt, count)
            worked = os.times().children_user - worked
            told = (
                f"lease list -o {fmt}, {count:,} leases: {seconds:.1f} s, {worked:.1f} s at work, "
                f"{megabytes:.0f} MB at most ({baseline():.0f} MB to list nothing)"
            )
            sys.stdout.write(f"{told}\n")


async def fill(config: Path, count: int) -> None:
    """Put a policy in force and take over so many leases."""
    async with open_farm(load_config(config, {})) as (farm, _):
        applied = await farm.apply(parse_policy(_POLICY, "benchmark"))
        numbers = iter(range(count))
        while some := list(itertools.islice(numbers, _AT_ONCE)):
            await asyncio.gather(*(take_over(farm, applied.pools[0], applied.version, number) for number in some))


async def take_over(farm: Farm, pool: Pool, version: int, number: int) -> None:
    """Take over one lease."""
    await LeaseAdmin(farm).import_lease(pool, version, User(f"corp\\user-{number:06}"), "citrix-a", None)


def measured(config: Path, fmt: str, count: int) -> tuple[float, float]:
    """Return seconds and megabytes of one run whose output is read and counted."""
    code = f"import sys\nfrom farmlease.cli import main\ntry:\n    main(sys.argv[1:])\nfinally:\n    {_PEAK}"
    command = [sys.executable, "-c", code, "--config", str(config), "lease", "list", "-o", fmt]
    began = time.monotonic()
    with tempfile.TemporaryFile() as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, check=True, env=dict(os.environ))
        seconds = time.monotonic() - began
        out.seek(0)
        rows = len(json.load(out)) if fmt == "json" else sum(1 for _ in out) - 1
    assert rows == count, rows
    return seconds, int(done.stderr.split()[-1]) / 1024


def baseline() -> float:
    """Return the megabytes of a command that lists nothing."""
    code = f"import sys, farmlease.farm, farmlease.cli.lease.commands\n{_PEAK}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return int(done.stderr) / 1024


if __name__ == "__main__":
    main()
