"""Colours by state: how a terminal shows at a glance what is well, what passes, and what is wrong.

A colour adds nothing that the word beside it does not say, so that a pipe, ``NO_COLOR`` and ``TERM=dumb`` lose nothing.
Only what is already safe for a terminal is coloured; a colour depends on a known word, and never on a name.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from enum import Enum

import click

__all__ = ["STATE_HEADINGS", "Tone", "coloured", "paint", "strong", "tone_of"]


class Tone(Enum):
    """What a state means to who looks. The value is the colour's name."""

    GOOD = "green"
    PASSING = "yellow"  #: ends by itself, or is wished
    BAD = "red"
    GONE = "bright_black"


#: Headings of columns whose cells are states.
STATE_HEADINGS = frozenset({"STATE", "HEALTH", "VERDICT", "STATUS", "DECISION"})
_WORDS: Mapping[Tone, Sequence[str]] = {
    Tone.GOOD: ("ready", "active", "ok", "pass", "valid", "granted", "right"),
    Tone.PASSING: (
        "draining",
        "stopping",
        "waiting",
        "quarantined",
        "recovering",
        "pending",
        "warn",
        "restricted",
        "full",
    ),
    Tone.BAD: ("silent", "failing", "fail", "invalid", "lost", "denied", "revoked", "damaged", "wrong"),
    Tone.GONE: ("stopped", "idle", "old", "retired", "ended"),
}
_TONES = {word: tone for tone, words in _WORDS.items() for word in words}


def tone_of(state: str) -> Tone | None:
    """Return what a state means, by its first word: "silent, to drain" is bad; None for a state without a colour."""
    return _TONES.get(state.strip().split(" ", 1)[0].rstrip(",:;").casefold())


def coloured() -> bool:
    """Whether stdout shows colours: a terminal that is not dumb, of a person who did not set NO_COLOR."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and sys.stdout.isatty()


def paint(text: str, tone: Tone | None) -> str:
    """Return a text in the colour of a tone, where stdout shows colours."""
    return click.style(text, fg=tone.value) if tone is not None and text.strip() and coloured() else text


def strong(text: str) -> str:
    """Return a text in bold, where stdout shows colours."""
    return click.style(text, bold=True) if coloured() else text
