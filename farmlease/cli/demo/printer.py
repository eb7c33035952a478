"""How the demo prints: a numbered heading for each step, and under it the facts, each behind the name of its subject.

ASCII only and wrapped to the terminal, so that it reads the same in a pipe, a log and a code page. It decides nothing.
"""

import textwrap

from rich.console import Console
from rich.text import Text

from farmlease.cli import printable

__all__ = ["DemoPrinter"]

INDENT = 3
LABEL = 10  #: characters for the subject
WIDEST = 100


class DemoPrinter:
    """Writes to standard output."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False)
        self._steps = 0

    def title(self, text: str) -> None:
        """Print the title."""
        self._line(Text(text, "bold"))
        self._line()

    def step(self, text: str) -> None:
        """Print the heading of the next step."""
        self._steps += 1
        self._line()
        self._line(Text.assemble((f"{self._steps}. ", "bold cyan"), (text, "bold")))

    def fact(self, subject: str, text: str, style: str = "") -> None:
        """Print one fact, wrapped behind the name of its subject."""
        width = min(self._console.width, WIDEST) - INDENT - LABEL
        for number, line in enumerate(textwrap.wrap(printable(text), max(width, 20), break_on_hyphens=False)):
            label = subject if number == 0 else ""
            self._line(Text.assemble(" " * INDENT, (f"{label:<{LABEL}}", "cyan"), (line, style)))

    def granted(self, subject: str, text: str) -> None:
        """Print a grant."""
        self.fact(subject, text, "green")

    def denied(self, subject: str, text: str) -> None:
        """Print a denial."""
        self.fact(subject, text, "yellow")

    def raw(self, subject: str, text: str) -> None:
        """Print the beginning of unreadable data on one line."""
        room = max(min(self._console.width, WIDEST) - INDENT - LABEL, 20)
        text = printable(text)
        shown = text if len(text) <= room else f"{text[: room - 4]} ..."
        self._line(Text.assemble(" " * INDENT, (f"{subject:<{LABEL}}", "cyan"), (shown, "dim")))

    def closing(self, text: str) -> None:
        """Print the closing lines."""
        self._line()
        for line in textwrap.wrap(text, min(self._console.width, WIDEST), break_on_hyphens=False):
            self._line(Text(line, "bold"))

    def command(self, text: str) -> None:
        """Print a command on one line, however long, so that it can be copied."""
        self._line(Text(f"{' ' * INDENT}{printable(text)}"))

    def _line(self, text: Text | None = None) -> None:
        self._console.print(text or "", soft_wrap=True)
