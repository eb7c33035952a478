"""What this node says of itself in the store, and what it is told there: whether to take new users.

One wish, wherever it was made: an administrator's command leaves it in the store, this node's own API leaves it in the
journal, and each report brings the two together. The journal has what the node goes by, so that a store that is away,
or lost its data, neither drains a node nor undrains one.

Must never fail: a report that does not get through is made again at the next look.
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
from farmlease.node.journal.journal import Journal
from farmlease.node.journal.sessions import SessionTable
from farmlease.store.node_store import DrainRequest, NodeStore, Report

__all__ = ["NodeReport"]

_log = structlog.get_logger(__name__)

#: Name of the journal's document that holds the wish this node and the store agree on.
_AGREED = "wish"


class NodeReport:
    """One node in its farm's list. ``facts`` is set by who knows them."""

    facts: Callable[[], Facts]

    def __init__(
        self, *, nodes: NodeStore, node: str, listen: str, journal: Journal, sessions: SessionTable, sealer: Sealer
    ) -> None:
        self._nodes = nodes
        self._node = node
        self._listen = listen
        self._journal = journal
        self._sessions = sessions
        self._sealer = sealer
        self._agreed = self._remembered()
        self._turn = asyncio.Lock()
        self._heard = True
        #: How many other hosts reported under this node's name when it last did.
        self.namesakes = 0

    @property
    def draining(self) -> bool:
        """Whether the node takes no new users."""
        return self._journal.draining

    def drain(self, *, on: bool) -> None:
        """Take no new users, or take them again: at once, and the store hears of it with the next report."""
        if on != self._journal.draining:
            self._journal.drain(on=on)
            _log.info("node.drain", on=on, asked="here")

    async def tell(self) -> None:
        """Report to the store and do what is wished there."""
        async with self._turn:
            try:
                if await self._tell():
                    await self._tell()  # what it does now is another thing than what it just said
            except FarmleaseError as error:
                if self._heard:  # whether the store answers is told by who asks it for seats
                    _log.warning("node.not_reported", why=str(error))
                self._heard = False
            except Exception:  # noqa: BLE001 - what a node says of itself must not end what it does
                _log.error("node.not_reported", exc_info=True)
            else:
                self._heard = True

    async def _tell(self) -> bool:
        """Report once; return whether that changed what the node is to do."""
        draining = self._journal.draining
        asked: DrainRequest = "" if draining == self._agreed.draining else "drain" if draining else "undrain"
        heard = await self._nodes.report(self._node, self._report(), self._agreed, asked, self._by() if asked else b"")
        self.namesakes = heard.namesakes
        if heard.wish == self._agreed:
            return False
        with self._journal.together():
            self._journal.write_document(_AGREED, json.dumps(asdict(heard.wish)).encode())
            # What was asked here while the store was answering stands, and is told with the next report.
            if self._journal.draining == draining and draining != heard.wish.draining:
                self._journal.drain(on=heard.wish.draining)
                _log.info("node.drain", on=heard.wish.draining, asked="elsewhere")
        self._agreed = heard.wish
        return self._journal.draining != draining

    def _by(self) -> bytes:
        """Return who asked, as far as a token says who, sealed with the key of the day."""
        return self._sealer.seal_author(f"somebody on {self._node} itself")

    def _report(self) -> Report:
        facts = self.facts()
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
        )

    def _unsettled(self) -> int:
        """How many sessions are starting or ending, and nothing is owed for them yet: files are on their way, say."""
        return sum(not each.state.shown and not self._journal.owes(each.id) for each in self._sessions)

    def _remembered(self) -> Wish:
        body = self._journal.document(_AGREED)
        try:
            return Wish() if body is None else Wish(**json.loads(body))
        except (ValueError, TypeError):
            return Wish()  # then the store's word counts, and what the journal does about it
