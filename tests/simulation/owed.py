"""Records that were taken back from a user and that the store is to be told of: each must reach it, whatever breaks."""

from farmlease.node.journal.outbox import SaveMessage
from tests.simulation.server import Carried

__all__ = ["Owed"]


class Owed:
    """What every host owes the store, by its own word and until the store's."""

    def __init__(self) -> None:
        #: Sealed record to host, pool and user index, and the line of versions that it is of; in order.
        self._records: dict[str, tuple[str, str, str]] = {}
        self._lines: dict[str, str] = {}

    @property
    def left(self) -> int:
        """How many records the store never heard of."""
        return len(self._records)

    def note(self, host: str, debt: SaveMessage) -> None:
        """A host wrote down that it owes the store a record."""
        record = _as_carried(debt.record)
        self._records[record] = (host, debt.pool, debt.claim.user)
        self._lines[record] = debt.line

    def settle(self, carried: Carried) -> str | None:
        """The store got a record. One that came too late is kept by its host, with those that were made from it.

        Return what broke L7: a record is delivered behind the one that it was made from.
        """
        if carried.word in {"strange", "more"}:
            return None
        record = carried.arguments["record"]
        earlier = self._earlier(record)
        settled = self._records.pop(record, None)
        if carried.word == "conflict":  # which the host may hear the second time only, with more made from it since
            beaten = carried.by, carried.pool, carried.arguments["user"]
            self._records = {record: whose for record, whose in self._records.items() if whose != beaten}
        if settled is not None and earlier:
            return f"{settled[0]} delivered a record of {settled[1]} before {earlier} that it was made from"
        return None

    def _earlier(self, record: str) -> int:
        """How many records of the same line were to be delivered before this one."""
        line = [each for each in self._records if self._lines[each] == self._lines.get(record)]
        return line.index(record) if record in line else 0

    def forget(self, host: str) -> None:
        """A host lost what it had written last."""
        self._records = {record: whose for record, whose in self._records.items() if whose[0] != host}


def _as_carried(record: bytes) -> str:
    return record.decode("utf-8", "backslashreplace")
