"""What happened in a run, in order: the only thing the laws judge, and the trace a replay prints.

An entry says when (seconds since the run began), what, and the details as words. Nothing in it may depend on anything
but the seed: no addresses, no real times, no order of a set.
"""

import hashlib
from dataclasses import dataclass, field

from typing_extensions import override

__all__ = ["Entry", "History", "Violation"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    at: float
    kind: str
    words: str

    @override
    def __str__(self) -> str:
        return f"{self.at:14.6f}  {self.kind:10}  {self.words}"


@dataclass(frozen=True, slots=True)
class Violation:
    """A law that did not hold: its number, and what was seen."""

    law: str
    what: str
    entry: int  #: number of the last entry before it was noticed


@dataclass(slots=True)
class History:
    """The entries of one run. ``events`` counts those that are something happening, not a remark about it."""

    entries: list[Entry] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    events: int = 0

    def tell(self, at: float, kind: str, *words: object) -> None:
        """Write down something that happened."""
        self.events += 1
        self.entries.append(Entry(at, kind, " ".join(map(str, words))))

    def break_law(self, at: float, law: str, what: str) -> None:
        """Write down that a law did not hold."""
        self.entries.append(Entry(at, "VIOLATION", f"{law}: {what}"))
        self.violations.append(Violation(law, what, len(self.entries) - 1))

    @property
    def trace(self) -> str:
        """Every entry, one to a line."""
        return "".join(f"{entry}\n" for entry in self.entries)

    @property
    def digest(self) -> str:
        """The same for the same run, whatever machine it ran on."""
        return hashlib.sha256(self.trace.encode()).hexdigest()
