"""Questions to servers that many wait for: each is put once, and its answer, or its failure, is everybody's.

A server that is silent keeps all who ask it waiting for as long as one, and keeps nobody waiting who asks another.

This module must never give an answer that is older than its asker allows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from farmlease.store.connection.driver_errors import like

__all__ = ["Questions"]

About = TypeVar("About", bound=Hashable)
Answer = TypeVar("Answer")


class Questions(Generic[About, Answer]):
    """Questions under way, by what they are about. ``put`` has an end of its own, for nobody's cancellation ends it."""

    def __init__(self, put: Callable[[About], Awaitable[Answer]]) -> None:
        self._put = put
        self._under_way: dict[About, asyncio.Task[Answer]] = {}

    async def ask(self, about: About) -> Answer:
        """Return the answer of the question under way, or of a new one."""
        if about not in self._under_way:
            self._under_way[about] = task = asyncio.create_task(self._answer(about))
            task.add_done_callback(_take_note)
        try:
            return await asyncio.shield(self._under_way[about])
        except Exception as error:
            raise like(error) from error

    async def ask_now(self, about: About) -> Answer:
        """Return an answer that was given after this call. Who does not answer is not asked again, though."""
        if about in self._under_way:
            await self.ask(about)
        return await self.ask(about)

    async def close(self) -> None:
        """End the questions under way."""
        tasks = [*self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, about: About) -> Answer:
        try:
            return await self._put(about)
        finally:
            del self._under_way[about]


def _take_note(task: "asyncio.Task[Answer]") -> None:
    """Take note of a failure though nobody waits for it any more."""
    if not task.cancelled():
        task.exception()
