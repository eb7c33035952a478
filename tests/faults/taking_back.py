"""What an administrator takes back before a fault, and what must be so after it: it stays taken back (L11)."""

from farmlease.admin.leases import LeaseAdmin
from farmlease.domain.identity import User
from farmlease.domain.model import Withdrawal
from tests.faults.stage import IDENTITIES, Run, pool_of

__all__ = ["ask_for_it", "judge_taken_back", "take_back"]

#: Nobody of the users at work.
_WHO = r"CORP\taken"


async def take_back(run: Run) -> None:
    """Let a user work for a moment, if there is a seat for him, and revoke what he has; he is barred from then on."""
    user, host = IDENTITIES.user(_WHO), run.random.choice(run.hosts)
    if (await host.start(user, "taken")).fence is not None:
        await host.end("taken")
    await LeaseAdmin(run.farm).withdraw(await pool_of(run), user, Withdrawal.REVOKED)
    run.history.take_back(user.canonical)
    run.history.note(f"{user.canonical} is revoked")
    await run.pause(0.7, 1.2)  # every node has heard of it by a heartbeat
    run.taken.append(user)


async def ask_for_it(run: Run) -> None:
    """Ask for what was taken back, as its user would while the store is away, or back: nobody may grant it."""
    for user in run.taken:
        await _asked(run, user)


async def judge_taken_back(run: Run) -> None:
    """L11: after all has settled the store does not have it, and no node grants it."""
    for user in run.taken:
        if await LeaseAdmin(run.farm).fault(await pool_of(run), user, run.plan.farm) is None:
            run.history.violate("L11", f"the lease of {user.canonical}, which was revoked, is back")
        await _asked(run, user)


async def _asked(run: Run, user: User) -> None:
    for host in run.hosts:
        if (await host.start(user, "taken")).fence is not None:
            run.history.violate("L11", f"{host.name} lets {user.canonical} in, who was revoked")
