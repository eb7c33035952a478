"""What the host's account database says of a user, and the way to ask it.

Calls of a ``Database`` may block for as long as a directory does that is far away: they belong into a thread.
``accounts.py`` is how the agent asks.
"""

import sys
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol

__all__ = ["Account", "Database", "system_database"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user of this host, as its system spells and numbers him."""

    name: str  #: the system's spelling
    uid: str  #: the number in decimal; on Windows the SID
    home: PurePath
    groups: tuple[str, ...]  #: names as the system spells them, none of them empty


class Database(Protocol):
    """The accounts that a host knows. Both raise OSError if that cannot be said now."""

    def account(self, name: str) -> Account | None:
        """Return the account of this name; None if the host has none."""

    def name_of(self, uid: int) -> str | None:
        """Return the name of the account with this number; None if the host has none."""


def system_database() -> Database:
    """Return the account database of this host's system."""
    if sys.platform == "win32":
        from farmlease.node.accounts.windows import WindowsDatabase as SystemDatabase  # noqa: PLC0415
    else:
        from farmlease.node.accounts.posix import PosixDatabase as SystemDatabase  # noqa: PLC0415 - not on Windows
    return SystemDatabase()
