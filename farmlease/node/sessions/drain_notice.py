"""Tells the administrator's programs that this node begins to drain, or takes new users again.

However that was asked for (a command, this node's own API, the store after a loss), the hook runs once for each change,
and not again after a restart: the journal has what was told last. It is noted there before the hook runs, so a crash in
that moment may leave out a notice and never repeats one. One notice ends before the next begins, so that a slow program
cannot undo a later one; what changes and changes back meanwhile is told as it stands then.
"""

from farmlease.node.concurrency import Runtime
from farmlease.node.journal.state import State
from farmlease.node.sessions.hooks import Hook, Hooks

__all__ = ["DrainNotice"]

#: Name of the journal's document that says what was told last.
_DOCUMENT = "drain told"
_DRAINING, _OPEN = b"draining", b"open"


class DrainNotice:
    """The notices of one node."""

    def __init__(self, state: State, hooks: Hooks, runtime: Runtime) -> None:
        self._node = state.node
        self._journal = state.journal
        self._hooks = hooks
        self._tasks = runtime.tasks
        self._told = self._journal.document(_DOCUMENT) or _OPEN

    def look(self) -> None:
        """Begin to tell what has changed since it was last told. A journal that cannot be written waits."""
        if self._hooks.tell_of_drain and self._journal.works and self._told != self._now():
            self._tasks.run("drain notice", self._tell)

    async def _tell(self) -> None:
        now = self._now()
        self._journal.write_document(_DOCUMENT, now)
        self._told = now
        await self._hooks.run_for_node(Hook.DRAINED if now == _DRAINING else Hook.UNDRAINED, self._node)

    def _now(self) -> bytes:
        return _DRAINING if self._journal.draining else _OPEN
