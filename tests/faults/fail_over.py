"""Faults of a store that has a second server for each: with Sentinels, or as a Cluster. Each leaves everything whole."""

import asyncio

from tests.faults.stage import Run
from tests.faults.taking_back import take_back
from tests.support.members import Member, wait_until
from tests.support.topologies import Sentinels

__all__ = [
    "cluster_kill",
    "cluster_move",
    "cluster_stop",
    "cluster_switch",
    "moving",
    "sentinel_kill",
    "sentinel_part",
    "sentinel_stop",
    "sentinel_switch",
]


async def _replica_behind(run: Run, replica: Member) -> None:
    """Let the replica miss the last moments before its master goes, in half of the runs."""
    if run.random.random() < 0.5:
        run.history.note("FAULT the replica stands still")
        replica.stop()
        await run.pause(0.1, 0.4)


async def _one_master(watched: Sentinels) -> None:
    """Return when one server only takes itself for the master; not always the new one, where the machine stood still."""

    def one() -> bool | None:
        return sum(each.is_master() for each in watched.servers) == 1 or None

    await asyncio.to_thread(wait_until, one, "one master only")


async def sentinel_kill(run: Run) -> None:
    """The master is killed; its replica may not have heard the last of it."""
    watched = run.ground.watched
    assert watched is not None
    old = await asyncio.to_thread(watched.master)
    replica = next(each for each in watched.servers if each is not old)
    await _replica_behind(run, replica)
    since = run.strike("kill -9 of the master")
    await asyncio.to_thread(old.kill)
    replica.resume()
    await asyncio.to_thread(watched.wait_failover, old)
    await run.pause(0.0, 0.5)
    await asyncio.to_thread(old.restart)
    run.ended("the master was killed", since, at_least=1)


async def sentinel_stop(run: Run) -> None:
    """The old master wakes up and takes itself for the master until a Sentinel tells it otherwise."""
    watched = run.ground.watched
    assert watched is not None
    old = await asyncio.to_thread(watched.master)
    since = run.strike("SIGSTOP of the master")
    old.stop()
    await asyncio.to_thread(watched.wait_failover, old)
    await run.pause(0.0, 0.5)
    old.resume()
    await _one_master(watched)
    run.ended("the master stood still", since, at_least=1)


async def sentinel_part(run: Run) -> None:
    """The master is cut off from Sentinels and replica, not from the agents, which it goes on answering."""
    watched = run.ground.watched
    assert watched is not None
    old = await asyncio.to_thread(watched.master)
    since = run.strike("the master is cut off from the Sentinels")
    await asyncio.to_thread(watched.part, old)
    try:
        await asyncio.to_thread(watched.wait_failover, old)
        run.history.note("FAULT the Sentinels have another master")
        await run.pause(1.0, 3.0)
    finally:
        await asyncio.to_thread(watched.rejoin, old)
    await _one_master(watched)
    run.ended("the master was cut off", since, at_least=1)


async def sentinel_switch(run: Run) -> None:
    """The Sentinels are told to change the master; the old one takes writes until they have told it."""
    watched = run.ground.watched
    assert watched is not None
    since = run.strike("SENTINEL FAILOVER")
    await asyncio.to_thread(
        watched.switch, lambda refused: run.history.note(f"FAULT SENTINEL FAILOVER again: {refused}")
    )
    await _one_master(watched)
    run.ended("the master was changed", since, at_least=1)


async def moving(run: Run) -> None:
    """The master is demoted, and the address leads to its replica from then on; open connections may stay where they are.

    As behind a proxy, a virtual address or a name. In order (FAILOVER: the replica has everything), or by force, when it
    may have missed the last moments. What an administrator took back before stays taken back.
    """
    await take_back(run)
    for _ in range(run.random.randint(1, 2)):
        ground = run.ground
        first, second = ground.pair
        old, new = (first, second) if await asyncio.to_thread(first.is_master) else (second, first)
        in_order, cut = run.random.random() < 0.5, run.random.random() < 0.4
        how = "FAILOVER" if in_order else "promoted by force"
        since = run.strike(f"the address moves: {how}, connections {'cut' if cut else 'stay'}")
        await asyncio.to_thread(_change, old, new, in_order=in_order)
        for line in (*ground.lines, ground.address):
            assert line is not None
            line.lead_to(new.port)
            if cut:
                line.cut()
                line.mend()
            await run.pause(0.0, 0.1)
        await asyncio.to_thread(ground.whole)
        run.ended("the address has moved", since, at_least=1)
        await run.pause(0.5, 2.5)


def _change(old: Member, new: Member, *, in_order: bool) -> None:
    """Make the replica the master, and the master its replica."""
    if in_order:
        old.ask("FAILOVER", "TO", "127.0.0.1", new.port, "TIMEOUT", 5000)
        wait_until(lambda: new.is_master() or None, "a master that was changed in order")
        return
    new.ask("REPLICAOF", "NO", "ONE")
    old.ask("REPLICAOF", "127.0.0.1", new.port)


async def cluster_kill(run: Run) -> None:
    """The shard's master is killed; its replica may not have heard the last of it."""
    members = run.ground.members
    assert members is not None
    old = await asyncio.to_thread(members.master_of, run.pool_keys)
    (replica,) = await asyncio.to_thread(members.replicas_of, old)
    await _replica_behind(run, replica)
    since = run.strike("kill -9 of the shard's master")
    await asyncio.to_thread(old.kill)
    replica.resume()
    await asyncio.to_thread(members.wait_failover, old, run.pool_keys)
    await run.pause(0.0, 0.5)
    await asyncio.to_thread(old.restart)
    run.ended("the shard's master was killed", since, at_least=1)


async def cluster_stop(run: Run) -> None:
    """The old master wakes up and takes itself for the master until it hears of the new one."""
    members = run.ground.members
    assert members is not None
    old = await asyncio.to_thread(members.master_of, run.pool_keys)
    since = run.strike("SIGSTOP of the shard's master")
    old.stop()
    await asyncio.to_thread(members.wait_failover, old, run.pool_keys)
    await run.pause(0.0, 0.5)
    old.resume()
    run.ended("the shard's master stood still", since, at_least=1)


async def cluster_switch(run: Run) -> None:
    """A replica takes over, with or without its master, with or without a vote."""
    members = run.ground.members
    assert members is not None
    old = await asyncio.to_thread(members.master_of, run.pool_keys)
    (replica,) = await asyncio.to_thread(members.replicas_of, old)
    how = run.random.choice([(), ("FORCE",), ("TAKEOVER",)])
    since = run.strike(" ".join(("CLUSTER FAILOVER", *how)))
    await asyncio.to_thread(replica.ask, "CLUSTER", "FAILOVER", *how)
    await asyncio.to_thread(members.wait_failover, old, run.pool_keys)
    run.ended("the shard's master was changed", since, at_least=1)


async def cluster_move(run: Run) -> None:
    """The shard's slot moves to another master under load: MOVED, ASK and TRYAGAIN. Nothing is lost, and none recovers."""
    members = run.ground.members
    assert members is not None
    since = run.strike("the shard's slot moves")
    source, destination = await asyncio.to_thread(lambda: members.move_slot(run.pool_keys, finish=False))
    await run.pause(0.0, 0.4)
    await asyncio.to_thread(members.finish_move, run.pool_keys, source, destination)
    run.ended("the shard's slot has moved", since, at_least=0)
