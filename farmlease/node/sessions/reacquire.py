"""ClearQuest's rule for a session that lost its seat: it is invalid, and its agent tries to get a seat back.

At 10:00 the store took the seat; with three attempts ten minutes apart the agent asks at 10:10, 10:20 and 10:30, and
then the session is lost. Until a seat is back the session is shown as invalid; it never goes on in silence. Who lost
the seat by an administrator's hand does not try: that was a decision.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
import tenacity

from farmlease.clock import Clock
from farmlease.domain.pool import Reacquire as Rule
from farmlease.errors import FarmleaseError

__all__ = ["BY_HAND", "Reacquisition"]

_log = structlog.get_logger(__name__)

#: Reasons of a loss that an administrator caused.
BY_HAND = frozenset({"returned", "revoked", "replaced"})


class Reacquisition:
    """The attempts under way on one node. They end with the agent; the one after it begins them anew."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(
        self, session: str, rule: Rule, attempt: Callable[[], Awaitable[bool]], give_up: Callable[[], Awaitable[None]]
    ) -> None:
        """Try ``attempt`` by the rule until it returns True (settled, one way or the other), else ``give_up``."""
        if session not in self._tasks:
            task = asyncio.create_task(self._try(session, rule, attempt, give_up))
            self._tasks[session] = task
            task.add_done_callback(lambda _: self._tasks.pop(session))

    async def stop(self) -> None:
        """End all attempts; their sessions stay invalid in the journal."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _try(
        self, session: str, rule: Rule, attempt: Callable[[], Awaitable[bool]], give_up: Callable[[], Awaitable[None]]
    ) -> None:
        every = rule.every_ms / 1000
        policy = tenacity.AsyncRetrying(
            sleep=self._clock.sleep,
            wait=tenacity.wait_fixed(every),
            stop=tenacity.stop_after_attempt(rule.attempts),
            retry=tenacity.retry_if_result(lambda settled: not settled),
            retry_error_callback=lambda _: False,
        )
        try:
            await self._clock.sleep(every)
            settled: bool = await policy(attempt)
            if not settled:
                await give_up()
        except FarmleaseError as error:  # the session is settled; what the store is owed waits for it
            _log.warning("reacquire.undelivered", session=session, why=str(error))
        except Exception:  # noqa: BLE001 - nobody awaits this task; what it met is told, and the next heartbeat goes on
            _log.error("reacquire.failed", session=session, exc_info=True)
