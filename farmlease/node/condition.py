"""How this node is: the facts that its health, its metrics and the farm's list of nodes go by.

Must never wait, nor ask anybody else: what is not known here is not told.
"""

from farmlease.domain.health import Facts
from farmlease.errors import JournalFailed
from farmlease.node.book import Book
from farmlease.node.debts import Debts
from farmlease.node.journal import Journal
from farmlease.node.memory import Memory
from farmlease.node.presence import Presence
from farmlease.node.receipts import Receipts
from farmlease.node.recovery import Recovery
from farmlease.node.ring import RingCare
from farmlease.node.standing import Standing

__all__ = ["Condition"]


class Condition:
    """The condition of one node. ``leaving``: it was told to end; ``stopped``: it takes no more sessions."""

    def __init__(
        self,
        *,
        journal: Journal,
        standing: Standing,
        book: Book,
        debts: Debts,
        receipts: Receipts,
        memory: Memory,
        recovery: Recovery,
        presence: Presence,
        ring: RingCare,
        offline_denies: bool,
    ) -> None:
        self._journal = journal
        self._standing = standing
        self._book = book
        self._debts = debts
        self._receipts = receipts
        self._memory = memory
        self._recovery = recovery
        self._presence = presence
        self._ring = ring
        self._offline_denies = offline_denies
        self.leaving = self.stopped = False
        presence.facts = self.facts

    def facts(self) -> Facts:
        """What this node's health is judged by."""
        journal_writes, owed = self._journal.works, 0
        try:
            owed = self._debts.pending()
        except JournalFailed:
            journal_writes = False
        return Facts(
            draining=self._presence.draining,
            stopping=self.leaving,
            stopped=self.stopped,
            namesakes=self._presence.namesakes,
            store_answers=self._standing.store_answers,
            offline_denies=self._offline_denies,
            policy_known=self._standing.in_force.policy is not None,
            policy_trouble=self._standing.trouble,
            journal_writes=journal_writes,
            journal_refused=self._journal.refused,
            damaged=self._book.damaged,
            owed=owed,
            refused=self._debts.refused,
            rejected=self._receipts.rejected,
            recovering=self._recovery.under_way,
            clock_off_ms=self._memory.clock_off_ms,
            ring_trouble=self._ring.trouble,
            sessions=sum(each.state.shown for each in self._book),
        )
