"""Records that were taken back from a user and that the store is to be told of: each must reach it, whatever breaks."""

from farmlease.node.journal.outbox import SaveMessage
from tests.simulation.server import Carried

__all__ = ["Owed"]


class Owed:
    """What every host owes the store, by its own word and until the store's."""

    def __init__(self) -> None:
        self._records: dict[str, tuple[str, str, str]] = {}  #: sealed record to host, pool and user index

    @property
    def left(self) -> int:
        """How many records the store never heard of."""
        return len(self._records)

    def note(self, host: str, debt: SaveMessage) -> None:
        """A host wrote down that it owes the store a record."""
        self._records[_as_carried(debt.record)] = (host, debt.pool, debt.claim.user)

    def settle(self, carried: Carried) -> None:
        """The store got a record. One that came too late is kept by its host, with those that were made from it."""
        if carried.word in {"strange", "more"}:
            return
        settled = self._records.pop(carried.arguments["record"], None)
        if settled is not None and carried.word == "conflict":
            self._records = {record: whose for record, whose in self._records.items() if whose != settled}

    def forget(self, host: str) -> None:
        """A host lost what it had written last."""
        self._records = {record: whose for record, whose in self._records.items() if whose[0] != host}


def _as_carried(record: bytes) -> str:
    return record.decode("utf-8", "backslashreplace")
