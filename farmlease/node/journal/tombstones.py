"""What this node has heard that was taken back, so that it can tell a store which lost it.

One row for each user of a pool, sealed for this node. It outlives the agent and the boot, and is forgotten when no
receipt can know of the claim any more.
"""

from collections import defaultdict
from collections.abc import Mapping

import structlog

from farmlease.crypto.seal import NodeSealer
from farmlease.domain.tombstones import Graves
from farmlease.errors import RecordRejected
from farmlease.node.journal.journal import Journal

__all__ = ["Tombstones"]

_log = structlog.get_logger(__name__)

_PURPOSE = "tombstones"


class Tombstones:
    """The tombstones that one node knows, by pool and user index."""

    def __init__(self, journal: Journal, sealer: NodeSealer) -> None:
        self._journal = journal
        self._sealer = sealer
        self._graves: dict[str, dict[str, Graves]] = defaultdict(dict)
        for pool, user, body in journal.tombstones():
            try:
                self._graves[pool][user] = Graves.parse(sealer.unseal((_PURPOSE, pool, user), body))
            except (RecordRejected, ValueError, TypeError):
                _log.error("tombstones.rejected", pool=pool, user=user)
        #: Pool to the store's number up to which they were heard. After a restart of the agent all are heard again.
        self._numbers: dict[str, int] = {}

    def number(self, pool: str) -> int:
        """Return the store's number up to which this node has heard everything; 0 if nothing."""
        return self._numbers.get(pool, 0)

    def of_pool(self, pool: str) -> Mapping[str, Graves]:
        """Return what was taken from each user of a pool."""
        return dict(self._graves[pool])

    def count(self) -> int:
        """Return how many claims are remembered as taken, in all pools."""
        return sum(len(each.claims) for users in self._graves.values() for each in users.values())

    def note(self, pool: str, heard: Mapping[str, Graves], now: int) -> None:
        """Remember what was heard of some users, and forget what is over by ``now`` (ms of the store)."""
        known = self._graves[pool]
        for user, graves in heard.items():
            before = known.get(user, Graves({}))
            joined = before.joined(graves, now)
            if joined.claims and joined != before:
                self._journal.write_tombstones(pool, user, self._sealer.seal((_PURPOSE, pool, user), joined.dump()))
                known[user] = joined
        for user in [user for user, graves in known.items() if not graves.joined(Graves({}), now).claims]:
            self._journal.remove_tombstones(pool, user)
            del known[user]

    def heard_until(self, pool: str, number: int) -> None:
        """Note up to which number of the store everything was heard and heeded."""
        self._numbers[pool] = number
