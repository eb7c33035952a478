"""Journals for the tests, opened as an agent opens them."""

from collections.abc import Sequence
from pathlib import Path

from farmlease.node.journal.evidence import Evidence
from farmlease.node.journal.integrity import ReportedMark
from farmlease.node.journal.journal import Journal

__all__ = ["NODE", "NOW", "ROOT", "opened"]

#: Where the package and the tests lie, for processes that import them.
ROOT = Path(__file__).parents[2]
NODE = "ctx-01"
NOW = 1_767_258_000_123  #: 2026-01-01 09:00:00.123 UTC


def opened(folder: Path, node: str = NODE, reported: Sequence[ReportedMark] = ()) -> Journal:
    """Open the journal of a state folder."""
    return Journal.open(folder, node=node, evidence=Evidence(folder / "kept"), now_ms=NOW, reported=reported)
