"""This node's report about itself to the store, and the answer: whether to take new users.

There is one wish to drain, wherever it was made: an administrator's command writes it into the store, this node's own
API into the journal, and each report brings the two together. The node goes by its journal, so that a store that is
away, or lost its data, neither drains a node nor undrains one.

Must never fail: a report that does not get through is sent again at the next look.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict

import structlog

from farmlease import __version__
from farmlease.crypto.seal import Sealer
from farmlease.domain.health import Facts, health
from farmlease.domain.node_view import Wish
from farmlease.errors import FarmleaseError
from farmlease.node.journal.integrity import ReportedMark
from farmlease.node.journal.state import State
from farmlease.store.node_store import DrainRequest, NodeStore, Report

__all__ = ["NodeReport", "reported_marks"]

_log = structlog.get_logger(__name__)

#: Name of the journal's document that holds the wish this node and the store agree on.
_AGREED = "wish"
#: Seconds that an agent waits at its start for what was reported.
_MARKS_WITHIN = 1.0


async def reported_marks(nodes: NodeStore) -> tuple[ReportedMark, ...]:
    """Return what each node last told the store of its journal; nothing while the store is away.

    Callers wait for the agent meanwhile, so that a store that says nothing counts as away soon.
    """
    try:
        async with asyncio.timeout(_MARKS_WITHIN):
            found = await nodes.roster()
    except (FarmleaseError, TimeoutError):
        return ()
    return tuple(ReportedMark(each.node, each.host, each.incarnation, each.generation) for each in found)


class NodeReport:
    """One node's entry in its farm's list. ``namesakes``: how many other hosts last reported under its name."""

    def __init__(self, state: State, nodes: NodeStore, sealer: Sealer, listen: str) -> None:
        self._node = state.node
        self._journal = state.journal
        self._sessions = state.sessions
        self._nodes = nodes
        self._sealer = sealer
        self._listen = listen
        self._agreed = self._restored()
        self._lock = asyncio.Lock()
        self._failing = False
        self.namesakes = 0

    @property
    def draining(self) -> bool:
        """Whether the node takes no new users."""
        return self._journal.draining

    def drain(self, *, on: bool) -> None:
        """Take no new users, or take them again, at once; the next report carries it to the store."""
        if on != self._journal.draining:
            self._journal.drain(on=on)
            _log.info("node.drain", on=on, asked="here")

    async def send(self, collect: Callable[[], Facts]) -> None:
        """Send a report, and do what the store's answer asks for. ``collect`` returns the facts as they are then."""
        async with self._lock:
            try:
                if await self._send(collect):  # this node drains now, or no longer: that is to be reported too
                    await self._send(collect)
            except FarmleaseError as error:
                if not self._failing:  # whether the store answers is reported by those who ask it for seats
                    _log.warning("node.not_reported", why=str(error))
                self._failing = True
            except Exception:  # noqa: BLE001 - a report must not end what it reports on
                _log.error("node.not_reported", exc_info=True)
            else:
                self._failing = False

    async def _send(self, collect: Callable[[], Facts]) -> bool:
        """Send one report; return whether the answer changed what the node is to do."""
        draining = self._journal.draining
        asked: DrainRequest = "" if draining == self._agreed.draining else "drain" if draining else "undrain"
        by = self._by() if asked else b""
        report = self._report(collect())  # at this moment: a report must not call a node empty that no longer is
        answer = await self._nodes.report(self._node, report, self._agreed, asked, by, self._journal.former)
        self.namesakes = answer.namesakes
        if answer.wish == self._agreed:
            return False
        with self._journal.together():
            self._journal.write_document(_AGREED, json.dumps(asdict(answer.wish)).encode())
            # What was asked here while the store was answering stands, and goes out with the next report.
            if self._journal.draining == draining and draining != answer.wish.draining:
                self._journal.drain(on=answer.wish.draining)
                _log.info("node.drain", on=answer.wish.draining, asked="elsewhere")
        self._agreed = answer.wish
        return self._journal.draining != draining

    def _by(self) -> bytes:
        """Return who asked, as far as a token tells, sealed with the primary key."""
        return self._sealer.seal_author(f"somebody on {self._node} itself")

    def _report(self, facts: Facts) -> Report:
        return Report(
            incarnation=self._journal.incarnation,
            version=__version__,
            sessions=facts.sessions,
            owed=facts.owed + self._unsettled(),
            draining=facts.draining,
            stopping=facts.stopped,
            leaving=facts.stopping,
            health=health(facts).status.value,
            listen=self._listen,
            host=self._journal.host,
            generation=self._journal.generation,
        )

    def _unsettled(self) -> int:
        """Count the sessions that start or end without a message in the outbox yet: their files are being moved."""
        return sum(not each.state.shown and not self._journal.message_count(*each.key) for each in self._sessions)

    def _restored(self) -> Wish:
        body = self._journal.document(_AGREED)
        try:
            return Wish() if body is None else Wish(**json.loads(body))
        except (ValueError, TypeError):
            return Wish()  # then the store's answer decides
