"""Faults of the agents themselves, which are processes of their own here. Each leaves everything whole."""

import asyncio

from tests.faults.processes import Watched
from tests.faults.stage import Run

__all__ = ["agent_kill", "agent_kill_flush", "agent_stop"]


async def agent_kill(run: Run) -> None:
    """An agent is killed and started again."""
    for _ in range(run.random.randint(1, 2)):
        host = run.random.choice(run.hosts)
        assert isinstance(host, Watched)
        run.strike(f"kill -9 of the agent of {host.name}")
        await host.kill()
        await run.pause(0.0, 1.5)
        await host.revive()
        run.history.note(f"FAULT OVER the agent of {host.name} runs")
        await run.pause(0.1, 0.8)


async def agent_stop(run: Run) -> None:
    """An agent stands still, as on a machine that swaps, perhaps past its deadline."""
    for _ in range(run.random.randint(1, 2)):
        host = run.random.choice(run.hosts)
        assert isinstance(host, Watched)
        run.strike(f"SIGSTOP of the agent of {host.name}")
        host.stop()
        await (run.pause(0.2, 1.0) if run.random.random() < 0.3 else run.pause(1.8, 3.0))
        run.history.note(f"FAULT OVER the agent of {host.name} goes on")
        host.resume()
        await run.pause(0.1, 0.8)


async def agent_kill_flush(run: Run) -> None:
    """The data is lost while an agent is dead: what it had is in its journal, and the next agent restores it."""
    host, server = run.random.choice(run.hosts), run.ground.server
    assert isinstance(host, Watched)
    assert server is not None
    run.strike(f"kill -9 of the agent of {host.name}, FLUSHALL")
    await host.kill()
    await run.pause(0.0, 0.5)
    await asyncio.to_thread(server.ask, "FLUSHALL")
    await run.pause(0.0, 1.0)
    await host.revive()
    run.history.note(f"FAULT OVER the agent of {host.name} runs")
