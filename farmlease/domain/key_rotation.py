"""When a key may be used, and when it may go: decided from the nodes' reports and what the store was found to hold.

A new key is readable everywhere before anything is sealed with it, and an old one goes only when nothing needs it any
more. A node reports which keys it opens with, which one it seals with, and which ones its journal needs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from farmlease.domain.wording import counted

__all__ = ["KeyReport", "KeyUses", "cannot_open", "in_the_way", "keys_elsewhere"]

#: Milliseconds, beyond three of its own intervals, after which a node that does not report counts as switched off.
_PATIENCE = 30_000
_INTERVALS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyReport:
    """A node's report of its keys."""

    node: str
    silent_ms: int  #: since this report
    every_ms: int  #: how often it reports
    primary: str
    opens: tuple[str, ...]
    holds: Mapping[str, int]  #: key id to entries of the node's journal, but for the primary's

    @property
    def alive(self) -> bool:
        """Whether the node still reports."""
        return self.silent_ms <= _INTERVALS * self.every_ms + _PATIENCE


@dataclass(slots=True)
class KeyUses:
    """How many things in the store are sealed with one key."""

    records: int = 0
    names: int = 0  #: of users, and of administrators who drained a node
    notes: int = 0  #: administrators' names and words in the audits
    policy: int = 0
    former: int = 0  #: the last policies, and who applied them

    @property
    def needed(self) -> bool:
        """Whether something would be lost with the key that can still be sealed anew."""
        return bool(self.records or self.names or self.policy or self.former)


def cannot_open(reports: Iterable[KeyReport], alive: Iterable[str], key: str) -> list[str]:
    """Return, in words, each living node that cannot open what ``key`` seals; ``alive``: nodes that the pools count."""
    reports = list(reports)
    lacking = [each.node for each in reports if each.alive and key not in each.opens]
    mute = sorted(set(alive) - {each.node for each in reports})
    return [*lacking, *(f"{node} (does not report its keys: an older farmlease?)" for node in mute)]


def keys_elsewhere(reports: Iterable[KeyReport], ids: Iterable[str]) -> list[str]:
    """Return each living node that has a key which is not among ``ids``: this ring is not the newest."""
    known = set(ids)
    return [each.node for each in reports if each.alive and set(each.opens) - known]


def in_the_way(reports: Iterable[KeyReport], alive: Iterable[str], key: str, uses: KeyUses) -> list[str]:
    """Return, in words, everything that still needs ``key``."""
    reports = list(reports)
    counts = (
        (uses.records, "record"), (uses.names, "name"), (uses.policy, "policy"), (uses.former, "former policy seal"),
    )  # fmt: skip
    stored = [counted(number, what) for number, what in counts if number]
    found = [f"the store: {', '.join(stored)}"] if stored else []
    for each in reports:
        silent = "" if each.alive else f", silent for {each.silent_ms // 3_600_000} h"
        if each.primary == key:
            found.append(f"{each.node}{silent}: it seals with it, as its key ring is an older one")
        elif number := each.holds.get(key, 0):
            found.append(f"{each.node}{silent}: {number} entries of its journal")
    mute = sorted(set(alive) - {each.node for each in reports})
    return [*found, *(f"{node}: does not report its keys (an older farmlease?)" for node in mute)]
