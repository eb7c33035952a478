"""An acquire beside etcd's way: grant a lease, then compare and swap the key. Both write every change to disk first."""

import asyncio
import importlib
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.benchmarks.figures import Figure, on_the_servers_core, ratios, side_by_side
from tests.benchmarks.store import Bench, bench
from tests.support.ports import distant_port

__all__ = ["etcd_figures"]

FLOOR, GOAL = 4.0, 8.0


async def etcd_figures(scale: int) -> list[Figure]:
    """Measure one at a time, and sixteen in flight."""
    what = "acquires a second, every write synced, {} in flight / etcd's lease and compare-and-swap"
    flights = {"P7a": 1, "P7b": 16}
    lacking = missing()
    if lacking:
        return [
            Figure(id=name, what=what.format(flight), rounds=(), floor=FLOOR, goal=GOAL, at_most=False, missing=lacking)
            for name, flight in flights.items()
        ]
    figures = []
    async with bench("--appendonly", "yes", "--appendfsync", "always") as on, etcd() as client:
        for name, flight in flights.items():
            calls = 200 * flight // scale
            mine, other = await side_by_side(
                lambda: ours(on, calls, flight),  # noqa: B023 - awaited here
                lambda: theirs(client, calls, flight),  # noqa: B023 - awaited here
            )
            figures.append(
                Figure(
                    id=name,
                    what=what.format(flight),
                    rounds=ratios(mine, other),
                    floor=FLOOR,
                    goal=GOAL,
                    at_most=False,
                    detail=f"{max(mine):,.0f} / {max(other):,.0f} a second at best",
                )
            )
    return figures


def missing() -> str:
    """Return what is not installed; nothing if all is."""
    if shutil.which("etcd") is None:
        return "etcd is not installed (Debian: etcd-server)"
    try:
        importlib.import_module("aetcd")
    except ImportError:
        return "aetcd is not installed (pip install '.[bench]')"
    return ""


async def ours(on: Bench, calls: int, flight: int) -> float:
    """Return acquires a second; each must have its seat."""
    numbers, before = iter(range(calls)), on.seats()

    async def client() -> None:
        for _ in numbers:
            await on.start_new()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(flight)))
    took = time.perf_counter() - began
    assert calls == on.seats() - before
    return calls / took


async def theirs(client: Any, calls: int, flight: int) -> float:
    """Return as many of etcd's; each key must have been free."""
    numbers = iter(range(calls))

    async def taker() -> None:
        for _ in numbers:
            key = secrets.token_bytes(16)
            lease = await client.lease(3600)
            free = client.transactions.create(key) == 0
            done, _ = await client.transaction(
                compare=[free], success=[client.transactions.put(key, bytes(300), lease)], failure=[]
            )
            assert done

    before, began = await keys_of(client), time.perf_counter()
    await asyncio.gather(*(taker() for _ in range(flight)))
    took = time.perf_counter() - began
    assert calls == await keys_of(client) - before
    return calls / took


async def keys_of(client: Any) -> int:
    """How many keys etcd holds."""
    return len(list(await client.get_all(keys_only=True)))


@asynccontextmanager
async def etcd() -> AsyncIterator[Any]:
    """Run an etcd of one member on the servers' core, and connect to it."""
    aetcd = importlib.import_module("aetcd")
    port, peer = distant_port(), distant_port()
    with tempfile.TemporaryDirectory(prefix="fl-etcd-") as folder, on_the_servers_core():
        process = await asyncio.create_subprocess_exec(
            "etcd", "--data-dir", folder, "--listen-client-urls", f"http://127.0.0.1:{port}",
            "--advertise-client-urls", f"http://127.0.0.1:{port}", "--listen-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-cluster", f"default=http://127.0.0.1:{peer}",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with aetcd.Client(port=port) as client:
                await answering(client)
                yield client
        finally:
            process.terminate()
            await process.wait()


async def answering(client: Any) -> None:
    """Return when the member answers."""
    deadline = time.monotonic() + 20
    while True:
        try:
            await client.put(b"first", b"")
        except Exception:  # noqa: BLE001 - whatever the library says before there is a leader
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        else:
            return
