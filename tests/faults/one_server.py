"""Faults of one server and of the lines that lead to it. Each leaves everything whole."""

import asyncio
import os
import time
from collections.abc import Callable

from tests.faults.stage import Run
from tests.faults.taking_back import ask_for_it, take_back
from tests.support.members import Member
from tests.support.proxy import Proxy

__all__ = [
    "aof",
    "cut",
    "delay",
    "flush",
    "flush_cut",
    "half",
    "half_open",
    "kill",
    "lost",
    "mixed",
    "restart",
    "rollback",
    "stop",
]

#: Seconds after which a node must have noticed that its store does not answer: a look, and two tries.
LONG = 1.9


def _server(run: Run) -> Member:
    assert run.ground.server is not None
    return run.ground.server


async def flush(run: Run) -> None:
    """Every key is gone."""
    for _ in range(run.random.randint(1, 2)):
        since = run.strike("FLUSHALL")
        await asyncio.to_thread(_server(run).ask, "FLUSHALL")
        await run.pause(0.1, 2.0)
        run.ended("the store was emptied", since, at_least=1)


async def kill(run: Run) -> None:
    """The server is killed and comes back with all that it had."""
    server = _server(run)
    for _ in range(run.random.randint(1, 2)):
        since = run.strike("kill -9 of the server")
        await asyncio.to_thread(server.kill)
        await run.pause(0.0, 1.8)
        await asyncio.to_thread(server.restart)
        run.ended("the server was killed", since, at_least=1)
        await run.pause(0.1, 1.0)


async def restart(run: Run) -> None:
    """The server is shut down in order and started again: all data are there, in another life of the server.

    Nothing was lost, and no node was silent for too long: so no session may lose its seat, and what an administrator took
    back before stays taken back.
    """
    server = _server(run)
    await take_back(run)
    for _ in range(run.random.randint(1, 2)):
        since = run.strike("a planned restart of the server")
        await asyncio.to_thread(server.shut_down)
        await run.pause(0.0, 1.0)
        await ask_for_it(run)
        await run.pause(0.0, 0.8)
        await asyncio.to_thread(server.restart)
        run.ended("the server was restarted", since, at_least=1)
        await run.pause(0.1, 2.5)


async def lost(run: Run) -> None:
    """The server is killed and comes back with nothing."""
    server = _server(run)
    since = run.strike("kill -9 of the server, its data lost")
    await asyncio.to_thread(server.kill)
    await run.pause(0.0, 1.5)
    await asyncio.to_thread(lambda: server.restart(empty=True))
    run.ended("the server lost its data", since, at_least=1)


async def stop(run: Run) -> None:
    """The server stands still with every connection open."""
    server = _server(run)
    for _ in range(run.random.randint(1, 2)):
        since = run.strike("SIGSTOP of the server")
        server.stop()
        await run.pause(0.3, 2.6)
        server.resume()
        stood = time.time() - since
        run.ended(f"the server stood still for {stood:.1f} s", since, None if stood > LONG else 0)
        await run.pause(0.1, 1.0)


async def rollback(run: Run) -> None:
    """An old RDB: everything since is gone, and what has ended since is back."""
    server = _server(run)
    for _ in range(run.random.randint(1, 2)):
        await asyncio.to_thread(server.ask, "SAVE")
        await run.pause(0.2, 1.2)
        since = run.strike("an old RDB is put back")
        await asyncio.to_thread(server.kill)
        await run.pause(0.0, 1.0)
        await asyncio.to_thread(server.restart)
        run.ended("an old RDB was put back", since, at_least=1)
        await run.pause(0.1, 1.0)


async def aof(run: Run) -> None:
    """The last moments are torn off the append-only file."""
    server = _server(run)
    for _ in range(run.random.randint(1, 2)):
        since = run.strike("kill -9 of the server, the end of its append-only file lost")
        await asyncio.to_thread(server.kill)
        (tail,) = server.folder.glob("appendonlydir/*.incr.aof")
        size = tail.stat().st_size
        os.truncate(tail, max(0, size - int(run.random.choice([30, 500, 3000, 12000]) * run.random.uniform(0.5, 1.5))))
        await run.pause(0.0, 1.0)
        await asyncio.to_thread(server.restart)
        run.ended("the end of the append-only file was lost", since, at_least=1)
        await run.pause(0.1, 1.0)


def _hit(run: Run) -> list[int]:
    """Draw whose line is hit: one host's, or everybody's."""
    everybody = list(range(len(run.hosts)))
    return everybody if run.random.random() < 0.4 else [run.random.choice(everybody)]


async def _line(run: Run, what: str, begin: Callable[[Proxy], None], longest: float, *, told: bool = True) -> None:
    for _ in range(run.random.randint(1, 2)):
        hit = _hit(run)
        since = run.strike(f"{what}: {', '.join(run.hosts[each].name for each in hit)}")
        for each in hit:
            begin(run.ground.lines[each])
        await run.pause(0.3, longest)
        for each in hit:
            run.ground.lines[each].mend()
        away = time.time() - since
        run.ended(f"{what} for {away:.1f} s", since, len(hit) if told and away > LONG else 0)
        await run.pause(0.1, 1.0)


async def cut(run: Run) -> None:
    """Connections end, and new ones are refused."""
    await _line(run, "line cut", Proxy.cut, 2.6)


async def delay(run: Run) -> None:
    """Replies take longer."""

    def slow(line: Proxy) -> None:
        line.delay, line.jitter = 0.075, 0.05

    await _line(run, "replies late by 75+-50 ms", slow, 2.0, told=False)


async def half(run: Run) -> None:
    """Half of the questions, or of the replies, are lost with their connection."""
    await _line(run, "half lost", run.random.choice([_lose_half, _lose_half_up]), 2.6, told=False)


async def half_open(run: Run) -> None:
    """Connections stay, and nothing passes one way; what was on its way arrives later."""
    await _line(run, "line open, nothing passes one way", run.random.choice([_stuck_up, _stuck_down]), 2.6)


async def flush_cut(run: Run) -> None:
    """The data is lost while one host is away: it finds others on its seats only if it comes too late."""
    away = run.random.randrange(len(run.hosts))
    since = run.strike(f"line cut: {run.hosts[away].name}, then FLUSHALL")
    run.ground.lines[away].cut()
    await run.pause(0.0, 1.0)
    await asyncio.to_thread(_server(run).ask, "FLUSHALL")
    await run.pause(0.2, 3.5)
    run.ground.lines[away].mend()
    run.ended("the store was emptied while a host was away", since, at_least=1)


async def mixed(run: Run) -> None:
    """Several of the above, one upon the other."""
    since, killed = run.strike("several"), False
    for _ in range(run.random.randint(3, 5)):
        choice = run.random.choice(["flush", "save", "kill", "stop", "line", "line", "line", "mend"])
        run.history.note(f"FAULT {choice}")
        await _one_of_many(run, choice)
        killed = killed or choice == "kill"
        await run.pause(0.05, 0.7)
    for line in run.ground.lines:
        line.mend()
    run.ended("several", since, at_least=1 if killed else 0)


async def _one_of_many(run: Run, choice: str) -> None:
    server, line = _server(run), run.random.choice(run.ground.lines)
    match choice:
        case "flush" | "save":
            await asyncio.to_thread(server.ask, {"flush": "FLUSHALL", "save": "SAVE"}[choice])
        case "kill":  # it comes back with what was saved last
            await asyncio.to_thread(server.kill)
            await run.pause(0.0, 0.6)
            await asyncio.to_thread(server.restart)
        case "stop":
            server.stop()
            await run.pause(0.2, 1.0)
            server.resume()
        case "line":
            run.random.choice([Proxy.cut, _stuck_up, _stuck_down, _lose_half])(line)
        case _:
            line.mend()


def _stuck_up(line: Proxy) -> None:
    line.stuck_up = True


def _stuck_down(line: Proxy) -> None:
    line.stuck_down = True


def _lose_half(line: Proxy) -> None:
    line.lose = 0.5


def _lose_half_up(line: Proxy) -> None:
    line.lose_questions = 0.5
