"""What must be true soon after the last fault, asked of agents and store: they count the same, and all is well."""

import asyncio
import time

from farmlease.admin.leases import LeaseAdmin
from farmlease.errors import StoreError
from tests.faults.stage import IDENTITIES, SETTLES, Run, pool_of
from tests.support.patience import within

__all__ = ["ask_all_again", "settle"]


async def settle(run: Run) -> float:
    """L3, L4, L9: before long the store and the agents count the same, nothing is under way and health passes.

    Returns when the last look at them began.
    """
    began, looked = time.monotonic(), time.time()
    why: str | None = "never looked"
    while why is not None:
        if time.monotonic() - began > within(SETTLES):
            run.history.violate("unsettled", f"after {time.monotonic() - began:.0f} s: {why}")
            break
        await asyncio.sleep(0.1)
        looked = time.time()
        why = " and ".join([each for host in run.hosts if (each := await host.unsettled())]) or None
        if why is None:
            try:
                why = await _difference(run)
            except StoreError as error:
                why = f"the store: {error}"
    run.history.note(f"{'settled' if why is None else 'given up'} after {time.monotonic() - began:.1f} s")
    return looked


async def _difference(run: Run) -> str | None:
    """Return how the store and the agents differ about sessions, by lease and by node, and about seats."""
    pool = await pool_of(run)
    ours = {
        (host.name, name, user, fence) for host in run.hosts for name, (user, fence) in (await host.active()).items()
    }
    theirs = {
        (each.node.partition("#")[0], each.session, lease.user, each.fence)
        async for lease in LeaseAdmin(run.farm).leases(pool)
        for each in lease.sessions
    }
    listed = {
        (host.name, each.session, each.fence)
        for host in run.hosts
        for each in (await run.farm.leases.sessions(pool.name, host.member) if host.member else ())
    }
    known = {host.name for host in run.hosts if host.member}
    if ours != theirs:
        return f"only the agents have {sorted(ours - theirs)}, only the store has {sorted(theirs - ours)}"
    if listed != {(node, session, fence) for node, session, _, fence in ours if node in known}:
        return f"leases have {sorted(ours)}, the index {sorted(listed)}"
    count = await run.farm.leases.count(pool.name)
    seats = {run.plan.seat(node, session, user) for node, session, user, _ in ours}
    held = count.held if count else -1
    if not len(seats) <= held <= run.plan.capacity or (run.plan.share != "named" and held != len(seats)):
        return f"the store counts {held} seats, the sessions take {sorted(seats)}"
    return None


async def ask_all_again(run: Run, since: float) -> None:
    """L3: every session that is there has the same fence when it is asked for once more, and the count is the same.

    Not where its node's deadline was over by then, because the machine has stood still ``since`` they were looked at, or
    where it has lost its seat since, which the judge looks at: then all settles anew.
    """
    lapsed = False
    for host in run.hosts:
        for name, (user, fence) in (await host.active()).items():
            began = time.time()
            answer = await host.start(IDENTITIES.user(user), name)
            given_up = run.history.given_up.get(host.name, 0.0) >= since
            lost = any(
                (each.node, each.session) == (host.name, name) for each in run.history.losses if each.at >= since
            )
            if given_up or lost or run.history.promised(host.name, began) <= time.time():
                lapsed = True
            elif answer.fence != fence:
                run.history.violate("L3", f"{host.name} {name}: had fence {fence}, is told {answer.fence} now")
    if lapsed:
        await settle(run)
        return
    try:
        difference = await _difference(run)
    except StoreError as error:
        difference = f"the store: {error}"
    if difference is None:
        return
    if any(run.history.lapsed(host.name, since) for host in run.hosts):
        await settle(run)
    else:
        run.history.violate("L3", difference)
