"""How the demo speaks: a numbered heading for each step, and under it who says what, in plain lines.

ASCII only and wrapped to the terminal, so that it reads the same in a pipe, a log and a code page. It decides nothing.
"""

import textwrap

from rich.console import Console
from rich.text import Text

__all__ = ["Voice"]

INDENT = 3
LABEL = 10  #: characters for who speaks
WIDEST = 100


class Voice:
    """Writes to standard output."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False)
        self._steps = 0

    def title(self, text: str) -> None:
        """Say what this is."""
        self._line(Text(text, "bold"))
        self._line()

    def step(self, text: str) -> None:
        """Begin the next step of the story."""
        self._steps += 1
        self._line()
        self._line(Text.assemble((f"{self._steps}. ", "bold cyan"), (text, "bold")))

    def fact(self, who: str, text: str, style: str = "") -> None:
        """Say one thing that happened, wrapped behind the name of who it happened to."""
        width = min(self._console.width, WIDEST) - INDENT - LABEL
        for number, line in enumerate(textwrap.wrap(text, max(width, 20), break_on_hyphens=False)):
            label = who if number == 0 else ""
            self._line(Text.assemble(" " * INDENT, (f"{label:<{LABEL}}", "cyan"), (line, style)))

    def granted(self, who: str, text: str) -> None:
        """Say that something was given."""
        self.fact(who, text, "green")

    def denied(self, who: str, text: str) -> None:
        """Say that something was refused."""
        self.fact(who, text, "yellow")

    def raw(self, who: str, text: str) -> None:
        """Show the beginning of something unreadable on one line."""
        room = max(min(self._console.width, WIDEST) - INDENT - LABEL, 20)
        shown = text if len(text) <= room else f"{text[: room - 4]} ..."
        self._line(Text.assemble(" " * INDENT, (f"{who:<{LABEL}}", "cyan"), (shown, "dim")))

    def closing(self, text: str) -> None:
        """Say the last word."""
        self._line()
        for line in textwrap.wrap(text, min(self._console.width, WIDEST), break_on_hyphens=False):
            self._line(Text(line, "bold"))

    def command(self, text: str) -> None:
        """Show a command on one line, however long, so that it can be copied."""
        self._line(Text(f"{' ' * INDENT}{text}"))

    def _line(self, text: Text | None = None) -> None:
        self._console.print(text or "", soft_wrap=True)
