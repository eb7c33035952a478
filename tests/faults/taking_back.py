"""What an administrator takes back before a fault, and what must be so after it: it stays taken back (L11)."""

import asyncio
import time

from farmlease.admin.leases import LeaseAdmin
from farmlease.domain.model import Withdrawal
from tests.faults.stage import IDENTITIES, SETTLES, Run, pool_of
from tests.support.patience import turns, within

__all__ = ["ask_for_it", "give", "judge_taken_back", "take_back"]

_USER = IDENTITIES.user(r"CORP\taken")
_SESSION = "taken"
_BEATS = 3
#: Seconds for three heartbeats of each node.
_HEARD = 5.0


async def give(run: Run) -> None:
    """Let a user work for a moment before the others do: his lease, if the pool keeps it, and his receipt are there."""
    host = run.random.choice(run.hosts)
    for _ in turns(SETTLES):  # on a busy machine the store may be too slow for its timeout
        if (await host.start(_USER, _SESSION)).fence is not None:
            break
        await asyncio.sleep(0.1)
    else:
        run.history.violate("harness", "nobody works yet, and there is no seat")
    await host.end(_SESSION)


async def take_back(run: Run) -> None:
    """Return or revoke what the user has, while others work, and return when every node has heard of it.

    The first heartbeat that is answered may have been on its way before. The second one brings it, and the third is sent
    only when the second one's work is done.
    """
    run.taken = run.random.choice([Withdrawal.RETURNED, Withdrawal.REVOKED])
    await LeaseAdmin(run.farm).withdraw(await pool_of(run), _USER, run.taken)
    since, began = time.time(), time.monotonic()
    run.history.take_back(_USER.canonical)
    run.history.note(f"{_USER.canonical}: {run.taken}")
    while not all(run.history.beats_since(host.name, since) >= _BEATS for host in run.hosts):
        if time.monotonic() - began > within(_HEARD):
            run.history.violate("harness", "a node sends no heartbeats")
            return
        await asyncio.sleep(0.05)


async def ask_for_it(run: Run) -> None:
    """Ask as its user does, while the store is away or back: what he had lets him in nowhere.

    The store may grant him something new, unless he is barred: then there is nothing to be judged any more. The runs'
    named pools have no quarantine, and so no bar.
    """
    for host in run.hosts:
        if run.taken is None:
            return
        answer = await host.start(_USER, _SESSION)
        if answer.fence is None:
            continue
        barred = run.taken is Withdrawal.REVOKED and run.plan.share != "named"
        if barred or not answer.by_store:
            run.history.violate("L11", f"{host.name} lets {_USER.canonical} in, whose lease was {run.taken}")
        run.taken = None
        await host.end(_SESSION)


async def judge_taken_back(run: Run) -> None:
    """L11: after all has settled the store does not have it, and no node grants it."""
    if run.taken is None:
        return
    if await LeaseAdmin(run.farm).fault(await pool_of(run), _USER, run.plan.farm) is None:
        run.history.violate("L11", f"the lease of {_USER.canonical}, which was {run.taken}, is back")
    await ask_for_it(run)
