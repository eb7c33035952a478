"""What a session start would be answered and why, as values: nothing is asked of a store here."""

from dataclasses import dataclass

__all__ = ["BoundedSet"]


@dataclass(frozen=True, slots=True)
class BoundedSet:
    """How many claims are alive in a set, and how many there may be (None: any number)."""

    name: str  #: ``seats``, ``devices``, ``sessions`` and the others of explain.lua
    held: int
    most: int | None
